"""Time in tests: bounds that a busy machine may miss once, and the CPU that a process has taken."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait for a condition; say whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def eventually(attempt: Callable[[], float], bound: float, attempts: int = 20) -> None:
    """Assert that a measurement stays within its bound at least once in a few attempts.

    A machine that is shared can be late at any moment; a defect is late every time.
    """
    found = []
    for _ in range(attempts):
        found.append(attempt())
        if found[-1] <= bound:
            return
    raise AssertionError(f"always over {bound}: {found}")


async def steps_of(work: Coroutine[Any, Any, object]) -> list[float]:
    """Do some work, and return the CPU seconds of each turn of the loop meanwhile, longest first.

    What others get to wait for is the longest of them. Unlike time, it is the same on a machine
    that is busy with something else.
    """
    running = asyncio.ensure_future(work)
    steps = []
    while not running.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        steps.append(time.thread_time() - began)
    await running
    return sorted(steps, reverse=True)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
