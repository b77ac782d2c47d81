"""What the processes of a service take of the machine, as `/proc` tells it.

Metrics are about the service: whichever worker is asked answers for all of them, and for the
supervisor. The processor time of a process that ended stays with the supervisor, which has waited
for it, so the sum never goes back.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MEMORY: Final = ("RssAnon", "RssFile", "RssShmem", "VmSize")
# Places in /proc/PID/stat behind the command's name.
_USER: Final = 11
_SYSTEM: Final = 12
_WAITED_USER: Final = 13
_WAITED_SYSTEM: Final = 14
_START: Final = 19


class ProcessStats(NamedTuple):
    """One process. Memory in bytes; what several share is in the figures of each."""

    cpu_seconds: float
    waited_seconds: float
    """Processor time of its children that have ended."""
    started: float
    """In seconds since the machine was started."""
    anonymous: int
    shared: int
    virtual: int
    open_files: int


class ServiceStats(NamedTuple):
    """All processes of a service together."""

    cpu_seconds: float
    started: float
    """When its first process began, in seconds since 1970."""
    resident: int
    """What each has of its own, and once what they share: the program and the store."""
    virtual: int
    open_files: int
    most_files: int
    """How many all of them may have open."""


def read(pid: int, root: Path = Path("/proc")) -> ProcessStats | None:
    """Return what is known of a process; None where there is none."""
    directory = root / str(pid)
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = (directory / "stat").read_text().rpartition(")")[2].split()
        memory = _memory(directory / "status")
        return ProcessStats(
            (int(stat[_USER]) + int(stat[_SYSTEM])) / _TICKS,
            (int(stat[_WAITED_USER]) + int(stat[_WAITED_SYSTEM])) / _TICKS,
            int(stat[_START]) / _TICKS,
            memory["RssAnon"],
            memory["RssFile"] + memory["RssShmem"],
            memory["VmSize"],
            len(os.listdir(directory / "fd")),
        )
    return None


def summed(
    first: ProcessStats, others: list[ProcessStats], booted: float, most_files: int
) -> ServiceStats:
    """Return the sums of a supervisor and its workers.

    `booted` is when the machine was started, in seconds since 1970; `most_files` is how many files
    each of them may have open.
    """
    everybody = [first, *others]
    return ServiceStats(
        sum(one.cpu_seconds for one in everybody) + first.waited_seconds,
        booted + first.started,
        sum(one.anonymous for one in everybody) + max(one.shared for one in everybody),
        sum(one.virtual for one in everybody),
        sum(one.open_files for one in everybody),
        most_files * len(everybody),
    )


def booted(root: Path = Path("/proc")) -> float:
    """Return when the machine was started, in seconds since 1970; 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def _memory(path: Path) -> dict[str, int]:
    found = dict.fromkeys(_MEMORY, 0)
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) << 10
    return found
