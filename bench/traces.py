"""Requests to replay: traces of real systems from files, and made ones.

Every request is a number and means: get this key, and set it if it is not there.
"""

from __future__ import annotations

import itertools
import random
import struct
from bisect import bisect
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SEED: Final = 5


def read(path: Path) -> list[int]:
    """Return a file's requests: text with a number a line, else little-endian 32-bit integers.

    Lines that begin with `*` divide the phases of some traces, and are skipped.
    """
    data = path.read_bytes()
    try:
        lines = data.decode("ascii").split("\n")
        return [int(line.split()[0]) for line in lines if line.strip() and line[0] != "*"]
    except ValueError:
        return list(struct.unpack(f"<{len(data) // 4}i", data[: len(data) // 4 * 4]))


def _zipf(requests: int, keys: int = 10_000, exponent: float = 0.9) -> list[int]:
    chance = random.Random(_SEED)
    weights = list(itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(keys)))
    names = list(range(keys))
    chance.shuffle(names)
    return [names[bisect(weights, chance.random() * weights[-1])] for _ in range(requests)]


def _zipf_and_scans(requests: int) -> list[int]:
    """Five thousand keys that are asked for once, after every twenty thousand requests."""
    found: list[int] = []
    for start in range(0, requests, 20_000):
        fresh = 1_000_000 + start
        found += _zipf(requests)[start : start + 20_000] + list(range(fresh, fresh + 5_000))
    return found


def _loop(requests: int) -> list[int]:
    return [request % 5_000 for request in range(requests)]


def _shifting(requests: int) -> list[int]:
    """What is popular changes altogether, among the same keys, every ten thousand requests."""
    return [(key + at // 10_000 * 700) % 10_000 for at, key in enumerate(_zipf(requests))]


MADE: Final[dict[str, Callable[[int], list[int]]]] = {
    "zipf": _zipf,
    "zipf and scans": _zipf_and_scans,
    "loop": _loop,
    "shifting": _shifting,
}
