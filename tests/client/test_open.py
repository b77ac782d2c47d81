"""`keyrack.open`: a store in one's own process, where that differs from a service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server.server import clean_environment

import keyrack
from keyrack.engines.contract import Refusal, Why
from keyrack.engines.embedded.directory import unnamed_stores
from keyrack.engines.embedded.locking import owner_of
from keyrack.http import eager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from keyrack import OwnClient

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def store() -> Iterator[OwnClient]:
    with keyrack.open() as one:
        yield one


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until something holds, and tell whether it did in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def test_a_store_is_there_until_it_is_closed() -> None:
    with keyrack.open() as store:
        store.set("a", {"n": 1}, ttl=60)
        assert store.get("a") == {"n": 1}
        path = store.path
        assert os.stat(path).st_mode & 0o077 == 0
    assert not os.path.exists(path)
    store.close()
    for ask in (
        lambda: store.get("a"),
        lambda: store.set("a", 1),
        lambda: store.get_value("a"),
        lambda: store.get_many(["a"]),
        store.info,
    ):
        with pytest.raises(keyrack.Unreachable, match="was closed"):
            ask()


def test_no_process_is_started_and_nothing_is_listened_on() -> None:
    before = _children()
    with keyrack.open() as store:
        store.set("a", 1)
        assert store.info()["keys"] == 1
        assert _children() <= before
        mine = {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()}
        with open("/proc/net/tcp", encoding="ascii") as table:
            listening = {f"socket:[{line.split()[9]}]" for line in table if line.split()[3] == "0A"}
        assert not mine & listening


def _children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return set(file.read().split())


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.readlink(f"/proc/self/fd/{name}")
            yield name


def test_two_stores_of_one_process_know_nothing_of_each_other(store: OwnClient) -> None:
    with keyrack.open() as other:
        store.set("a", 1)
        assert other.get("a") is None


@pytest.mark.parametrize("durability", ["commit", "snapshot"])
def test_a_store_with_a_path_keeps_what_was_written(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "data"
    for number in range(3):
        with keyrack.open(path, durability=durability) as store:
            assert store.get("kept") == (number - 1 if number else None)
            store.set("kept", number)


def test_a_second_opener_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "data"
    code = f"import keyrack; keyrack.open({str(path)!r})"
    with keyrack.open(path) as store:
        with pytest.raises(keyrack.AlreadyOpen, match="in use"):
            keyrack.open(path)
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment()
        )
        assert "AlreadyOpen" in other.stderr
        store.set("a", 1)
    keyrack.open(path).close()


def test_what_cannot_be_opened_gets_a_sentence_in_the_words_of_open(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goes with"):
        keyrack.open(tmp_path, durability="none")
    with pytest.raises(ValueError, match="goes with"):
        keyrack.open(durability="commit")
    for bad, said in (("much", "memory="), ("1k", "at least"), ("900t", "memory=")):
        with pytest.raises(keyrack.OpenFailed, match=said) as raised:
            keyrack.open(memory=bad)
        assert "--memory" not in str(raised.value)
    with pytest.raises(keyrack.OpenFailed, match="when_full="):
        keyrack.open(when_full="sometimes")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(keyrack.OpenFailed, match=r"notes\.txt"):
        keyrack.open(tmp_path)
    with pytest.raises(ValueError, match="timeout"):
        keyrack.open(timeout=-1)


def test_a_failed_opening_leaves_nothing_behind() -> None:
    before = _mine()
    with pytest.raises(ValueError, match="timeout"):
        keyrack.open(timeout=-1)
    assert _mine() == before


def test_a_store_that_was_closed_holds_nothing_any_more() -> None:
    _used_and_closed()
    gc.collect()
    before = len(list(_descriptors()))
    paths = [_used_and_closed() for _ in range(5)]
    gc.collect()
    assert len(list(_descriptors())) <= before
    with open("/proc/self/maps", encoding="ascii") as file:
        maps = file.read()
    assert not [path for path in paths if path in maps]


def _used_and_closed() -> str:
    with keyrack.open() as store:
        store.set("a", 1)
        store.wait("a")
        return store.path


def _mine() -> tuple[set[Path], set[threading.Thread]]:
    """Return the directories of this process' stores, and their threads."""
    found = set()
    for path in unnamed_stores():
        with contextlib.suppress(OSError):  # somebody else's, which goes in this very moment
            if owner_of(str(path)) == str(os.getpid()):
                found.add(path)
    return found, {one for one in threading.enumerate() if one.name == "keyrack-store"}


def test_a_full_store_refuses_or_evicts_as_it_was_told() -> None:
    value = b"x" * 100_000
    with keyrack.open(memory="8m") as store:
        _fill_until_refused(store, value)
    with keyrack.open(memory="8m", when_full="evict") as store:
        for number in range(200):
            store.set(str(number), value)
        assert store.get("199") == value
        assert 0 < store.count() < 150


