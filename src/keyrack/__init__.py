"""Keyrack: an in-memory key-value store that is spoken to with plain HTTP."""

__version__ = "0.1.0"
