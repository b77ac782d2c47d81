"""A service that is kept on a disk, and is killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Callable


class KeptService(Server):
    """`keyrack serve` in a mode, without a named store: what is in memory dies with it."""

    def __init__(self, mode: str, disk: str, *flags: str, workers: int = 2) -> None:
        self.disk = disk
        kept = () if mode == "none" else ("--data-dir", disk)
        super().__init__("--durability", mode, *kept, *flags, workers=workers)

    def kill_all(self) -> None:
        """Kill every process of the service at once, and wait until nobody listens."""
        workers: list[int] = []
        with contextlib.suppress(OSError):  # one that was taken over may be gone
            workers = self.worker_pids()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def stored(self) -> dict[str, str]:
        """Return every key and its value, page by page."""
        found, after = {}, ""
        while True:
            answer = self.ask("GET", f"/v1/keys?limit=1000&values=true{after}")
            assert answer.status == 200, answer
            found |= {entry["key"]: entry["value"] for entry in answer.json["keys"]}
            if answer.json["next"] is None:
                return found
            after = f"&after={quote(answer.json['next'])}"

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log that tell of an event."""
        return [line for line in self.log_lines() if line.get("event") == event]

    def messages(self) -> str:
        """Return what the log says, a line for each."""
        return "\n".join(line["message"] for line in self.log_lines())


def written_until(server: Server, life: str, kill: Callable[[], None]) -> set[str]:
    """Write unique keys on several connections until `kill` has killed; return those answered."""
    answered: list[str] = []
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with contextlib.suppress(EOFError, OSError), server.connect() as wire:
                for one in count():
                    key = f"{life}/{number}/{one}"
                    head = f"PUT /v1/keys/{key} HTTP/1.1\r\nHost: localhost\r\n"
                    body = f"Content-Length: {len(key)}\r\n\r\n{key}"
                    answer = wire.ask((head + body).encode())
                    assert answer.status == 201, answer
                    answered.append(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    kill()
    for thread in threads:
        thread.join(20)
    assert failures == []
    return set(answered)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
