"""Batches and pipelines of a client without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client.batching import Operations
from keyrack.client.pipelining import PipelineCalls

if TYPE_CHECKING:
    from types import TracebackType

    from keyrack.client.keys import KeyCalls
    from keyrack.client.sending import Sender


class Batch(Operations):
    """Operations that are done all or none, when the `with` block ends.

    What became of each is in the handle that its method returned. A block that raises sends
    nothing. Raises `BatchRefused` when one is refused, and `LockLost` for a lock that is not held
    any more.
    """

    def __init__(self, sender: Sender, keys: KeyCalls, undo: int | None = None) -> None:
        super().__init__(keys, undo)
        self._sender = sender

    def send(self) -> None:
        """Have the operations done. An empty batch is nothing to do."""
        if len(self):
            self._sender.send(self.call())

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.send()


class Pipeline(PipelineCalls):
    """Independent requests, sent at once when the `with` block ends.

    `results` has what each would have returned, or the exception that it would have raised.
    """

    def __init__(self, sender: Sender, keys: KeyCalls) -> None:
        super().__init__(keys)
        self._sender = sender
        self.results: list[Any] = []

    def send(self) -> list[Any]:
        """Send what was collected and return the results, in order."""
        calls, self.calls = self.calls, []
        self.results = self._sender.pipeline(calls)
        return self.results

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.send()
