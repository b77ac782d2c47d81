"""What people ask of a service at night: what was slow, what is hot, what is big, who is there."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded
from api_support import Client, dechunked, spread
from keyrack_server import ON_VALKEY, Server, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    """A service of two workers to which everything is slow."""
    with Server("--slow", "0.000000001", "--slow-bytes", "64k", workers=2) as running:
        yield running


def ask(server: Server, target: str) -> Any:
    answer = server.ask("GET", target)
    assert answer.status == 200, answer
    return answer.json


def eventually(found: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 20
    while not holds(last := found()):
        assert time.monotonic() < deadline, last
        time.sleep(0.02)
    return last


# Slow


def entries(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "/v1/slow?limit=1000")["entries"]
    return found


def test_a_slow_write_and_a_slow_read_are_remembered(slow: Server) -> None:
    slow.put("written", b"12345")
    assert slow.ask("GET", "/v1/keys/read%20me").status == 404
    found = entries(slow)
    (write,) = [one for one in found if one.get("key") == "written"]
    assert write["operation"] == "set"
    assert write["bytes"] == 5
    assert write["ms"] > 0
    assert abs(write["time"] / 1e9 - time.time()) < 600
    (read,) = [one for one in found if one.get("key") == "read me"]
    assert (read["operation"], read["status"]) == ("key_get", 404)


@pytest.mark.skipif(ON_VALKEY, reason="how long an answer is that comes later is not noted")
def test_an_answer_that_is_large_is_remembered(slow: Server) -> None:
    """A little more than the smallest limit that can be set."""
    slow.put("large", b"x" * 66_000)
    for target in ("/get/large", "/v1/keys/large"):
        with slow.connect() as wire:
            for _ in range(2):  # the second is recognised by its head
                assert wire.ask(request("GET", target)).status == 200
    sizes = [one["bytes"] for one in entries(slow) if one.get("key") == "large"]
    # An engine that answers later is told of twice: its read was slow, and the answer is large.
    assert len([size for size in sizes if size is not None and size >= 66_000]) >= 4


def test_a_slow_request_of_the_wide_lane_names_its_prefix(slow: Server) -> None:
    assert slow.ask("GET", "/v1/keys?count_only=true&prefix=some%2F").status == 200
    (one,) = [one for one in entries(slow) if one.get("key") == "some/"]
    assert (one["operation"], one["status"]) == ("keys_list", 200)


def test_a_request_that_is_meant_to_wait_is_not_slow(slow: Server) -> None:
    tag = slow.put("waited", b"x")
    with slow.connect() as wire:
        waiting = request("GET", "/v1/keys/waited", If_None_Match=tag, Prefer="wait=1")
        assert wire.ask(waiting).status == 304
    assert not [one for one in entries(slow) if one["operation"] == "key_get"
                and one.get("key") == "waited"]  # fmt: skip


def test_the_slow_log_is_emptied_for_all_workers(slow: Server) -> None:
    with spread(slow) as clients:
        for number, client in enumerate(clients):
            client.put(f"emptied-{number}")
        assert clients[0].delete("/v1/slow").status == 204
        keys = [one["key"] for one in clients[1].get("/v1/slow").json["entries"]]
        assert not [key for key in keys if key is not None and key.startswith("emptied-")]


def test_slow_requests_are_counted(slow: Server) -> None:
    assert b"\nkeyrack_slow_requests_total " in slow.ask("GET", "/metrics").body


def test_nothing_is_slow_where_that_is_said() -> None:
    with Server("--slow", "0", "--slow-bytes", "0") as server:
        server.put("a", b"x" * 500_000)
        assert server.ask("GET", "/get/a").status == 200
        assert ask(server, "/v1/slow") == {"limit_ms": 0.0, "entries": []}


def test_a_limit_is_a_number_in_its_range(slow: Server) -> None:
    for target in ("/v1/slow?limit=0", "/v1/slow?limit=1001", "/v1/clients?limit=x",
                   "/v1/hot?seconds=0", "/v1/hot?seconds=31", "/v1/hot?limit=101",
                   "/v1/big?depth=0", "/v1/big?limit=101", "/v1/slow?x=1"):  # fmt: skip
        assert slow.ask("GET", target).status == 400, target


# Hot


def test_hot_keys_of_all_workers_and_shapes_are_found(pair: Server) -> None:
    done = threading.Event()

    def work(client: Client, number: int) -> None:
        while not done.is_set():
            for _ in range(4):
                client.get("/get/hot-1")
            client.get("/v1/keys/hot-2")
            client.put("hot-2")
            client.post("/set", {"key": "hot-3", "value": "x"})
            client.post("/v1/counters/hot-4", {})
            client.batch({"op": "get", "key": "hot-5"})
            client.get(f"/get/cold-{number}")

    with spread(pair) as clients:
        threads = [
            threading.Thread(target=work, args=(client, number))
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: ask(pair, "/v1/hot?seconds=1&limit=100"), shows_what_is_done)
        finally:
            done.set()
            for thread in threads:
                thread.join()


def shows_what_is_done(found: dict[str, Any]) -> bool:
    """Tell whether rates are those of the requests above; a busy machine may do too few."""
    rates = {one["key"]: one["rate"] for one in found["keys"]}
    return bool(
        found["missing_workers"] == []
        and found["keys"]
        and found["keys"][0]["key"] == "hot-1"
        and set(rates) >= {f"hot-{number}" for number in range(1, 6)}
        and rates["hot-1"] > rates["hot-2"] > rates["hot-3"] > 0
        and found["requests"] >= sum(rates.values()) * 0.99
    )


def test_nothing_is_counted_when_nobody_asks_any_more(pair: Server) -> None:
    assert ask(pair, "/v1/hot?seconds=1")["keys"] == []
    with Client(pair) as client:
        client.get("/get/before")
        assert all(one["key"] != "before" for one in ask(pair, "/v1/hot?seconds=1")["keys"])


def test_two_who_ask_at_once_are_both_answered(pair: Server) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(pair, "/v1/hot?seconds=1")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one["seconds"] for one in found] == [1, 1, 1]


# Big


def lines(server: Server, target: str) -> list[dict[str, Any]]:
    _, body = dechunked(server.raw(request("GET", target)))
    return [json.loads(line) for line in body.splitlines()]


def test_the_largest_keys_and_folders_are_told(client: Client, server: Server) -> None:
    for number in range(30):
        client.put(f"big/a/{number}", b"x" * 1000)
        client.put(f"big/b/{number}", b"x")
    client.put("big/largest", b"x" * 300_000)
    client.put("big/second", b"x" * 20_000)
    found = lines(server, "/v1/big?prefix=big/&limit=2")
    keys = [(one["key"], one["bytes"]) for one in found if "key" in one]
    assert [key for key, _ in keys] == ["big/largest", "big/second"]
    assert 300_000 <= keys[0][1] < 301_000
    folders = {one["folder"]: one["bytes"] for one in found if "folder" in one}
    assert list(folders) == ["big/a/", "big/b/"]
    assert 30_000 <= folders["big/a/"] < 33_000
    assert found[-1]["total"]["keys"] == 62
    assert found[-1]["total"]["bytes"] == sum(folders.values()) + keys[0][1] + keys[1][1]


def test_folders_are_told_apart_as_deep_as_is_asked_for(client: Client, server: Server) -> None:
    for name in ("x:1:a", "x:1:b", "x:2:a", "y:1"):
        client.put(f"deep:{name}", b"x" * 10)
    found = lines(server, "/v1/big?prefix=deep:&delimiter=:&depth=2")
    assert {one["folder"] for one in found if "folder" in one} == {"deep:x:1:", "deep:x:2:"}


def test_nothing_is_told_of_nothing(server: Server) -> None:
    found = lines(server, "/v1/big?prefix=no-such-prefix")
    assert found == [{"total": {"keys": 0, "bytes": 0}}]


@pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey sends the values, too")
def test_long_values_are_not_read_for_it(client: Client, server: Server) -> None:
    for number in range(20):
        client.put(f"long/{number}", b"x" * 900_000)
    before = server.worker_memory()
    assert lines(server, "/v1/big?prefix=long/")[-1]["total"]["bytes"] >= 20 * 900_000
    assert server.worker_memory() - before < 9_000_000


# Clients


def clients(server: Server) -> dict[int, dict[str, Any]]:
    """Return who is connected, by the client's port."""
    found = eventually(lambda: ask(server, "/v1/clients"), lambda it: not it["missing_workers"])
    return {int(one["address"].rpartition(":")[2]): one for one in found["clients"]}


