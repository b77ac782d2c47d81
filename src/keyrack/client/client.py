"""The client for programs without an event loop. Any number of threads may share one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client import service
from keyrack.client.address import options_of
from keyrack.client.config import configured
from keyrack.client.keys import KeyCalls
from keyrack.client.sending import Sender

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from keyrack.client.config import RequestEvent
    from keyrack.client.keys import Unchanged, Value
    from keyrack.client.serializers import Serializer


class Client:
    """Talks to the service at a URL, or at a Unix socket.

    `url` and `token` come from KEYRACK_URL and KEYRACK_TOKEN where they are not given. `timeout` is
    in seconds, for a call with all its tries; what a call waits for on purpose is added to it.
    `retries` is how often a request is sent again where that is safe. `prefix` is put before every
    key and taken off every key that comes back. `on_event` is called after each call.

    Raises `ValueError` for what cannot be, and every call `KeyrackError`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        uds: str | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 2.0,
        max_connections: int = 64,
        retries: int = 2,
        serializer: Serializer | str = "auto",
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
        on_event: Callable[[RequestEvent], None] | None = None,
    ) -> None:
        config = configured(
            url,
            token,
            uds,
            timeout,
            connect_timeout,
            max_connections,
            retries,
            serializer,
            prefix,
            tls,
            on_event,
        )
        self._requests = config.requests
        self._keys = KeyCalls(config.requests, config.serializer)
        self._sender = Sender(config)
        self._send = self._sender.send

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Client:
        """Return the client that a URL like `keyrack://TOKEN@HOST:8088/PREFIX?timeout=2` names.

        `keyracks://` is with TLS, `keyrack+unix:///run/keyrack.sock` a Unix socket. `options` are
        those of the constructor, and win.
        """
        return cls(**{**options_of(url), **options})

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The next request opens another."""
        self._sender.pool.close()

    # A key

    def get(self, key: str | bytes, default: Any = None) -> Any:
        """Return a key's value, or `default` when the key is missing.

        What its media type makes of it: text is a `str`, JSON what it stands for, the rest bytes.
        """
        return self._send(self._keys.get(key, default))

    def get_value(
        self, key: str | bytes, *, if_none_match: str | None = None, wait: float | None = None
    ) -> Value | Unchanged | None:
        """Return a key's value as it is stored, or None when the key is missing.

        `UNCHANGED` when it is at the ETag `if_none_match`. With `wait` the answer comes when it
        differs from that, or after so many seconds.
        """
        return self._send(self._keys.get_value(key, if_none_match, wait))

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
    ) -> str:
        """Store a value and return its ETag. `ttl` is in seconds, to the millisecond.

        Raises `Conflict` when a condition does not hold, and `TypeError` for a value that would
        not come back equal.
        """
        return self._send(
            self._keys.set(
                key,
                value,
                ttl=ttl,
                if_match=if_match,
                if_none_match=if_none_match,
                media_type=media_type,
            )
        )

    def add(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        media_type: str | None = None,
    ) -> str | None:
        """Store a value if the key is missing, and return its ETag; None if it is there."""
        return self._send(self._keys.add(key, value, ttl, media_type))

    def replace(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        media_type: str | None = None,
    ) -> str | None:
        """Store a value if the key is there, and return its ETag; None if it is missing."""
        return self._send(self._keys.replace(key, value, ttl, media_type))

    def delete(self, key: str | bytes, *, if_match: str | None = None) -> bool:
        """Remove a key, and tell whether it was there."""
        return self._send(self._keys.delete(key, if_match))

    def patch(
        self, key: str | bytes, merge: Mapping[str, Any], *, if_match: str | None = None
    ) -> str:
        """Change members of a JSON value (RFC 7396: None removes one), and return its ETag.

        Raises `NotFound` when the key is missing.
        """
        return self._send(self._keys.patch(key, merge, if_match))

    # All keys

    def export(self, prefix: str | bytes = "") -> Iterator[bytes]:
        """Yield the keys under a prefix as NDJSON, in pieces that end anywhere.

        Raises `KeyrackError` when the export breaks off: what came before is not all.
        """
        return self._sender.stream(service.export(self._requests, prefix))

    def import_lines(
        self, lines: Iterable[bytes], *, stop_on_error: bool = False
    ) -> dict[str, Any]:
        """Send NDJSON as `export` gives it, and return the server's report."""
        call = service.importing(self._requests, stop_on_error)
        return self._sender.upload(call, lines)

    def snapshot(self) -> Iterator[bytes]:
        """Have a snapshot taken, and yield its file in pieces.

        Raises `KeyrackError` when it breaks off: what came before is no snapshot.
        """
        return self._sender.stream(service.snapshot(self._requests))

    # The service

    def info(self) -> dict[str, Any]:
        """Return what runs, and how full it is."""
        return self._send(service.info(self._requests))

    def limits(self) -> dict[str, Any]:
        """Return every limit that the service enforces."""
        return self._send(service.limits(self._requests))

    def whoami(self) -> dict[str, Any]:
        """Return who the token says this is, and what it may do."""
        return self._send(service.whoami(self._requests))

    def can(self, verb: str, key: str | bytes) -> bool:
        """Tell whether the token may do something with a key; the verb is one of a rule's."""
        return self._send(service.can(self._requests, verb, key))


def from_url(url: str, **options: Any) -> Client:
    """Return the client that a URL names; see `Client.from_url`."""
    return Client.from_url(url, **options)
