"""Plain clients under which faults happen: they never try anything twice, and count what fails."""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Final

from keyrack_server import request

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from keyrack_server import Wire

    class Place(Protocol):
        """Where clients connect to."""

        def connect(self, timeout: float = ...) -> Wire: ...


HURRIED: Final = (0.0, 0.0)
"""Pauses of a client that sends one request after the other."""
SELDOM: Final = (0.2, 1.7)


class PlainClient(threading.Thread):
    """Writes a key and reads it back, again and again.

    `kept` connections are used until an answer says that it is the last one, others once.
    `pauses` are the seconds between two requests, in turn. With `forgets`, a key may be gone again.
    """

    def __init__(
        self,
        place: Place,
        number: int,
        kept: bool = True,
        pauses: tuple[float, ...] = HURRIED,
        forgets: bool = False,
    ) -> None:
        super().__init__(name=f"client {number}")
        self._place = place
        self._number = number
        self._kept = kept
        self._pauses = pauses
        self._found = (200, 404) if forgets else (200,)
        self._wire: Wire | None = None
        self.over = threading.Event()
        self.connections = 0
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self.written: dict[str, str] = {}

    @property
    def requests(self) -> int:
        """How many were answered as they should be."""
        return len(self.latencies)

    def run(self) -> None:
        """Go on until `over`, or until three requests have failed."""
        for number in count():
            if self.over.is_set() or len(self.failures) >= 3:
                break
            key, value = f"load/{self._number}/{number % 1000}", str(number)
            self._ask("PUT", key, value.encode(), (201, 204))
            self.written[key] = value
            self._ask("GET", key, None, self._found, value.encode())
        self._close()

    def _ask(
        self,
        method: str,
        key: str,
        body: bytes | None,
        wanted: tuple[int, ...],
        found: bytes | None = None,
    ) -> None:
        self.over.wait(self._pauses[self.requests % len(self._pauses)])
        began = time.monotonic()
        try:
            if self._wire is None:
                self._wire = self._place.connect()
                self.connections += 1
            answer = self._wire.ask(request(method, f"/v1/keys/{key}", body))
            assert answer.status in wanted, answer
            assert found is None or answer.status == 404 or answer.body == found, answer
        except (OSError, EOFError, AssertionError) as error:
            self.failures.append(f"{method} {key}: {error!r}")
            self._close()
            return
        self.latencies.append(time.monotonic() - began)
        if answer.closes or not self._kept:
            self._close()

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Load:
    """Clients that run while the block lasts."""

    def __init__(self, *clients: PlainClient) -> None:
        self.clients = clients

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.join()

    @property
    def failures(self) -> list[str]:
        """What has failed so far."""
        return [failure for client in self.clients for failure in client.failures]

    @property
    def requests(self) -> int:
        """How many requests were answered so far."""
        return sum(client.requests for client in self.clients)

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return sum(client.connections for client in self.clients)

    def latencies(self) -> list[float]:
        """Return how long each request took, in seconds, in order of length."""
        return sorted(one for client in self.clients for one in client.latencies)


def percentile(ordered: list[float], part: float) -> float:
    """Return the value that so large a part of them does not exceed, NaN of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


def mixed(place: Place) -> Load:
    """Return clients of all kinds: hurried and seldom, with kept connections and with new ones."""
    return Load(
        *(PlainClient(place, number) for number in range(3)),
        *(PlainClient(place, number, kept=False) for number in range(3, 5)),
        *(PlainClient(place, number, pauses=SELDOM) for number in range(5, 9)),
    )
