"""APIs of others, served beside Keyrack's own for programs that speak those already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keyrack.http.answer import Answer
    from keyrack.http.protocol.request import Request


class Layer(Protocol):
    """One of them. Its requests come to it unjudged: who may do what is for it to ask."""

    name: str
    """What its requests count as; one of `LAYERS` in `api/counting.py`."""

    def has(self, path: bytes) -> bool:
        """Tell whether a raw path belongs to it."""

    async def serve(self, request: Request) -> Answer:
        """Return the answer to a request; nothing escapes."""
