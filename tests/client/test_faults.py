"""Connections that break, answers that are none, and what a caller is told of it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from client_support import Scripted, answer, asked, read_request

import keyrack
from keyrack import (
    Ambiguous,
    Conflict,
    ProtocolError,
    RateLimited,
    Refused,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from keyrack.client import Raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack import RequestEvent

pytestmark = pytest.mark.timeout(60)

PROBLEM = "application/problem+json"


def serve(*answers: bytes, stay: bool = False) -> Callable[[socket.socket], None]:
    """Return a script that gives these answers to the requests that come, and then hangs up.

    With `stay` it waits for the client to do that.
    """

    def script(connection: socket.socket) -> None:
        for one in answers:
            if not read_request(connection):
                return
            connection.sendall(one)
        if stay:
            read_request(connection)

    return script


def forever(one: bytes) -> Callable[[socket.socket], None]:
    """Return a script that gives one answer again and again."""

    def script(connection: socket.socket) -> None:
        while read_request(connection):
            connection.sendall(one)

    return script


def hang_up(connection: socket.socket) -> None:
    """Read a request and answer nothing."""
    read_request(connection)


def problem(status: str, slug: str, more: str = "") -> bytes:
    body = f'{{"type":"/docs/problems/{slug}","title":"T","detail":"It is so."}}'
    return answer(body.encode(), status, PROBLEM, more=more)


def free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_service_that_is_not_there_is_unreachable(kind: str) -> None:
    url = free_url()
    with asked(kind, url, retries=0) as client, pytest.raises(Unreachable, match=url):
        client.set("a", "v")


def test_a_host_that_does_not_exist_is_unreachable(kind: str) -> None:
    with asked(kind, "http://nowhere.invalid", retries=0) as client, pytest.raises(Unreachable):
        client.get("a")


def test_a_socket_that_is_not_there_is_unreachable(kind: str) -> None:
    with (
        asked(kind, uds="/nowhere/socket", retries=0) as client,
        pytest.raises(Unreachable, match="/nowhere/socket"),
    ):
        client.get("a")


def test_a_connection_is_kept(kind: str) -> None:
    with Scripted(forever(answer())) as server, asked(kind, server.url) as client:
        for _ in range(5):
            assert client.get("a") == "v"
        assert server.connections == 1


def test_a_connection_that_is_to_be_closed_is_not_kept(kind: str) -> None:
    closing = answer(more="Connection: close\r\n")
    with Scripted(forever(closing)) as server, asked(kind, server.url) as client:
        for _ in range(3):
            assert client.get("a") == "v"
        assert server.connections == 3


def test_a_connection_that_was_closed_while_idle_costs_a_repeatable_call_nothing(
    kind: str,
) -> None:
    events: list[RequestEvent] = []
    scripts = (serve(answer()), serve(answer()), serve(answer(b"", "204 No Content")))
    with (
        Scripted(*scripts) as server,
        asked(kind, server.url, retries=0, on_event=events.append) as client,
    ):
        assert client.get("a") == "v"
        assert client.get("a") == "v"
        assert client.set("a", "v") == '"7"'
    assert [event.retries for event in events] == [0, 0, 0]


def test_a_write_that_asks_for_existence_is_sent_once_and_its_fate_is_said_to_be_unknown(
    kind: str,
) -> None:
    with Scripted(hang_up) as server, asked(kind, server.url) as client:
        with pytest.raises(Ambiguous, match="is not known") as caught:
            client.add("a", "v")
        assert caught.value.retry_safe is False
        assert server.connections == 1


def test_what_compares_and_sets_is_repeated_under_one_idempotency_key(kind: str) -> None:
    seen: list[bytes] = []

    def note(connection: socket.socket) -> None:
        seen.append(read_request(connection))

    def note_and_answer(connection: socket.socket) -> None:
        note(connection)
        connection.sendall(answer(b"", "204 No Content"))

    with Scripted(note, note_and_answer) as server, asked(kind, server.url) as client:
        assert client.set("a", "v", if_match='"1"') == '"7"'
    with Scripted(note, note_and_answer) as server, asked(kind, server.url) as client:
        assert client.delete("a", if_match='"1"') is True
    names = [request.split(b"Idempotency-Key: ")[1][:32] for request in seen]
    assert names[0] == names[1] != names[2] == names[3]


def test_a_compare_and_set_whose_answer_was_lost_is_done_once_and_succeeds(
    kind: str, url: str, key: str
) -> None:
    """Through a proxy that passes the first request on and hangs up instead of answering."""
    port = int(url.rpartition(":")[2])

    def forward(connection: socket.socket) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as behind:
            behind.sendall(read_request(connection))
            return behind.recv(65536)

    def lose(connection: socket.socket) -> None:
        forward(connection)

    def answer_it(connection: socket.socket) -> None:
        connection.sendall(forward(connection))

    with keyrack.Client(url) as direct:
        before = direct.set(key, "1")
        with Scripted(lose, answer_it) as server, asked(kind, server.url) as client:
            etag = client.set(key, "2", if_match=before)
        assert direct.get_value(key).etag == etag
        assert len(direct.history(key)) == 2


def test_a_repeatable_call_without_an_answer_is_sent_again(kind: str) -> None:
    with Scripted(hang_up, hang_up, forever(answer())) as server, asked(kind, server.url) as client:
        assert client.set("a", "v") == '"7"'
        assert server.connections == 3


def test_retries_come_to_an_end(kind: str) -> None:
    with Scripted(hang_up) as server, asked(kind, server.url, retries=3) as client:
        with pytest.raises(Ambiguous) as caught:
            client.get("a")
        assert caught.value.retry_safe is True
        assert server.connections == 4


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_a_server_that_asks_for_patience_is_asked_again(kind: str, status: str) -> None:
    busy = problem(status, "unavailable", "Retry-After: 0\r\n")
    with Scripted(serve(busy, answer(), stay=True)) as server, asked(kind, server.url) as client:
        assert client.get("a") == "v"


def test_a_server_that_stays_away_is_told_of_with_its_retry_after(kind: str) -> None:
    for status, expected in (("503 No", Unavailable), ("429 No", RateLimited)):
        busy = problem(status, "unavailable", "Retry-After: 60\r\n")
        with Scripted(forever(busy)) as server, asked(kind, server.url) as client:
            with pytest.raises(expected, match="It is so") as caught:
                client.get("a")
            assert caught.value.retry_after == 60


def test_a_503_of_a_conditional_write_is_not_repeated(kind: str) -> None:
    busy = problem("503 No", "unavailable", "Retry-After: 0\r\n")
    with Scripted(forever(busy)) as server, asked(kind, server.url) as client:
        with pytest.raises(Unavailable):
            client.add("a", "v")
        assert server.connections == 1


@pytest.mark.time_limits
def test_the_time_for_a_call_is_for_all_of_it(kind: str) -> None:
    def trickle(connection: socket.socket) -> None:
        read_request(connection)
        for byte in answer():
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with Scripted(trickle) as server, asked(kind, server.url, timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(Timeout, match="in time") as caught:
            client.get("a")
        assert 0.25 < time.monotonic() - began < 10
        assert isinstance(caught.value, Ambiguous)
        assert isinstance(caught.value, TimeoutError)


@pytest.mark.time_limits
def test_a_connection_that_was_late_is_not_used_again(kind: str) -> None:
    def late(connection: socket.socket) -> None:
        read_request(connection)
        time.sleep(1.5)
        connection.sendall(answer(b"late"))

    with (
        Scripted(late, forever(answer(b"good"))) as server,
        asked(kind, server.url, timeout=1, retries=0) as client,
    ):
        with pytest.raises(Timeout):
            client.get("a")
        time.sleep(0.8)
        assert client.get("b") == "good"


@pytest.mark.time_limits
def test_a_deadline_counts_from_the_first_request_of_many(kind: str) -> None:
    def slow_third(connection: socket.socket) -> None:
        for number in range(3):
            read_request(connection)
            if number == 2:
                time.sleep(4)
            connection.sendall(answer())

    with Scripted(slow_third) as server, asked(kind, server.url, timeout=0.4, retries=0) as client:
        client.get("a")
        time.sleep(0.3)
        client.get("a")
        began = time.monotonic()
        with pytest.raises(Timeout):
            client.get("a")
        assert 0.35 < time.monotonic() - began < 3.5


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_server_that_is_none_of_ours_is_a_protocol_error(kind: str, data: bytes) -> None:
    with Scripted(serve(data, stay=True)) as server, asked(kind, server.url) as client:
        with pytest.raises(ProtocolError):
            client.get("a")
        assert server.connections == 1


def test_a_404_of_another_server_is_no_missing_key(kind: str) -> None:
    page = answer(b"<h1>Not here</h1>", "404 Not Found", "text/html")
    with Scripted(forever(page)) as server, asked(kind, server.url) as client:
        with pytest.raises(Refused, match="404 Not Found"):
            client.get("a")
        with pytest.raises(Refused):
            client.delete("a")


def test_an_old_server_that_does_not_know_a_request_is_said_to_be_one(kind: str) -> None:
    unknown = problem("404 Not Found", "not-found")
    with (
        Scripted(forever(unknown)) as server,
        asked(kind, server.url) as client,
        pytest.raises(Refused, match="An old server may not know this yet"),
    ):
        client.incr("n")


def test_a_wrong_token_gets_a_sentence(kind: str) -> None:
    refused = problem("401 Unauthorized", "invalid-token")
    with (
        Scripted(forever(refused)) as server,
        asked(kind, server.url, token="krk_x") as client,
        pytest.raises(Unauthenticated, match="It is so"),
    ):
        client.get("a")


def test_a_token_is_sent_with_every_request(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(answer())

    monkeypatch.setenv("KEYRACK_TOKEN", "krk_environment")
    with Scripted(script) as server:
        with asked(kind, server.url) as client:
            client.get("a")
        with asked(kind, server.url, token="krk_given") as client:
            client.set("a", "v")
        with asked(kind, server.url, token="") as client:
            client.get("a")
    assert b"\r\nAuthorization: Bearer krk_environment\r\n" in seen[0]
    assert b"\r\nAuthorization: Bearer krk_given\r\n" in seen[1]
    assert b"Authorization" not in seen[2]


def test_what_nobody_asked_for_ends_a_connection(kind: str) -> None:
    def double(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer(b"mine") + answer(b"of somebody else"))
        read_request(connection)

    with Scripted(double, forever(answer(b"good"))) as server, asked(kind, server.url) as client:
        assert client.get("a") == "mine"
        assert client.get("b") == "good"


def test_a_refusal_that_comes_before_the_body_was_sent_is_read(kind: str) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with (
        Scripted(refuse) as server,
        asked(kind, server.url) as client,
        pytest.raises(keyrack.TooLarge),
    ):
        client.set("a", bytes(1 << 22))


def test_an_error_that_ends_with_its_connection_is_read(kind: str) -> None:
    old = b"HTTP/1.0 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<h1>no</h1>"
    with (
        Scripted(serve(old)) as server,
        asked(kind, server.url) as client,
        pytest.raises(Refused, match="502 Bad Gateway"),
    ):
        client.get("a")


def test_a_stream_that_breaks_off_is_no_whole_export(kind: str) -> None:
    half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with (
        Scripted(serve(half)) as server,
        asked(kind, server.url) as client,
        pytest.raises(keyrack.KeyrackError),
    ):
        list(client.export())


def test_more_connections_than_allowed_are_not_opened(kind: str) -> None:
    with Scripted(forever(answer())) as server:
        with asked(kind, server.url, max_connections=1) as client:
            assert client.get("a") == "v"
            assert client.get("a") == "v"
        assert server.connections == 1


def test_events_tell_how_a_call_went(kind: str) -> None:
    events: list[RequestEvent] = []
    with (
        Scripted(hang_up, forever(answer())) as server,
        asked(kind, server.url, on_event=events.append) as client,
    ):
        client.get("a")
        client.get("a")
    first, second = events
    assert (first.operation, first.status, first.retries, first.reused) == ("get", 200, 1, False)
    assert (second.status, second.retries, second.reused) == (200, 0, True)
    assert 0 < second.seconds < first.seconds < 10


def test_events_tell_of_failures(kind: str) -> None:
    events: list[RequestEvent] = []
    conflict = problem("412 No", "precondition-failed")
    with (
        Scripted(serve(conflict), hang_up) as server,
        asked(kind, server.url, on_event=events.append, retries=0) as client,
    ):
        with pytest.raises(Conflict):
            client.set("a", "v", if_match="*")
        with pytest.raises(Ambiguous):
            client.get("a")
    assert [(event.operation, event.status) for event in events] == [("set", 412), ("get", 0)]


def test_a_path_in_front_is_kept(kind: str) -> None:
    seen = []

    def script(connection: socket.socket) -> None:
        while request := read_request(connection):
            seen.append(request.split(b"\r\n")[0])
            connection.sendall(answer(b"{}", kind="application/json"))

    with Scripted(script) as server, asked(kind, f"{server.url}/kv/", serializer=Raw()) as client:
        client.get("a")
        client.info()
    assert seen == [b"GET /kv/v1/keys/a HTTP/1.1", b"GET /kv/v1/info HTTP/1.1"]
