"""What this process may use of the machine: CPUs, memory, open files.

In a container the machine's own figures are wrong: the kernel's control groups say what is really
allowed. A group is bounded by every group above it, so all of them up to the root are asked and
the smallest limit counts. Both versions of control groups are read, also side by side.

`root` is where the file system begins; tests name a directory of their own.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path("/")
_MOUNT: Final = "sys/fs/cgroup"
_MOST_FILES: Final = 1 << 20
"""Some containers allow 2**30 files, and tables of that size have been made from it."""


def effective_cpus(root: Path = _ROOT, affinity: int | None = None) -> int:
    """Return how many CPUs can be kept busy: whole ones, at least 1. Half a CPU counts as one."""
    cpus = len(os.sched_getaffinity(0)) if affinity is None else affinity
    for quota in _cpu_quotas(root):
        cpus = min(cpus, -int(-quota // 1))
    return max(1, cpus)


def memory_limit(root: Path = _ROOT) -> int:
    """Return the bytes of memory this process may use: the machine's, or its control group's."""
    return min((total_memory(root), *_memory_limits(root)))


def total_memory(root: Path = _ROOT) -> int:
    """Return the machine's memory in bytes. Raises `RuntimeError` where the system hides it."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/meminfo does not tell how much memory this machine has")


def file_limit() -> int:
    """Return how many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] % (1 << 63)  # unlimited is -1


def file_size_limit() -> int:
    """Return how many bytes a file of this process may have."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] % (1 << 63)  # unlimited is -1


def missing_parent(path: str) -> str | None:
    """Return the directory that something is to be made in, if that does not exist.

    Of a path that somebody has typed only the last part is made: a slip further up would begin
    something empty somewhere else, and nobody would notice.
    """
    parent = os.path.dirname(os.path.abspath(path))
    return None if os.path.exists(parent) else parent


def raise_file_limit() -> int:
    """Raise the number of files this process may have open to what it is allowed; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST_FILES if hard == unlimited else min(hard, _MOST_FILES)
    if soft == unlimited or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


# Control groups


def _memory_limits(root: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        for group in _groups(root, "memory"):
            text = _read(group / name).strip()
            if text.isdecimal():
                yield int(text)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield how many CPUs each group allows, as a fraction. A group without a limit is left out."""
    for group in _groups(root, "cpu"):
        words = _read(group / "cpu.max").split() or [
            *_read(group / "cpu.cfs_quota_us").split(),
            *_read(group / "cpu.cfs_period_us").split(),
        ]
        if len(words) == 2 and words[0].isdecimal() and int(words[1]):
            yield int(words[0]) / int(words[1])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of this process's groups, each with all that are above it.

    Inside a container the path in /proc may be the host's, which is not to be seen from there; the
    root, which then is the container's own group, is always among those that are yielded.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in _mounts(controllers, controller):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(_MOUNT, mount, *parts[:depth])


def _mounts(controllers: str, controller: str) -> tuple[str, ...]:
    """Return where a line of /proc/self/cgroup may be mounted, below the usual directory."""
    if controllers == "":
        return ("", "unified")
    if controller in controllers.split(","):
        return (controllers, controller)
    return ()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
