"""What one try of a call can end with that is no answer, told apart by what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.client.errors import (
    Ambiguous,
    AmbiguousTimeout,
    KeyrackError,
    ProtocolError,
    Unreachable,
    UnreachableTimeout,
)

if TYPE_CHECKING:
    from keyrack.client.calls import ApiCall
    from keyrack.client.wire import ResponseBody


_TIMED_OUT: Final = (TimeoutError, BlockingIOError)
"""What a socket raises whose time is over: by Python's limit, and by the kernel's."""


class NoAnswer(Exception):
    """Raised when a connection gave no whole answer.

    `sent` tells whether the whole request went out, `begun` whether any of the answer came.
    """

    def __init__(self, cause: Exception | None, *, sent: bool, begun: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sent = sent
        self.begun = begun

    @property
    def timed_out(self) -> bool:
        """Tell whether the time was over, rather than the connection."""
        return isinstance(self.cause, _TIMED_OUT)

    def is_stale(self, call: ApiCall[object]) -> bool:
        """Tell whether the server may just have closed a connection that was idle.

        Then the request, if it can be repeated, is sent once more on a new one, at no cost.
        """
        return not self.begun and not self.timed_out and (call.repeatable or not self.sent)

    def error(self, call: ApiCall[object], where: str) -> KeyrackError:
        """Return what the caller is told."""
        if isinstance(self.cause, ProtocolError):
            return ProtocolError(f"{where}: {self.cause}")
        if not self.sent:
            return unreachable(self.cause, where)
        doubt = "" if call.operation == "get" else " Whether the change was made is not known."
        if self.timed_out:
            detail = f"No answer came from {where} in time.{doubt}"
            return AmbiguousTimeout(detail, retry_safe=call.repeatable)
        reason = _reason(self.cause) or "it closed the connection"
        detail = f"{where} gave no usable answer ({reason}).{doubt}"
        return Ambiguous(detail, retry_safe=call.repeatable)


def unreachable(cause: Exception | None, where: str) -> Unreachable:
    """Return what the caller is told of a service that could not be asked."""
    if isinstance(cause, _TIMED_OUT):
        return UnreachableTimeout(f"{where} could not be reached in time.")
    return Unreachable(f"No service answers at {where} ({_reason(cause) or 'no connection'}).")


def _reason(cause: Exception | None) -> str:
    if cause is None:
        return ""
    strerror = cause.strerror if isinstance(cause, OSError) else None
    return strerror or str(cause) or type(cause).__name__


def fed(body: ResponseBody, data: bytes) -> bytes:
    """Return what bytes are of a body. Raises `NoAnswer` when they cannot be."""
    try:
        return body.feed(data)
    except ProtocolError as error:
        raise NoAnswer(error, sent=True, begun=True) from error
