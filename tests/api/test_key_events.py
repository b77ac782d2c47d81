"""`GET /v1/events/{key}`: where a key went."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from api_support import Client, quoted, until
from keyrack_server import Server

from keyrack.engines.contract import Set
from keyrack.http.api import bulk

if TYPE_CHECKING:
    from typing import Any

    from api_support.inside import Inside


def events(client: Client, key: str, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(f"/v1/events/{quoted(key)}{query}")
    assert answer.status == 200, answer
    assert answer.json["key"] == key
    found: list[dict[str, Any]] = answer.json["events"]
    return found


def test_set_delete_and_expire_are_told_newest_first(client: Client, key: str) -> None:
    first = client.put(key)
    client.delete(f"/v1/keys/{key}")
    client.put(key, b"v", "?ttl=0.01")
    assert until(lambda: len(events(client, key)) == 4)
    found = events(client, key)
    assert [event["event"] for event in found] == ["expire", "set", "delete", "set"]
    numbers = [int(event["revision"]) for event in found]
    assert numbers == sorted(numbers, reverse=True)
    assert found[3]["revision"] == first
    assert all(event["key"] == key for event in found)


def test_an_event_says_when(client: Client, key: str) -> None:
    client.put(key)
    (event,) = events(client, key)
    assert set(event) == {"event", "key", "revision", "time"}
    assert abs((datetime.fromisoformat(event["time"]) - datetime.now(UTC)).total_seconds()) < 60


def test_a_key_that_never_was_has_no_events(client: Client, key: str) -> None:
    answer = client.get(f"/v1/events/{key}")
    assert answer.status == 200
    assert answer.json["events"] == []
    assert answer.json["since"].isdigit()


def test_an_end_that_is_noticed_by_a_write_comes_before_it(client: Client, key: str) -> None:
    client.put(key, b"v", "?ttl=0.001")
    time.sleep(0.002)
    client.put(key)
    assert [event["event"] for event in events(client, key)] == ["set", "expire", "set"]


@pytest.mark.parametrize("name", ["a/b", "a\nb", "\0", "..", "\u00e9", "%", "a?b#c", "x" * 511])
def test_any_key_can_be_asked_for(client: Client, name: str) -> None:
    client.put(name)
    assert events(client, name)[0]["event"] == "set"


def test_another_keys_events_are_not_told(client: Client, key: str) -> None:
    client.put(key + "x")
    client.put(key)
    assert len(events(client, key)) == 1


def test_the_limit_bounds_what_is_told(client: Client, key: str) -> None:
    revisions = [client.put(key) for _ in range(120)]
    assert len(events(client, key)) == 100
    assert [event["revision"] for event in events(client, key, "?limit=3")] == revisions[:-4:-1]
    assert len(events(client, key, "?limit=1000")) == 120


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=+5", "limit=", "since=1", "limit=1&limit=1"],
)
def test_a_parameter_that_is_not_understood_is_refused(client: Client, query: str) -> None:
    assert client.get(f"/v1/events/a?{query}").status == 400


def test_no_key_is_refused(client: Client) -> None:
    assert client.get("/v1/events/").status == 400
    assert client.get("/v1/events").status == 404
    assert client.post("/v1/events/a", {}).status == 405


def test_the_log_is_read_in_steps_from_its_end(inside: Inside) -> None:
    """The loop runs on while a long log is searched, and no more of it is read than is needed."""
    engine = inside.engine
    engine.write([(Set(b"old", b""),)])
    for number in range(20_000):
        engine.write([(Set(b"k%d" % number, b""),)])
    engine.write([(Set(b"new", b""),)])
    inside.clock.reading_ns = 100_000
    search, steps = engine.awaited.events_of, []

    def counted(*arguments: Any) -> Any:
        steps.append(arguments)
        return search(*arguments)

    engine.events_of = counted  # type: ignore[method-assign]  # for this test alone
    assert len(inside.run(bulk.key_events(b"new", 1, inside.context)).events) == 1
    assert len(steps) == 1
    assert len(inside.run(bulk.key_events(b"old", 1, inside.context)).events) == 1
    assert len(steps) > 100


def test_what_is_forgotten_is_said() -> None:
    with Server("--events", "10", workers=1) as own, Client(own) as client:
        early = client.put("key")
        for _ in range(40):
            client.put("other")
        assert until(lambda: events(client, "key") == [])
        assert int(client.get("/v1/events/key").json["since"]) > int(early)
