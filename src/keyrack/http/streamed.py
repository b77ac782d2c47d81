"""An answer that is made while its client takes it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send


class ClientGone(ConnectionError):
    """Raised where a piece of a stream is sent to a client that is gone."""


class StreamedResponse(Response):
    """A response whose body comes piece by piece, and ends early when its client is gone.

    Starlette's own runs two tasks, which keep what was last sent alive until Python's collector of
    cyclic garbage finds it. Here sending raises `ClientGone`.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], media_type: str, headers: Mapping[str, str]
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._pieces = pieces
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, as fast as the client takes it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with contextlib.aclosing(self._pieces) as pieces:
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except ClientGone:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