def port(client: Any) -> int:
    return int(client.socket.getsockname()[1])


def test_clients_of_all_workers_are_listed(pair: Server) -> None:
    with spread(pair) as both:
        both[0].get("/get/a", User_Agent="first/1.0")
        found = clients(pair)
        one, two = (found[port(client.wire)] for client in both)
        assert {one["worker"], two["worker"]} == {0, 1}
        assert (one["state"], one["request"], one["agent"]) == ("idle", None, "first/1.0")
        assert one["age"] >= 0
        assert one["tls"] is False


def test_what_clients_wait_for_is_told(pair: Server) -> None:
    tag = pair.put("awaited", b"x")
    with pair.connect() as watcher, pair.connect() as waiter, pair.connect() as sender:
        watcher.send(request("GET", "/v1/watch?prefix=a"))
        waiter.send(request("GET", "/v1/keys/awaited", If_None_Match=tag, Prefer="wait=60"))
        sender.send(b"PUT /v1/keys/sent HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")

        def states(found: dict[int, dict[str, Any]]) -> list[Any]:
            return [found.get(port(one), {}).get("state") for one in (watcher, waiter, sender)]

        found = eventually(
            lambda: clients(pair), lambda it: states(it) == ["watching", "waiting", "sending"]
        )
        assert found[port(watcher)]["request"] == "GET /v1/watch"
        assert found[port(waiter)]["request"] == "GET /v1/keys/awaited"


