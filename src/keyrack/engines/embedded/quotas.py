"""What is counted for quotas: in which notes it is, and how a transaction changes it.

Two kinds of notes: one of all quotas that are gone by, and for each quota that of its counts

    bytes, keys   8 bytes each, big-endian
    counted       1 byte: 1 when all keys are counted
    last          the rest: the last key that is counted, where not all are

A key that is not counted yet changes nothing when it is written: it is counted when its turn comes.
So keys are counted in short steps, while others write.

Every record of a key counts that is in its tree: one that has ended until it is removed, and a
stale copy as long as it is kept.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from keyrack.engines import record as wire
from keyrack.engines.contract import Exceeded, Quota, QuotaUse

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUOTAS_NOTE: Final = b"keyrack:quotas"
_COUNT_NOTE: Final = b"keyrack:quota:"
_COUNT: Final = Struct(">QQB")

_encode: Final = msgspec.msgpack.encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Quota, ...]).decode


class ReadNotes(Protocol):
    """What is read of a transaction."""

    def note(self, name: bytes) -> bytes | None: ...


class Notes(ReadNotes, Protocol):
    """What is needed of a transaction that changes something."""

    def put_note(self, name: bytes, value: bytes) -> None: ...
    def drop_note(self, name: bytes) -> None: ...


class QuotaCount:
    """What is counted for a quota."""

    __slots__ = ("bytes", "counted", "keys", "last")

    def __init__(self, raw: bytes | None) -> None:
        self.bytes, self.keys, counted = _COUNT.unpack_from(raw or bytes(_COUNT.size))
        self.counted = bool(counted)
        self.last = b"" if raw is None else raw[_COUNT.size :]

    def pack(self) -> bytes:
        """Return the note. Nothing in it is ever below nothing, whatever has gone wrong."""
        head = _COUNT.pack(max(0, self.bytes), max(0, self.keys), self.counted)
        return head + self.last

    def covers(self, key: bytes) -> bool:
        """Tell whether a key is counted, or would be if it existed."""
        return self.counted or key <= self.last


class QuotaLimits:
    """Quotas, ready to be looked at for each key."""

    __slots__ = ("beginnings", "quotas")

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self.quotas = [(quota.prefix.encode(), quota) for quota in quotas]
        self.beginnings = tuple(prefix for prefix, _ in self.quotas)


class Tally:
    """The counts of quotas in one transaction that changes records."""

    __slots__ = ("_before", "_counts", "_limits", "_notes")

    def __init__(self, limits: QuotaLimits, notes: Notes) -> None:
        self._limits = limits
        self._notes = notes
        self._counts: dict[str, QuotaCount] = {}
        self._before: dict[str, tuple[int, int]] = {}
        """Bytes and keys before the present write, of the quotas that it concerns."""

    def change(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """Count that a record has taken the place of another; None is no record."""
        if not key.startswith(self._limits.beginnings):
            return
        keys = (new is not None) - (old is not None)
        size = bytes_of(key, new) - bytes_of(key, old)
        if not (keys or size):
            return
        for prefix, quota in self._limits.quotas:
            if key.startswith(prefix):
                count = self._count(quota.name)
                if count.covers(key):
                    count.keys += keys
                    count.bytes += size

    def _count(self, name: str) -> QuotaCount:
        count = self._counts.get(name)
        if count is None:
            count = self._counts[name] = QuotaCount(self._notes.note(_note_of(name)))
        if name not in self._before:
            self._before[name] = count.bytes, count.keys
        return count

    def begin(self) -> None:
        """Begin with the next write."""
        self._before.clear()

    def exceeded(self) -> Exceeded | None:
        """Return which quota the present write has brought beyond its limit, or further beyond."""
        for _, quota in self._limits.quotas:
            before = self._before.get(quota.name)
            count = self._counts.get(quota.name)
            if before is None or count is None or not count.counted:
                continue
            most = quota.max_bytes
            if most is not None and count.bytes > most and count.bytes > before[0]:
                return Exceeded(quota, "bytes", most, count.bytes)
            most = quota.max_keys
            if most is not None and count.keys > most and count.keys > before[1]:
                return Exceeded(quota, "keys", most, count.keys)
        return None

    def write_down(self) -> None:
        """Write the counts that were changed."""
        for name, count in self._counts.items():
            self._notes.put_note(_note_of(name), count.pack())


def bytes_of(key: bytes, raw: bytes | None) -> int:
    """Return how many bytes a record counts: those of its key and its value."""
    return 0 if raw is None else len(key) + wire.value_bytes(raw)


def _note_of(name: str) -> bytes:
    return _COUNT_NOTE + name.encode()


def gone_by(notes: ReadNotes) -> tuple[Quota, ...]:
    """Return the quotas that transactions go by."""
    raw = notes.note(_QUOTAS_NOTE)
    return () if raw is None else _decode(raw)


def go_by(notes: Notes, quotas: Sequence[Quota]) -> bool:
    """Have transactions go by these quotas; say whether that is a change.

    Where a prefix is new, nothing is counted yet.
    """
    before = {quota.name: quota for quota in gone_by(notes)}
    after = {quota.name: quota for quota in quotas}
    if before == after:
        return False
    for name, quota in before.items():
        if name not in after or after[name].prefix != quota.prefix:
            notes.drop_note(_note_of(name))
    if quotas:
        notes.put_note(_QUOTAS_NOTE, _encode(quotas))
    else:
        notes.drop_note(_QUOTAS_NOTE)
    return True


def count_of(notes: ReadNotes, quota: Quota) -> QuotaCount:
    """Return what is counted for a quota."""
    return QuotaCount(notes.note(_note_of(quota.name)))


def put_count(notes: Notes, quota: Quota, count: QuotaCount) -> None:
    """Write what is counted for a quota."""
    notes.put_note(_note_of(quota.name), count.pack())


def uses(notes: ReadNotes) -> tuple[QuotaUse, ...]:
    """Return all quotas and what is counted for them."""
    found = []
    for quota in gone_by(notes):
        count = count_of(notes, quota)
        found.append(QuotaUse(quota, count.bytes, count.keys, count.counted))
    return tuple(found)
