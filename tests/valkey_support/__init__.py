"""Valkey servers for tests (one, one behind Sentinel, a cluster), and the engine on them."""
