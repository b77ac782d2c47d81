"""The store's audit of itself: what must hold between records, expiry index and event log."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import MAX_KEY_BYTES, Change
from keyrack.engines.embedded import eventlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

_DUE: Final = Struct(">QQ")
_ENOUGH: Final = 20


def audit(
    txn: lmdb.Transaction[bytes],
    records: lmdb._Database,
    expiry: lmdb._Database,
    log: lmdb._Database,
    state: tuple[int, int],
) -> list[str]:
    """Return what is wrong with the store as `txn` sees it, the first twenty things at most."""
    found: list[str] = []
    for problem in _problems(txn, records, expiry, log, state):
        found.append(problem)
        if len(found) == _ENOUGH:
            break
    return found


def _problems(
    txn: lmdb.Transaction[bytes],
    records: lmdb._Database,
    expiry: lmdb._Database,
    log: lmdb._Database,
    state: tuple[int, int],
) -> Iterator[str]:
    last_revision, number_of_events = state
    latest: dict[bytes, tuple[int, Change]] = {}
    oldest = last_revision + 1
    counted = previous = 0
    for last, entry in txn.cursor(log):
        for event in eventlog.unpack(last, entry):
            if event.revision <= previous:
                yield f"event {event.revision} comes after event {previous}"
            previous = event.revision
            oldest = min(oldest, event.revision)
            latest[event.key] = (event.revision, event.change)
            counted += 1
    if counted != number_of_events:
        yield f"the log holds {counted} events and says {number_of_events}"
    if previous > last_revision:
        yield f"event {previous} is newer than the store's revision {last_revision}"
    yield from _record_problems(txn, records, expiry, latest, oldest, last_revision)
    for due, key in txn.cursor(expiry):
        ends, revision = _DUE.unpack(due)
        raw = txn.get(key, None, records)
        if raw is None or wire.revision(raw) != revision or wire.expires_at(raw) != ends:
            yield f"the expiry index names {key!r} at {ends}, and no record agrees"


def _record_problems(
    txn: lmdb.Transaction[bytes],
    records: lmdb._Database,
    expiry: lmdb._Database,
    latest: dict[bytes, tuple[int, Change]],
    oldest: int,
    last_revision: int,
) -> Iterator[str]:
    seen: set[int] = set()
    for key, raw in txn.cursor(records):
        record = wire.unpack(raw)
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            yield f"the key {key!r} has {len(key)} bytes"
        if record.revision > last_revision:
            yield f"{key!r} has revision {record.revision}, newer than the store"
        if record.revision in seen:
            yield f"revision {record.revision} was given twice"
        seen.add(record.revision)
        if record.expires_at:
            due = _DUE.pack(record.expires_at, record.revision)
            if txn.get(due, None, expiry) != key:
                yield f"{key!r} ends at {record.expires_at}, and the expiry index does not know"
        event = latest.pop(key, None)
        if record.revision >= oldest and event != (record.revision, Change.SET):
            yield f"{key!r} has revision {record.revision}, and its last event is {event}"
    for key, (revision, change) in latest.items():
        if change is Change.SET:
            yield f"event {revision} set {key!r}, and there is no such record"
