"""The Python client. Nothing of the server is loaded, and no event loop until one is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client.client import Client, from_url
from keyrack.client.config import RequestEvent
from keyrack.client.errors import (
    Ambiguous,
    BatchRefused,
    ClientError,
    Conflict,
    Forbidden,
    HistoryGone,
    KeyrackError,
    LockHeld,
    LockLost,
    LockRequired,
    NotFound,
    ProtocolError,
    RateLimited,
    Refused,
    StoreFull,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from keyrack.client.keys import KEEP, UNCHANGED, Unchanged, Value
from keyrack.client.many import Folder, ScanEntry
from keyrack.client.serializers import Auto, Json, Msgspec, Raw, SignedPickle, Unreadable
from keyrack.client.watching import Reset, Synced, WatchEvent

if TYPE_CHECKING:
    from keyrack.client.async_client import AsyncClient

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    """Load the client for event loops when it is asked for: asyncio is slow to load."""
    if name == "AsyncClient":
        from keyrack.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