def _fill_until_refused(store: OwnClient, value: bytes) -> None:
    for number in range(200):
        try:
            store.set(str(number), value)
        except keyrack.StoreFull:
            return
    pytest.fail("the store took more than it has memory for")


def test_a_write_that_was_refused_for_now_is_not_repeated_unless_that_is_safe(
    store: OwnClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[object] = []

    def refuse(writes: list[object]) -> list[Refusal]:
        applied.extend(writes)
        return [Refusal(Why.DISK)] * len(writes)

    monkeypatch.setattr(store._engine, "apply", refuse)
    with pytest.raises(keyrack.Unavailable, match="disk"):
        store.set("a", 1, if_none_match="*")
    assert len(applied) == 1
    with pytest.raises(keyrack.Unavailable, match="disk"):
        store.touch("a", 5)
    assert len(applied) > 2


def test_what_ends_is_told_to_those_who_watch(store: OwnClient) -> None:
    with store.watch("w", since=int(store.info()["revision"])) as watch:
        store.set("w", "v", ttl=0.05)
        kinds = [next(watch).kind for _ in range(2)]
    assert kinds == ["set", "expire"]


def test_a_watch_misses_nothing_that_other_threads_write_while_it_begins(store: OwnClient) -> None:
    stop = threading.Event()
    last = 0

    def write() -> None:
        nonlocal last
        while not stop.is_set():
            last += 1
            store.set("n", last)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            with store.watch("n", values=True) as watch:
                first = next(watch)
                second = next(watch)
            assert second.revision == first.revision + 1
    finally:
        stop.set()
        thread.join()
    with store.mirror("n") as mirror:
        mirror.wait_synced()
        store.set("n", "end")
        # A wake-up that was lost would show after the beat of 15 seconds only.
        assert eventually(lambda: mirror.get("") == "end", seconds=12)


def test_an_event_loop_uses_the_same_store(store: OwnClient) -> None:
    async def main() -> None:
        async with store.async_client(prefix="a/") as client:
            await client.set("k", 1)
            assert await client.get("k") == 1
            async with client.lock("job"):
                waiting = asyncio.create_task(client.wait("later", timeout=10))
                await asyncio.sleep(0.05)
                await client.set("later", "v")
                value = await waiting
            assert value.data == b"v"
            assert [entry.key async for entry in client.scan()] == ["k", "later"]

    asyncio.run(main())
    assert store.get("a/k") == 1
    assert store.client(prefix="a/").get("later") == "v"


def test_sixteen_threads_count_together(store: OwnClient) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(300):
            store.incr("sum")
            store.set(f"t-{number}", turn)
            if store.get(f"t-{number}") != turn:
                wrong.append((number, turn))
            if turn % 50 == 0:
                with store.lock("one", ttl=60):
                    inside = store.get("inside", 0)
                    store.set("inside", inside + 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.incr("sum", 0) == 16 * 300
    assert store.get("inside") == 16 * 6


def test_closing_while_threads_ask_is_safe() -> None:
    for _ in range(10):
        # Room for all that is written while a thread is kept waiting in the middle of a read.
        store = keyrack.open(memory="128m")
        store.set("a", b"x" * 1000)
        odd: list[BaseException] = []

        def work(store: OwnClient = store, odd: list[BaseException] = odd) -> None:
            try:
                while True:
                    assert store.get("a") == b"x" * 1000
                    store.set("b", 1)
                    store.get_many(["a", "b"])
            except keyrack.Unreachable:
                return
            except BaseException as error:
                odd.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        store.close()
        for thread in threads:
            thread.join()
        assert odd == []


def test_a_child_of_a_fork_is_told_whose_the_store_is(tmp_path: Path) -> None:
    with keyrack.open(tmp_path / "data") as store:
        store.set("a", 1)
        with keyrack.open() as other:
            pid = os.fork()
            if pid == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    for one in (store, other):
                        for ask in (lambda one=one: one.get("a"), one.info):
                            with pytest.raises(keyrack.Unreachable, match="belongs to process"):
                                ask()
                        one.close()
                    with keyrack.open() as mine:
                        mine.set("mine", 1)
                    code = 0
                os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
            other.set("still", "there")
            assert other.get("still") == "there"
        store.set("a", 2)
        assert store.get("a") == 2


def test_a_child_that_lives_on_does_not_keep_the_store_in_use(tmp_path: Path) -> None:
    path = tmp_path / "data"
    code = (
        "import keyrack, os, time\n"
        f"store = keyrack.open({str(path)!r}); store.set('a', 1)\n"
        "pid = os.fork()\n"
        "if pid == 0: os.close(1); time.sleep(60); os._exit(0)\n"
        "print(pid, flush=True); os._exit(0)\n"
    )
    program = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=clean_environment()
    )
    child = int(program.stdout)
    try:
        with keyrack.open(path) as store:
            assert store.get("a") == 1
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_was_written_is_there_after_its_program_was_killed(tmp_path: Path) -> None:
    code = (
        f"import keyrack, itertools; store = keyrack.open({str(tmp_path / 'data')!r})\n"
        "for n in itertools.count(1):\n"
        "    store.set('n', n); print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as program:
        assert program.stdout is not None
        seen = 0
        while seen < 20:
            seen = int(program.stdout.readline())
        program.send_signal(signal.SIGKILL)
        seen = max([seen, *map(int, program.stdout.read().split())])
    with keyrack.open(tmp_path / "data") as store:
        assert store.get("n") in (seen, seen + 1)


def test_a_program_that_forgets_to_close_its_store_ends_and_keeps_all(tmp_path: Path) -> None:
    path = tmp_path / "data"
    code = (
        f"import keyrack; store = keyrack.open({str(path)!r}, durability='snapshot')\n"
        "store.set('a', 'v'); print(store.path)"
    )
    program = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert (program.returncode, program.stderr) == (0, "")
    assert not os.path.exists(program.stdout.strip())
    with keyrack.open(path, durability="snapshot") as store:
        assert store.get("a") == "v"


def test_snapshots_are_taken_while_the_program_goes_on(tmp_path: Path) -> None:
    with keyrack.open(tmp_path / "data", durability="snapshot", timeout=60) as store:
        for number in range(500):
            store.set(f"k/{number}", number)
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                store.set("busy", "v")

        thread = threading.Thread(target=write)
        thread.start()
        try:
            size = sum(map(len, store.snapshot()))
        finally:
            stop.set()
            thread.join()
        assert size > 500 * 10
        assert list((tmp_path / "data").glob("snapshot-*"))


class Interrupt(Exception):
    """What a signal's handler raises. An `Exception`, as Celery's soft time limit is."""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_raises_in_the_middle_of_a_write_harms_nothing(
    tmp_path: Path, kept: bool
) -> None:
    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    interrupted = done = 0
    source = random.Random(3)
    longest = 0.005 if kept else 0.0005
    before = signal.signal(signal.SIGALRM, raise_it)
    options: dict[str, Any] = {"path": tmp_path / "data"} if kept else {}
    try:
        with keyrack.open(**options) as store:
            for turn in range(300):
                try:
                    signal.setitimer(signal.ITIMER_REAL, source.uniform(0.00001, longest))
                    while True:
                        store.set(f"k-{turn % 7}", turn)
                        assert store.add("there", turn) is None or turn == 0 or done == 0
                        done += 1
                except Interrupt:
                    interrupted += 1
                # Another thread could not write if the broken transaction were still there.
                if turn % 50 == 0:
                    thread = threading.Thread(target=store.set, args=("other", turn))
                    thread.start()
                    thread.join(20)
                    assert not thread.is_alive()
            signal.setitimer(signal.ITIMER_REAL, 0)
            store.set("k-0", "end")
            assert store.get("k-0") == "end"
            assert eager.at_once(store._engine.check()) == []
        if kept:
            with keyrack.open(**options) as store:
                assert store.get("other") == 250
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 300


def test_a_handler_that_interrupted_a_write_may_read_and_is_told_not_to_write(
    store: OwnClient,
) -> None:
    seen: list[object] = []

    def handler(_number: int, _frame: FrameType | None) -> None:
        try:
            seen.append(store.get("k", "nothing"))
            store.set("handler", 1)
            seen.append("written")
        except RuntimeError as error:
            seen.append(str(error))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        deadline = time.monotonic() + 60
        while not any("interrupted a write" in str(one) for one in seen):
            store.set("k", "v")
            assert time.monotonic() < deadline
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(map(str, seen)) <= {
        "v",
        "nothing",
        "written",
        *(s for s in seen if "later" in str(s)),
    }
    store.set("k", "after")
    assert store.get("k") == "after"


@pytest.mark.parametrize("durability", ["commit", "snapshot"])
def test_fences_are_there_again_when_a_store_is_opened_again(
    tmp_path: Path, durability: str
) -> None:
    with keyrack.open(tmp_path / "data", durability=durability) as store:
        store.set("jobs/1", "before")
        store.fence("jobs", keys="jobs/*", lock="jobs")
        with pytest.raises(keyrack.LockRequired):
            store.set("jobs/1", "after")
    with keyrack.open(tmp_path / "data", durability=durability) as store:
        for write in (
            lambda: store.set("jobs/1", "after"),
            lambda: store.delete("jobs/1"),
            lambda: store.incr("jobs/n"),
            lambda: store.touch("jobs/1", 5),
            lambda: store.delete_prefix("jobs/"),
        ):
            with pytest.raises(keyrack.LockRequired):
                write()
        assert store.get("jobs/1") == "before"
        with store.lock("jobs") as lock:
            store.set("jobs/1", "after", lock=lock)
            assert store.incr("jobs/n", lock=lock) == 1
        assert store.drop_fence("jobs")
        store.set("jobs/1", "free")
