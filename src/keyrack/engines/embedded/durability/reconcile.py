"""What a service does with its store and its data directory before it serves.

The store in memory may have outlived the service (a restart), or not (a new machine, a container).
What it holds is used where it is certain to be what the data directory knows, or later; else it is
filled from the data directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from keyrack.engines.contract import StoreError
from keyrack.engines.embedded.durability import journal
from keyrack.engines.embedded.durability.journal import NOWHERE, Position
from keyrack.engines.embedded.durability.recovery import recover
from keyrack.engines.embedded.durability.take_snapshot import take

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.engines.embedded.durability.group_sync import Syncer
    from keyrack.engines.embedded.durability.hold import Hold
    from keyrack.engines.embedded.engine import EmbeddedEngine


class Started(NamedTuple):
    """What an operator should know, a sentence each."""

    facts: list[str]
    troubles: list[str]


def start(engine: EmbeddedEngine, data: DataDirectory, keep: int, syncer: Syncer | None) -> Started:
    """Bring store and data directory together.

    `syncer` is given in the mode `commit`, which has a journal from here on. Raises `StoreError`.
    """
    hold = engine.hold()
    position = hold.position()
    started = Started([], [])
    certain, loaded = _is_latest(position, data), False
    if not certain and not _may_be_replaced(hold, position, data):
        raise StoreError(
            f"the store in {hold.env.path()} holds data that {data.path} does not know, and both "
            "have some. Name another --store or another --data-dir."
        )
    if not certain and (data.snapshots() or hold.is_empty()):
        position = _load(engine, hold, data, started)
        certain, loaded = True, bool(data.snapshots())
    if syncer is None:
        # Nobody has written anything since it was loaded.
        saved = hold.env.info()["last_txnid"] if loaded else 0
        hold.move(
            lambda found: found._replace(directory=data.name, boot=data.boot, saved=saved, on=False)
        )
    elif not (certain and position.on and _go_on(hold, data, syncer)):
        syncer.note(position)
        take(hold, data, keep, syncer)
        syncer.resume()
    data.remove_parts()
    return started


def _is_latest(position: Position, data: DataDirectory) -> bool:
    """Tell whether a store is the one of this data directory, with all that it knows."""
    newest = max(data.snapshots(), default=0)
    same = position.directory == data.name and position.boot == data.boot
    return same and position.number >= newest and position.number > 0


def _may_be_replaced(hold: Hold, position: Position, data: DataDirectory) -> bool:
    return position.directory == data.name or hold.is_empty() or not data.snapshots()


def _load(engine: EmbeddedEngine, hold: Hold, data: DataDirectory, started: Started) -> Position:
    """Fill the store from the data directory and return the journal's position."""
    # If this is broken off, the next start sees by the number that the store is not whole.
    hold.move(lambda _: NOWHERE._replace(directory=data.name, boot=data.boot))
    hold.clear()
    found = recover(hold, data)
    started.troubles.extend(found.troubles)
    engine.set_clock(found.last_ms)
    engine.begin_life()
    if found.summary is not None:
        started.facts.append(
            f"Snapshot {found.snapshot} of {data.path} was loaded: {hold.keys()} keys, with "
            f"{found.entries} later transactions of the journal."
        )
    return hold.move(
        lambda position: position._replace(
            number=max(data.next_number() - 1, 1),
            sequence=found.sequence,
            # The journals here go on from a snapshot that was made here.
            on=found.summary is not None and not found.restored,
        )
    )


def _go_on(hold: Hold, data: DataDirectory, syncer: Syncer) -> bool:
    """Begin a journal that follows on the last ones; False when a snapshot is needed instead."""
    if syncer.broken:
        return False
    number = data.next_number()
    try:
        for older in data.journals():
            _sync(data, data.journal(older))
        journal.create(data, number)
        with hold.writing() as txn:
            position = journal.begin(txn, data, number)
        _sync(data, data.journal(number))
    except OSError:
        return False
    syncer.note(position)
    return True


def _sync(data: DataDirectory, path: str) -> None:
    descriptor = data.files.open(path)
    try:
        data.files.sync(descriptor)
    finally:
        os.close(descriptor)
