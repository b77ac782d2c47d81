"""`GET /v1/watch`: every change under some prefixes, once, in order, and across reconnects."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from api_support import Client, Watch, eventually, spread, until
from keyrack_server import Server, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api_support import Message


def told(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.event, message.data["key"]) for message in messages]


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Server]:
    """A service that remembers ten events."""
    with Server("--events", "10", workers=1) as running:
        yield running


# What is told


def test_every_kind_of_change_is_told(client: Client, server: Server, key: str) -> None:
    with Watch(server, f"?prefix={key}") as watch:
        assert watch.synced() == []
        client.put(key, b"v", "?ttl=0.05")
        client.post(f"/v1/counters/{key}n", {})
        client.delete(f"/v1/keys/{key}n")
        client.batch({"op": "set", "key": f"{key}b", "value": 1})
        assert told(watch.changes(5)) == [
            ("set", key),
            ("set", f"{key}n"),
            ("delete", f"{key}n"),
            ("set", f"{key}b"),
            ("expire", key),
        ]


def test_a_message_is_what_is_promised(client: Client, server: Server, key: str) -> None:
    with Watch(server, f"?prefix={key}") as watch:
        watch.synced()
        revision = client.put(key)
        message = watch.next()
    assert message.id == int(revision)
    assert set(message.data) == {"key", "revision", "time"}
    assert message.data["revision"] == revision
    when = datetime.fromisoformat(message.data["time"])
    assert abs((when - datetime.now(UTC)).total_seconds()) < 60
    assert message.data["time"].endswith("Z")


def test_the_answer_is_an_event_stream(server: Server) -> None:
    with Watch(server) as watch:
        head = watch.head.lower()
        watch.synced()
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-store" in head
    assert "content-length" not in head


def test_what_changes_nothing_is_not_told(client: Client, server: Server, key: str) -> None:
    client.put(key)
    with Watch(server) as watch:
        watch.synced()
        client.batch({"op": "touch", "key": key, "ttl": 50}, {"op": "get", "key": key})
        client.batch({"op": "set", "key": key, "value": 1}, {"op": "touch", "key": "-", "ttl": 1})
        client.delete(f"/v1/keys/{key}x")
        client.post(f"/v1/locks/{key}", {"owner": "me", "ttl": 0.05})
        client.post(f"/v1/counters/{key}", {}, Idempotency_Key=key)
        time.sleep(0.15)
        client.put(f"{key}end")
        assert told(watch.changes(1)) == [("set", f"{key}end")]


def test_changes_of_one_batch_are_told_in_order(client: Client, server: Server, key: str) -> None:
    with Watch(server, f"?prefix={key}") as watch:
        watch.synced()
        client.batch(*({"op": "set", "key": f"{key}{n}", "value": n} for n in range(1000)))
        messages = watch.changes(1000)
    ids = [message.id for message in messages]
    assert ids == list(range(ids[0], ids[0] + 1000))
    assert [message.data["key"] for message in messages] == [f"{key}{n}" for n in range(1000)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?prefix={key}/a", ["{key}/a", "{key}/a/1", "{key}/ab"]),
        ("?prefix={key}/a/&prefix={key}/b", ["{key}/a/1", "{key}/b"]),
        ("?prefix={key}/b&prefix={key}/b", ["{key}/b"]),
        ("?prefix={key}/&prefix={key}/a", ["{key}/a", "{key}/a/1", "{key}/ab", "{key}/b"]),
        ("?prefix={key}%2Fb", ["{key}/b"]),
    ],
)
def test_one_or_several_prefixes(
    client: Client, server: Server, key: str, query: str, expected: list[str]
) -> None:
    with Watch(server, query.format(key=key)) as watch:
        watch.synced()
        for name in ("a", "a/1", "ab", "b", "end"):
            client.put(f"{key}/{name}")
        found = watch.changes(len(expected))
        assert [one.data["key"] for one in found] == [one.format(key=key) for one in expected]


def test_an_empty_prefix_is_every_key(client: Client, server: Server, key: str) -> None:
    for query in ("", "?prefix=", "?prefix"):
        with Watch(server, query) as watch:
            watch.synced()
            client.put(key)
            assert told(watch.changes(1)) == [("set", key)]


FORGERIES = (
    "a\nevent: delete\ndata: {}\n\n",
    "a\r\nid: 5\r\n\r\n",
    "\n\n",
    "\0",
    '","revision":"5',
    "a\u2028b\u2029c\u0085d",
    "\x0b\x0c\x1c",
    "</script>",
)


@pytest.mark.parametrize("name", FORGERIES, ids=ascii)
@pytest.mark.parametrize("values", ["true", "false"])
def test_no_key_or_value_can_forge_an_event(
    client: Client, server: Server, key: str, name: str, values: str
) -> None:
    with Watch(server, f"?prefix={key}&values={values}") as watch:
        watch.synced()
        client.put(key + name, name.encode(), Content_Type="text/plain")
        text = b"\n\n" + json.dumps([name], ensure_ascii=False).encode() + b"\r\n\r\n"
        client.put(key + "json" + name, text, Content_Type="application/json")
        client.put(key)
        first, second, last = watch.changes(3)
        assert first.data["key"] == key + name
        assert second.data["key"] == key + "json" + name
        assert last.data["key"] == key
        if values == "true":
            assert (first.data["value"], second.data["value"]) == (name, [name])


def test_json_of_several_lines_stays_one_message(client: Client, server: Server, key: str) -> None:
    text = b'{\n  "a": 1,\r\n\r\n  "b": "\\n"\n}\n'
    with Watch(server, f"?prefix={key}&values=true") as watch:
        watch.synced()
        client.put(key, text, Content_Type="application/json")
        client.put(f"{key}end")
        first, last = watch.changes(2)
    assert first.data["value"] == {"a": 1, "b": "\n"}
    assert last.data["key"] == f"{key}end"


def test_values_are_told_as_they_are_when_sent(client: Client, server: Server, key: str) -> None:
    with Watch(server, f"?prefix={key}&values=true") as watch:
        watch.synced()
        client.put(key, b"text")
        client.put(key, b"\xff\x00", Content_Type="image/png")
        client.post("/set", {"key": key, "value": {"n": 1}})
        client.delete(f"/v1/keys/{key}")
        messages = watch.changes(4)
    assert "value" not in messages[3].data
    assert messages[3].event == "delete"
    kinds = {
        message.data["type"]: (message.data["value"], message.data.get("encoding"))
        for message in messages[:3]
        if "value" in message.data
    }
    known = {
        "text/plain; charset=utf-8": ("text", None),
        "image/png": ("/wA=", "base64"),
        "application/json": ({"n": 1}, None),
    }
    assert kinds.items() <= known.items()


# From where


def test_a_watch_begins_with_what_comes(client: Client, server: Server, key: str) -> None:
    client.put(key)
    with Watch(server, f"?prefix={key}") as watch:
        assert watch.synced() == []


def test_synced_names_the_revision_that_the_history_reached(
    client: Client, server: Server, key: str
) -> None:
    revision = client.put(key)
    with Watch(server, f"?prefix={key}") as watch:
        message = watch.next()
    assert (message.event, message.id) == ("synced", int(revision))
    assert message.data == {"revision": revision}


@pytest.mark.parametrize("where", ["since", "Last-Event-ID", "both"])
def test_a_watch_resumes_after_a_revision(
    client: Client, server: Server, key: str, where: str
) -> None:
    earlier = client.put(key)
    revisions = [client.put(f"{key}{number}") for number in range(5)]
    query, fields = f"?prefix={key}", {}
    if where == "since":
        query += f"&since={revisions[1]}"
    else:
        fields = {"Last_Event_ID": revisions[1]}
    if where == "both":
        query += f"&since={earlier}"
    with Watch(server, query, **fields) as watch:
        assert [str(message.id) for message in watch.synced()] == revisions[2:]
        new = client.put(key)
        assert str(watch.next().id) == new


def test_resuming_tells_a_long_history_in_order(client: Client, server: Server, key: str) -> None:
    before = client.put(key)
    for start in range(0, 6000, 1000):
        client.batch(*({"op": "set", "key": f"{key}/{start + n}", "value": 1} for n in range(1000)))
    with Watch(server, f"?prefix={key}/&since={before}") as watch:
        messages = watch.synced()
    assert [message.data["key"] for message in messages] == [f"{key}/{n}" for n in range(6000)]


def test_changes_while_it_catches_up_are_told_once(
    client: Client, server: Server, key: str
) -> None:
    before = client.put(key)
    for start in range(0, 5000, 1000):
        client.batch(*({"op": "set", "key": f"{key}/{start + n}", "value": 1} for n in range(1000)))
    with Watch(server, f"?prefix={key}/&since={before}") as watch:
        for number in range(5000, 5100):
            client.put(f"{key}/{number}")
        messages = watch.changes(5100)
    assert [message.data["key"] for message in messages] == [f"{key}/{n}" for n in range(5100)]


def test_a_synced_watch_resumed_from_its_last_id_loses_nothing(
    two: list[Client], pair: Server, key: str
) -> None:
    """Reconnect again and again while somebody writes: every change once, in order."""
    start = two[0].put(key)
    stop = threading.Event()
    written = []

    def write() -> None:
        while not stop.is_set():
            written.append(f"{key}/{len(written)}")
            two[len(written) % 2].put(written[-1])

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[str] = []
    last = int(start)
    for _ in range(25):
        with Watch(pair, f"?prefix={key}/", Last_Event_ID=str(last)) as watch:
            for _ in range(30):
                message = watch.next()
                assert message.id >= last
                last = message.id
                if "key" in message.data:
                    seen.append(message.data["key"])
    stop.set()
    thread.join()
    assert seen == written[: len(seen)]
    assert len(seen) > 25


def test_a_position_whose_history_is_gone_is_410(forgetful: Server) -> None:
    with Client(forgetful) as client:
        early = client.put("early")

        for _ in range(30):
            client.put("more")
        assert until(lambda: client.get("/v1/info").json["events"] == 10)
        answer = client.get(f"/v1/watch?since={early}")
        assert answer.status == 410
        assert answer.json["type"] == "/docs/problems/history-gone"
        oldest, newest = answer.json["oldest"], answer.json["newest"]
        assert int(early) < int(oldest) < int(newest)
        assert newest == client.get("/v1/keys").json["revision"]
    with Watch(forgetful, f"?since={oldest}") as watch:
        history = watch.synced()
    assert len(history) >= 10
    assert history[-1].id == int(newest)


def status_of(server: Server, query: str) -> int:
    with server.connect() as wire:
        wire.send(request("GET", f"/v1/watch{query}"))
        return int(wire.socket.recv(1 << 16).split(b" ", 2)[1])


@pytest.mark.parametrize("ahead", [1, 10**9, 9 * 10**18])
def test_a_position_of_another_life_is_410(client: Client, key: str, ahead: int) -> None:
    newest = int(client.put(key))
    position = min(newest + ahead, 9_999_999_999_999_999_999)
    assert client.get(f"/v1/watch?since={position}").status == 410
    assert client.get("/v1/watch?since=0").status == 410


@pytest.mark.parametrize(
    "query",
    [
        "since=",
        "since=-1",
        "since=1.5",
        "since=1e3",
        "since=99999999999999999999",
        "since=%D9%A5",
        "since=1&since=1",
        "values=yes",
        "prefixes=a",
        "limit=5",
        "prefix=%zz",
        "prefix=" + "a" * 512,
        "&".join(f"prefix={number}" for number in range(101)),
    ],
    ids=lambda query: query[:20],
)
def test_a_parameter_that_is_not_understood_is_refused(client: Client, query: str) -> None:
    answer = client.get(f"/v1/watch?{query}")
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-parameter")


def test_a_hundred_prefixes_are_watched(client: Client, server: Server, key: str) -> None:
    with Watch(server, "?" + "&".join(f"prefix={key}/{n}." for n in range(100))) as watch:
        watch.synced()
        client.put(f"{key}/99.x")
        assert told(watch.changes(1)) == [("set", f"{key}/99.x")]


# Who watches, and how it ends


def test_two_workers_tell_the_same(pair: Server, two: list[Client], key: str) -> None:
    with spread(pair) as clients:
        streams = []
        for client in clients:
            client.wire.send(request("GET", f"/v1/watch?prefix={key}"))
            stream = Watch.__new__(Watch)
            stream.wire, stream._raw, stream._text, stream.ended = client.wire, b"", b"", False
            stream._head()
            stream.synced()
            streams.append(stream)
        for number in range(50):
            two[number % 2].put(f"{key}{number}")
        first, second = (stream.changes(50) for stream in streams)
    assert first == second
    assert [message.data["key"] for message in first] == [f"{key}{number}" for number in range(50)]


def test_a_change_of_another_worker_is_told_within_50_ms(two: list[Client], pair: Server) -> None:
    with Watch(pair, "?prefix=lag") as watch:
        watch.synced()

        def lag() -> float:
            slowest = 0.0
            for client in two:
                began = time.monotonic()
                client.put("lag")
                watch.changes(1)
                slowest = max(slowest, time.monotonic() - began)
            return slowest

        eventually(lag, 0.05)


def test_head_answers_and_ends(server: Server) -> None:
    with server.connect() as wire:
        wire.send(request("HEAD", "/v1/watch"))
        data = wire.rest()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\r\n\r\n")


def connections(client: Client) -> int:
    text = client.get("/metrics").body.decode()
    (line,) = [one for one in text.splitlines() if one.startswith("keyrack_connections ")]
    return int(float(line.split()[1]))


@pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
def test_a_watcher_that_leaves_is_forgotten(
    client: Client, server: Server, key: str, leave: str
) -> None:
    before = connections(client)
    watches = [Watch(server, f"?prefix={key}") for _ in range(10)]
    assert connections(client) == before + 10
    for watch in watches:
        getattr(watch.wire, leave)()
    assert until(lambda: connections(client) == before)
    client.put(key)
    for watch in watches:
        watch.wire.close()


def test_a_slow_reader_is_reset_when_its_history_is_gone_and_others_go_on(key: str) -> None:
    """One reads nothing: it is told that it missed something, and closed; the other misses none."""
    with Server("--events", "50", workers=1) as own, own.connect(20) as slow:
        slow.send(request("GET", f"/v1/watch?prefix={key}&values=true"))
        count = 400
        with Client(own) as writer, Watch(own, f"?prefix={key}") as quick:
            quick.synced()
            for n in range(count):
                writer.put(f"{key}{n}", b"x" * 100_000)
            told = quick.changes(count)
        assert [message.data["key"] for message in told] == [f"{key}{n}" for n in range(count)]
        assert own.worker_memory() < 300_000_000
        assert b"event: reset\n" in slow.rest()[-300:]


def test_the_end_of_the_service_ends_the_stream(key: str) -> None:
    with Server(workers=1) as own:
        watch = Watch(own)
        watch.synced()
        own.process.terminate()
        with pytest.raises(EOFError, match="over"):
            watch.next()
        own.process.wait(10)
        watch.wire.close()


def test_http_1_0_gets_no_chunks(server: Server, client: Client, key: str) -> None:
    """A client of HTTP/1.0 knows no chunked coding; the stream ends with the connection."""
    with server.connect() as wire:
        wire.send(b"GET /v1/watch HTTP/1.0\r\nHost: localhost\r\n\r\n")
        time.sleep(0.1)
        client.put(key)
        time.sleep(0.1)
        data = wire.socket.recv(1 << 16)
    assert b"chunked" not in data.lower(), data
    assert b"\r\n\r\nretry: 1000\n\n" in data


def test_what_is_pipelined_behind_a_watch_is_not_answered(
    client: Client, server: Server, key: str
) -> None:
    with server.connect() as wire:
        wire.send(request("GET", "/v1/watch") + request("PUT", f"/v1/keys/{key}", b"behind"))
        time.sleep(0.2)
        assert client.shown(key) is None


# Much at once


def test_many_large_values_at_once_reset_nobody_who_reads(
    client: Client, server: Server, key: str
) -> None:
    with Watch(server, f"?prefix={key}&values=true") as watch:
        watch.synced()
        client.batch(
            *({"op": "set", "key": f"{key}{n}", "value": "v" * 100_000} for n in range(40))
        )
        messages = watch.changes(40)
    assert [message.event for message in messages] == ["set"] * 40
    assert all(len(message.data["value"]) == 100_000 for message in messages)


def test_a_long_history_waits_for_who_reads_it_slowly(
    client: Client, server: Server, key: str
) -> None:
    """Resuming over a slow network: 10 MB of history, begun to be read after a while."""
    start = client.put(key)
    long = "x" * 450
    for first in range(0, 12_000, 1000):
        client.batch(
            *({"op": "delete", "key": "-"} for _ in range(1)),
            *({"op": "set", "key": f"{key}{long}{first + n}", "value": 1} for n in range(999)),
        )
    with Watch(server, f"?prefix={key}{long}&since={start}", timeout=30) as watch:
        time.sleep(0.5)
        messages = watch.synced()
    assert [message.event for message in messages[-1:]] == ["set"]
    assert len(messages) == 12 * 999
    client.delete(f"/v1/keys?prefix={key}")


# Browsers, which go on by themselves


@pytest.mark.parametrize("by", ["field", "parameter"])
def test_a_reconnection_to_what_is_gone_is_reset_and_goes_on(forgetful: Server, by: str) -> None:
    """`EventSource` takes any other answer as the end, and does not tell its page why."""
    with Client(forgetful) as client:
        early = client.put("early")
        for _ in range(30):
            client.put("more")
        assert until(lambda: client.get("/v1/info").json["events"] == 10)
        present = client.get("/v1/keys").json["revision"]
        query, fields = f"?lastEventId={early}", {}
        if by == "field":
            query, fields = "", {"Last_Event_ID": early}
        with Watch(forgetful, query, **fields) as watch:
            reset = watch.next()
            assert (reset.event, reset.id) == ("reset", int(present))
            assert reset.data["revision"] == present
            assert watch.synced() == []
            client.put("afterwards")
            assert told(watch.changes(1)) == [("set", "afterwards")]


def test_a_position_of_another_life_is_reset_too(client: Client, server: Server) -> None:
    ahead = int(client.put("here")) + 10**9
    with Watch(server, "?prefix=here", Last_Event_ID=str(ahead)) as watch:
        assert watch.next().event == "reset"
        client.put("here")
        assert watch.changes(1)[0].data["key"] == "here"


@pytest.mark.parametrize("query", ["", "?lastEventId="])
def test_an_empty_identifier_is_none(client: Client, server: Server, key: str, query: str) -> None:
    with Watch(server, query, Last_Event_ID="") as watch:
        watch.synced()
        client.put(key)
        assert watch.next().data["key"] == key


def test_a_stream_is_not_to_be_changed_on_its_way(server: Server) -> None:
    """Proxies that compress would collect events."""
    with server.connect() as wire:
        wire.send(request("GET", "/v1/watch"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += wire.socket.recv(4096)
    assert b"Cache-Control: no-store, no-transform\r\n" in head
