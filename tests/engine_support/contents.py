"""What a store holds, whole, for comparing two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.engines.contract import Space
from keyrack.engines.embedded.pieces import Pieces

if TYPE_CHECKING:
    from engine_support.driven import Driven


def contents(engine: Driven) -> dict[str, Any]:
    """Return every record of every space, byte for byte, and every event."""
    found: dict[str, Any] = {}
    with engine.database.read() as txn:
        pieces = Pieces(txn)
        for space in Space:
            cursor = txn.cursor(engine.database.spaces[space])
            found[space.name] = {key: pieces.whole(space, raw) for key, raw in cursor}
    found["events"] = list(engine.events())
    return found
