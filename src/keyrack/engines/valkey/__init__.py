"""The Valkey engine: one store for Keyrack processes on any number of machines."""

from keyrack.engines.valkey.engine import ValkeyEngine

__all__ = ["ValkeyEngine"]
