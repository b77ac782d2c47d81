"""Keys as rows: what `ls`, `find` and others print of a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.cli.printing import Column
from keyrack.cli.spec import Flag
from keyrack.client import Folder

if TYPE_CHECKING:
    from keyrack.client import ScanEntry

FORMATS: Final = ("raw", "table", "json", "jsonl")
SHORT: Final = (Column("KEY", "key", colour=""),)
LONG: Final = (
    Column("SIZE", "size", right=True),
    Column("TTL", "ttl", right=True),
    Column("ETAG", "etag"),
    Column("TYPE", "type", colour="dim"),
    Column("KEY", "key", colour="bold"),
)
LONG_FLAG: Final = Flag(("-l", "--long"), "with size, TTL, ETag and type, as a table")
ZERO_FLAG: Final = Flag(("-0", "--zero"), "end each key with a NUL, for `xargs -0`")


def record(item: ScanEntry | Folder) -> dict[str, Any]:
    """Return a key, or a folder, as a record."""
    if isinstance(item, Folder):
        return {"key": item.name, "folder": True}
    return {
        "key": item.key,
        "folder": False,
        "size": item.size,
        "type": item.media_type,
        "ttl": item.ttl,
        "etag": item.etag,
    }
