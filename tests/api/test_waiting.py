"""`GET /v1/keys/{key}` with `Prefer: wait=`: answered when the key differs, else 304."""

from __future__ import annotations

import resource
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, cpu_seconds, eventually, until, worker_of
from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack_server import Answer


def waiting(wire: Wire, key: str, tag: str, seconds: int = 10, **fields: str) -> Wire:
    """Send a read that waits, and make sure that it does."""
    wire.send(wait_for(key, tag, seconds, **fields))
    assert wire.nothing_comes(0.05), "it does not wait"
    return wire


def wait_for(key: str, tag: str, seconds: int = 10, **fields: str) -> bytes:
    fields = {"If_None_Match": tag, "Prefer": f"wait={seconds}", **fields}
    return request("GET", f"/v1/keys/{key}", **fields)


def timed(wire: Wire) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = wire.answer()
    return answer, time.monotonic() - began


CHANGES: dict[str, tuple[Callable[[Client, str], Any], int]] = {
    "set": (lambda client, key: client.put(key, b"new"), 200),
    "set to the same value": (lambda client, key: client.put(key, b"old"), 200),
    "seed set": (lambda client, key: client.post("/set", {"key": key, "value": "new"}), 200),
    "add": (lambda client, key: client.batch({"op": "add", "key": key}), 200),
    "delete": (lambda client, key: client.delete(f"/v1/keys/{key}"), 404),
    "delete by prefix": (lambda client, key: client.delete(f"/v1/keys?prefix={key}"), 404),
    "batch": (lambda client, key: client.batch({"op": "delete", "key": key}), 404),
}


