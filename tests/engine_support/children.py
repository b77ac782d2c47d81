"""Programs that tests run as other processes: `python -m engine_support.children VERB ARGUMENT...`.

They talk in lines: what they did goes to standard output, and most end with their standard input.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from engine_support.driven import Driven, embedded
from engine_support.world import put
from keyrack.engines.contract import ANY, Condition, Delete, Refusal, Set, WhenFull
from keyrack.engines.embedded.directory import prepare
from keyrack.engines.embedded.durability import DurabilityConfig
from keyrack.engines.embedded.durability.data_directory import look
from keyrack.engines.embedded.durability.take_snapshot import _Taking
from keyrack.engines.embedded.durability.take_snapshot import take as take_a_snapshot
from keyrack.engines.embedded.events import EventLog

SLOTS = 100


def tell(*words: object) -> None:
    """Send a line at once: a single system call, so that a killed child leaves none half-told."""
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


def wait() -> None:
    """Wait for a line, or for the parent to let go."""
    sys.stdin.readline()


def count(directory: str, memory: str, key: str, times: str) -> None:
    """Add one to a decimal value by compare-and-set, so many times."""
    engine = embedded(directory, int(memory))
    name = key.encode()
    tell("open")
    wait()
    for _ in range(int(times)):
        while True:
            record = engine.get(name)
            if record is None:
                operation = Set(name, b"1", condition=Condition(none_match=ANY))
            else:
                unchanged = Condition(match=frozenset([record.revision]))
                operation = Set(name, b"%d" % (int(record.value) + 1), condition=unchanged)
            if not isinstance(engine.write([(operation,)])[0], Refusal):
                break
    engine.close()
    tell("done")


def slot_after(step: int) -> tuple[bytes, bytes | None]:
    """Return which of a writer's keys its step changes, and the value after it, None if deleted."""
    slot = b"%d" % (step % SLOTS)
    if step % 5 == 4:
        return slot, None
    return slot, b"%d " % step + b"x" * (step * 37 % 6000)


def write(directory: str, memory: str, name: str) -> None:
    """Change keys of its own for ever, and tell each step after it was acknowledged."""
    engine = embedded(directory, int(memory))
    step = 0
    while True:
        slot, value = slot_after(step)
        key = name.encode() + b"-" + slot
        operation = Delete(key) if value is None else Set(key, value, ttl_ms=step % 3 * 3_600_000)
        while isinstance(engine.write([(operation,)])[0], Refusal):
            # Somebody's long read keeps pages from being used again.
            time.sleep(0.001)
        tell(step)
        step += 1


def _kept(directory: str, memory: str, disk: str, strict: bool = False) -> Driven:
    """Open a store that is kept on a disk, as a worker does."""
    return embedded(directory, int(memory), kept=DurabilityConfig(look(disk), strict))


def only(step: int) -> bytes:
    """Return the key that is there after a step and no other; it is anywhere among the rest."""
    return b"%05d only %d" % (step * 7919 % 20_000, step)


def lockstep(directory: str, memory: str, disk: str) -> None:
    """Change thirty keys together for ever, and have one more that moves on with each step."""
    engine = _kept(directory, memory, disk)
    tell("open")
    step = 0
    while True:
        step += 1
        value = b"%d" % step
        (outcome,) = engine.write(
            [
                (
                    *(Set(b"%05d step" % (number * 666), value) for number in range(30)),
                    Delete(only(step - 1)),
                    Set(only(step), b"here"),
                )
            ]
        )
        assert not isinstance(outcome, Refusal), outcome


def take_snapshot(directory: str, memory: str, disk: str) -> None:
    """Take a snapshot, and tell its number and how many transactions were made meanwhile."""
    engine = _kept(directory, memory, disk)
    database = engine.database
    before = database.last_transaction
    taken = take_a_snapshot(database, look(disk), gently=True)
    look(disk).prune(2)
    tell("taken", taken.number, database.last_transaction - before - 3)
    engine.close()


def die_taking(directory: str, memory: str, disk: str) -> None:
    """Kill itself while it takes a snapshot, the records copied."""
    engine = _kept(directory, memory, disk)
    copy = _Taking._copy

    def die(*arguments: Any) -> None:
        copy(*arguments)
        tell("dying")
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(_Taking, "_copy", die)  # noqa: B010  # as below
    take_a_snapshot(engine.database, look(disk))


