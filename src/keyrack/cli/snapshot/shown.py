"""How a snapshot is told of in a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyrack.engines.embedded.durability.snapshot import Summary


def shown(name: str, size: int, summary: Summary) -> str:
    """Return the line of a good snapshot of `size` bytes."""
    taken = datetime.fromtimestamp(summary.wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{name}  taken {taken}  revision {summary.revision}  {summary.keys} keys  {size} bytes"
