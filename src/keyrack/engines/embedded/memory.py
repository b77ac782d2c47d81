"""Memory of the store: claimed before it is written, and kept from running out altogether.

Two dangers. The database writes into a memory map of a sparse file: a page that the file system
cannot back any more kills the writing process (SIGBUS), so pages are claimed with `posix_fallocate`
ahead of their use, which fails with an error instead. And a copy-on-write tree needs free pages
even for a delete: a store that is full to the last page could never be emptied. So a write that
grows the store is refused while a reserve of pages is still there, and deletes may use the reserve.

Counting down a bound of what each commit takes is cheap; only when it is used up is the real figure
asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import lmdb

    from keyrack.engines.embedded.shared_words import SharedWords

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
RESERVE: Final = 128
"""Pages that only deletes may use: enough for a few of them, one after the other, in any tree."""
MINIMUM_PAGES: Final = 1024
_LIKELY_PART: Final = 4
_STEP: Final = 256
"""Pages that are claimed beyond need: 1 MiB, a fifth of a millisecond under the write lock."""

# How many pages a commit takes is not known beforehand; these say how many it cannot exceed. An
# operation copies its leaf and the branch above, and each may split, and may take an end out of
# the expiry index; a TTL puts one in. The path above those, the event log, the free list and the
# root are shared by the whole commit. A value has a page of its own beyond half a page.
PAGES_A_COMMIT: Final = 48
PAGES_A_WRITE: Final = 12
PAGES_A_TTL: Final = 18
# What is removed in order (ended keys, old events) shares more: the index it is found by gives up
# one leaf after the other, so what counts is the record's leaf, its neighbour, the branches.
PAGES_A_REMOVAL: Final = 16


def pages_of_removals(removals: int) -> int:
    """Return how many pages a commit takes at most that removes so many things in their order."""
    return PAGES_A_COMMIT + removals * PAGES_A_REMOVAL


class Memory:
    """The pages of one store's file, as one process sees them.

    `live_pages` counts the pages in use; it is called only when the file is near its limit.
    `log_pages` are kept for the event log from the start: deletes must still have room for theirs.
    """

    def __init__(
        self,
        env: lmdb.Environment,
        words: SharedWords,
        live_pages: Callable[[], int],
        log_pages: int,
    ) -> None:
        self._env = env
        self._words = words
        self._live_pages = live_pages
        self._kept = RESERVE + log_pages
        self._look: Callable[[int], int] | None = None
        self._file = os.path.join(env.path(), "data.mdb")
        self.limit = env.info()["map_size"] // PAGE

    def watch(self, look: Callable[[int], int]) -> None:
        """Have `look` told the pages that are left; it returns after how many to tell it again."""
        self._look = look

    def claim(self, pages: int, grows: bool) -> bool:
        """Make sure that a commit can take `pages` pages; call with the write lock held.

        False means that it must not be tried. With `grows` the reserve is left alone. Memory that
        was never used is claimed with zeros, a fifth of a millisecond for 256 pages on a fast
        machine: whoever asks for thousands holds up everybody.
        """
        left = self._words.pages_left
        if left >= pages:
            self._words.pages_left = left - pages
            return True
        return self._claim_more(pages, grows)

    def claim_again(self) -> None:
        """Claim anew what an earlier life has claimed: files may be copied with holes since."""
        claimed = self._words.pages_claimed
        self._words.pages_claimed = self._words.pages_left = 0
        # The words are advice, and a file that was damaged may say anything.
        self._back(min(max(claimed, 0), self.limit))

    def _claim_more(self, pages: int, grows: bool) -> bool:
        taken = self._env.info()["last_pgno"] + 1
        far_from_the_end = self.limit - taken >= pages + self._kept + _STEP
        wanted = _round_up(taken + pages + RESERVE + _STEP) if far_from_the_end else self.limit
        claimed = self._back(min(self.limit, wanted))
        never_used = claimed - taken
        if far_from_the_end and never_used >= pages + RESERVE:
            self._words.pages_left = never_used - pages - RESERVE
            return True
        self._words.pages_left = 0
        if claimed < self.limit:
            # The directory is full of other things. Freed pages may be there, but nothing keeps
            # the database from reaching behind them into memory that is not.
            return not grows and never_used >= pages
        # The whole map is backed; from here on the database itself says when it is full.
        if self._look is None:
            return not grows or self.limit - self._live_pages() >= pages + RESERVE
        room = self.limit - self._live_pages() - RESERVE
        self._words.pages_left = self._look(room)
        # The bound is far above what most commits take, and there is a way out when it is not:
        # room is made, and the commit tried again.
        return not grows or room >= pages // _LIKELY_PART

    def _back(self, pages: int) -> int:
        """Have memory behind the file's first `pages` pages; return how many have."""
        claimed = self._words.pages_claimed
        if pages <= claimed:
            return claimed
        descriptor = os.open(self._file, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, claimed * PAGE, (pages - claimed) * PAGE)
        except OSError:
            return claimed
        finally:
            os.close(descriptor)
        self._words.pages_claimed = pages
        return pages


def _round_up(pages: int) -> int:
    return -(-pages // _STEP) * _STEP
