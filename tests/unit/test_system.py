"""What a process may use, read from made-up machines."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from keyrack.system import effective_cpus, memory_limit, raise_file_limit

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 8 GiB and no control groups."""
    write(tmp_path, "proc/meminfo", f"MemTotal: {8 * GIB >> 10} kB\nMemFree: 1 kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_without_control_groups_the_machine_counts(machine: Path) -> None:
    assert memory_limit(machine) == 8 * GIB
    assert effective_cpus(machine, affinity=6) == 6


def test_the_smallest_limit_on_the_way_to_the_root_counts(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/pods/a/b")
    write(machine, "sys/fs/cgroup/pods/a/b/memory.max", "max")
    write(machine, "sys/fs/cgroup/pods/a/memory.max", str(GIB))
    write(machine, "sys/fs/cgroup/pods/memory.max", str(2 * GIB))
    assert memory_limit(machine) == GIB


def test_a_limit_above_the_machines_memory_is_none(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/")
    write(machine, "sys/fs/cgroup/memory.max", str(64 * GIB))
    assert memory_limit(machine) == 8 * GIB


def test_a_host_path_that_a_container_cannot_see_leads_to_its_own_root(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "5:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a")
    write(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(GIB))
    write(machine, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000")
    write(machine, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert memory_limit(machine) == GIB
    assert effective_cpus(machine, affinity=8) == 3


def test_version_1_without_a_limit_is_no_limit(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "5:memory:/\n4:cpu:/")
    write(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert memory_limit(machine) == 8 * GIB
    assert effective_cpus(machine, affinity=2) == 2


def test_both_versions_side_by_side_are_read(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "4:memory:/a\n1:name=systemd:/\n0::/a")
    write(machine, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", str(2 * GIB))
    write(machine, "sys/fs/cgroup/unified/a/memory.max", str(GIB))
    assert memory_limit(machine) == GIB


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)],
)
def test_a_quota_allows_whole_cpus_and_at_least_one(machine: Path, quota: str, cpus: int) -> None:
    write(machine, "proc/self/cgroup", "0::/a")
    write(machine, "sys/fs/cgroup/a/cpu.max", quota)
    assert effective_cpus(machine, affinity=8) == cpus


def test_a_path_outside_the_namespace_stays_below_the_mount(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/../../other")
    write(machine, "sys/fs/cgroup/memory.max", str(GIB))
    assert memory_limit(machine) == GIB


def test_this_machine_can_be_asked() -> None:
    assert memory_limit() > 1 << 20
    assert 1 <= effective_cpus() <= 4096


def test_the_file_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        raised = raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, hard)
        assert raised == (min(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
