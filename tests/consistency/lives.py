"""Lives of a service on a named store: what is written until it is killed, and found again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import quote

from consistency.storm import Client, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack_server import Server

    from consistency.storm import Service


def stored(server: Server, prefix: str = "") -> dict[str, str]:
    """Return every key below a prefix and its value, page by page.

    What is asked at a worker that has only just been killed is asked again.
    """
    found, after = {}, ""
    client = Client(server)
    while True:
        answer = client.insist("GET", f"/v1/keys?limit=1000&values=true&prefix={prefix}{after}")
        assert answer.status == 200, answer
        page = answer.json
        found |= {entry["key"]: entry["value"] for entry in page["keys"]}
        if page["next"] is None:
            client.close()
            return found
        after = f"&after={quote(page['next'])}"


def kill_the_supervisor(server: Service) -> None:
    """Kill it alone: the workers notice, and end by themselves."""
    os.kill(server.process.pid, signal.SIGKILL)


def kill_everything(server: Service) -> None:
    """Kill all processes of the service at once."""
    workers = server.worker_pids()
    os.kill(server.process.pid, signal.SIGKILL)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_the_workers(server: Service) -> None:
    """Kill all workers at once, and the supervisor when it has begun to replace them."""
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    kill_everything(server)


def written_until_killed(
    server: Service, life: int, kill: Callable[[], None], after: float = 0.5
) -> dict[str, str]:
    """Write unique keys until the service is killed, and return what was answered.

    The life is killed so many seconds `after` the first key.
    """
    answered: dict[str, str] = {}
    end = time.monotonic() + 10

    def write(number: int) -> None:
        with contextlib.suppress(EOFError, OSError), server.connect() as wire:
            for one in count():
                key = f"{life}/{number}/{one}"
                head = f"PUT /v1/keys/{key} HTTP/1.1\r\nHost: localhost\r\n"
                body = f"Content-Length: {len(key)}\r\n\r\n{key}"
                if wire.ask((head + body).encode()).status == 201:
                    answered[key] = key
                assert time.monotonic() < end, "the service goes on after its supervisor's death"

    def kill_soon() -> None:
        time.sleep(after)
        kill()

    in_threads([kill_soon, lambda: write(0), lambda: write(1), lambda: write(2)])
    return answered


def listens(server: Service) -> bool:
    try:
        server.connect(1).close()
    except OSError:
        return False
    return True
