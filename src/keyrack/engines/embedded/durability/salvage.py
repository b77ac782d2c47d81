"""Going on with what can be read of a damaged data directory, when somebody has decided to.

A new snapshot is made of it: of the newest good snapshot, or the readable beginning of a damaged
one, and of the journals up to the first entry that cannot be read. Everything that was not used, or
not to its end, is set aside. Nothing is removed, so that whoever can read more of it still may.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyrack.engines import record as wire
from keyrack.engines.contract import Space, StoreError, StoreInUse
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.durability import changes, snapshot
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.durability.data_directory import DataDirectory, write_head
from keyrack.engines.embedded.durability.examination import examine, examine_journals
from keyrack.engines.embedded.durability.high_water import MarkDamaged, read_mark
from keyrack.engines.embedded.durability.recovery import journal_entries
from keyrack.engines.embedded.durability.snapshot import (
    CHANGES,
    RECORDS,
    SnapshotHeader,
    Summary,
    Writer,
)
from keyrack.engines.embedded.locking import lock_patiently

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.embedded.durability.examination import Examination


@dataclass(slots=True)
class Plan:
    """What a salvage would go on with, and what would be lost."""

    found: Examination
    """Everything that can be read; its snapshot is the good one, or 0."""
    damaged_base: int = 0
    """The damaged snapshot whose readable beginning is used, where none is good."""

    @property
    def is_needed(self) -> bool:
        """Whether a start would be refused now."""
        return bool(self.found.obstacle or self.found.lost)

    def losses(self) -> list[str]:
        """Say what would be lost, a sentence each."""
        found, said = self.found, []
        if self.damaged_base:
            path = found.data.snapshot(self.damaged_base)
            said.append(
                f"Of {path} only the records before the damage can be read: keys behind them are "
                "lost, unless a journal has them, and keys that were deleted may be back."
            )
        elif not found.snapshot:
            said.append("There is no snapshot: only the keys that the journals name can be read.")
        if found.lost:
            said.append(
                f"{found.lost} transactions are lost that are known to have been on the disk."
            )
        if found.readable_behind:
            said.append(
                f"{found.readable_behind} transactions behind the damage are whole. They are not "
                "used, because what comes before them is missing."
            )
        return said

    def source(self) -> str:
        """Say what can be read."""
        number = self.found.snapshot or self.damaged_base
        entries = sum(stretch.entries for stretch in self.found.stretches)
        begin = f"snapshot {number}" if number else "no snapshot"
        return f"{begin} and {entries} later transactions of the journals"


def plan(data: DataDirectory) -> Plan:
    """See what can be read. Raises as `examine` does; changes nothing."""
    found = examine(data)
    if found.snapshot or not found.obstacle:
        return Plan(found)
    for number in reversed(data.snapshots()):
        if next(snapshot.good_blocks(data.snapshot(number)), None) is not None:
            break
    else:
        number = 0
    journals = examine_journals(data, number)
    journals.damage[:0] = found.damage
    journals.obstacle = found.obstacle
    return Plan(journals, number)


def salvage(data: DataDirectory, planned: Plan) -> tuple[str, Summary, list[str]]:
    """Make a snapshot of what can be read, and set aside what was damaged.

    Returns its path, what it says, and the new paths of the files that were set aside. Raises
    `StoreError` where nothing can be read, and `OSError`.
    """
    found = planned.found
    base = found.snapshot or planned.damaged_base
    if not base and not any(stretch.entries for stretch in found.stretches):
        raise StoreError(f"Nothing can be read in {data.path}. Nothing was changed.")
    number = data.next_number()
    try:
        summary = _write(data, found, base, number)
        data.files.rename(data.part(number), data.snapshot(number))
        data.files.sync_directory(data.path)
    except BaseException:
        with contextlib.suppress(OSError):
            data.files.remove(data.part(number))
        raise
    # Those before a good one were not read, and are what they were.
    damaged = [n for n in data.snapshots() if n != number and n > found.snapshot]
    aside = [*map(data.snapshot, damaged), *map(data.journal, data.journals())]
    moved = [data.set_aside(path) for path in aside]
    data.files.sync_directory(data.path)
    return data.snapshot(number), summary, moved


def _write(data: DataDirectory, found: Examination, base: int, number: int) -> Summary:
    tally = _Tally(_blocks(data, found, base))
    writer = Writer(data.files, data.part(number), SnapshotHeader(number, data.name))
    try:
        for kind, payload in _blocks(data, found, base):
            writer.add(kind, payload, tally.add(kind, payload))
        summary = Summary(
            revision=max(tally.revision, found.summary.revision if found.summary else 0),
            store_ms=max(tally.last_ms, found.summary.store_ms if found.summary else 0),
            wall_ms=time.time_ns() // 1_000_000,
            sequence=found.reached,
            offset=0,
            keys=tally.keys,
            changes=0,
        )
        writer.finish(summary)
    finally:
        writer.close()
    return snapshot.verify(data.part(number))[1]


def _blocks(data: DataDirectory, found: Examination, base: int) -> Iterator[tuple[int, bytes]]:
    """Yield packed records and then changes, each with its kind."""
    if base:
        yield from snapshot.good_blocks(data.snapshot(base))
    for payload in journal_entries(found):
        yield CHANGES, payload


class _Tally:
    """Counts what the new snapshot will hold. It goes over the changes once before all else."""

    def __init__(self, blocks: Iterator[tuple[int, bytes]]) -> None:
        self._changed: dict[bytes, bool] = {}
        for kind, payload in blocks:
            if kind == CHANGES:
                for place, key, raw in changes.unpack(payload):
                    if place == Space.KEYS:
                        self._changed[key] = raw is not None
        self.keys = sum(self._changed.values())
        self.revision = self.last_ms = 0

    def add(self, kind: int, payload: bytes) -> int:
        """Take note of some records or changes, and return how many they are."""
        number = 0
        for place, key, raw in changes.unpack(payload):
            number += 1
            if place == EVENTS and raw is not None:
                self.revision = max(self.revision, int.from_bytes(key, "big"))
                self.last_ms = max(self.last_ms, eventlog.time_of(raw))
            elif raw is not None:
                self.revision = max(self.revision, wire.revision(raw))
                if kind == RECORDS and place == Space.KEYS and key not in self._changed:
                    self.keys += 1
        return number


def mend_head(path: str) -> str:
    """Write the head of a data directory anew, as its snapshots tell it; say so, in a sentence.

    Raises `StoreError` where none tells it, or another service has the directory, and `OSError`.
    """
    lock = lock_patiently(path)
    if lock is None:
        raise StoreInUse(f"the data directory {path} is in use by another service.")
    try:
        names = _names_told(path)
        if not names:
            raise StoreError(f"No snapshot in {path} tells its name. Nothing was changed.")
        # The mark is written with the name: where it is whole, it says which is the right one.
        name = next((one for one in names if _fits_mark(path, one)), names[0])
        write_head(path, name)
    finally:
        os.close(lock)
    return f"The file that names {path} was written anew."


def _names_told(path: str) -> list[bytes]:
    """Return the names of data directories that the snapshots in one were made in, newest first."""
    names = []
    for file in sorted(os.listdir(path), reverse=True):
        if file.startswith("snapshot-"):
            with contextlib.suppress(StoreError, OSError):
                names.append(snapshot.header_of(os.path.join(path, file)).directory)
    return names


def _fits_mark(path: str, name: bytes) -> bool:
    try:
        read_mark(DataDirectory(path, name))
    except (MarkDamaged, OSError):
        return False
    return True
