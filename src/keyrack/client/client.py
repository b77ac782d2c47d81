"""The client for programs without an event loop. Any number of threads may share one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client.address import options_of
from keyrack.client.cache_commands import CacheCommands
from keyrack.client.commands import ServiceCommands
from keyrack.client.config import configured
from keyrack.client.key_commands import KeyCommands
from keyrack.client.keys import KeyCalls
from keyrack.client.many_commands import ManyCommands
from keyrack.client.sending import Sender

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from keyrack.client.address import Endpoint
    from keyrack.client.config import Config, RequestEvent
    from keyrack.client.serializers import Serializer


class Client(KeyCommands, ManyCommands, CacheCommands, ServiceCommands):
    """Talks to the service at a URL, or at a Unix socket.

    `url` and `token` come from KEYRACK_URL and KEYRACK_TOKEN where they are not given. `timeout` is
    in seconds, for a call with all its tries; what a call waits for on purpose is added to it.
    `retries` is how often a request is sent again where that is safe. `prefix` is put before every
    key and taken off every key that comes back. `on_event` is called after each call.

    Raises `ValueError` for what cannot be, and every call `KeyrackError`.
    """

    def __init__(
        self,
        url: str | Endpoint | None = None,
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
        self.endpoint = config.address
        """Where it connects to."""
        super().__init__(_sender(config), KeyCalls(config.requests, config.serializer))

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


def _sender(config: Config) -> Sender:
    if config.address.local is None:
        return Sender(config)
    # Not for those who open no store of their own.
    from keyrack.client.local_sending import LocalSender

    return LocalSender(config, config.address.local)


def from_url(url: str, **options: Any) -> Client:
    """Return the client that a URL names; see `Client.from_url`."""
    return Client.from_url(url, **options)
