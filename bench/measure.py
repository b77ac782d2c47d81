"""One timed run of a peer under a load, with what the server's processes and its core did."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bench import procstat
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.peers.base import Peer


@dataclass(frozen=True)
class Sample:
    """One run. Rates per second, times in the unit of the name, `*_busy` as shares of a core."""

    round: int
    peer: str
    load: str
    requests: int
    failed: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    server_busy: float
    client_busy: float
    others_busy: float | None


def sample(peer: Peer, load: str, round_number: int) -> Sample:
    """Run one load against one peer.

    `server_cpu_us` is the CPU time of the whole server process tree over the run divided by the
    requests that were answered. `others_busy` is how much of the server's core went to programs
    that are not the server: what the run lost to its neighbours. It is None where the client shares
    the server's cores.
    """
    pids = peer.pids()
    before, start = _counters(pids, peer.cores), time.monotonic()
    run = peer.run(load)
    wall, after = time.monotonic() - start, _counters(pids, peer.cores)
    cpu, busy = (b - a for a, b in zip(before, after, strict=True))
    apart = not set(peer.cores) & set(peer.client_cores)
    if not run.requests:
        raise BenchError(f"{peer.label} answered no request of the load {load!r}")
    return Sample(
        round=round_number,
        peer=peer.label,
        load=load,
        requests=run.requests,
        failed=run.failed,
        requests_per_second=run.requests / run.seconds,
        p50_ms=run.p50_ms,
        p99_ms=run.p99_ms,
        server_cpu_us=cpu / run.requests * 1e6,
        server_busy=cpu / run.seconds,
        client_busy=run.client_busy,
        others_busy=max(0.0, busy - cpu) / wall if apart else None,
    )


def _counters(pids: Sequence[int], cores: Sequence[int]) -> tuple[float, float]:
    return procstat.cpu_seconds(pids), sum(map(procstat.core_busy_seconds, cores))


def line(sample: Sample) -> str:
    """A sample for the terminal."""
    row = asdict(sample) | {"others": _percent(sample.others_busy)}
    return (
        "  {peer:<11} {load:<7} {requests_per_second:>9,.0f}/s  p50 {p50_ms:6.2f} ms  "
        "p99 {p99_ms:6.2f} ms  {server_cpu_us:7.2f} µs CPU/request  server {server_busy:4.0%}  "
        "client {client_busy:4.0%}  others {others}  failed {failed}"
    ).format(**row)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