@pytest.mark.time_limits
@pytest.mark.parametrize(("change", "status"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("by", [0, 1], ids=["its own worker", "another worker"])
def test_a_change_by_any_worker_wakes(
    pair: Server, two: list[Client], key: str, by: int, change: Callable[..., Any], status: int
) -> None:
    revision = two[0].put(key, b"5")
    wire = waiting(two[0].wire, key, f'"{revision}"')
    with Client(pair) as same:
        # The waiting connection cannot carry the change as well.
        change(two[1] if by else _same_worker(pair, two, same), key)
    answer, seconds = timed(wire)
    assert answer.status == status
    assert seconds < 2
    if status == 200:
        assert answer["ETag"] != f'"{revision}"'


def _same_worker(pair: Server, two: list[Client], first: Client) -> Client:
    wanted = worker_of(pair, two[0].wire)
    for _ in range(100):
        if worker_of(pair, first.wire) == wanted:
            return first
        first.close()
        first.wire = pair.connect()
    raise AssertionError("no connection to that worker")


@pytest.mark.time_limits
def test_the_end_of_its_time_wakes(client: Client, server: Server, key: str) -> None:
    revision = client.put(key, b"v", "?ttl=0.3")
    with server.connect() as wire:
        began = time.monotonic()
        waiting(wire, key, f'"{revision}"')
        assert wire.answer().status == 404
        assert 0.2 < time.monotonic() - began < 9


def test_a_change_is_told_at_once(two: list[Client], key: str) -> None:
    def delay() -> float:
        revision = two[0].put(key)
        waiting(two[0].wire, key, f'"{revision}"')
        began = time.monotonic()
        two[1].put(key, b"new")
        assert two[0].wire.answer().status == 200
        return time.monotonic() - began

    eventually(delay, 0.05)


def test_another_key_does_not_wake(client: Client, server: Server, key: str) -> None:
    revision = client.put(key)
    with server.connect() as wire:
        waiting(wire, key, f'"{revision}"')
        for other in (key + "x", key[:-1], key.upper()):
            client.put(other)
            client.delete(f"/v1/keys/{other}")
        client.post(f"/v1/locks/{key}", {"owner": "me", "ttl": 5})
        client.batch({"op": "touch", "key": key, "ttl": 100})
        assert client.batch({"op": "add", "key": key}).status == 409
        assert wire.nothing_comes(0.15)
        client.put(key, b"new")
        assert wire.answer().body == b"new"


@pytest.mark.time_limits
def test_when_the_time_is_over_it_is_304(client: Client, key: str) -> None:
    revision = client.put(key)
    began = time.monotonic()
    answer = client.wire.ask(wait_for(key, f'"{revision}"', 1))
    assert answer.status == 304
    assert answer["ETag"] == f'"{revision}"'
    assert 0.9 < time.monotonic() - began < 9


@pytest.mark.time_limits
def test_what_differs_already_is_answered_at_once(client: Client, key: str) -> None:
    old = client.put(key)
    client.put(key, b"new")
    for tag in (f'"{old}"', '"0"', '"5", "6"', '"other"'):
        began = time.monotonic()
        answer = client.wire.ask(wait_for(key, tag, 30))
        assert (answer.status, answer.body) == (200, b"new")
        assert time.monotonic() - began < 15


@pytest.mark.time_limits
def test_a_key_that_was_seen_and_is_gone_is_answered_at_once(client: Client, key: str) -> None:
    """Whoever asks again after each answer must not miss that the key was deleted in between."""
    revision = client.put(key)
    client.delete(f"/v1/keys/{key}")
    began = time.monotonic()
    assert client.wire.ask(wait_for(key, f'"{revision}"', 30)).status == 404
    assert time.monotonic() - began < 15


@pytest.mark.time_limits
@pytest.mark.parametrize("tag", ['"0"', "*", '"none"'])
def test_a_missing_key_is_waited_for(client: Client, server: Server, key: str, tag: str) -> None:
    with server.connect() as wire:
        waiting(wire, key, tag)
        client.put(key, b"here")
        answer, seconds = timed(wire)
        assert (answer.status, answer.body) == (200, b"here")
        assert seconds < 2


def test_a_key_that_stays_missing_is_304_at_the_end(client: Client, key: str) -> None:
    assert client.wire.ask(wait_for(key, '"0"', 1)).status == 304


def test_the_existence_of_a_key_can_be_waited_for(client: Client, server: Server, key: str) -> None:
    client.put(key)
    with server.connect() as wire:
        waiting(wire, key, "*")
        client.put(key, b"new")
        assert wire.nothing_comes(0.1)
        client.delete(f"/v1/keys/{key}")
        assert wire.answer().status == 404


def test_who_waits_for_several_states_waits(client: Client, server: Server, key: str) -> None:
    revision = client.put(key)
    with server.connect() as wire:
        waiting(wire, key, f'"5", W/"{revision}"')
        client.put(key, b"new")
        assert wire.answer().body == b"new"


def test_head_waits_too(client: Client, server: Server, key: str) -> None:
    revision = client.put(key)
    with server.connect() as wire:
        wire.send(wait_for(key, f'"{revision}"').replace(b"GET", b"HEAD", 1))
        assert wire.nothing_comes(0.05)
        new = client.put(key, b"longer")
        answer = wire.answer("HEAD")
        assert (answer.status, answer["ETag"], answer.body) == (200, f'"{new}"', b"")
        assert answer["Content-Length"] == "6"


PREFERENCES = {
    "wait=5": True,
    "WAIT=5": True,
    "wait = 5": True,
    'wait="5"': True,
    "wait=5; unit=s": True,
    "respond-async, wait=5": True,
    "wait=5, handling=lenient": True,
    "wait=000000005": True,
    "wait=999999999": True,
    "wait=0": False,
    "": False,
    "respond-async": False,
    "waiting=5": False,
    "wait-more=5": False,
    "handling=lenient": False,
    "wait": False,
    "wait=": False,
    "wait=-1": False,
    "wait=+1": False,
    "wait=1.5": False,
    "wait=1e1": False,
    "wait=1_0": False,
    "wait=0x5": False,
    "wait=5s": False,
    "wait=5 5": False,
    "wait=NaN": False,
    "wait=inf": False,
    "wait=99999999999999999999": False,
    "wait=\u00b2": False,
    "wait=''": False,
    'wait="5': False,
}


@pytest.mark.parametrize(("prefer", "waits"), PREFERENCES.items(), ids=PREFERENCES)
def test_the_preference_is_read_as_rfc_7240_says(
    client: Client, server: Server, key: str, prefer: str, waits: bool
) -> None:
    revision = client.put(key)
    with server.connect() as wire:
        wire.send(request("GET", f"/v1/keys/{key}", If_None_Match=f'"{revision}"', Prefer=prefer))
        if waits:
            assert wire.nothing_comes(0.05)
            client.put(key, b"new")
            assert wire.answer().status == 200
        else:
            assert wire.answer().status == 304


def test_two_prefer_fields_are_one_list(client: Client, server: Server, key: str) -> None:
    revision = client.put(key)
    data = request("GET", f"/v1/keys/{key}", If_None_Match=f'"{revision}"', Prefer="a=b")
    with server.connect() as wire:
        wire.send(data.replace(b"\r\n\r\n", b"\r\nPrefer: wait=5\r\n\r\n"))
        assert wire.nothing_comes(0.05)
        client.put(key, b"new")
        assert wire.answer().status == 200


def test_without_a_condition_nothing_is_waited_for(client: Client, key: str) -> None:
    client.put(key)
    assert client.get(f"/v1/keys/{key}", Prefer="wait=30").status == 200
    assert client.get(f"/v1/keys/{key}x", Prefer="wait=30").status == 404


def test_a_parameter_is_refused_before_waiting(client: Client, key: str) -> None:
    answer = client.get(f"/v1/keys/{key}?x=1", Prefer="wait=30", If_None_Match="*")
    assert answer.status == 400
    assert client.get("/v1/keys/", Prefer="wait=30", If_None_Match="*").status == 400


def test_what_is_pipelined_behind_a_wait_is_answered_after_it(
    client: Client, server: Server, key: str
) -> None:
    revision = client.put(key, b"old")
    with server.connect() as wire:
        wire.send(
            wait_for(key, f'"{revision}"')
            + request("PUT", f"/v1/keys/{key}", b"behind")
            + request("GET", f"/v1/keys/{key}")
        )
        assert wire.nothing_comes(0.1)
        assert client.shown(key) == "old"
        client.put(key, b"new")
        assert [wire.answer().body for _ in range(3)] == [b"new", b"", b"behind"]


def test_waiting_again_and_again_misses_no_state(two: list[Client], key: str) -> None:
    """A reader that asks with the last ETag sees the last value in the end, whatever happens."""
    revision = two[1].put(key, b"0")

    def write() -> None:
        for number in range(1, 60):
            two[1].put(key, str(number).encode())
        two[1].delete(f"/v1/keys/{key}")

    thread = threading.Thread(target=write)
    thread.start()
    seen = [0]
    while True:
        answer = two[0].wire.ask(wait_for(key, f'"{revision}"'))
        if answer.status == 404:
            break
        assert answer.status == 200
        revision = answer["ETag"].strip('"')
        seen.append(int(answer.body))
    thread.join()
    assert seen == sorted(set(seen))


def open_connections(client: Client) -> int:
    text = client.get("/metrics").body.decode()
    (line,) = [one for one in text.splitlines() if one.startswith("keyrack_connections ")]
    return int(float(line.split()[1]))


def test_who_has_only_said_all_is_answered(client: Client, server: Server, key: str) -> None:
    revision = client.put(key)
    with server.connect() as wire:
        wire.send(wait_for(key, f'"{revision}"', 100)).half_close()
        # Whether it is still there is found out with an interim answer.
        assert wire.answer().status == 100
        assert wire.nothing_comes(1.5)
        client.put(key, b"new")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"new")
        assert wire.rest() == b""


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_who_leaves_is_forgotten(client: Client, server: Server, key: str, leave: str) -> None:
    revision = client.put(key)
    before = open_connections(client)
    with ExitStack() as stack:
        wires = [stack.enter_context(server.connect()) for _ in range(20)]
        for wire in wires:
            wire.send(wait_for(key, f'"{revision}"', 100))
        assert until(lambda: open_connections(client) == before + 20)
        for wire in wires:
            getattr(wire, leave)()
        assert until(lambda: open_connections(client) == before)
    client.put(key, b"new")
    assert client.shown(key) == "new"


@pytest.fixture
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6000:
        pytest.skip(f"the system allows only {hard} open files")
    if soft < 6000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (6000, hard))


