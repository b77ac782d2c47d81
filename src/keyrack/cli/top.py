"""`keyrack top`: what a service does now, again and again."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds
from keyrack.cli.exposition import Between, Look
from keyrack.cli.printing import Printer, flush, write
from keyrack.cli.saying import escaped
from keyrack.cli.spec import DONE, Command, Flag
from keyrack.client import KeyrackError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_REQUESTS: Final = "keyrack_http_requests_total"
_LATENCY: Final = "keyrack_http_request_duration_seconds"
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
COMMAND = Command(
    "Show what a service does: requests a second by operation, how long they take, processors, "
    "memory, connections, watchers. On a terminal it fills the screen: q ends it, h shows the keys "
    "that are asked for most. With -b, and where nobody sits at a terminal, it prints a line each "
    "time.",
    flags=(
        Flag(("-d", "--delay"), "how often to look [default: 1s]", "TIME", kinds.some_seconds, 1.0),
        Flag(("-n", "--count"), "end after so many looks", "NUMBER", kinds.some),
        Flag(("-b", "--batch"), "print lines instead of filling the screen"),
    ),
    formats=("table", "json", "jsonl"),
)


def run(given: argparse.Namespace) -> int:
    """Show it until it is interrupted."""
    return asking.ask(given, lambda service: _shown(service, given))


def _shown(service: Service, given: argparse.Namespace) -> int:
    printer = Printer(given, "table")
    if printer.on_terminal and sys.stdin.isatty() and given.format is None and not given.batch:
        return _on_screen(service, given, printer)
    titled = False
    for found in _looks(service, given):
        if printer.as_json:
            printer.line(printer.json(found))
        else:
            if not titled:
                printer.line(_TITLES)
                titled = True
            printer.line(_line(found))
        flush()
    return DONE


# What is shown


def _looks(service: Service, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    before = _look(service)
    done = 0
    while given.count is None or done < given.count:
        time.sleep(given.delay)
        after = _look(service)
        yield summary(before, after)
        before = after
        done += 1


def _look(service: Service) -> Look:
    return Look(service.text("/metrics"), time.monotonic())


def summary(before: Look, after: Look) -> dict[str, Any]:
    """Return what happened between two looks, and how it is now. Times are in seconds."""
    between = Between(before, after)
    rates = between.rates(_REQUESTS, "operation")
    hits = between.rate("keyrack_key_hits_total")
    reads = hits + between.rate("keyrack_key_misses_total")
    lanes = {
        lane: {
            name: between.quantile(share, _LATENCY, lane=lane)
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
        for lane in ("read", "write")
    }
    return {
        "requests": round(sum(rates.values()), 1),
        "operations": {name: round(rate, 1) for name, rate in sorted(rates.items())},
        "errors": round(_errors(between), 1),
        "hits": None if not reads else round(hits / reads, 4),
        "latency": lanes,
        "cpu": round(between.rate("keyrack_worker_cpu_seconds_total"), 3),
        "keys": int(after.sum("keyrack_keys")),
        "used": int(after.sum("keyrack_store_used_bytes")),
        "limit": int(after.sum("keyrack_store_limit_bytes")),
        "connections": int(after.sum("keyrack_connections")),
        "watchers": int(after.sum("keyrack_watchers")),
        "waiting": int(after.sum("keyrack_waiting_requests")),
        "workers": int(after.sum("keyrack_workers")),
        "evicted": round(between.rate("keyrack_keys_evicted_total"), 1),
    }


def _errors(between: Between) -> float:
    codes = between.rates(_REQUESTS, "code")
    return sum(rate for code, rate in codes.items() if code.startswith("5"))


_TITLES: Final = (
    "  REQ/S  ERR/S   READ p99  WRITE p99   CPU       KEYS       USED  CONNECTIONS  WATCHERS"
)


def _line(found: dict[str, Any]) -> str:
    read, write_ = found["latency"]["read"]["p99"], found["latency"]["write"]["p99"]
    return (
        f"{found['requests']:7,.0f} {found['errors']:6,.0f} {_time(read):>10} {_time(write_):>10} "
        f"{found['cpu']:5.0%} {found['keys']:10,} {size(found['used']):>10} "
        f"{found['connections']:12,} {found['watchers']:9,}"
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(number: float) -> str:
    """Return a size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


# The screen


def _on_screen(service: Service, given: argparse.Namespace, printer: Printer) -> int:
    with _screen():
        before = _look(service)
        hot, done = False, 0
        while given.count is None or done < given.count:
            key = _pressed(given.delay)
            if key in ("q", "\x04"):
                break
            hot = hot != (key == "h")
            after = _look(service)
            lines = list(_page(service, printer, summary(before, after), hot))
            _draw(lines)
            before = after
            done += 1
    return DONE


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    descriptor = sys.stdin.fileno()
    kept = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    write(_ENTER)
    flush()
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, kept)
        write(_LEAVE)
        flush()


def _pressed(seconds: float) -> str:
    """Return the key that is pressed within a time, nothing for none."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""


def _draw(lines: list[str]) -> None:
    rows = shutil.get_terminal_size().lines - 1
    text = "".join(f"{line}{_REST_OF_LINE}\r\n" for line in lines[:rows])
    write(f"{_HOME}{text}{_REST_OF_SCREEN}")
    flush()


def _page(service: Service, printer: Printer, found: dict[str, Any], hot: bool) -> Iterator[str]:
    yield printer.paint(f"keyrack top  {service.endpoint.shown}", "bold")
    hits = "-" if found["hits"] is None else f"{found['hits']:.1%}"
    yield (
        f"requests {found['requests']:,.0f}/s   errors {found['errors']:,.0f}/s   hits {hits}   "
        f"workers {found['workers']}   cpu {found['cpu']:.0%}"
    )
    yield (
        f"keys {found['keys']:,}   memory {size(found['used'])} of {size(found['limit'])}   "
        f"evicted {found['evicted']:,.0f}/s   connections {found['connections']:,}   "
        f"watchers {found['watchers']:,}   waiting {found['waiting']:,}"
    )
    yield ""
    for lane, times in found["latency"].items():
        yield f"{lane:6} p50 {_time(times['p50']):>9}   p99 {_time(times['p99']):>9}"
    yield ""
    yield printer.paint(f"{'OPERATION':24}{'A SECOND':>12}", "dim")
    ranked = sorted(found["operations"].items(), key=lambda item: -item[1])
    for name, rate in ranked[:12]:
        yield f"{name:24}{rate:12,.1f}"
    yield ""
    if hot:
        yield from _hottest(service, printer)
    else:
        yield printer.paint("q ends, h shows the keys that are asked for most", "dim")


def _hottest(service: Service, printer: Printer) -> Iterator[str]:
    yield printer.paint(f"{'KEY':40}{'A SECOND':>12}", "dim")
    try:
        query = [("seconds", "1"), ("limit", "10")]
        _, found = service.json("GET", "/v1/hot", query=query, seconds=2.0)
    except KeyrackError as error:
        yield escaped(str(error))
        return
    for one in found["keys"]:
        yield f"{escaped(one['key'])[:39]:40}{one['rate']:12,.1f}"
