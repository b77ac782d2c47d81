"""When tokens were last used, to the minute, in memory that all workers share.

Each worker writes a table of its own, so nothing is locked: places of eight, found by the token's
public id. Where more than eight ids fall into one place, the one that was not used for longest is
forgotten. A restart of the service forgets all of it.
"""

from __future__ import annotations

import binascii
import mmap
from typing import Final

MINUTE: Final = 60
_PLACES: Final = 4096
_WAYS: Final = 8
_PLACE_WORDS: Final = _WAYS * 2
_WORDS: Final = _PLACES * _PLACE_WORDS
"""Words of a worker: an id and a time for each token. Only what is used takes memory."""


class LastUse:
    """Made before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._words = memoryview(mmap.mmap(-1, workers * _WORDS * 8)).cast("q")

    def note(self, worker: int, token_id: str, now: int) -> None:
        """Say that a token is used; `now` in seconds since 1970."""
        start, name = self._place(worker, token_id), _word(token_id)
        place = self._words[start : start + _PLACE_WORDS].tolist()
        names, times = place[::2], place[1::2]
        way = names.index(name) if name in names else times.index(min(times))
        if names[way] != name:
            self._words[start + way * 2 + 1] = (
                0  # nobody reads the other token's time as this one's
            )
            self._words[start + way * 2] = name
        self._words[start + way * 2 + 1] = now

    def of(self, token_id: str) -> int | None:
        """Return the minute of a token's last use, in seconds since 1970; None if none is known."""
        last = max(self._in(worker, token_id) for worker in range(self._workers))
        return last - last % MINUTE or None

    def _in(self, worker: int, token_id: str) -> int:
        start, name = self._place(worker, token_id), _word(token_id)
        place = self._words[start : start + _PLACE_WORDS].tolist()
        return place[place.index(name, 0, _PLACE_WORDS) + 1] if name in place[::2] else 0

    @staticmethod
    def _place(worker: int, token_id: str) -> int:
        place = binascii.crc32(token_id.encode()) % _PLACES
        return worker * _WORDS + place * _PLACE_WORDS


def _word(token_id: str) -> int:
    return int.from_bytes(token_id.encode("ascii")[:8], "little")
