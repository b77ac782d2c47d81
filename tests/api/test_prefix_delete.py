"""`DELETE /v1/keys`: what goes, what stays, and that nobody has to wait for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, eventually, steps_of

from keyrack.engines.contract import Get, Set
from keyrack.http.api import deleting

if TYPE_CHECKING:
    from api_support.inside import Inside
    from keyrack_server import Server


def fill(client: Client, *names: str) -> None:
    for start in range(0, len(names), 1000):
        piece = names[start : start + 1000]
        assert client.batch(*({"op": "set", "key": n, "value": "v"} for n in piece)).status == 200


def test_keys_under_the_prefix_go_and_others_stay(client: Client, key: str) -> None:
    fill(client, f"{key}/a", f"{key}/b", f"{key}0", key)
    answer = client.delete(f"/v1/keys?prefix={key}/")
    assert answer.json["deleted"] == 2
    assert set(answer.json) == {"deleted", "revision"}
    assert client.shown(f"{key}0") == client.shown(key) == "v"
    assert client.shown(f"{key}/a") is None


def test_deleting_what_is_not_there_deletes_nothing(client: Client, key: str) -> None:
    assert client.delete(f"/v1/keys?prefix={key}").json["deleted"] == 0


def test_ended_keys_are_not_counted(client: Client, key: str) -> None:
    client.put(f"{key}a", b"", "?ttl=0.001")
    client.put(f"{key}b")
    time.sleep(0.003)
    assert client.delete(f"/v1/keys?prefix={key}&dry_run=true").json["deleted"] == 1
    assert client.delete(f"/v1/keys?prefix={key}").json["deleted"] == 1


def test_a_dry_run_counts_and_shows_the_first_keys(client: Client, key: str) -> None:
    fill(client, *(f"{key}/{number:03}" for number in range(250)))
    answer = client.delete(f"/v1/keys?prefix={key}/&dry_run=true").json
    assert answer["deleted"] == 250
    assert answer["dry_run"] is True
    assert answer["sample"] == [f"{key}/{number:03}" for number in range(10)]
    assert client.get(f"/v1/keys?prefix={key}/&count_only=true").json["count"] == 250


@pytest.mark.parametrize("query", ["", "?prefix=", "?all=false", "?dry_run=true", "?prefix"])
def test_an_empty_prefix_needs_to_be_meant(client: Client, key: str, query: str) -> None:
    client.put(key)
    answer = client.delete(f"/v1/keys{query}")
    assert answer.status == 400
    assert "all=true" in answer.json["detail"]
    assert client.shown(key) == "value"


def test_all_keys_go_when_it_is_meant(client: Client, key: str) -> None:
    fill(client, *(f"{key}/{number}" for number in range(350)))
    assert client.delete("/v1/keys?all=true&dry_run=true").json["deleted"] >= 350
    assert client.delete("/v1/keys?all=true").json["deleted"] >= 350
    assert client.get("/v1/keys?count_only=true").json["count"] == 0


@pytest.mark.parametrize(
    "query", ["prefix=a&all=yes", "prefix=a&dry_run=1", "prefix=a&limit=5", "prefix=a&prefix=b"]
)
def test_a_parameter_that_is_not_known_deletes_nothing(client: Client, query: str) -> None:
    fill(client, "a1")
    assert client.delete(f"/v1/keys?{query}").status == 400
    assert client.shown("a1") == "v"


def test_each_key_has_its_event(client: Client, key: str) -> None:
    fill(client, f"{key}/a", f"{key}/b")
    client.delete(f"/v1/keys?prefix={key}/")
    for name in ("a", "b"):
        found = client.get(f"/v1/events/{key}/{name}").json["events"]
        assert [event["event"] for event in found] == ["delete", "set"]


def test_keys_that_are_set_meanwhile_are_left_alone(server: Server, key: str) -> None:
    with Client(server) as deleter, Client(server) as writer:
        fill(writer, *(f"{key}/{number:05}" for number in range(6000)))
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(deleter.delete(f"/v1/keys?prefix={key}/"))
        )
        thread.start()
        kept = []
        while thread.is_alive():
            kept.append(f"{key}/{5999 - len(kept):05}")
            writer.put(kept[-1], b"new")
        thread.join()
        assert answers[0].json["deleted"] >= 6000 - len(kept)
        left = [writer.shown(name) == "new" for name in kept]
        # The first may have been set before the deletion began; from then on none is lost.
        assert left == sorted(left)
        assert any(left)


def test_a_key_that_is_set_between_looking_and_deleting_is_left_alone(inside: Inside) -> None:
    """Another worker's write that comes between the two is no part of what was to be deleted."""
    engine = inside.engine
    engine.write([(Set(b"a", b"old"),), (Set(b"b", b"old"),)])
    between = iter([(Set(b"a", b"new"),)])

    class Disturbed:
        """A turn before whose writes another worker is served."""

        def write_many(self, writes: Any) -> Any:
            for other in between:
                engine.write([other])
            return inside.tick.write_many(writes)

    async def delete() -> Any:
        context = inside.context._replace(tick=Disturbed())  # type: ignore[arg-type]  # what is used
        return await deleting.by_prefix({b"prefix": b"", b"all": b"true"}, context)

    assert inside.run(delete()).deleted == 1
    ((found,),) = engine.write([(Get(b"a"),)])
    assert found.record.value == b"new"
    assert engine.get(b"b") is None


def test_others_are_answered_at_once_meanwhile(server: Server, key: str) -> None:
    """Nine of ten requests within 20 ms, while 20 000 keys go."""

    def slow_share() -> float:
        with Client(server) as deleter, Client(server) as other:
            fill(other, *(f"{key}/{number:05}" for number in range(20_000)))
            thread = threading.Thread(target=lambda: deleter.delete(f"/v1/keys?prefix={key}/"))
            times = []
            thread.start()
            while thread.is_alive():
                began = time.monotonic()
                other.put(key)
                times.append(time.monotonic() - began)
                time.sleep(0.002)
            thread.join()
            assert len(times) > 10
            return sorted(times)[len(times) * 9 // 10]

    eventually(slow_share, 0.02)


@pytest.mark.timing
def test_a_step_deletes_few_keys(inside: Inside) -> None:
    """What a turn writes for the deletion is done before others are served."""
    inside.engine.write([(Set(b"k%06d" % number, b""),) for number in range(500)])
    write, sizes = inside.engine.apply, []

    def counted(writes: Any) -> Any:
        sizes.append(len(writes))
        return write(writes)

    inside.tick._write_now = counted  # type: ignore[assignment]  # for this test alone
    assert inside.run(deleting.by_prefix({b"prefix": b"k"}, inside.context)).deleted == 500
    assert sum(sizes) == 500
    assert max(sizes) <= 32


@pytest.mark.timing
def test_a_step_is_short(inside: Inside) -> None:
    """The loop is free again after 5 ms of work, whatever the number of keys.

    The three longest are left out: a store's memory grows in steps, too.
    """
    inside.engine.write([(Set(b"k%06d" % number, b"v" * 100),) for number in range(5000)])
    assert inside.run(steps_of(deleting.by_prefix({b"prefix": b"k"}, inside.context)))[3] < 0.005
    ((found,),) = inside.engine.write([(Get(b"k000000"),)])
    assert not found.existed
