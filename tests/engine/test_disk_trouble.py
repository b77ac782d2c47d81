"""A disk that is full or fails: writes are refused, nothing is promised, and later it goes on."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest
from engine_support.contents import contents
from engine_support.kept import KeptStore
from engine_support.world import attempt, put, value_of

from keyrack.engines.contract import ANY, Condition, Delete, Refusal, Set, Why
from keyrack.engines.embedded.database import JournalFailed
from keyrack.engines.embedded.durability.files import Files
from keyrack.server.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from keyrack.engines.contract import Outcome


class TroubledFiles(Files):
    """The system's files, on a disk that fails when it is told to."""

    def __init__(self) -> None:
        self.write_error = 0
        self.sync_error = 0
        self.syncs = 0

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if self.write_error:
            # As a disk that gets full does: a part of it is there.
            os.pwrite(descriptor, data[: len(data) // 2], offset)
            raise OSError(self.write_error, os.strerror(self.write_error))
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(descriptor)


@pytest.fixture
def files() -> TroubledFiles:
    return TroubledFiles()


@pytest.fixture
def kept(shm: Path, tmp_path: Path, files: TroubledFiles) -> Iterator[KeptStore]:
    """A store whose every write is kept; every test ends with its audit."""
    store = KeptStore(shm, tmp_path, strict=True, files=files)
    put(store.engine, b"before")
    assert store.sync()
    yield store
    problems = store.engine.check()
    store.close()
    assert problems == []


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (errno.ENOSPC, Why.DISK_FULL),
        (errno.EDQUOT, Why.DISK_FULL),
        (errno.EIO, Why.DISK),
        (errno.EROFS, Why.DISK),
    ],
)
def test_what_cannot_be_written_down_is_not_done(
    kept: KeptStore, files: TroubledFiles, error: int, why: Why
) -> None:
    before = contents(kept.engine)
    files.write_error = error
    assert attempt(kept.engine, Set(b"k", b"v" * 100)) == Refusal(why)
    assert attempt(kept.engine, Delete(b"before")) == Refusal(why)
    assert contents(kept.engine) == before
    files.write_error = 0
    put(kept.engine, b"k", b"later")
    assert kept.sync()
    before = contents(kept.engine)
    kept.lose_memory()
    assert contents(kept.engine) == before


def test_expiry_waits_for_the_disk(kept: KeptStore, files: TroubledFiles) -> None:
    put(kept.engine, b"short", ttl_ms=1)
    kept.clock.advance(2)
    files.write_error = errno.ENOSPC
    with pytest.raises(JournalFailed):
        kept.engine.expire(10)
    assert value_of(kept.engine, b"short") is None, "it is over all the same"
    files.write_error = 0
    assert kept.engine.expire(10).expired == 1


def test_after_a_sync_that_failed_nothing_is_taken_until_all_of_it_is_in_a_snapshot(
    kept: KeptStore, files: TroubledFiles
) -> None:
    put(kept.engine, b"k", b"may be lost")
    files.sync_error = errno.EIO
    assert not kept.sync()
    assert attempt(kept.engine, Set(b"k", b"v")) == Refusal(Why.DISK)
    assert value_of(kept.engine, b"k") == b"may be lost"
    files.sync_error = 0
    assert not kept.sync(), "that a later sync succeeds means nothing"
    assert attempt(kept.engine, Set(b"k", b"v")) == Refusal(Why.DISK)
    kept.take()
    put(kept.engine, b"k", b"kept")
    assert kept.sync()
    # The journal whose sync failed is needed by nobody any more.
    broken = kept.data.journal(kept.data.journals()[0])
    with open(broken, "r+b") as file:
        file.truncate(0)
    before = contents(kept.engine)
    kept.lose_memory()
    assert contents(kept.engine) == before
    assert kept.started.troubles == []


def test_a_snapshot_that_fails_too_lets_nothing_be_written(
    kept: KeptStore, files: TroubledFiles
) -> None:
    put(kept.engine, b"k")
    files.sync_error = errno.EIO
    assert not kept.sync()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            kept.take()
        assert attempt(kept.engine, Set(b"k", b"v")) == Refusal(Why.DISK)
    files.sync_error = 0
    kept.take()
    put(kept.engine, b"k", b"again")
    assert kept.sync()


def test_a_store_that_outlived_a_service_with_a_broken_journal_begins_with_a_snapshot(
    kept: KeptStore, files: TroubledFiles
) -> None:
    put(kept.engine, b"k", b"only in memory")
    files.sync_error = errno.EIO
    assert not kept.sync()
    files.sync_error = 0
    snapshots = kept.data.snapshots()
    kept.restart()
    assert value_of(kept.engine, b"k") == b"only in memory"
    assert kept.data.snapshots()[-1] > snapshots[-1]
    kept.lose_memory()
    assert value_of(kept.engine, b"k") == b"only in memory"


