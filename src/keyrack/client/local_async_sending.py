"""Sends calls of an event loop to a service in the same process."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from keyrack.client.async_sending import AsyncSender
from keyrack.client.retry import TRY_AGAIN

if TYPE_CHECKING:
    from keyrack.client.calls import ApiCall
    from keyrack.client.config import Config
    from keyrack.client.local_service import LocalService

T = TypeVar("T")


class LocalAsyncSender(AsyncSender):
    """Sends calls to one service in this process, from any event loop."""

    def __init__(self, config: Config, service: LocalService) -> None:
        super().__init__(config)
        self._answer = service.answer
        self._tells = config.on_event is not None

    async def send(self, call: ApiCall[T], timeout: float | None = None) -> T:
        """Send a call and return what its answer means. Raises `KeyrackError`."""
        if not (self._tells or self.observer is not None):
            answer = self._answer(call.data)
            if answer is not None and not (call.repeatable and answer.status in TRY_AGAIN):
                return call.read(answer)
        return await super().send(call, timeout)
