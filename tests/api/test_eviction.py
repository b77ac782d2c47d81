"""A service with `--when-full evict`: its store takes everything, and says what it gave up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, spread
from api_support.streams import Watch
from keyrack_server import ON_VALKEY, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(ON_VALKEY, reason="Valkey evicts by itself or not at all")

VALUE = b"x" * 30_000
MORE_THAN_FITS = 400


@pytest.fixture(scope="module")
def cache() -> Iterator[Server]:
    """A service of two workers with a store of 8 MiB that evicts."""
    with Server("--when-full", "evict", workers=2, memory="8m") as running:
        yield running


@pytest.fixture
def clients(cache: Server) -> Iterator[list[Client]]:
    """A connection to each worker."""
    with spread(cache) as both:
        yield both


def overfill(clients: list[Client], name: str) -> list[str]:
    keys = [f"{name}-{number}" for number in range(MORE_THAN_FITS)]
    for number, key in enumerate(keys):
        clients[number % len(clients)].put(key, VALUE)
    return keys


def metric(client: Client, name: str) -> float:
    lines = client.get("/metrics").body.decode().splitlines()
    return float(next(line for line in lines if line.startswith(name + " ")).split()[1])


def info(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/info").json
    return found


def test_every_write_is_done_by_either_worker(clients: list[Client]) -> None:
    keys = overfill(clients, "every")
    found = info(clients[0])
    assert 0 < found["keys"] < MORE_THAN_FITS
    assert clients[1].get(f"/v1/keys/{keys[-1]}").body == VALUE
    assert clients[1].get(f"/v1/keys/{keys[0]}").status == 404


def test_the_seed_api_evicts_as_well(clients: list[Client]) -> None:
    for number in range(MORE_THAN_FITS):
        body = {"key": f"seed-{number}", "value": VALUE.decode()}
        assert clients[0].post("/set", body).status == 200


def test_a_batch_keeps_all_of_its_own_keys(clients: list[Client]) -> None:
    overfill(clients, "before")
    keys = [f"batch-{number}" for number in range(60)]
    sets = [{"op": "set", "key": key, "value": VALUE.decode()} for key in keys]
    assert clients[0].batch(*sets).status == 200
    assert all(clients[1].get(f"/v1/keys/{key}").status == 200 for key in keys)


def test_what_is_read_stays(clients: list[Client]) -> None:
    clients[0].put("read", b"v")
    clients[0].put("unread", b"v")
    for number in range(20):
        assert clients[number % 2].get("/v1/keys/read").status == 200
        for at in range(30):
            clients[0].put(f"other-{number}-{at}", VALUE)
    assert clients[0].get("/v1/keys/read").status == 200
    assert clients[0].get("/v1/keys/unread").status == 404


def test_locks_stay_whatever_is_written(clients: list[Client]) -> None:
    lock = {"ttl": 600, "owner": "me"}
    assert clients[0].post("/v1/locks/held", lock).status == 201
    overfill(clients, "beside the lock")
    assert clients[1].post("/v1/locks/held", {"ttl": 1, "owner": "other"}).status == 409


def test_evictions_are_events_that_watchers_and_histories_tell(
    cache: Server, clients: list[Client]
) -> None:
    clients[0].put("watched", VALUE)
    with Watch(cache, "?prefix=watched") as watch:
        overfill(clients, "others")
        (told,) = watch.changes(1)
    assert (told.event, told.data["key"]) == ("evict", "watched")
    (latest, *_) = clients[1].get("/v1/events/watched").json["events"]
    assert latest["event"] == "evict"


def test_numbers_say_how_full_it_is_and_how_many_keys_went(clients: list[Client]) -> None:
    before = info(clients[0])
    overfill(clients, "counted")
    found = info(clients[1])
    assert found["engine"]["eviction"] is True
    memory = found["memory"]
    assert memory["limit"] == 8 << 20
    assert memory["used"] + memory["free"] == memory["limit"]
    assert 0 < memory["reclaimable"] <= memory["free"]
    assert found["evicted"] > before["evicted"]
    assert metric(clients[0], "keyrack_keys_evicted_total") == info(clients[0])["evicted"]
    assert metric(clients[0], "keyrack_store_reclaimable_bytes") > 0


def test_misses_are_counted_over_both_workers(clients: list[Client]) -> None:
    hits, misses = (metric(clients[0], f"keyrack_key_{what}_total") for what in ("hits", "misses"))
    clients[0].put("there", b"v")
    for client in clients:
        client.get("/v1/keys/there")
        client.get("/v1/keys/missing")
    assert metric(clients[1], "keyrack_key_hits_total") == hits + 2
    assert metric(clients[1], "keyrack_key_misses_total") == misses + 2
