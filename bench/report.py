"""The report: latest.json as found, latest.md to read, latest.svg to look at."""

from __future__ import annotations

import json
import statistics
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench import packages
from bench.errors import BenchError
from bench.peers import PEERS
from bench.results import of, ratio
from bench.scenarios import MEANING
from bench.targets import targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.measure import Sample
    from bench.results import Results
    from bench.storm import Readings

LOADS = ("get", "set", "v1-get", "v1-put")
PLOT = Path(__file__).parent / "plot.py"
SATURATED = 0.97
NONE = "-"


def write(results: Results, folder: Path) -> list[Path]:
    """Write the three files; the plot is left out, with a sentence, when it cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text, plot = (folder / f"latest.{ending}" for ending in ("json", "md", "svg"))
    verdicts = [asdict(target) | {"verdict": target.verdict} for target in targets(results)]
    found = asdict(results) | {"targets": verdicts}
    data.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    text.write_text(markdown(results))
    return [data, text, *(_plotted(data, plot) if results.samples else ())]


def _plotted(data: Path, plot: Path) -> list[Path]:
    try:
        python = packages.environment() / "python"
        subprocess.run([python, PLOT, data, plot], check=True)
    except (BenchError, subprocess.CalledProcessError) as error:
        print(f"bench: no plot: {error}")
        return []
    return [plot]


def markdown(results: Results) -> str:
    """The whole report as Markdown."""
    sections = (
        _head,
        _targets,
        _one_core,
        _traffic,
        _workers,
        _commits,
        _held_up,
        _bulk,
        _memory,
        _start,
        _storm,
        _machine,
        _missing,
    )
    return "\n".join(line for section in sections for line in section(results)) + "\n"


def verdicts(results: Results) -> Iterator[str]:
    """The table of targets, for the terminal."""
    return _targets(results)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _number(value: float | None, form: str = ".2f") -> str:
    return NONE if value is None else format(value, form)


def _head(results: Results) -> Iterator[str]:
    about, chosen = results.environment, results.settings
    yield "# Keyrack and its peers, measured side by side"
    yield ""
    if chosen["quick"]:
        yield "**A quick run: short, few keys, good for a look and not for quoting.**"
        yield ""
    yield (
        f"{about['date']}, commit {about['commit']}, {about['cpu']} ({about['cores']} cores), "
        f"Linux {about['kernel']}, {about['system']}, Python {about['python']}."
    )
    yield (
        f"{chosen['keys']:,} keys of 16 bytes with values of 32, {chosen['connections']} "
        f"connections, {chosen['rounds']} round(s) of {chosen['seconds']} s for each server and "
        "load in turn. Figures are medians over the rounds; a ratio is the median of the ratios "
        "within each round. `bench/README.md` says how to read them."
    )
    yield ""


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets"
    yield ""
    rows = [
        (t.title, t.bound, NONE if t.measured is None else f"{t.measured:.3g}{t.unit}", t.verdict)
        for t in targets(results)
    ]
    yield from _table(("what", "target", "measured", "verdict"), rows)


def _one_core(results: Results) -> Iterator[str]:
    if not results.samples:
        return
    yield "## One core for the server, one for the client"
    yield ""
    head = ("server", "load", "requests/s", "lowest to highest", "p50 ms", "p99 ms",
            "CPU µs/request", "server busy", "client busy", "CPU : nginx + Lua",
            "requests/s : redis-benchmark")  # fmt: skip
    yield from _table(head, _one_core_rows(results))
    yield from _failures(results)
    yield (
        "`busy` is a share of one core. Where the client's is near 100 % it is the client that is "
        "measured, and the server could do more; CPU per request does not depend on that."
    )
    yield ""


def _one_core_rows(results: Results) -> Iterator[Sequence[str]]:
    for load in LOADS:
        for name, peer in PEERS.items():
            if results.of(name, load):
                yield _one_core_row(results, name, peer.title, load)


def _one_core_row(results: Results, peer: str, title: str, load: str) -> Sequence[str]:
    samples = results.of(peer, load)
    rates = [sample.requests_per_second for sample in samples]
    base = load.removeprefix("v1-").replace("put", "set")
    cpu = ratio(samples, results.of("nginx", base), "server_cpu_us")
    rate = ratio(samples, results.of("redis", base), "requests_per_second")

    def median(figure: str, form: str) -> str:
        return _number(results.median(peer, load, figure), form)

    busy = median("client_busy", ".0%")
    if (results.median(peer, load, "client_busy") or 0) > SATURATED:
        busy = f"**{busy}**"
    return (title, load, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to "
            f"{max(rates):,.0f}", median("p50_ms", ".2f"), median("p99_ms", ".2f"),
            median("server_cpu_us", ".2f"), median("server_busy", ".0%"), busy, _number(cpu),
            _number(rate))  # fmt: skip


def _failures(results: Results) -> Iterator[str]:
    for name in PEERS:
        failed = sum(s.failed for s in results.samples if s.peer == name)
        if failed:
            asked = sum(s.requests for s in results.samples if s.peer == name)
            yield f"{name}: {failed:,} failed requests or connections beside {asked:,} answers."
            yield ""


def _traffic(results: Results) -> Iterator[str]:
    if not results.traffic:
        return
    yield "## What reaches a service in real life"
    yield ""
    head = (
        "load",
        "server",
        "requests/s",
        "p99 ms",
        "CPU µs/request",
        "server busy",
        "client busy",
    )
    yield from _table(head, _traffic_rows(results.traffic))


def _traffic_rows(samples: Sequence[Sample]) -> Iterator[Sequence[str]]:
    titles = {"traffic": "Keyrack", "nginx-static": "nginx, files", "redis-values": "Redis, SET"}
    for load, peer in dict.fromkeys((sample.load, sample.peer) for sample in samples):
        rows = of(samples, peer, load)

        def median(figure: str, form: str, rows: Sequence[Sample] = rows) -> str:
            return format(statistics.median(getattr(row, figure) for row in rows), form)

        figures = ("requests_per_second", ",.0f"), ("p99_ms", ".2f"), ("server_cpu_us", ".2f")
        busy = ("server_busy", ".0%"), ("client_busy", ".0%")
        yield (MEANING[load], titles[peer], *(median(*one) for one in (*figures, *busy)))


def _commits(results: Results) -> Iterator[str]:
    if not results.commits:
        return
    yield "## On the disk before the answer"
    yield ""
    yield "`--durability commit` with two workers, and Redis with `appendfsync always`:"
    yield ""
    rows = []
    for server in ("keyrack", "redis"):
        found = [one for one in results.commits if one.server == server]
        figures = (("sets", ",.0f"), ("cpu_us", ".1f"), ("sync_us", ".0f"))
        rows.append(
            (
                server,
                *(format(statistics.median(getattr(s, n) for s in found), f) for n, f in figures),
            )
        )
    yield from _table(("server", "SET/s", "CPU µs/SET", "µs of a sync before"), rows)


def _held_up(results: Results) -> Iterator[str]:
    waiting, batches = results.waiting, results.batches
    if waiting or batches:
        yield "## What holds up others"
        yield ""
    if waiting:
        yield (
            f"While {waiting.coming:,} clients came that wait, the service held a read up for at "
            f"most {waiting.worst_ms:.1f} ms. {waiting.there:,} of them cost {waiting.busy:.2%} of "
            f"a core and {waiting.bytes_each:,.0f} bytes each."
        )
        yield ""
    if batches:
        yield (
            f"A write behind a batch of 1,000 sets took {batches.median_ms:.1f} ms (median of "
            f"{batches.batches}; at most {batches.worst_ms:.1f}). With twenty of them a second, "
            f"the p99 of all other writes was {batches.p99_ms:.1f} ms."
        )
        yield ""


def _bulk(results: Results) -> Iterator[str]:
    if results.bulk:
        yield "## Filling a store in Redis"
        yield ""
        yield (
            f"{results.bulk.keys:,} keys: {results.bulk.keyrack_seconds:.2f} s by an import "
            f"through Keyrack, {results.bulk.redis_seconds:.2f} s by `redis-cli --pipe`."
        )
        yield ""


def _workers(results: Results) -> Iterator[str]:
    if not results.workers:
        return
    yield "## A second worker"
    yield ""
    yield "Servers and wrk share both cores. CPU µs/request of the whole server:"
    yield ""
    rows = []
    for load in ("get", "set", "mixed"):
        one, two = (of(results.workers, name, load) for name in ("1 worker", "2 workers"))
        costs = (statistics.median(s.server_cpu_us for s in each) for each in (one, two))
        rows.append((load, *map(_number, costs), _number(ratio(two, one, "server_cpu_us"))))
    yield from _table(("load", "1 worker", "2 workers", "2 : 1"), rows)
    yield "`mixed` is 90 % GET, 10 % SET."
    yield ""


def _memory(results: Results) -> Iterator[str]:
    if not results.memory:
        return
    yield "## Memory"
    yield ""
    ours = results.memory.get("keyrack")
    rows = [
        (PEERS[name].title, _number(used, ".0f"), _number(used / ours) if ours else NONE)
        for name, used in results.memory.items()
    ]
    yield from _table(("server", "bytes per key of 16 + 32 bytes", ": Keyrack"), rows)
    yield (
        "What the preload added, divided by the number of keys. Keyrack's figure "
        "holds its history of the last 100,000 changes, which weighs more with fewer keys."
    )
    yield ""


def _start(results: Results) -> Iterator[str]:
    if not results.start_seconds:
        return
    starts = results.start_seconds
    yield "## Start"
    yield ""
    yield (
        f"From the command line to the first answer, one worker: {statistics.median(starts):.3f} s "
        f"(median of {len(starts)}; {min(starts):.3f} to {max(starts):.3f})."
    )
    yield ""


def _storm(results: Results) -> Iterator[str]:
    if not results.storm:
        return
    found = results.storm
    yield "## Expiry storm"
    yield ""
    yield f"{found.keys:,} keys end at one instant; reads of other keys, one worker, open loop:"
    yield ""
    head = ("window", "reads", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "over 5 ms",
            "of these by the server", "most by the server ms", "interrupted",
            "server CPU s by second")  # fmt: skip
    yield from _table(head, [_window("calm", found.calm), _window("storm", found.storm)])
    yield (
        "`by the server`: without the time during which the server was ready to run and other "
        "programs had its core; `interrupted`: reads that do not count because the reader itself "
        "was off its core."
    )
    yield ""
    left = "not known" if found.left_in_count is None else str(found.left_in_count)
    yield (
        f"Ended keys still answered, of 200 asked for: {found.served_after_end}; "
        f"still counted: {left}."
    )
    yield ""


def _window(name: str, window: Readings) -> Sequence[str]:
    times = (window.p50_ms, window.p99_ms, window.p999_ms, window.worst_ms)
    cpu = " ".join(f"{seconds:.2f}" for seconds in window.server_cpu)
    return (name, f"{window.reads:,}", *map(_number, times), str(window.slow),
            str(window.slow_by_server), _number(window.worst_own_ms), str(window.interrupted),
            cpu)  # fmt: skip


def _machine(results: Results) -> Iterator[str]:
    yield "## The machine and the programs"
    yield ""
    others = [s.others_busy for s in results.samples if s.others_busy is not None]
    if others:
        yield (
            "Other programs on the server's core took "
            f"{statistics.median(others):.0%} of it (median over all runs), {max(others):.0%} at "
            "worst."
        )
    if results.probe_us:
        speeds = ", ".join(f"{value:.1f}" for value in results.probe_us)
        yield (
            "One byte through a loopback connection, before each round, in µs (the machine's speed "
            f"then): {speeds}."
        )
    yield ""
    rows = [(PEERS[name].title, version) for name, version in results.versions.items()]
    yield from _table(
        ("server", "versions"), [*rows, ("load", f"wrk {results.environment['wrk']}")]
    )


def _missing(results: Results) -> Iterator[str]:
    if not results.missing:
        return
    yield "## Not measured"
    yield ""
    for name, reason in results.missing.items():
        yield f"- {name}: {reason}"
    yield ""
