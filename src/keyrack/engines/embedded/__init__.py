"""The embedded engine: LMDB in shared memory, one store for every process of a machine."""

from keyrack.engines.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
