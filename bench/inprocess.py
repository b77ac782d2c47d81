"""`python -m bench.inprocess`: what a get and a set cost in a store of one's own.

`keyrack.open` beside a dict, LMDB with nothing around it, sqlite3 and, where it is installed,
diskcache, which is what programs use for the same. All are on tmpfs, with values of 32 bytes under
1000 keys. The figure is CPU time of this process for an operation, in µs: the median of the rounds,
in each of which all have their turn.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import lmdb

import keyrack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS: Final = [f"key-{number}" for number in range(1000)]
VALUE: Final = "v" * 32
SHARED_MEMORY: Final = "/dev/shm"


class Store(NamedTuple):
    """Something that keeps values under keys."""

    get: Callable[[str], Any]
    set: Callable[[str, str], Any]


@contextmanager
def _dict(_: str) -> Iterator[Store]:
    found: dict[str, str] = {}
    yield Store(found.get, found.__setitem__)


@contextmanager
def _keyrack(_: str) -> Iterator[Store]:
    with keyrack.open() as store:
        yield Store(store.get, store.set)


@contextmanager
def _keyrack_on_disk(_: str) -> Iterator[Store]:
    with (
        tempfile.TemporaryDirectory() as directory,
        keyrack.open(Path(directory, "data")) as store,
    ):
        yield Store(store.get, store.set)


@contextmanager
def _lmdb(directory: str) -> Iterator[Store]:
    with lmdb.open(directory, map_size=64 << 20, writemap=True, sync=False) as environment:

        def get(key: str) -> str | None:
            with environment.begin() as txn:
                found: bytes | None = txn.get(key.encode())
            return None if found is None else found.decode()

        def put(key: str, value: str) -> None:
            with environment.begin(write=True) as txn:
                txn.put(key.encode(), value.encode())

        yield Store(get, put)


@contextmanager
def _sqlite(directory: str) -> Iterator[Store]:
    database = sqlite3.connect(Path(directory, "store"), isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE store (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def get(key: str) -> str | None:
        found = database.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def put(key: str, value: str) -> None:
        database.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (key, value))

    yield Store(get, put)
    database.close()


@contextmanager
def _diskcache(directory: str) -> Iterator[Store]:
    diskcache = importlib.import_module("diskcache")
    with diskcache.Cache(directory) as cache:
        yield Store(cache.get, cache.set)


STORES: Final = {
    "dict": _dict,
    "LMDB alone": _lmdb,
    "keyrack.open()": _keyrack,
    "keyrack.open(path)": _keyrack_on_disk,
    "sqlite3": _sqlite,
    "diskcache": _diskcache,
}


def _cost(work: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count / len(KEYS) * 1e6


def _costs(store: Store, rounds: int) -> tuple[float, float]:
    """Return what a set and a get cost."""

    def fill() -> None:
        for key in KEYS:
            store.set(key, VALUE)

    def read() -> None:
        for key in KEYS:
            if store.get(key) != VALUE:
                raise AssertionError(f"{key} is not what was stored")

    return _cost(fill, rounds), _cost(read, rounds)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.inprocess", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    names = [name for name in STORES if name != "diskcache" or importlib.util.find_spec(name)]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with ExitStack() as stack:
        stores = {}
        for name in names:
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=SHARED_MEMORY))
            stores[name] = stack.enter_context(STORES[name](directory))
        for _ in range(given.rounds):
            for name, store in stores.items():
                found[name].append(_costs(store, 1))
    print("| store | get, µs | set, µs |\n|---|---|---|")
    for name, costs in found.items():
        sets, gets = zip(*costs, strict=True)
        print(f"| {name} | {median(gets):.2f} | {median(sets):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
