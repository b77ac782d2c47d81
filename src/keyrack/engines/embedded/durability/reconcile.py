"""What a service does with its store and its data directory before it serves.

The store in memory may have outlived the service (a restart), or not (a new machine, a container).
What it holds is used where it is certain to be what the data directory knows, or later; else it is
filled from the data directory. Until one of the two is found to be all that was promised, nothing
is changed, in memory or on the disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyrack.engines.contract import StoreError
from keyrack.engines.embedded import eventlog
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.durability import journal, snapshot
from keyrack.engines.embedded.durability.examination import examine, has_entries
from keyrack.engines.embedded.durability.high_water import (
    REVISIONS_AHEAD,
    HighWaterMark,
    Mark,
)
from keyrack.engines.embedded.durability.journal import WRITE_AHEAD
from keyrack.engines.embedded.durability.recovery import load
from keyrack.engines.embedded.durability.take_snapshot import take
from keyrack.engines.embedded.memory import PAGES_A_COMMIT
from keyrack.engines.embedded.position import NOWHERE, Position
from keyrack.engines.embedded.quota_counting import count_all

if TYPE_CHECKING:
    from keyrack.engines.embedded.database import Database
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.durability.examination import Examination
    from keyrack.engines.embedded.durability.group_sync import GroupSync


@dataclass(slots=True)
class Started:
    """What an operator should know, a sentence each."""

    from_memory: bool = False
    """Whether what was in memory is used: no snapshot has been read to its end."""
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def start(
    database: Database, data: DataDirectory, keep: int, group_sync: GroupSync | None
) -> Started:
    """Bring store and data directory together.

    `group_sync` is given in the mode `commit`, which has a journal from here on. Raises
    `StoreError`, and has changed nothing then that a later start could do without.
    """
    return _Start(database, data, keep, group_sync).run()


class _Start:
    def __init__(
        self, database: Database, data: DataDirectory, keep: int, group_sync: GroupSync | None
    ) -> None:
        self._database = database
        self._data = data
        self._keep = keep
        self._group_sync = group_sync
        self._started = Started()

    def run(self) -> Started:
        position = self._database.position()
        loaded, latest = False, self._is_latest(position)
        self._started.from_memory = latest
        if latest:
            found = examine(self._data, snapshot.glance)
            behind = self._note_behind(position, found)
        else:
            found = examine(self._data)
            self._refuse_to_mix(position, found)
            found.refuse_losses()
            behind = False
            if found.snapshot or self._database.is_empty():
                position, loaded = self._load(found), found.snapshot > 0
        if loaded and found.restored:
            self._started.warnings.append(
                f"Snapshot {found.snapshot} of {self._data.path} was restored: what was there "
                "before it does not count any more."
            )
        self._note_mark(found)
        if self._group_sync is None:
            self._keep_snapshots(loaded, behind)
        else:
            follows = (latest or loaded) and found.is_whole and not behind
            self._keep_journal(self._group_sync, position, follows)
        self._set_aside(found)
        self._data.prune(self._keep)
        return self._started

    def _is_latest(self, position: Position) -> bool:
        """Tell whether a store is the one of this data directory, with all that it knows."""
        data = self._data
        newest = max(data.snapshots(), default=0)
        same = position.directory == data.name and position.boot == data.boot
        if not same or position.number < newest or position.number == 0:
            return False
        # A later journal with entries is of a service that went on from here with another store.
        later = (number for number in data.journals() if number > position.number)
        return not any(has_entries(data, number) for number in later)

    def _note_behind(self, position: Position, found: Examination) -> bool:
        """Tell whether the data directory has less than the store in memory."""
        lacks_entries = position.on and found.reached < position.sequence
        lacks_snapshot = position.saved > 0 and found.snapshot < position.number
        lacks_snapshot = self._group_sync is None and (lacks_snapshot or bool(found.obstacle))
        if not (lacks_entries or found.lost or lacks_snapshot):
            return False
        self._started.warnings.append(
            f"{self._data.path} lacks changes that the store in memory has: files are missing, "
            "damaged, or of an earlier time. A snapshot of the store is taken now."
        )
        return True

    def _refuse_to_mix(self, position: Position, found: Examination) -> None:
        if position.directory == self._data.name or self._database.is_empty() or not found.snapshot:
            return
        raise StoreError(
            f"the store in {self._database.path} holds data that {self._data.path} does not "
            "know, and both have some. Name another --store or another --data-dir."
        )

    def _load(self, found: Examination) -> Position:
        """Fill the store from the data directory and return the journal's position."""
        database, data = self._database, self._data
        # If this is broken off, the next start sees by the number that the store is not whole.
        database.move(lambda _: NOWHERE._replace(directory=data.name, boot=data.boot))
        database.clear()
        if found.summary is not None:
            loaded = load(database, found)
            database.set_clock(loaded.last_ms)
            self._started.facts.append(
                f"Snapshot {found.snapshot} of {data.path} was loaded: {database.keys()} keys, "
                f"with {loaded.entries} later transactions of the journal."
            )
        database.begin_life(found.mark.ceiling if found.mark is not None else 0)
        count_all(database)
        return database.move(
            lambda position: position._replace(
                number=max(data.next_number() - 1, 1),
                sequence=found.reached,
                # The journals here go on from a snapshot that was made here.
                on=found.summary is not None and not found.restored,
            )
        )

    def _note_mark(self, found: Examination) -> None:
        """Write down which revisions this life may hand out, before it hands out any."""
        taken_here = 0 if found.restored else found.snapshot
        ceiling = self._database.revision() + REVISIONS_AHEAD
        writer = HighWaterMark(self._data)
        if found.mark is None:
            writer.replace(Mark(snapshot=taken_here, ceiling=ceiling))
        else:
            writer.note_snapshot(max(found.mark.snapshot, taken_here), ceiling)
        writer.close()

    def _keep_snapshots(self, loaded: bool, behind: bool) -> None:
        """Have no journal; where changes may be missing on the disk, take a snapshot."""
        data = self._data
        # Nobody has written anything since it was loaded.
        saved = self._database.last_transaction if loaded else 0
        self._database.move(
            lambda position: position._replace(
                directory=data.name, boot=data.boot, saved=saved, on=False
            )
        )
        if behind:
            take(self._database, data)

    def _keep_journal(self, group_sync: GroupSync, position: Position, follows: bool) -> None:
        """Go on with a journal, after a snapshot where it would not follow on those so far."""
        if position.on and follows and self._go_on(group_sync):
            return
        group_sync.note(position._replace(number=self._data.next_number()))
        take(self._database, self._data, group_sync)

    def _go_on(self, group_sync: GroupSync) -> bool:
        """Begin a journal that follows on the last ones; False when that cannot be done."""
        if group_sync.broken:
            return False
        data = self._data
        number = data.next_number()
        try:
            for older in data.journals():
                _sync(data, data.journal(older))
            journal.create(data, number)
            with self._database.maintain() as txn:
                position = journal.begin(txn, data, number, WRITE_AHEAD)
            _sync(data, data.journal(number))
            group_sync.settle(position)
            self._write_beginning()
        except (OSError, JournalFailed):
            return False
        return True

    def _write_beginning(self) -> None:
        """Have in the journal, too, at which revision this life begins."""
        database = self._database
        with database.write(PAGES_A_COMMIT, grows=False) as txn:
            key = eventlog.encode_revision(txn.state()[0])
            entry = txn.get(key, database.events)
            if entry is not None and not eventlog.count(entry):
                txn.put(key, entry, database.events)

    def _set_aside(self, found: Examination) -> None:
        """Rename what was not used, now that something better is there, and tell of it."""
        data, started = self._data, self._started
        started.troubles.extend(found.damage)
        for path in found.aside:
            if os.path.lexists(path):
                started.troubles.append(f"{path} was not used. It is now {data.set_aside(path)}.")
        if found.restored:
            # What was before a snapshot that somebody has put there was not read.
            older = [data.journal(n) for n in data.journals() if n < found.snapshot]
            started.warnings += [f"{path} is now {data.set_aside(path)}." for path in older]


def _sync(data: DataDirectory, path: str) -> None:
    descriptor = data.files.open(path)
    try:
        data.files.sync(descriptor)
    finally:
        os.close(descriptor)
