"""What fills the memory: the largest keys, and what is under each folder."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.http.api import codec, observing
from keyrack.http.api.models import BigLine, BigProgress
from keyrack.http.api.pace import Pace
from keyrack.http.hot_keys import Sketch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from keyrack.http.reply import Context

PARAMETERS: Final = frozenset((b"prefix", b"limit", b"delimiter", b"depth"))
_STEPS: Final = 200
_PROGRESS_SECONDS: Final = 1.0
_FOLDERS: Final = 20_000
"""So many are told apart; with more of them their sums are no longer exact, see `Sketch`."""


class Wanted(NamedTuple):
    """What is looked for."""

    prefix: bytes
    limit: int
    delimiter: bytes
    depth: int


def wanted(given: dict[bytes, bytes]) -> Wanted:
    """Read the parameters. Raises `Problem`."""
    return Wanted(
        codec.prefix_of(given.get(b"prefix", b"")),
        codec.whole(given, b"limit", observing.DEFAULT_KEYS, 1, observing.MOST_KEYS),
        codec.delimiter_of(given.get(b"delimiter", b"/")) or b"/",
        codec.whole(given, b"depth", 1, 1, observing.MOST_DEPTH),
    )


async def walk(about: Wanted, context: Context) -> AsyncGenerator[bytes, None]:
    """Yield the lines of the answer."""
    largest: list[tuple[int, bytes]] = []
    folders = Sketch(_FOLDERS)
    keys = total = 0
    pace, told = Pace(), time.monotonic()
    after: bytes | None = None
    while True:
        found, after = await context.engine.sizes(about.prefix, after, _STEPS)
        for key, size in found:
            total += size
            if (folder := _folder(key, about)) is not None:
                folders.add(folder, size)
        keys += len(found)
        sized = [(size, key) for key, size in found]
        largest = heapq.nlargest(about.limit, largest + sized)
        if after is None:
            break
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            yield _line(BigLine(progress=BigProgress(keys, total)))
        await pace.step()
    for size, key in largest:
        yield _line(BigLine(key=codec.text_of(key), bytes=size))
    for folder, size in folders.heaviest(about.limit):
        line = BigLine(folder=codec.text_of(folder), bytes=size)
        if folders.error:
            line.error = folders.error
        yield _line(line)
    yield _line(BigLine(total=BigProgress(keys, total)))


def _folder(key: bytes, about: Wanted) -> bytes | None:
    """Return the beginning of a key up to and with a delimiter, None where it has too few."""
    end = len(about.prefix)
    for _ in range(about.depth):
        at = key.find(about.delimiter, end)
        if at < 0:
            return None
        end = at + len(about.delimiter)
    return key[:end]


def _line(line: BigLine) -> bytes:
    return codec.encode(line) + b"\n"
