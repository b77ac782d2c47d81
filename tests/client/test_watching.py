"""Watches that go on, listings without a gap, mirrors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from client_support import Scripted, Where, answer, client_of, read_request
from hypothesis import given
from hypothesis import strategies as st
from keyrack_server import Server

from keyrack import (
    AsyncClient,
    Client,
    HistoryGone,
    KeyrackError,
    Refused,
    Reset,
    Synced,
    WatchEvent,
)
from keyrack.client import Timeout, Unauthenticated
from keyrack.client.watching import EventStream, Message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from keyrack.client.watch import Watch

pytestmark = pytest.mark.timeout(90)


def take(watch: Iterator[Any], count: int) -> list[Any]:
    return list(itertools.islice(watch, count))


def started(client: Client, *prefixes: str, **options: Any) -> tuple[Watch, int]:
    """Return a watch that begins at the present, and where that is."""
    since = int(client.info()["revision"])
    return client.watch(*prefixes, since=since, **options), since


# The stream


STREAM = 'retry: 1000\n\n: hello\n\nid: 7\nevent: set\ndata: {"key":"ü"}\n\ndata: a\ndata:b\r\n\r\n'
MESSAGES = [Message("7", "set", '{"key":"ü"}'), Message("", "", "a\nb")]


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=6))
def test_an_event_stream_is_read_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    data = STREAM.encode()
    stream = EventStream()
    places = sorted({0, len(data), *cuts})
    found = [
        message
        for start, end in itertools.pairwise(places)
        for message in stream.feed(data[start:end])
    ]
    assert found == MESSAGES


@given(st.binary(max_size=300))
def test_nothing_but_a_protocol_error_comes_of_any_stream(data: bytes) -> None:
    with contextlib.suppress(KeyrackError):
        EventStream().feed(data)


# Watching


def test_changes_are_told_in_order_with_their_values(sync: Client, key: str) -> None:
    watch, since = started(sync, f"{key}/", values=True)
    sync.set(f"{key}/a", {"n": 1})
    sync.set("elsewhere", "v")
    sync.set(f"{key}/b", b"\xff", ttl=0.05)
    sync.delete(f"{key}/a")
    with watch:
        events = take(watch, 4)
    assert [(e.kind, e.key) for e in events] == [
        ("set", f"{key}/a"),
        ("set", f"{key}/b"),
        ("delete", f"{key}/a"),
        ("expire", f"{key}/b"),
    ]
    assert [e.revision for e in events] == sorted({e.revision for e in events})
    assert events[0].revision > since
    assert all(e.synced and e.time for e in events)


def test_a_watch_of_several_prefixes_of_a_client_with_a_prefix(where: Where, key: str) -> None:
    with client_of(where, prefix=f"{key}/") as client:
        watch, _ = started(client, "a", "b")
        client.set_many({"a1": 1, "b1": 2, "c1": 3})
        with watch:
            assert [e.key for e in take(watch, 2)] == ["a1", "b1"]


def test_a_watch_begins_with_what_comes(where: Where, key: str) -> None:
    with client_of(where) as client, client.watch(key) as watch:
        writing = threading.Event()

        def write() -> None:
            with client_of(where) as other:
                while not writing.wait(0.05):
                    other.set(key, "v")

        thread = threading.Thread(target=write)
        thread.start()
        (event,) = take(watch, 1)
        writing.set()
        thread.join()
        assert (event.kind, event.key) == ("set", key)
        assert watch.position is not None


def test_a_watch_can_be_taken_up_where_another_one_was_left(sync: Client, key: str) -> None:
    watch, _ = started(sync, key)
    for number in range(6):
        sync.set(key, number)
    with watch:
        first = take(watch, 3)
        position = watch.position
    with sync.watch(key, since=position) as again:
        rest = take(again, 3)
    revisions = [event.revision for event in first + rest]
    assert revisions == sorted(set(revisions))


@pytest.mark.time_limits
def test_closing_a_watch_ends_it_and_its_connection(sync: Client, key: str) -> None:
    watch, _ = started(sync, key)
    thread = threading.Timer(0.3, watch.close)
    thread.start()
    began = time.monotonic()
    assert list(watch) == []
    assert time.monotonic() - began < 15
    thread.join()


def events_of(*revisions: int, then: Callable[[], None] = lambda: None) -> Any:
    """Return a script that streams events with these revisions, and hangs up."""

    def script(connection: socket.socket) -> None:
        read_request(connection)
        head = (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n"
        )
        connection.sendall(f"{head}\r\n".encode())
        for revision in revisions:
            data = json.dumps({"key": f"k{revision}", "revision": str(revision), "time": "t"})
            text = f"id: {revision}\nevent: set\ndata: {data}\n\n".encode()
            connection.sendall(b"%x\r\n%b\r\n" % (len(text), text))
        then()

    return script


def test_each_event_comes_once_however_often_the_connection_breaks() -> None:
    with (
        Scripted(events_of(1, 2), events_of(), events_of(2, 3), events_of(4, 5)) as server,
        Client(server.url) as client,
        client.watch(since=0) as watch,
    ):
        assert [event.revision for event in take(watch, 5)] == [1, 2, 3, 4, 5]
    assert server.connections == 4


def test_what_breaks_off_in_the_middle_of_an_event_is_told_by_the_next_connection() -> None:
    def half(connection: socket.socket) -> None:
        read_request(connection)
        head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(f"{head}f\r\nid: 1\nevent: s\r\n".encode())

    with (
        Scripted(half, events_of(1)) as server,
        Client(server.url) as client,
        client.watch(since=0) as watch,
    ):
        assert [event.revision for event in take(watch, 1)] == [1]


def test_a_watch_that_may_not_is_told_at_once() -> None:
    def refuse(connection: socket.socket) -> None:
        read_request(connection)
        problem = b'{"type":"/docs/problems/invalid-token","detail":"No."}'
        connection.sendall(answer(problem, "401 X", "application/problem+json"))

    with (
        Scripted(refuse) as server,
        Client(server.url) as client,
        pytest.raises(Unauthenticated),
        client.watch() as watch,
    ):
        take(watch, 1)
    assert server.connections == 1


def test_a_position_that_is_too_old_is_an_error_or_a_new_listing(key: str) -> None:
    with Server("--events", "100") as server, Client(f"http://127.0.0.1:{server.port}") as client:
        for number in range(400):
            client.set(f"{key}/{number % 3}", number)
        with pytest.raises(HistoryGone) as caught, client.watch(since=1) as watch:
            take(watch, 1)
        assert int(caught.value.oldest) > 1
        assert int(caught.value.newest) == int(client.info()["revision"])
        with client.watch(since=1, resync=True, values=True) as watch:
            reset, *listed, synced = take(watch, 5)
            client.set("new", "v")
            (event,) = take(watch, 1)
    assert isinstance(reset, Reset)
    assert [(e.key, e.value, e.synced) for e in listed] == [
        (f"{key}/0", 399, False),
        (f"{key}/1", 397, False),
        (f"{key}/2", 398, False),
    ]
    assert synced == Synced(reset.revision)
    assert (event.kind, event.key, event.value, event.synced) == ("set", "new", "v", True)


def test_a_refusal_that_will_stay_ends_a_watch(sync: Client) -> None:
    with pytest.raises(Refused) as caught, sync.watch(*(f"p{n}" for n in range(101))) as watch:
        take(watch, 1)
    assert caught.value.kind == "bad-parameter"


def test_an_async_watch_goes_on_after_its_task_had_no_patience(where: Where, key: str) -> None:
    async def main() -> None:
        async with AsyncClient(where) as client:
            since = int((await client.info())["revision"])
            async with client.watch(f"{key}/", since=since, values=True) as watch:
                for number in range(5):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(watch), 0.05)
                    await client.set(f"{key}/{number}", number)
                    event = await asyncio.wait_for(anext(watch), 10)
                    assert isinstance(event, WatchEvent)
                    assert (event.key, event.value) == (f"{key}/{number}", number)
            assert [item async for item in watch] == []

    asyncio.run(main())


def test_an_async_watch_survives_broken_connections() -> None:
    async def main(where: Where) -> None:
        async with AsyncClient(where) as client, client.watch(since=0) as watch:
            revisions: list[int] = []
            async for event in watch:
                assert isinstance(event, WatchEvent)
                revisions.append(event.revision)
                if len(revisions) == 5:
                    break
            assert revisions == [1, 2, 3, 4, 5]

    with Scripted(events_of(1, 2), events_of(), events_of(2, 3), events_of(4, 5)) as server:
        asyncio.run(main(server.url))


# Mirrors


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


def test_a_mirror_is_a_mapping_that_keeps_itself_up_to_date(sync: Client, key: str) -> None:
    sync.set_many({f"{key}/a": 1, f"{key}/b": {"x": 2}})
    with sync.mirror(f"{key}/") as mirror:
        mirror.wait_synced()
        assert dict(mirror) == {"a": 1, "b": {"x": 2}}
        sync.set(f"{key}/c", "new")
        sync.delete(f"{key}/a")
        sync.set(f"{key}/b", "ends", ttl=0.1)
        until(lambda: dict(mirror) == {"c": "new"})
        assert len(mirror) == 1
        assert "c" in mirror
        assert mirror.get("a") is None
        revision = int(sync.set(f"{key}/d", 4).strip('"'))
        mirror.wait_synced(revision=revision)
        assert mirror["d"] == 4
        assert mirror.revision >= revision
    assert mirror["d"] == 4, "what it holds stays"


def test_an_async_mirror_does_the_same(where: Where, key: str) -> None:
    async def main() -> None:
        async with AsyncClient(where) as client:
            await client.set(f"{key}/a", 1)
            async with client.mirror(f"{key}/") as mirror:
                await mirror.wait_synced()
                assert dict(mirror) == {"a": 1}
                revision = int((await client.set(f"{key}/b", 2)).strip('"'))
                await mirror.wait_synced(revision=revision)
                assert dict(mirror) == {"a": 1, "b": 2}
                assert len(mirror) == 2
            lost = client.mirror(key)
        assert dict(lost) == {}

    asyncio.run(main())


def test_a_mirror_that_cannot_be_filled_says_so() -> None:
    with (
        Client("http://127.0.0.1:1", retries=0) as client,
        client.mirror("a") as mirror,
        pytest.raises(Timeout, match="not filled"),
    ):
        mirror.wait_synced(0.2)


def test_a_mirror_survives_a_server_that_is_replaced_and_lost_history(key: str) -> None:
    """Its workers are killed while it is written to; in the end it is equal to the store."""
    server = Server("--events", "200", workers=2)
    try:
        with (
            Client(f"http://127.0.0.1:{server.port}", timeout=5) as client,
            client.mirror(f"{key}/") as mirror,
        ):
            mirror.wait_synced()
            for turn in range(1500):
                with contextlib.suppress(KeyrackError):
                    client.set(f"{key}/{turn % 50}", turn)
                    if turn % 7 == 0:
                        client.delete(f"{key}/{turn % 49}")
                if turn % 500 == 250:
                    os.kill(server.worker_pids()[0], 9)
            kept = {entry[0][len(key) + 1 :]: entry[5] for entry in _entries(client, key)}
            until(lambda: dict(mirror) == kept, 20)
    finally:
        server.process.kill()
        server.process.wait()
        server._log.close()


def _entries(client: Client, key: str) -> list[Any]:
    return list(client.scan(f"{key}/", values=True))
