"""What keeps the embedded store on a disk: snapshots, and a journal of changes.

The store itself stays in shared memory. A snapshot is a file with all of it, as it was at one
moment; a journal is a file with the changes after that. `--durability snapshot` keeps a journal
only while a snapshot is being taken, `--durability commit` always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.data_directory import DataDirectory


class DurabilityConfig(NamedTuple):
    """Where a store is kept, and whether (`strict`) every change is before it is acknowledged."""

    data: DataDirectory
    strict: bool
