"""`keyrack.open`: a store of one's own, without a service to run.

A service is started for this program alone, behind a Unix socket in a directory that only its user
can enter. It ends with the client, or with the program, however that ends: what watches over it
reads from a pipe whose other end the program holds, and the kernel closes that in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from keyrack.client import Client, KeyrackError

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.02


class OpenFailed(KeyrackError):
    """Raised when a store could not be opened: its directory is in use, or cannot be one."""


class OwnClient(Client):
    """A client of a store that belongs to this program. Closing it ends the store's service.

    Children of a fork may use it as well; the service ends when the last of them has.
    """

    def __init__(self, home: str, process: subprocess.Popen[bytes], **options: Any) -> None:
        super().__init__("http://localhost", uds=os.path.join(home, "socket"), token="", **options)
        self._home = home
        self._process: subprocess.Popen[bytes] | None = process
        self._owner = os.getpid()

    def close(self) -> None:
        """Close the connections and end the service; what is kept on a disk is there then."""
        super().close()
        process, self._process = self._process, None
        if process is None or os.getpid() != self._owner:
            return
        _end(process)
        shutil.rmtree(self._home, ignore_errors=True)


def open_store(
    path: str | Path | None = None,
    *,
    memory: str = "64m",
    durability: str | None = None,
    **options: Any,
) -> OwnClient:
    """Open a store for this program alone, and return the client of it.

    Without a path it is in memory and gone when the client is closed. With one it is kept in that
    directory: every write before it is answered (`durability="commit"`, the default then) or a
    snapshot now and then (`"snapshot"`). `memory` limits the store. `options` are those of
    `Client`. Raises `OpenFailed` with a sentence.
    """
    durability = durability or ("none" if path is None else "commit")
    if (durability == "none") is not (path is None):
        raise ValueError('A path goes with durability "commit" or "snapshot", none with "none".')
    home = tempfile.mkdtemp(prefix="keyrack-own-")
    flags = ["--uds", os.path.join(home, "socket"), "--workers", "1", "--memory", memory]
    if path is not None:
        flags += ["--durability", durability, "--data-dir", os.fspath(path)]
    process: subprocess.Popen[bytes] | None = None
    try:
        with open(os.path.join(home, "log"), "wb") as log:
            process = _started(flags, log.fileno())
        client = OwnClient(home, process, **options)
        _wait_until_ready(client, process, home)
    except BaseException:
        if process is not None:
            _end(process)
        shutil.rmtree(home, ignore_errors=True)
        raise
    return client


def _started(flags: list[str], log: int) -> subprocess.Popen[bytes]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("KEYRACK_")
    }
    command = [sys.executable, "-m", "keyrack.private", *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], home: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OpenFailed(_said(os.path.join(home, "log")))
        if os.path.exists(os.path.join(home, "socket")):
            with contextlib.suppress(KeyrackError):
                client.info()
                return
        time.sleep(_POLL_SECONDS)
    raise OpenFailed(f"The store was not ready within {_START_SECONDS:g} seconds.")


def _said(path: str) -> str:
    """Return the last line that a service which did not start has left, as a sentence."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    last = lines[-1] if lines else "The store's service ended before it was ready."
    with contextlib.suppress(ValueError):
        shown = json.loads(last)
        last = str(shown.get("message") or shown.get("event") or last)
    return last.removeprefix("keyrack serve: ").removeprefix("keyrack: ")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch_over(flags: list[str]) -> int:
    """Run a service until its owner closes the pipe that is this process' standard input."""
    command = [sys.executable, "-m", "keyrack", "serve", *flags]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as service:
        import selectors
        import signal

        # What is typed at a terminal is for the owner, who says when it is over.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            while service.poll() is None:
                if selector.select(0.1) and not os.read(0, 1024):
                    service.terminate()
                    break
        return service.wait()


if __name__ == "__main__":
    sys.exit(watch_over(sys.argv[1:]))