@pytest.mark.timing
@pytest.mark.usefixtures("many_files")
def test_thousands_that_wait_cost_nothing_while_nothing_changes() -> None:
    """2000 waiting reads: under 10 % of a core, and all are answered when the key changes."""
    with Server(workers=1) as own, ExitStack() as stack, Client(own) as client:
        revision = client.put("key")
        wires = [stack.enter_context(own.connect(30)) for _ in range(2000)]
        for wire in wires:
            wire.send(wait_for("key", f'"{revision}"', 100))
        assert until(lambda: open_connections(client) == 2001, 20)
        (pid,) = own.worker_pids()

        def share() -> float:
            before = cpu_seconds(pid)
            time.sleep(1)
            return cpu_seconds(pid) - before

        eventually(share, 0.1)
        began = time.monotonic()
        client.put("key", b"new")
        assert all(wire.answer().body == b"new" for wire in wires)
        assert time.monotonic() - began < 15


@pytest.mark.time_limits
def test_the_service_ends_although_somebody_waits() -> None:
    with Server(workers=1) as own:
        with Client(own) as client:
            revision = client.put("key")
        wire = waiting(own.connect(), "key", f'"{revision}"', 300)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    wire.close()


@pytest.mark.time_limits
def test_a_condition_that_does_not_hold_is_told_at_once(client: Client, key: str) -> None:
    revision = client.put(key)
    fields = {"If_Match": '"1"', "If_None_Match": f'"{revision}"', "Prefer": "wait=20"}
    answer, seconds = timed(client.wire.send(request("GET", f"/v1/keys/{key}", **fields)))
    assert answer.status == 412
    assert seconds < 5
