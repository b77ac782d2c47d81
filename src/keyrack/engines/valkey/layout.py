"""Where things are in Valkey: the one module that knows how keys become names and shards.

A store has S shards. Everything of a shard shares the tag in its names and therefore a slot, so
that one function of the server can change all of it at once. Valkey's rule of hash tags holds for
users' keys too: where a key has a part in braces, that part alone decides on its shard.

    PREFIX {TAG} LETTER REST        `library.lua` lists the letters
"""

from __future__ import annotations

import binascii
import itertools
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import LEASE, Space

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyrack.engines.contract import Operation, Write

SLOTS: Final = 16384
CLUSTER_SHARDS: Final = 64
MAX_SHARDS: Final = 1024
FORMAT: Final = 3
EARLIER_FORMATS: Final = (1, 2)
"""There were no stale copies in the first one, and nothing that caches may keep in both; everything
else is the same."""

STATE: Final = b"s"
NEVER: Final = b"-"
NEVER_LENIENT: Final = b"+"
"""Names under which nothing is ever kept; `library.lua` says what they are good for."""
MOVING: Final = "KEYRACKMOVING"
"""The first word of an error reply of a shard that is not whole."""
META: Final = b"{meta}m"
"""A hash: format, number of shards, the store's id. Its slot does not depend on any of them."""
INDEX: Final = b"i"
COPIES: Final = b"v"
TRASH: Final = b"r"
UNDOS: Final = b"f"
EVENTS: Final = b"e"
CHANNEL: Final = b"n"
KINDS: Final = {Space.KEYS: b"k", Space.LOCKS: b"l", Space.ANSWERS: b"a", Space.ADMIN: b"t"}
ENDS: Final = {Space.KEYS: b"x", Space.LOCKS: b"y"}


def slot_of(name: bytes) -> int:
    """Return the slot of a cluster that a name belongs to."""
    return binascii.crc_hqx(tagged(name), 0) % SLOTS


def tagged(name: bytes) -> bytes:
    """Return the part of a name that decides on its slot."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            return name[start + 1 : end]
    return name


def _tags(shards: int) -> list[bytes]:
    """Return a tag for each shard, its slot within the shard's equal part of all slots."""
    found: dict[int, bytes] = {}
    for number in itertools.count():
        tag = b"%x" % number
        found.setdefault(binascii.crc_hqx(tag, 0) % SLOTS * shards // SLOTS, tag)
        if len(found) == shards:
            return [found[shard] for shard in range(shards)]
    raise AssertionError  # unreachable: counting does not end


class Layout:
    """The names of one store. A shard's number is its place in every list here."""

    def __init__(self, prefix: bytes, shards: int) -> None:
        self.shards = shards
        self.bases = [b"%b{%b}" % (prefix, tag) for tag in _tags(shards)]
        self.slots = [slot_of(base) for base in self.bases]
        self.records = [base + KINDS[Space.KEYS] for base in self.bases]
        self.meta = prefix + META

    def shard_of(self, key: bytes) -> int:
        """Return the shard of a user's key or a lock's name; a lease is where its key is."""
        if self.shards == 1:
            return 0
        key = key.removeprefix(LEASE)
        return binascii.crc_hqx(tagged(key), 0) % self.shards

    def by_shard(self, keys: Iterable[bytes]) -> dict[int, list[bytes]]:
        """Return the keys of each shard, each once."""
        shards: dict[int, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            shards.setdefault(self.shard_of(key), []).append(key)
        return shards

    def shard_of_write(self, write: Write) -> int | None:
        """Return the one shard that a write touches, None where there are several.

        What is remembered of a write is kept beside what the write changes.
        """
        if self.shards == 1:
            return 0
        keys: Sequence[Operation] = write
        shards = {self.shard_of(operation.key) for operation in _movers(keys)}
        return shards.pop() if len(shards) == 1 else None


def _movers(write: Sequence[Operation]) -> Sequence[Operation]:
    from keyrack.engines.contract import Remember

    if len(write) > 1 and isinstance(write[0], Remember):
        return write[1:]
    return write
