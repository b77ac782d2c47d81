"""What a worker finds out for people about the service: who is connected, which keys are hot, what
was slow. It asks all workers, and answers for its own part.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from keyrack.http.api.models import ConnectedClient
from keyrack.http.hot_keys import HotKeys

if TYPE_CHECKING:
    from collections.abc import Collection

    from keyrack.http.inquirer import Inquirer
    from keyrack.http.slow_log import SlowLog

_CLIENTS_A_STEP: Final = 200
_LONGEST_ID: Final = 64
"""Characters: a question to all workers has a limit, and no id of a connection is so long."""
_SPARE: Final = 4
"""So many times as many keys as are asked for are told by each worker: their order may differ."""


class Describable(Protocol):
    """A connection that is open."""

    def describe(self) -> ConnectedClient:
        """Say who the client is, and what it waits for."""

    def cut(self) -> None:
        """End it at once."""


class Sampled(Protocol):
    """A worker, as far as its clients are looked at; see `worker_context`."""

    @property
    def connections(self) -> Collection[Describable]:
        """Those that are open."""

    def sample(self, hot_keys: HotKeys | None) -> None:
        """Count the keys that are asked for from now on; None: no longer."""


class ServiceObserver:
    """One worker's. Begin it when the worker's connections are known."""

    def __init__(self, inquirer: Inquirer, slow_log: SlowLog, slot: int) -> None:
        self.slow_log = slow_log
        self._inquirer = inquirer
        self._slot = slot
        self._worker: Sampled | None = None

    def begin(self, worker: Sampled) -> None:
        """Answer what is asked about a worker's clients."""
        self._worker = worker
        self._inquirer.answers("clients", self._describe_clients)
        self._inquirer.answers("end", self._end_client)
        self._inquirer.answers("hot", self._sample)

    # All workers

    async def clients(self, limit: int) -> tuple[int, list[ConnectedClient], list[int]]:
        """Return how many clients there are, some of them, and which workers did not answer.

        Those to whom most is owed come first, then the oldest.
        """
        findings = await self._inquirer.ask("clients", limit=limit)
        found = [
            msgspec.convert(one, ConnectedClient)
            for answer in findings.answers.values()
            for one in answer["clients"]
        ]
        number = sum(answer["connections"] for answer in findings.answers.values())
        return number, sorted(found, key=_importance)[:limit], findings.missing

    async def end_client(self, name: str) -> bool:
        """End a connection; say whether there was one of that name."""
        if len(name) > _LONGEST_ID:
            return False
        findings = await self._inquirer.ask("end", id=name)
        return any(findings.answers.values())

    async def hot_keys(
        self, seconds: float, limit: int
    ) -> tuple[Counter[bytes], int, int, list[int]]:
        """Count for some seconds which keys are asked for.

        Returns the weights of the heaviest, those of all together, by how much each of the first
        may be too small, and which workers did not answer.
        """
        findings = await self._inquirer.ask("hot", lasts=seconds, seconds=seconds, limit=limit)
        weights: Counter[bytes] = Counter()
        total = error = 0
        for answer in findings.answers.values():
            total += answer["total"]
            error += answer["error"]
            for name, weight in answer["keys"]:
                weights[base64.b64decode(name)] += weight
        return weights, total, error, findings.missing

    # This one

    async def _describe_clients(self, about: dict[str, Any]) -> dict[str, Any]:
        assert self._worker is not None
        found: list[ConnectedClient] = []
        connections = list(self._worker.connections)
        for start in range(0, len(connections), _CLIENTS_A_STEP):
            some = [one.describe() for one in connections[start : start + _CLIENTS_A_STEP]]
            found = heapq.nsmallest(about["limit"], found + some, key=_importance)
            await asyncio.sleep(0)
        for one in found:
            one.worker = self._slot
            one.id = f"{self._slot}-{one.id}"
        return {"connections": len(connections), "clients": found}

    async def _end_client(self, about: dict[str, Any]) -> bool:
        assert self._worker is not None
        worker, _, number = about["id"].partition("-")
        if worker != str(self._slot):
            return False
        for connection in list(self._worker.connections):
            if connection.describe().id == number:
                connection.cut()
                return True
        return False

    async def _sample(self, about: dict[str, Any]) -> dict[str, Any]:
        assert self._worker is not None
        hot_keys = HotKeys()
        began = time.monotonic()
        self._worker.sample(hot_keys)
        try:
            while (left := began + about["seconds"] - time.monotonic()) > 0:
                await asyncio.sleep(left)
        finally:
            self._worker.sample(None)
        heaviest = hot_keys.sketch.heaviest(_SPARE * about["limit"])
        keys = [(base64.b64encode(name).decode(), weight) for name, weight in heaviest]
        return {"total": hot_keys.sketch.total, "error": hot_keys.sketch.error, "keys": keys}


def _importance(client: ConnectedClient) -> tuple[int, float]:
    return -client.owed, -client.age
