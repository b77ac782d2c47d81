"""What can be read of a data directory, and whether that is all that was promised.

Nothing is changed here: a start that is refused leaves everything as it found it, and so every
later start is refused in the same way until somebody has decided.

The newest good snapshot is the beginning; the journals that follow on it, entry by entry, are the
rest. A crash, or a loss of power, may leave any end of the journals torn, as far as it was not
synced: so bytes that are no entry are no damage by themselves. What shows damage is any sign that
entries were on the disk which cannot be reached now: the high-water mark says so, or a later entry.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import StoreError
from keyrack.engines.embedded.durability import journal, snapshot
from keyrack.engines.embedded.durability.high_water import Mark, MarkDamaged, read_mark
from keyrack.engines.embedded.durability.journal import WRITE_AHEAD
from keyrack.engines.embedded.durability.snapshot import SnapshotDamaged, SnapshotHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.durability.snapshot import Summary

_SOME: Final = 3


class DataDamaged(StoreError):
    """Raised where what was promised cannot be read. Nothing was changed."""


class DataUnreadable(StoreError):
    """Raised where the system does not let files be read. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries of one journal that follow on what was read before them."""

    journal: int
    offset: int
    """Where they begin."""
    before: int
    """The sequence of the entry before the first."""
    entries: int


@dataclass(slots=True)
class Examination:
    """What a data directory holds. Numbers are those of files; sequences those of entries."""

    data: DataDirectory
    snapshot: int = 0
    """The newest good snapshot; 0 when there is none."""
    header: SnapshotHeader | None = None
    summary: Summary | None = None
    stretches: list[Stretch] = field(default_factory=list)
    reached: int = 0
    """The last entry that can be read without a gap before it."""
    known: int = 0
    """The last entry that is known to have been on the disk; an earlier snapshot's may be less."""
    readable_behind: int = 0
    """How many entries behind the first that cannot be read are whole."""
    mark: Mark | None = None
    """None when it is missing or damaged."""
    damage: list[str] = field(default_factory=list)
    """What is damaged or missing, a sentence each."""
    aside: list[str] = field(default_factory=list)
    """Paths of files that are not used, and that nobody should take for good ones."""
    obstacle: str = ""
    """Why nobody can tell what is missing, where something is."""
    stopped: tuple[int, int] = (0, 0)
    """The journal that was read last, and the byte in it behind its last entry."""

    @property
    def restored(self) -> bool:
        """Whether an operator has put the snapshot there: it was made under another name."""
        return self.header is not None and self.header != SnapshotHeader(
            self.snapshot, self.data.name
        )

    @property
    def lost(self) -> int:
        """How many entries are known to have been on the disk and cannot be read."""
        return max(0, self.known - self.reached)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not (self.damage or self.obstacle or self.lost)

    def refuse_losses(self) -> None:
        """Raise `DataDamaged` when what was promised is not there."""
        if not (self.obstacle or self.lost):
            return
        sentences = [*self.damage[:_SOME], self.obstacle or self.loss()]
        raise DataDamaged(f"{' '.join(sentences)} {_ways_out(self.data.path)}")

    def loss(self) -> str:
        """Say what is lost, in a sentence."""
        behind = f"; {self.readable_behind} entries behind that are whole"
        return (
            f"The journal in {self.data.path} can be read up to entry {self.reached}, and "
            f"is known to have been on the disk up to entry {self.known}"
            f"{behind if self.readable_behind else ''}."
        )


def _ways_out(path: str) -> str:
    return (
        "Nothing was changed. Put good files back, or see with `keyrack data check --data-dir "
        f"{path}` what can be read, and go on with that by `keyrack data salvage`."
    )


def examine(
    data: DataDirectory, verify: Callable[[str], tuple[SnapshotHeader, Summary]] = snapshot.verify
) -> Examination:
    """Read a data directory. `verify` is how a snapshot is checked.

    Raises `DataUnreadable`, or `StoreFormatUnknown` for files of another version.
    """
    found = Examination(data)
    with _readable(data):
        _find_mark(found)
        _find_snapshot(found, verify)
        _follow_journals(found)
    _look_for_what_is_missing(found)
    return found


def examine_journals(data: DataDirectory, since: int) -> Examination:
    """Read the journals from a number on, as if a snapshot before them were good. As `examine`."""
    found = Examination(data, snapshot=since)
    with _readable(data):
        _find_mark(found)
        headers = _headers(found)
        found.reached = headers[0].first - 1 if headers else 0
        _follow_journals(found)
    found.snapshot = 0
    return found


@contextlib.contextmanager
def _readable(data: DataDirectory) -> Iterator[None]:
    """Explain what the system does not let be read."""
    try:
        yield
    except OSError as error:
        raise DataUnreadable(
            f"{error.filename or data.path} cannot be read: {error.strerror}. That is no damage, "
            "and nothing was changed: let the service read its data directory, and start it again."
        ) from error


