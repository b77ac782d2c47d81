"""CPU time, memory and cores, as the kernel counts them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process and all its descendants, `root` first."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def _parents() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(entry / "stat")
            if fields:
                yield int(entry.name), int(fields[1])


def _stat_fields(path: Path) -> list[str]:
    """The fields after the command name (which may hold blanks); none when the process is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time used so far by these processes, all their threads, user and system, in seconds.

    From each process' CPU clock, in nanoseconds: /proc/PID/stat counts the same time in ticks of
    10 ms, which is 1 % of a quick run.
    """
    return sum(_cpu_clock(pid) for pid in pids)


def _cpu_clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), not in Python
    except OSError:
        return 0.0


class RunQueue:
    """How long the main threads of some processes were ready to run but had no core.

    Keeps the kernel's files open: a look costs some microseconds, and may stand in a timed loop.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._files = [os.open(f"/proc/{pid}/schedstat", os.O_RDONLY) for pid in pids]

    def waited_ns(self) -> list[int]:
        """Nanoseconds since each process began, in the order of the processes."""
        return [int(os.pread(file, 100, 0).split()[1]) for file in self._files]

    def close(self) -> None:
        """Close the kernel's files."""
        for file in self._files:
            os.close(file)


def private_bytes(pids: Iterable[int], field: str = "Pss") -> int:
    """Sum of one line of smaps_rollup over processes, in bytes. Pss shares shared pages out."""
    return sum(_rollup(pid, field) for pid in pids)


def _rollup(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def stored_bytes(folder: Path) -> int:
    """Bytes that the files below a folder occupy (not their length: they may have holes)."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def core_busy_seconds(core: int) -> float:
    """Seconds this core has spent on programs, or was taken by the hypervisor, since boot.

    Interrupts are left out: where the kernel counts them apart from processes, they belong to the
    loopback traffic of the measured server as much as to anyone else.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _wait, _irq, _softirq, steal = map(int, counts[:8])
            return (user + nice + system + steal) * _TICK
    raise KeyError(core)
