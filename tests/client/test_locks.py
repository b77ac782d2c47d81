"""Locks: taken, waited for, renewed, lost, given back."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from client_support import Asked, Scripted, Where, answer, client_of, read_request

from keyrack import AsyncClient, Client, LockHeld, LockLost, LockRequired, Refused

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)


def acquired(client: Asked, name: str, **options: Any) -> Any:
    lock = client.lock(name, **options)
    client.finished(lock.acquire())
    return lock


def test_a_lock_is_held_by_one_at_a_time(client: Asked, key: str) -> None:
    first = acquired(client, key, ttl=30)
    assert first.held
    with pytest.raises(LockHeld) as caught:
        acquired(client, key, wait=0)
    assert caught.value.owner == first.owner
    assert 29 < caught.value.ttl <= 30
    assert client.finished(first.release()) is True
    second = acquired(client, key, wait=0)
    assert second.token > first.token
    assert client.finished(second.release()) is True
    assert client.finished(second.release()) is False


def test_a_block_holds_a_lock_and_gives_it_back(sync: Client, key: str) -> None:
    with sync.lock(key) as lock:
        assert lock.held
        assert not lock.lost
        lock.check()
        with pytest.raises(LockHeld), sync.lock(key, wait=0):
            pass
    with sync.lock(key, wait=0):
        pass


def test_an_async_block_does_the_same(where: Where, key: str) -> None:
    async def main() -> None:
        async with AsyncClient(where) as client:
            async with client.lock(key) as lock:
                lock.check()
                with pytest.raises(LockHeld):
                    await client.lock(key, wait=0).acquire()
            async with client.lock(key, wait=0):
                pass

    asyncio.run(main())


@pytest.mark.time_limits
def test_a_lock_is_waited_for(client: Asked, where: Where, key: str) -> None:
    with client_of(where) as other:
        held = other.lock(key, ttl=30)
        held.acquire()
        timer = threading.Timer(0.5, held.release)
        timer.start()
        began = time.monotonic()
        lock = acquired(client, key, ttl=1.2, wait=20)
        assert time.monotonic() - began >= 0.4
        assert lock.held
        timer.join()
        client.finished(lock.release())


@pytest.mark.time_limits
def test_waiting_for_a_lock_comes_to_an_end(client: Asked, where: Where, key: str) -> None:
    with client_of(where) as other, other.lock(key, ttl=30):
        began = time.monotonic()
        with pytest.raises(LockHeld):
            acquired(client, key, wait=1)
        assert 0.9 < time.monotonic() - began < 15


@pytest.mark.time_limits
def test_a_lock_lasts_longer_than_its_ttl_because_it_is_renewed(sync: Client, key: str) -> None:
    with sync.lock(key, ttl=1.5) as lock:
        time.sleep(2.5)
        assert lock.held
        with pytest.raises(LockHeld), sync.lock(key, wait=0):
            pass


@pytest.mark.time_limits
def test_an_async_lock_is_renewed(where: Where, key: str) -> None:
    async def main() -> None:
        async with AsyncClient(where) as client, client.lock(key, ttl=1.5) as lock:
            await asyncio.sleep(2.5)
            assert lock.held

    asyncio.run(main())


@pytest.mark.time_limits
def test_one_thread_renews_all_locks_and_ends_with_them(sync: Client, key: str) -> None:
    def renewers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "keyrack-locks"]

    locks = [sync.lock(f"{key}/{number}", ttl=1.5) for number in range(20)]
    for lock in locks:
        lock.acquire()
    assert len(renewers()) == 1
    time.sleep(2.5)
    assert all(lock.held for lock in locks)
    for lock in locks:
        assert lock.release() is True
    deadline = time.monotonic() + 30
    while renewers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert renewers() == []


def test_a_lock_that_is_not_renewed_is_lost_and_its_block_says_so(sync: Client, key: str) -> None:
    def block() -> None:
        with sync.lock(key, ttl=0.3, renew=False) as lock:
            time.sleep(0.4)
            assert lock.lost
            with pytest.raises(LockLost):
                lock.check()
            with pytest.raises(LockLost):
                lock.renew()

    with pytest.raises(LockLost, match="before its block had ended"):
        block()


def test_a_lock_that_was_taken_away_is_lost_at_the_next_renewal(
    client: Asked, where: Where, key: str
) -> None:
    lock = acquired(client, key, ttl=30, renew=False)
    client.finished(lock.renew())
    assert lock.held
    with client_of(where) as other:
        other._send(lock.release_call())
    with pytest.raises(LockLost):
        client.finished(lock.renew())
    assert lock.lost


def test_what_a_block_raises_comes_before_what_became_of_its_lock(sync: Client, key: str) -> None:
    def block() -> None:
        with sync.lock(key, ttl=0.2, renew=False):
            time.sleep(0.3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_a_batch_is_refused_when_a_lock_is_not_held_any_more(
    sync: Client, where: Where, key: str
) -> None:
    def block() -> None:
        with sync.lock(key) as lock, sync.batch() as batch:
            batch.check_lock(lock)
            batch.set(f"{key}/v", "v")
            with client_of(where) as other:
                other._send(lock.release_call())

    with pytest.raises(LockLost, match="nothing was done"):
        block()
    assert sync.get(f"{key}/v") is None


def test_a_child_of_a_fork_neither_renews_nor_gives_back_its_parents_lock(
    sync: Client, key: str
) -> None:
    with sync.lock(key, ttl=10) as lock:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = int(lock.release())
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        lock.renew()


def test_a_lock_whose_answer_was_lost_is_waited_for(kind: str) -> None:
    """The first try takes it, and its answer never comes; nobody but that answer tells a token."""
    from client_support import asked

    seen: list[bytes] = []

    def lose(connection: socket.socket) -> None:
        seen.append(read_request(connection))

    def tell(connection: socket.socket) -> None:
        body = read_request(connection).partition(b"\r\n\r\n")[2]
        owner = body.split(b'"owner":"')[1].split(b'"')[0]
        problem = b'{"type":"/docs/problems/lock-held","detail":"D","owner":"%b","ttl":9.0}'
        json = "application/json"
        connection.sendall(answer(problem % owner, "409 X", "application/problem+json"))
        seen.append(read_request(connection))
        state = b'{"name":"n","owner":"o","token":"8","ttl":10.0}'
        connection.sendall(answer(state, kind=json))
        read_request(connection)

    with Scripted(lose, tell) as server, asked(kind, server.url) as client:
        lock = acquired(client, "n", ttl=10, wait=5, renew=False)
        assert lock.token == 8
        assert lock.held
    assert b'"token"' not in seen[1], "it asks for the lock again"


def test_a_lock_needs_a_time(sync: Client) -> None:
    with pytest.raises(ValueError, match="ttl above 0"):
        sync.lock("a", ttl=0)


@pytest.fixture
def fenced(sync: Client, key: str) -> Iterator[str]:
    """A prefix whose keys need the lock of the same name to be written."""
    name = re.sub("[^a-z0-9]", ".", key).strip(".")
    sync.fence(name, keys=f"{{{key}}}/*", lock=f"{{{key}}}")
    yield f"{{{key}}}"
    assert sync.drop_fence(name)
    assert not sync.drop_fence(name)


WRITES: dict[str, Callable[..., Any]] = {
    "set": lambda client, key, **more: client.set(key, "2", **more),
    "set with a TTL": lambda client, key, **more: client.set(key, "2", ttl=60, **more),
    "set if it is there": lambda client, key, **more: client.set(key, "2", if_match="*", **more),
    "set long": lambda client, key, **more: client.set(key, "2" * 50_000, **more),
    "replace": lambda client, key, **more: client.replace(key, "2", **more),
    "add": lambda client, key, **more: client.add(f"{key}new", "2", **more),
    "patch": lambda client, key, **more: client.patch(f"{key}json", {"a": 2}, **more),
    "touch": lambda client, key, **more: client.touch(key, 60, **more),
    "persist": lambda client, key, **more: client.persist(key, **more),
    "incr": lambda client, key, **more: client.incr(key, **more),
    "incr with a TTL": lambda client, key, **more: client.incr(key, ttl=5, **more),
    "delete": lambda client, key, **more: client.delete(key, **more),
}


@pytest.mark.parametrize("named", WRITES)
def test_a_fence_lets_only_its_locks_holder_write(
    client: Asked, sync: Client, fenced: str, named: str
) -> None:
    write, key = WRITES[named], f"{fenced}/k"
    lock = acquired(client, fenced, ttl=60, renew=False)
    client.set(key, "1", lock=lock)
    client.set(f"{key}json", {"a": 1}, lock=lock)
    before = list(sync.export(fenced))
    with pytest.raises(LockRequired) as refused:
        write(client, key)
    assert (refused.value.lock, refused.value.status) == (fenced, 428)
    other = acquired(client, f"{fenced}other", ttl=60, renew=False)
    with pytest.raises(LockRequired):
        write(client, key, lock=other)
    sync._send(lock.release_call())
    taken = acquired(client, fenced, ttl=60, renew=False)
    with pytest.raises(LockLost):
        write(client, key, lock=lock)
    assert list(sync.export(fenced)) == before
    write(client, key, lock=taken)
    assert list(sync.export(fenced)) != before or named == "persist"


def test_a_batch_names_the_lock_that_a_fence_demands(sync: Client, fenced: str) -> None:
    with sync.lock(fenced) as lock:
        with pytest.raises(LockRequired), sync.batch() as batch:
            batch.set(f"{fenced}/k", "1")
        with sync.batch() as batch:
            batch.check_lock(lock)
            batch.set(f"{fenced}/k", "1")
    assert sync.get(f"{fenced}/k") == "1"
    with pytest.raises(LockRequired):
        sync.delete_prefix(f"{fenced}/")


def test_fences_are_told_of(client: Asked, sync: Client, fenced: str) -> None:
    shown = [one for one in client.fences() if one.lock == fenced]
    assert [(one.keys, one.source) for one in shown] == [(f"{fenced}/*", "store")]
    with pytest.raises(Refused, match="may only end a pattern"):
        client.fence("wrong", keys="a*b", lock="l")