def _find_snapshot(
    found: Examination, verify: Callable[[str], tuple[SnapshotHeader, Summary]]
) -> None:
    for number in reversed(found.data.snapshots()):
        path = found.data.snapshot(number)
        try:
            header, summary = verify(path)
            _refuse_another(found, number, header)
        except SnapshotDamaged as error:
            found.damage.append(str(error))
            found.aside.append(path)
        else:
            found.snapshot, found.header, found.summary = number, header, summary
            found.reached = found.summary.sequence
            return


def _refuse_another(found: Examination, number: int, header: SnapshotHeader) -> None:
    """Raise `SnapshotDamaged` for another snapshot in the place of one that was taken here.

    One that somebody has restored has a number that no snapshot has had.
    """
    taken_here = found.mark is not None and number <= found.mark.snapshot
    if taken_here and header != SnapshotHeader(number, found.data.name):
        raise SnapshotDamaged(
            f"{found.data.snapshot(number)} holds another snapshot than was taken under this name."
        )


def _find_mark(found: Examination) -> None:
    try:
        found.mark = read_mark(found.data)
    except MarkDamaged as error:
        if os.path.lexists(found.data.mark()):
            found.damage.append(str(error))
        return


def _follow_journals(found: Examination) -> None:
    """Follow the journals from the snapshot on, and see what is in those that do not follow."""
    # A snapshot that is newer than the mark's journal holds all that the mark knows.
    if found.mark is not None and found.mark.journal >= found.snapshot:
        found.known = found.mark.sequence
    headers = _headers(found)
    for index, header in enumerate(headers):
        following = headers[index + 1].first if index + 1 < len(headers) else None
        with contextlib.closing(journal.JournalReader(found.data, header.number)) as reader:
            if found.summary is not None and header.number == found.snapshot:
                _follow(found, reader, found.summary.offset or journal.START, following)
            elif header.first == found.reached + 1:
                _follow(found, reader, journal.START, following)
            elif _witness(found, reader, journal.START, header.first - 1):
                found.aside.append(found.data.journal(header.number))


def _headers(found: Examination) -> list[journal.JournalHeader]:
    """Return the headers of the journals from the snapshot on that promise something."""
    headers = []
    for number in found.data.journals():
        if number < found.snapshot:
            continue
        try:
            with contextlib.closing(journal.JournalReader(found.data, number)) as reader:
                headers.append(reader.header)
        except journal.JournalDamaged as error:
            _note_damaged_header(found, number, error)
    return [header for header in headers if header.kind == WRITE_AHEAD]


def _note_damaged_header(found: Examination, number: int, error: journal.JournalDamaged) -> None:
    path = found.data.journal(number)
    size = os.path.getsize(path)
    if found.mark is None and size > journal.START:
        found.obstacle = (
            f"In {found.data.path}, {error}, and nothing tells what was acknowledged of it."
        )
    elif found.mark is not None and number <= found.mark.journal:
        found.damage.append(f"In {found.data.path}, {error}.")
    # Of what the mark does not know nothing was acknowledged: a life that ended as it began.
    if size:
        found.aside.append(path)


def _follow(
    found: Examination, reader: journal.JournalReader, offset: int, following: int | None
) -> None:
    """Read the entries that follow, up to where the next journal begins."""
    before, start, entries = found.reached, offset, 0
    for entry in reader.entries(offset, before):
        if following is not None and entry.sequence >= following:
            break  # it was written and never committed
        entries += 1
        offset = entry.end
        found.reached = entry.sequence
        found.known = max(found.known, entry.synced)
    found.stretches.append(Stretch(reader.header.number, start, before, entries))
    found.stopped = reader.header.number, offset
    if following is None or found.reached + 1 < following:
        _witness(found, reader, offset, found.reached)


def _witness(found: Examination, reader: journal.JournalReader, offset: int, sequence: int) -> int:
    """Count whole entries that cannot be used, and see what they know; return how many."""
    entries = 0
    while (entry := reader.search(offset, sequence)) is not None:
        entries += 1
        offset, sequence = entry.end, entry.sequence
        found.known = max(found.known, entry.synced)
    found.readable_behind += entries
    return entries


def _look_for_what_is_missing(found: Examination) -> None:
    data, mark = found.data, found.mark or Mark()
    if mark.snapshot > found.snapshot and not data.has_trace_of_snapshot(mark.snapshot):
        found.damage.append(f"{data.snapshot(mark.snapshot)} is missing.")
    if found.lost and found.stretches:
        number, offset = found.stopped
        found.damage.append(f"{data.journal(number)} cannot be read from byte {offset} on.")
    if found.snapshot:
        return
    if numbers := data.snapshots():
        found.obstacle = f"None of the {len(numbers)} snapshots in {data.path} can be read."
    elif mark.snapshot or found.known or data.has_set_aside_snapshots():
        found.obstacle = (
            f"{data.path} has no snapshot any more, which its other files are of no use without."
        )


def has_entries(data: DataDirectory, number: int) -> bool:
    """Tell whether a journal has any whole entry that is promised."""
    try:
        with contextlib.closing(journal.JournalReader(data, number)) as reader:
            promised = reader.header.kind == WRITE_AHEAD
            return promised and any(reader.entries(journal.START, reader.header.first - 1))
    except journal.JournalDamaged:
        return False
