"""What a client is told when it is made, checked once, for both kinds of client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keyrack.client.address import DEFAULT_URL, Endpoint, address
from keyrack.client.calls import Requests
from keyrack.client.serializers import AUTO

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from keyrack.client.serializers import Serializer


class RequestEvent(NamedTuple):
    """What `on_event` is told of a call, when it is over.

    `status` is the last answer's, 0 where none came; `retries` is how often it was sent again.
    """

    operation: str
    status: int
    seconds: float
    retries: int
    reused: bool


class Observation(Protocol):
    """One call as an observer sees it. `fields` are sent with it, each with its line break."""

    fields: bytes

    def ended(self, event: RequestEvent, error: BaseException | None) -> None:
        """Take how the call went."""


class Observer(Protocol):
    """What is told when a call begins, and may add fields to its request."""

    def started(self, operation: str) -> Observation:
        """Return the observation of a call that begins now."""


class Config(NamedTuple):
    """What a client was told. Times are in seconds."""

    address: Endpoint
    requests: Requests
    serializer: Serializer
    timeout: float
    connect_timeout: float
    max_connections: int
    retries: int
    on_event: Callable[[RequestEvent], None] | None


def configured(
    url: str | Endpoint | None,
    token: str | None,
    uds: str | None,
    timeout: float,
    connect_timeout: float,
    max_connections: int,
    retries: int,
    serializer: Serializer | str,
    prefix: str,
    tls: ssl.SSLContext | None,
    on_event: Callable[[RequestEvent], None] | None,
) -> Config:
    """Return the configuration. Raises `ValueError` with a sentence for what cannot be."""
    for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
        if not 0 < seconds < 1e8:
            raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}.")
    if max_connections < 1 or retries < 0:
        raise ValueError("max_connections is at least 1, and retries at least 0.")
    if isinstance(serializer, str):
        if serializer != "auto":
            raise ValueError(f'serializer is "auto" or an object, not {serializer!r}.')
        serializer = AUTO
    where = url
    if not isinstance(where, Endpoint):
        where = address(where or os.environ.get("KEYRACK_URL") or DEFAULT_URL, uds, tls)
    token = token if token is not None else os.environ.get("KEYRACK_TOKEN")
    requests = Requests(where.authority, where.root, token, prefix)
    return Config(
        where,
        requests,
        serializer,
        timeout,
        connect_timeout,
        max_connections,
        retries,
        on_event,
    )
