"""Keyrack and its peers, measured side by side on one machine: see README.md in this folder."""
