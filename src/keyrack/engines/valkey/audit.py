"""The store's audit of itself: what must hold between records, indexes and events of each shard."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import MAX_KEY_BYTES, Change, Space
from keyrack.engines.valkey.events import unpack as unpack_events
from keyrack.engines.valkey.layout import COPIES, ENDS, EVENTS, INDEX, KINDS, TRASH, UNDOS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Event
    from keyrack.engines.valkey.calls import Calls

_ENOUGH: Final = 20
_CHUNK: Final = 500
_UNREADABLE: Final = (struct.error, IndexError, ValueError)
_MAKES: Final = {Space.KEYS: Change.SET, Space.LOCKS: Change.LOCK}
_SPACE_OF: Final = {
    change: Space.LOCKS if change in (Change.LOCK, Change.UNLOCK) else Space.KEYS
    for change in Change
}


class _Shard:
    """Everything that one shard holds."""

    def __init__(self, state: list[int]) -> None:
        _, self.revision, self.gone, self.counted, self.keys, *_ = state
        self.index: set[bytes] = set()
        self.ends: dict[Space, dict[bytes, int]] = {}
        self.copies: dict[bytes, int] = {}
        self.records: dict[Space, dict[bytes, bytes]] = {}
        self.log: list[tuple[int, bytes]] = []
        self.trash: dict[bytes, int] = {}
        """Ends of what is in the trash, and of the undos: those have names of 8 bytes."""
        self.undos: dict[bytes, bytes] = {}


class Audit:
    """One look at the whole store."""

    def __init__(self, calls: Calls, now: int) -> None:
        self._ask = calls.ask
        self._each = calls.each
        self._layout = calls.layout
        self._now = now

    async def problems(self) -> list[str]:
        """Return what is wrong, the first twenty things at most."""
        found: list[str] = []
        for number, state in enumerate(await self._each("state")):
            shard = await self._read(number, _Shard(state))
            found += islice(self._problems(number, shard), _ENOUGH - len(found))
        return found

    async def _read(self, number: int, shard: _Shard) -> _Shard:
        base = self._layout.bases[number]
        shard.index = set(await self._ask(number, b"ZRANGE", base + INDEX, b"0", b"-1"))
        for space, letter in ENDS.items():
            flat = await self._ask(number, b"ZRANGE", base + letter, b"0", b"-1", b"WITHSCORES")
            shard.ends[space] = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        flat = await self._ask(number, b"ZRANGE", base + COPIES, b"0", b"-1", b"WITHSCORES")
        shard.copies = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        for space in (Space.KEYS, Space.LOCKS):
            shard.records[space] = await self._records(number, base + KINDS[space])
        flat = await self._ask(number, b"ZRANGE", base + TRASH, b"0", b"-1", b"WITHSCORES")
        shard.trash = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
        flat = await self._ask(number, b"HGETALL", base + UNDOS)
        shard.undos = dict(zip(flat[::2], flat[1::2], strict=True))
        for number_of, entry in await self._ask(number, b"XRANGE", base + EVENTS, b"-", b"+"):
            shard.log.append((int(number_of.partition(b"-")[0]), entry[1]))
        return shard

    async def _records(self, number: int, base: bytes) -> dict[bytes, bytes]:
        """Return the records whose names begin so, as the server itself lists its names."""
        records: dict[bytes, bytes] = {}
        cursor = b"0"
        pattern = base + b"*"
        while True:
            cursor, names = await self._ask(
                number, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _CHUNK
            )
            if names:
                values = await self._ask(number, b"MGET", *names)
                pairs = zip(names, values, strict=True)
                records |= {name[len(base) :]: raw for name, raw in pairs if raw is not None}
            if cursor == b"0":
                return records

    def _problems(self, number: int, shard: _Shard) -> Iterator[str]:
        latest: dict[tuple[Space, bytes], Event] = {}
        yield from self._log_problems(number, shard, latest)
        seen: set[int] = set()
        for space, records in shard.records.items():
            for key, raw in records.items():
                yield from self._record_problems(shard, space, key, raw, seen)
                yield from _event_problems(shard, space, key, raw, latest.pop((space, key), None))
        for (space, key), event in latest.items():
            if event.change is _MAKES[space] and key not in shard.ends[space]:
                yield f"event {event.revision} set {key!r}, and there is no such record"
        yield from self._index_problems(number, shard)
        yield from _trash_problems(shard)

    def _log_problems(
        self, number: int, shard: _Shard, latest: dict[tuple[Space, bytes], Event]
    ) -> Iterator[str]:
        counted, previous, step = 0, shard.gone, self._layout.shards
        for last, entry in shard.log:
            try:
                events = list(unpack_events(last, entry, step))
            except _UNREADABLE:
                yield f"the entry {last} of shard {number}'s events cannot be read"
                continue
            for event in events:
                if event.revision <= previous:
                    yield f"event {event.revision} comes after event {previous}"
                if event.revision % step != number:
                    yield f"event {event.revision} is none of shard {number}"
                previous = event.revision
                latest[_SPACE_OF[event.change], event.key] = event
                counted += 1
        if counted != shard.counted:
            yield f"shard {number} holds {counted} events and says {shard.counted}"
        if previous > shard.revision:
            yield f"event {previous} is newer than its shard's revision {shard.revision}"

    def _record_problems(
        self, shard: _Shard, space: Space, key: bytes, raw: bytes, seen: set[int]
    ) -> Iterator[str]:
        try:
            record = wire.unpack(raw)
        except _UNREADABLE:
            yield f"the record of {key!r} cannot be read"
            return
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            yield f"the key {key!r} has {len(key)} bytes"
        if record.revision > shard.revision:
            yield f"{key!r} has revision {record.revision}, newer than its shard"
        if record.revision in seen:
            yield f"revision {record.revision} was given twice"
        seen.add(record.revision)
        if wire.is_copy(raw):
            if shard.copies.get(key) != record.stale_until:
                yield f"{key!r} is a stale copy, and the index of those does not know"
            if key in shard.index or key in shard.ends[space]:
                yield f"{key!r} is a stale copy, and an index of keys names it"
            return
        if shard.ends[space].get(key, 0) != record.expires_at:
            yield f"{key!r} ends at {record.expires_at}, and the expiry index does not know"
        if space is Space.KEYS and key not in shard.index:
            yield f"{key!r} is not in the index"

    def _index_problems(self, number: int, shard: _Shard) -> Iterator[str]:
        # A record that Valkey has removed at its end is in the indexes until its event is written.
        records = shard.records[Space.KEYS]
        for key in sorted(shard.index - records.keys()):
            if not 0 < shard.ends[Space.KEYS].get(key, 0) <= self._now:
                yield f"the index names {key!r}, and there is no such record"
        for key, end in shard.copies.items():
            if end > self._now and key not in records:
                yield f"{key!r} has a stale copy until {end}, and there is no such record"
            elif key in records and not wire.is_copy(records[key]):
                yield f"{key!r} is no stale copy, and the index of those names it"
        for space, ends in shard.ends.items():
            for key, end in ends.items():
                if end > self._now and key not in shard.records[space]:
                    yield f"the expiry index names {key!r} at {end}, and there is no such record"
        if any(self._layout.shard_of(key) != number for key in shard.index):
            yield f"shard {number} holds keys of another shard"


def _trash_problems(shard: _Shard) -> Iterator[str]:
    found = Counter(name[:8] for name in shard.trash if len(name) > 8)
    for name, raw in shard.undos.items():
        number = int.from_bytes(name, "big")
        _, until, deleted, *others = struct.unpack_from(">6Q", raw)
        if found.pop(name, 0) != deleted - sum(others):
            yield f"the undo {number} says that it has {deleted - sum(others)} records, and lies"
        if shard.trash.get(name) != until:
            yield f"the undo {number} ends at {until}, and the index of the trash does not know"
    for name in found:
        yield f"records are kept for the undo {name!r}, and there is no such undo"


def _event_problems(
    shard: _Shard, space: Space, key: bytes, raw: bytes, event: Event | None
) -> Iterator[str]:
    revision = wire.revision(raw)
    if wire.is_copy(raw):
        if event is not None and event.change is not Change.EXPIRE:
            yield f"{key!r} is a stale copy, and its last event is {event}"
        return
    if revision <= shard.gone:
        return
    if event is None or (event.revision, event.change) != (revision, _MAKES[space]):
        yield f"{key!r} has revision {revision}, and its last event is {event}"
