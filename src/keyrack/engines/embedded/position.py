"""Where the journal is, as the database knows it: a note that a commit changes with the rest."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

_POSITION: Final = Struct(">16s36sQQQQ?")


class Position(NamedTuple):
    """A position of the journal."""

    directory: bytes
    """The name of the data directory; zeros before there was one."""
    boot: bytes
    """The start of the machine in which this was written."""
    number: int
    """The journal's number."""
    offset: int
    """Where its committed entries end."""
    sequence: int
    """The number of the last committed entry; it goes on from journal to journal."""
    saved: int
    """The database's transaction that the last snapshot was taken at."""
    on: bool
    """Whether changes are written down."""

    @classmethod
    def unpack(cls, raw: bytes | None) -> Position:
        """Return the position that `pack` wrote; `NOWHERE` where there is none."""
        return NOWHERE if raw is None else cls(*_POSITION.unpack(raw))

    def pack(self) -> bytes:
        """Return the position as it is kept in the store."""
        return _POSITION.pack(*self)


NOWHERE: Final = Position(bytes(16), bytes(36), 0, 0, 0, 0, False)
