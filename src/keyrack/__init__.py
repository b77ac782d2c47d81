"""Keyrack: an in-memory key-value store that is spoken to with plain HTTP.

The names of `keyrack.client` are here as well. They are loaded when they are asked for: importing
`keyrack` loads nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # checkers know this name; importing `typing` takes half as long as Python itself
    from typing import Any

    from keyrack.client import *  # noqa: F403 - the same names, for type checkers
    from keyrack.inprocess.client import AlreadyOpen as AlreadyOpen
    from keyrack.inprocess.client import OpenFailed as OpenFailed
    from keyrack.inprocess.client import OwnClient as OwnClient
    from keyrack.inprocess.client import open_store

    open = open_store

__version__ = "0.1.0"

_CLIENT = frozenset(
    (
        "KEEP",
        "UNCHANGED",
        "Ambiguous",
        "AsyncClient",
        "Auto",
        "BatchRefused",
        "Client",
        "ClientError",
        "Conflict",
        "Folder",
        "Forbidden",
        "HistoryGone",
        "Json",
        "KeyrackError",
        "LockHeld",
        "LockLost",
        "LockRequired",
        "Msgspec",
        "NotFound",
        "ProtocolError",
        "RateLimited",
        "Raw",
        "Refused",
        "RequestEvent",
        "Reset",
        "ScanEntry",
        "SignedPickle",
        "StoreFull",
        "Synced",
        "Timeout",
        "TooLarge",
        "Unauthenticated",
        "Unavailable",
        "Unchanged",
        "Unreachable",
        "Unreadable",
        "Value",
        "WatchEvent",
        "from_url",
    )
)
"""What `keyrack.client` offers; a test compares."""


_INPROCESS = {
    "open": "open_store",
    "AlreadyOpen": "AlreadyOpen",
    "OpenFailed": "OpenFailed",
    "OwnClient": "OwnClient",
}


def __getattr__(name: str) -> Any:
    """Return a name of the client, or of a store of one's own."""
    from importlib import import_module

    if name in _INPROCESS:
        return getattr(import_module("keyrack.inprocess.client"), _INPROCESS[name])
    if name in _CLIENT:
        return getattr(import_module("keyrack.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