def test_a_read_may_see_what_is_not_on_the_disk_yet(kept: KeptStore, files: TroubledFiles) -> None:
    syncs = files.syncs
    put(kept.engine, b"k", b"seen")
    assert value_of(kept.engine, b"k") == b"seen"
    assert files.syncs == syncs


# As a worker has it


def outcomes_of(kept: KeptStore, *calls: Sequence[bytes | Set]) -> list[list[Outcome]]:
    """Have values set as a worker does, a call for each list of keys or sets, all at once."""

    async def run() -> list[list[Outcome]]:
        loop = asyncio.get_running_loop()
        writes = GroupCommit(kept.engine, loop)
        asked = (
            writes.write([(Set(key, b"v") if isinstance(key, bytes) else key,) for key in keys])
            for keys in calls
        )
        found = await asyncio.gather(*asked)
        writes.close()
        return list(map(list, found))

    return asyncio.run(run())


def test_writes_that_wait_together_share_a_sync(kept: KeptStore, files: TroubledFiles) -> None:
    files.syncs = 0
    found = outcomes_of(kept, [b"first"], *([b"%d" % n, b"x"] for n in range(50)))
    assert [len(outcomes) for outcomes in found] == [1, *(2 for _ in range(50))]
    assert not any(isinstance(one, Refusal) for outcomes in found for one in outcomes)
    assert files.syncs == 3, "the first and the mark of its journal, and all that came meanwhile"


def test_those_that_were_answered_share_the_next_sync_with_those_that_wait(
    kept: KeptStore, files: TroubledFiles
) -> None:
    """Eight clients, whose next write comes some turns of the loop behind the answer."""

    async def run() -> None:
        writes = GroupCommit(kept.engine, asyncio.get_running_loop())

        async def client(key: bytes) -> None:
            for _ in range(6):
                (outcome,) = await writes.write([(Set(key, b"v"),)])
                assert not isinstance(outcome, Refusal)
                for _ in range(3):
                    await asyncio.sleep(0)

        await asyncio.gather(*(client(b"%d" % number) for number in range(8)))
        writes.close()

    put(kept.engine, b"before")
    files.syncs = 0
    asyncio.run(run())
    assert files.syncs <= 8, "the mark of the journal, the first alone, and six for all of them"


def test_a_failed_sync_is_no_success_for_anybody(
    kept: KeptStore, files: TroubledFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.sync_error = errno.EIO
    found = outcomes_of(kept, [b"a"], [b"b", b"c"])
    assert found == [[Refusal(Why.DISK)], [Refusal(Why.DISK)] * 2]
    assert [record.message for record in caplog.records] == [
        f"the disk under {kept.data.path} has failed; writes are refused"
    ]


def test_a_sync_thread_that_cannot_tell_leaves_nobody_waiting(
    kept: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept.group_sync is not None

    def fail(self: object) -> None:
        raise RuntimeError("no readers left")

    monkeypatch.setattr(type(kept.engine.database), "position", fail)
    assert outcomes_of(kept, [b"a"], [b"b"]) == [[Refusal(Why.DISK)]] * 2


def test_a_refusal_waits_for_the_disk_too(kept: KeptStore, files: TroubledFiles) -> None:
    """The condition does not hold because of a write that is not on the disk."""
    create = Set(b"k", b"v", condition=Condition(none_match=ANY))
    put(kept.engine, b"k")
    files.sync_error = errno.EIO
    assert outcomes_of(kept, [create]) == [[Refusal(Why.DISK)]]
    files.sync_error = 0
    kept.take()
    assert outcomes_of(kept, [create])[0][0].why is Why.CONDITION  # type: ignore[union-attr]


def test_a_full_disk_is_told_once_and_so_is_its_end(
    kept: KeptStore, files: TroubledFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> list[object]:
        loop = asyncio.get_running_loop()
        writes = GroupCommit(kept.engine, loop)
        found: list[object] = []
        for error in (0, errno.ENOSPC, errno.ENOSPC, 0, 0):
            files.write_error = error
            found += await writes.write([(Set(b"k", b"v"),)])
        writes.close()
        return found

    full = Refusal(Why.DISK_FULL)
    found = asyncio.run(run())
    assert [outcome == full for outcome in found] == [False, True, True, False, False]
    assert [record.message for record in caplog.records] == [
        f"the disk under {kept.data.path} is full; writes are refused",
        "writes are kept on the disk again",
    ]
