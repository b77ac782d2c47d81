"""The client for programs on an event loop: the names of `Client`, awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client.address import options_of
from keyrack.client.async_cache_commands import AsyncCacheCommands
from keyrack.client.async_commands import AsyncServiceCommands
from keyrack.client.async_key_commands import AsyncKeyCommands
from keyrack.client.async_many_commands import AsyncManyCommands
from keyrack.client.async_sending import AsyncSender
from keyrack.client.config import configured
from keyrack.client.keys import KeyCalls

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from keyrack.client.address import Endpoint
    from keyrack.client.config import Config, RequestEvent
    from keyrack.client.serializers import Serializer


class AsyncClient(AsyncKeyCommands, AsyncManyCommands, AsyncCacheCommands, AsyncServiceCommands):
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
    def from_url(cls, url: str, **options: Any) -> AsyncClient:
        """Return the client that a URL like `keyrack://TOKEN@HOST:8088/PREFIX?timeout=2` names.

        `keyracks://` is with TLS, `keyrack+unix:///run/keyrack.sock` a Unix socket. `options` are
        those of the constructor, and win.
        """
        return cls(**{**options_of(url), **options})

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End locks' renewals and mirrors, and close the connections of this event loop.

        The next request opens another.
        """
        await self._sender.close()


def _sender(config: Config) -> AsyncSender:
    if config.address.local is None:
        return AsyncSender(config)
    # Not for those who open no store of their own.
    from keyrack.client.local_async_sending import LocalAsyncSender

    return LocalAsyncSender(config, config.address.local)