def test_a_client_that_does_not_read_comes_first(pair: Server) -> None:
    pair.put("unread", b"x" * 900_000)
    with pair.connect() as stuck, pair.connect() as other:
        other.ask(request("GET", "/get/a"))
        stuck.send(request("GET", "/v1/keys/unread") * 30)

        def is_first(found: Any) -> bool:
            first = found["clients"][0]
            return first["state"] == "reading" and first["owed"] > 100_000

        eventually(lambda: ask(pair, "/v1/clients?limit=1"), is_first)


def test_a_client_is_ended_whichever_worker_is_asked(pair: Server) -> None:
    with spread(pair) as both:
        found = clients(pair)
        for client, other in zip(both, reversed(both), strict=True):
            name = found[port(client.wire)]["id"]
            assert other.delete(f"/v1/clients/{name}").status == 204
            assert client.wire.rest() == b""
            client.wire.close()
            client.wire = client.another()


@pytest.mark.parametrize("name", ["0-999999", "7-1", "x", "0-", "-1", "0-1-2", "%FF", "1" * 6000])
def test_a_client_that_is_not_there_cannot_be_ended(pair: Server, name: str) -> None:
    answer = pair.ask("DELETE", f"/v1/clients/{name}")
    assert (answer.status, answer.json["type"]) == (404, "/docs/problems/client-not-found")


def test_a_worker_that_is_stopped_is_named() -> None:
    with Server("--worker-timeout", "0", workers=2) as server, spread(server) as both:
        stopped = server.worker_pids()[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            for client in both:
                client.wire.socket.settimeout(20)
            found: list[Any] = []

            def look(client: Client) -> None:
                found.append(client.get("/v1/clients").json)

            # One of both is served by the worker that is stopped.
            threads = [threading.Thread(target=look, args=(client,)) for client in both]
            for thread in threads:
                thread.start()
            eventually(lambda: found, bool)
            assert len(found[0]["missing_workers"]) == 1
        finally:
            os.kill(stopped, signal.SIGCONT)
        for thread in threads:
            thread.join()


# Who may ask


OPERATIONS = (
    ("GET", "/v1/slow"), ("DELETE", "/v1/slow"), ("GET", "/v1/hot?seconds=1"), ("GET", "/v1/big"),
    ("GET", "/v1/clients"), ("DELETE", "/v1/clients/0-0"),
)  # fmt: skip


def test_only_administrators_may_ask() -> None:
    guarded = Guarded()
    writer = guarded.add("all keys:*")
    with guarded:
        server = guarded.server
        for method, target in OPERATIONS:
            assert server.ask(method, target).status == 401, target
            assert server.ask(method, target, **writer.field).status == 403, target
            data = server.raw(request(method, target, **guarded.admin.field))
            assert data.startswith((b"HTTP/1.1 20", b"HTTP/1.1 404")), data
        found = server.ask("GET", "/v1/clients", **guarded.admin.field).json["clients"]
        assert [one["token"] for one in found] == [guarded.admin.id]
        told = [line["operation"] for line in server.log_lines() if line.get("event") == "audit"
                and line["outcome"] < 400]  # fmt: skip
        assert {"slow_clear", "clients_list"} <= set(told)
