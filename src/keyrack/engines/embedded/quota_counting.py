"""Which quotas a store goes by, and the counting of keys that were there before a quota."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines import record as wire
from keyrack.engines.contract import Space
from keyrack.engines.embedded.quotas import bytes_of, count_of, go_by, gone_by, put_count
from keyrack.engines.quotas import QUOTA, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.engines.contract import Quota
    from keyrack.engines.embedded.database import Cursor, Database, ReadTransaction
    from keyrack.engines.embedded.quotas import QuotaCount

_STEPS: Final = 1000
"""Keys that one commit counts: about a millisecond."""


def count_some(database: Database) -> bool:
    """Go by the quotas that are kept, and count some keys; say whether more are to be counted.

    Where there is no room for it nothing more is counted: `usage` tells of which quotas.
    """
    with database.read() as look:
        if not (gone_by(look) or _kept(look)):
            return False
    with contextlib.suppress(lmdb.MapFullError), database.maintain() as txn:
        if go_by(txn, _kept(txn)):
            database.words.quotas += 1
        for quota in gone_by(txn):
            count = count_of(txn, quota)
            if not count.counted:
                _count(txn, quota, count)
                put_count(txn, quota, count)
                return True
    return False


def count_all(database: Database) -> None:
    """Go by the quotas that are kept, all keys counted, before anybody else uses the store."""
    while count_some(database):
        pass


def _kept(txn: ReadTransaction) -> list[Quota]:
    with txn.cursor(txn.database.spaces[Space.ADMIN]) as cursor:
        return [decode(wire.unpack(raw).value) for _, raw in _below(cursor, QUOTA, QUOTA)]


def _count(txn: ReadTransaction, quota: Quota, count: QuotaCount) -> None:
    """Count some keys of a quota, from the last one that is counted on."""
    prefix, looked = quota.prefix.encode(), 0
    with txn.cursor(txn.database.spaces[Space.KEYS]) as cursor:
        for key, raw in _below(cursor, prefix, max(prefix, count.last)):
            if looked == _STEPS:
                return
            looked += 1
            if key > count.last:
                count.keys += 1
                count.bytes += bytes_of(key, raw)
                count.last = key
    count.counted, count.last = True, b""


def _below(cursor: Cursor, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys that begin with a prefix, and their records, from one on."""
    there = cursor.set_range(start)
    while there and cursor.key().startswith(prefix):
        yield cursor.item()
        there = cursor.next()
