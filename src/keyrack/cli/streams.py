"""Standard input, output and error of the command line, whatever they are.

A disk may be full, a reader may have gone, a stream may be closed, or be a directory, or be set not
to block by whoever had it before. None of that is an error of a verb, so no verb looks after it:
reading and writing raise `StreamFailed`, which only `guard` catches, and it says so in a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

FAILED: Final = 2
_INTERRUPTED: Final = 128 + 2
_READER_GONE: Final = 128 + 13
"""What a shell shows for programs that a signal ended: SIGINT, and SIGPIPE."""


class StreamFailed(Exception):
    """Raised when a standard stream cannot be read or written; the message is a sentence.

    It is no `OSError`: verbs catch those, and would say that it was their file.
    """


class _ReaderGone(Exception):
    """Raised when nobody reads standard output any more, as in `keyrack export | head`."""


def guard(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a program on streams that fail in one sentence, and return its exit code.

    It is 0 only if all that was printed has been taken by whoever gets it.
    """
    _claim()
    try:
        code = _code_of(run, arguments)
        sys.stdout.flush()
        return code
    except StreamFailed as failure:
        print(f"keyrack: {failure}", file=sys.stderr)
        return FAILED
    except _ReaderGone:
        return _READER_GONE
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        _give_up_output()


def _code_of(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return run(arguments)
    except SystemExit as end:  # argparse's, after `--help` or a sentence
        return int(end.code or 0)


def _claim() -> None:
    """Open what is closed, so that nothing else gets its number, and watch over all three."""
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        # Opened the wrong way round: reading the first and writing the second fail, as they should.
        _open_if_closed(descriptor, flags)
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(0)), encoding)
    sys.stdout = _printed(_Output(1), encoding, by_line=os.isatty(1))
    sys.stderr = _printed(_Talk(2), encoding, by_line=True)


def _printed(raw: io.RawIOBase, encoding: str, *, by_line: bool) -> io.TextIOWrapper:
    # What an encoding does not have is shown as Python would write it: a key may be any text.
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=by_line)


def _open_if_closed(descriptor: int, flags: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is the one, as those below it have just been taken care of.
        os.open(os.devnull, flags)
        os.set_inheritable(descriptor, True)


def _give_up_output() -> None:
    """Throw away what could not be written, else Python tries again at its exit and complains."""
    with contextlib.suppress(StreamFailed, _ReaderGone):
        sys.stdout.flush()
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class _Standard(io.RawIOBase):
    """A standard stream by its number. It waits where it is set not to block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return its number."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._descriptor)


class _Input(_Standard):
    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read what there is into the buffer, and return how much that is."""
        while True:
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                select.select([self], [], [])
            except OSError as error:
                raise StreamFailed(f"Standard input cannot be read: {error.strerror}.") from None


class _Output(_Standard):
    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write what there is room for, and return how much that is."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self], [])
            except OSError as error:
                raise self._failure(error) from None

    def _failure(self, error: OSError) -> Exception:
        if error.errno == errno.EPIPE:
            return _ReaderGone()
        return StreamFailed(f"Standard output cannot be written: {error.strerror}.")


class _Talk(_Output):
    """Standard error. Where nobody can be told anything, nothing is told."""

    def write(self, data: Buffer, /) -> int:
        """Write what there is room for, or nothing at all."""
        with contextlib.suppress(StreamFailed, _ReaderGone):
            return super().write(data)
        return memoryview(data).nbytes
