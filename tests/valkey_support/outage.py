"""What an outage costs: writers with unique ids while a primary is killed, halted or cut off.

    python -m valkey_support.outage [sentinel|cluster] [kill|halt|cut] [WAIT] [SECONDS]

Prints for how long writes failed, how many were refused or in doubt, and how many that were
acknowledged are gone afterwards. `cut` takes the primary's link to its replica and the Sentinels
away, but not the one to Keyrack; it needs root and iptables.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.engines.contract import Refusal, Set, StoreAway
from valkey_support.engines import opened, run
from valkey_support.servers import ClusterOfSix, Watched, is_primary, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.valkey.engine import ValkeyEngine
    from valkey_support.servers import Server

WRITERS: Final = 16
GROUP: Final = 64123
"""The group of everybody but the primary, by which packets are told apart."""


class Cost(NamedTuple):
    """What an outage has cost."""

    acknowledged: int
    refused: int
    without: float
    """Seconds from the fault until every writer's writes were done again."""
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} writes acknowledged, {self.refused} refused or in doubt, "
            f"{self.without:.1f} s until all were done again, {self.lost} acknowledged ones lost"
        )


class Writer:
    """Writes keys that nobody else writes, one after the other."""

    def __init__(self, number: int, engine: ValkeyEngine) -> None:
        self._number = number
        self._engine = engine
        self.kept: list[bytes] = []
        self.refused = 0
        self.last_failure = 0.0
        self.running = True

    async def run(self) -> None:
        """Write until told to end."""
        count = 0
        while self.running:
            key = b"%d-%d" % (self._number, count)
            count += 1
            (outcome,) = await self._engine.write([(Set(key, key),)])
            if isinstance(outcome, Refusal):
                self.refused += 1
                self.last_failure = time.monotonic()
                await asyncio.sleep(0.01)
            else:
                self.kept.append(key)
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def cut_off(primary: Server) -> Iterator[None]:
    """Drop what anybody of the group sends to a server."""
    rule = ["-o", "lo", "-p", "tcp", "-m", "owner", "--gid-owner", str(GROUP)]
    rule += ["--dport", str(primary.port), "-j", "DROP"]
    subprocess.run(["iptables", "-I", "OUTPUT", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", "OUTPUT", *rule], check=True)


async def outage(servers: Any, fault: str, wait: int, seconds: float) -> Cost:
    """Write, break something for so many seconds, and count what came of it."""
    async with opened(servers.url, timeout=1.0, wait=wait) as engine:
        writers = [Writer(number, engine) for number in range(WRITERS)]
        tasks = [asyncio.ensure_future(writer.run()) for writer in writers]
        await asyncio.sleep(1)
        primary = servers.primaries()[0]
        began = time.monotonic()
        if fault == "cut":
            with cut_off(primary):
                await asyncio.sleep(seconds)
        elif fault == "halt":
            primary.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            primary.signal(signal.SIGCONT)
        else:
            primary.kill()
            await asyncio.sleep(seconds)
            await asyncio.to_thread(primary.start)
        await asyncio.to_thread(until, lambda: not is_primary(primary), "a new primary")
        await asyncio.sleep(3)
        for writer in writers:
            writer.running = False
        await asyncio.gather(*tasks)
        kept = [key for writer in writers for key in writer.kept]
        return Cost(
            acknowledged=len(kept),
            refused=sum(writer.refused for writer in writers),
            without=max(0.0, max(writer.last_failure for writer in writers) - began),
            lost=await missing(engine, kept),
        )


async def missing(engine: ValkeyEngine, keys: list[bytes]) -> int:
    """Return how many keys are not there."""
    number = 0
    for start in range(0, len(keys), 1000):
        while True:
            with contextlib.suppress(StoreAway):
                reads = (engine.get(key) for key in keys[start : start + 1000])
                number += sum(record is None for record in await asyncio.gather(*reads))
                break
            await asyncio.sleep(0.1)
    return number


def main(kind: str = "sentinel", fault: str = "kill", wait: str = "0", seconds: str = "5") -> None:
    """Print what an outage costs."""
    group = GROUP if fault == "cut" else None
    servers: Any = Watched(2, group) if kind == "sentinel" else ClusterOfSix()
    try:
        cost = run(outage(servers, fault, int(wait), float(seconds)))
        print(f"{kind} {fault} {seconds} s, --valkey-wait {wait}: {cost}")
    finally:
        for server in servers.everybody():
            server.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