def die_kept(directory: str, memory: str, disk: str, when: str) -> None:
    """Kill itself inside a write that is kept: its entry in the journal is `made` or not yet."""
    engine = _kept(directory, memory, disk, strict=True)
    assert engine.journal is not None
    write_down = engine.journal.write_down

    def die(*arguments: Any) -> None:
        if when == "made":
            write_down(*arguments)
        tell("dying")
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(engine.journal, "write_down", die)  # noqa: B010  # as below
    put(engine, b"never", b"acknowledged")


def die_writing(directory: str, memory: str, when: str) -> None:
    """Kill itself inside a write, with the lock held, `when` the change is made or not yet."""
    engine = embedded(directory, int(memory))
    append: Any = EventLog.append

    def die(*arguments: Any) -> None:
        if when == "made":
            append(*arguments)
        tell("dying")
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(EventLog, "append", die)  # noqa: B010  # to a checker, methods cannot be replaced
    put(engine, b"never", b"acknowledged")


def hold_snapshot(directory: str, memory: str, key: str) -> None:
    """Hold a read transaction open until told, and look whether it still sees the same."""
    engine = embedded(directory, int(memory))
    records = engine.database.spaces[0]
    with engine.database.read() as txn:
        before = list(txn.cursor(records))
        tell("holding", len(before), txn.get(key.encode(), records) is not None)
        wait()
        tell("same" if list(txn.cursor(records)) == before else "changed")
    engine.close()


def read_slowly(directory: str, memory: str) -> None:
    """Read until told no more, each time as if the processor were lost in the middle of it."""
    engine = embedded(directory, int(memory), when_full=WhenFull.EVICT)
    tell("reading")
    while not select.select([sys.stdin], [], [], 0)[0]:
        with engine.database.read():
            time.sleep(0.004)
    engine.close()


def serve(directory: str, memory: str) -> None:
    """Answer calls: each line is a Python literal, (name, argument...), and so is each answer."""
    engine = embedded(directory, int(memory))
    tell("open")
    for line in sys.stdin:
        name, *arguments = ast.literal_eval(line)
        if name == "set":
            outcome = engine.write([(Set(*arguments),)])[0]
            tell(repr(None if isinstance(outcome, Refusal) else outcome[0].revision))
        elif name == "delete":
            outcome = engine.write([(Delete(*arguments),)])[0]
            tell(repr(None if isinstance(outcome, Refusal) else outcome[0].existed))
        elif name == "get":
            record = engine.get(*arguments)
            tell(repr(None if record is None else record.value))
        elif name == "readers":
            # Each open transaction takes a slot of the file that the readers share.
            transactions = [engine.database.read() for _ in range(*arguments)]
            tell(repr(len(transactions)))
            for transaction in transactions:
                transaction.abort()
        else:
            answer = getattr(engine, name)(*arguments)
            tell(repr(answer if isinstance(answer, int | list) else str(answer)))
    engine.close()


def overfill(directory: str, memory: str, name: str, times: str) -> None:
    """Set so many keys of a store that evicts, and tell how many of them were refused."""
    engine = embedded(directory, int(memory), when_full=WhenFull.EVICT)
    tell("open")
    wait()
    refused = 0
    for number in range(int(times)):
        key = name.encode() + b"-%d" % number
        outcome = engine.write([(Set(key, key * (number * 37 % 700)),)])[0]
        refused += isinstance(outcome, Refusal)
        tell(number)
    engine.close()
    tell("refused", refused)


def read_often(directory: str, memory: str, *keys: str) -> None:
    """Read each of some keys of a store that evicts, whenever told to, until told no more."""
    engine = embedded(directory, int(memory), when_full=WhenFull.EVICT)
    tell("open")
    for _ in sys.stdin:
        tell(sum(engine.get(key.encode()) is not None for key in keys))
    engine.close()


def take(store: str, seconds: str = "") -> None:
    """Take a named store, and give it up when told, or after so many seconds."""
    place = prepare(store, 8 << 20, 1 << 30, 100)
    tell(place.path)
    if seconds:
        time.sleep(float(seconds))
    else:
        wait()
    place.close()


def take_unnamed(parent: str) -> None:
    """Take a store without a name, and give it up when told."""
    place = prepare(None, 8 << 20, 1 << 30, 100, Path(parent))
    tell(place.path)
    wait()
    place.close()


def take_and_fork(store: str) -> None:
    """Take a named store, have a child, and die without giving it up; the child waits."""
    prepare(store, 8 << 20, 1 << 30, 100)
    if os.fork():
        os._exit(1)
    tell(os.getpid())
    wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
