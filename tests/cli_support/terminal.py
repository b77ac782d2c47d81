"""A terminal of its own for a process, and what appears on it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE_SECONDS = 30.0


class Terminal:
    """`keyrack` on a terminal. `err` says where standard error goes, if not to it as well."""

    def __init__(self, environ: dict[str, str], *arguments: str, program: str = "") -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Tests that run in the background of a shell would hand that on.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._reader, terminal = pty.openpty()
        words = [program] if program else [sys.executable, "-m", "keyrack"]
        self.process = subprocess.Popen(
            [*words, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={"TERM": "xterm", **environ},
            start_new_session=True,
        )
        os.close(terminal)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._reader)

    def until(self, pattern: str) -> str:
        """Wait until this has appeared; return all that was seen up to then."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not re.search(pattern, self.seen):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not appear in {self.seen!r}"
            if not self._more(left):
                break
        assert re.search(pattern, self.seen), f"{pattern!r} is not in {self.seen!r}"
        return self.seen

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._reader, text.encode())

    def interrupt(self) -> None:
        """Do what Ctrl-C does: everything in the foreground gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._more(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(_PATIENCE_SECONDS)

    def _more(self, seconds: float) -> bool:
        """Take what appears within a time; tell whether anything did."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._reader, 1 << 16)
        except OSError:  # the other side has ended
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)
