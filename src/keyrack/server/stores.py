"""Which store a service has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.server import embedded_store, valkey_store

if TYPE_CHECKING:
    from keyrack.server.store import Store
    from keyrack.settings import Settings


def prepare(settings: Settings) -> Store:
    """Take the store that the settings name. Raises `StoreError`."""
    if settings.engine == "embedded":
        return embedded_store.prepare(settings)
    return valkey_store.prepare(settings)
