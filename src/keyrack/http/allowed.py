"""Pages that hold only what may be listed.

What may be listed is some ranges of keys. A page is read range by range: the engine is asked for
what begins a range, and told to stop where it ends, so that a page costs its own length and a few
steps for each range, however many keys are denied in between. Nothing that is denied is looked at
but the first few keys behind a range.

With a delimiter a folder is shown where any key in it may be listed. A folder that a range begins
or ends in is looked into, for one key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from keyrack.access.compiled import successor
from keyrack.engines.contract import MAX_KEY_BYTES, Page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from keyrack.engines.contract import Record

    Range = tuple[bytes, bytes | None]

_MOST_BYTES: Final = 4 << 20
"""Values of a page, all together, after which it ends early."""
_FIRST_STEP: Final = 8
"""Keys that are asked for at first in a range: as many may be behind it, and in vain."""


class Scanner(Protocol):
    """`Engine.scan`."""

    def __call__(
        self,
        prefix: bytes = b"",
        after: bytes | None = None,
        limit: int = 100,
        reverse: bool = False,
        delimiter: bytes = b"",
    ) -> Awaitable[Page]:
        """Return a page of keys."""


class _Item(NamedTuple):
    """A key with its record, or a folder, whose record is None."""

    name: bytes
    record: Record | None


def both(some: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """Return what is in both of two lists of ranges, each in the order of keys."""
    found: list[Range] = []
    for low, high in some:
        for other_low, other_high in others:
            start = max(low, other_low)
            end = (
                high
                if other_high is None
                else other_high
                if high is None
                else min(high, other_high)
            )
            if end is None or start < end:
                found.append((start, end))
    return found


async def page(
    scan: Scanner,
    ranges: Sequence[Range],
    prefix: bytes,
    after: bytes | None,
    limit: int,
    reverse: bool,
    delimiter: bytes,
) -> Page:
    """Return a page as `Engine.scan` does, of the keys that are in the ranges.

    `ranges` are below the prefix and in the order of keys; there is at least one. Costs
    O(limit + ranges) steps of the engine.
    """
    walk = (_Backward if reverse else _Forward)(scan, prefix, limit, delimiter)
    for low, high in reversed(ranges) if reverse else ranges:
        await walk.through(low, high, after)
        if walk.full or walk.stopped:
            break
    return walk.page()


class _Walk:
    """Collects what one page holds, and one more, so that it is known whether there is more."""

    def __init__(self, scan: Scanner, prefix: bytes, limit: int, delimiter: bytes) -> None:
        self.scan = scan
        self.prefix = prefix
        self.delimiter = delimiter
        self._limit = limit
        self._items: list[_Item] = []
        self._size = 0
        self._revision: int | None = None
        self.stopped: bytes | None = None
        """Where the page ends early, because of its size."""

    @property
    def full(self) -> bool:
        """Whether there is one more than the page holds."""
        return len(self._items) > self._limit

    def add(self, item: _Item) -> None:
        """Take a key or folder, unless it is the folder that was taken last."""
        if not self.full and not (self._items and self._items[-1].name == item.name):
            self._items.append(item)
            self._size += 0 if item.record is None else len(item.record.value)
            if self._size > _MOST_BYTES and not self.full:
                self.stopped = item.name

    def folder(self, key: bytes) -> bytes | None:
        """Return the folder that a key is in, if there is one."""
        if not self.delimiter or not key.startswith(self.prefix):
            return None
        at = key.find(self.delimiter, len(self.prefix))
        return None if at < 0 else key[: at + len(self.delimiter)]

    async def ask(self, prefix: bytes, after: bytes | None, limit: int, reverse: bool,
                  delimiter: bytes = b"") -> Page:  # fmt: skip
        """Ask the engine for a page."""
        found = await self.scan(prefix, after, limit, reverse, delimiter)
        if self._revision is None:
            self._revision = found.revision
        return found

    async def only_key(self, prefix: bytes, after: bytes | None, reverse: bool) -> bytes | None:
        """Return the first key, or with `reverse` the last one, that begins with a prefix."""
        while True:
            found = await self.ask(prefix, after, 1, reverse)
            if found.entries:
                return found.entries[0][0]
            if found.next is None:
                return None
            after = found.next

    def steps(self) -> Iterator[int]:
        """Yield how many keys to ask for, in turn: few at first, as the range may be short."""
        step = _FIRST_STEP
        while True:
            yield max(1, min(step, self._limit + 1 - len(self._items)))
            step *= 2

    def page(self) -> Page:
        """Return what was collected."""
        shown = self._items[: self._limit]
        following = shown[-1].name if self.full else self.stopped
        return Page(
            entries=[(item.name, item.record) for item in shown if item.record is not None],
            folders=[item.name for item in shown if item.record is None],
            next=following,
            revision=self._revision or 0,
        )


def _items(found: Page, reverse: bool) -> list[_Item]:
    items = [_Item(key, record) for key, record in found.entries]
    items += [_Item(folder, None) for folder in found.folders]
    return sorted(items, key=lambda item: item.name, reverse=reverse)


class _Forward(_Walk):
    """From the first key to the last. A place is the least key that may still be shown."""

    async def through(self, low: bytes, high: bytes | None, after: bytes | None) -> None:
        """Collect what a range holds behind `after`."""
        place: bytes | None = low if after is None else max(low, self._behind(after))
        if self._items:
            place = max(low, self._behind(self._items[-1].name))
        for step in self.steps():
            if place is None or self.full or (high is not None and place >= high):
                return
            folder = self.folder(place)
            if folder is not None and folder != place:
                place = await self._look_into(folder, place, high)
                continue
            start = None if place == self.prefix else _before(place)
            found = await self.ask(self.prefix, start, step, False, self.delimiter)
            place = await self._take(found, high, step)
            if self.stopped is not None:
                return

    def _behind(self, name: bytes) -> bytes:
        """Return the least key behind a key, or behind all that is in a folder."""
        if self.folder(name) == name:
            return successor(name) or name + b"\xff"
        return name + b"\0"

    async def _look_into(self, folder: bytes, place: bytes, high: bytes | None) -> bytes | None:
        key = await self.only_key(folder, _before(place), False)
        if key is not None and (high is None or key < high):
            self.add(_Item(folder, None))
        return successor(folder)

    async def _take(self, found: Page, high: bytes | None, step: int) -> bytes | None:
        """Take what is in the range, and return the next place; None behind its end."""
        items = _items(found, False)
        for item in items:
            if high is not None and item.name >= high:
                return None
            if item.record is None and high is not None:
                end = successor(item.name)
                if end is None or end > high:
                    await self._look_into(item.name, item.name, high)
                    return None
            self.add(item)
            if self.stopped is not None:
                return None
        if found.next is None:
            return None
        place = self._behind(found.next)
        if len(items) < step and self._ends_here(place, high):
            self.stopped = found.next
        return place

    def _ends_here(self, place: bytes, high: bytes | None) -> bool:
        return not self.full and (high is None or place < high)


class _Backward(_Walk):
    """From the last key to the first. A place is the least key that is not to be shown any more."""

    async def through(self, low: bytes, high: bytes | None, after: bytes | None) -> None:
        """Collect what a range holds before `after`."""
        place = high
        last = self._items[-1].name if self._items else after
        if last is not None:
            place = last if place is None else min(place, last)
        for step in self.steps():
            if self.full or (place is not None and place <= low):
                return
            folder = None if place is None else self.folder(place)
            if folder is not None and folder != place:
                place = await self._look_into(folder, low, place)
                continue
            found = await self.ask(self.prefix, place, step, True, self.delimiter)
            following = await self._take(found, low, place, step)
            if following is None or self.stopped is not None:
                return
            place = following

    async def _look_into(self, folder: bytes, low: bytes, place: bytes | None) -> bytes:
        key = await self.only_key(folder, place, True)
        if key is not None and key >= low:
            self.add(_Item(folder, None))
        return folder

    async def _take(self, found: Page, low: bytes, place: bytes | None, step: int) -> bytes | None:
        """Take what is in the range, and return the next place; None before its beginning."""
        items = _items(found, True)
        for item in items:
            if item.record is None and item.name < low:
                end = successor(item.name)
                if end is None or end > low:
                    await self._look_into(item.name, low, place)
                return None
            if item.name < low:
                return None
            self.add(item)
            if self.stopped is not None:
                return None
        if found.next is None:
            return None
        if len(items) < step and not self.full and found.next > low:
            self.stopped = found.next
        return found.next


def _before(key: bytes) -> bytes:
    """Return what no key is between and this one: keys are UTF-8, and so have no byte 0xff."""
    if key.endswith(b"\0"):
        return key[:-1]
    return (key[:-1] + bytes((key[-1] - 1,)) + b"\xff")[:MAX_KEY_BYTES]
