"""hishel, the cache of an HTTP client, on a service: it keeps what it may, as long as it may."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from hishel import CacheOptions, SqliteStorage
from hishel.httpx import CacheClient

from keyrack import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

URL = os.environ["KEYRACK_URL"]


@pytest.fixture
def store() -> Iterator[Client]:
    with Client(URL) as client:
        yield client
        client.delete_prefix("hishel/")


def cache(home: Path, *, shared: bool) -> CacheClient:
    """Return a client with a cache, of one person's or of several people's."""
    return CacheClient(
        rfc=CacheOptions(shared=shared),
        storage=SqliteStorage(database_path=home / f"{shared}.db"),
        base_url=f"{URL}/v1/keys/hishel/",
    )


@pytest.fixture
def http(tmp_path: Path) -> Iterator[CacheClient]:
    with cache(tmp_path, shared=False) as client:
        yield client


def read(http: CacheClient, key: str) -> tuple[str, bool, bool]:
    """Return a value, and if it came out of the cache, and if it was asked for anew."""
    answer: httpx.Response = http.get(key)
    answer.raise_for_status()
    told = answer.extensions["caching"]
    return answer.text, told["from_cache"], told["revalidated"]


@pytest.mark.parametrize("public", [False, True])
def test_a_value_is_kept_for_as_long_as_it_may_be(
    store: Client, http: CacheClient, public: bool
) -> None:
    store.set("hishel/k", "old", max_age=300, public=public)
    assert read(http, "k") == ("old", False, False)
    store.set("hishel/k", "new")
    assert read(http, "k") == ("old", True, False)


def test_a_cache_of_several_people_keeps_what_is_public(store: Client, tmp_path: Path) -> None:
    with cache(tmp_path, shared=True) as http:
        for public, last in ((False, ("new", False, False)), (True, ("old", True, False))):
            store.set(f"hishel/{public}", "old", max_age=300, public=public)
            assert read(http, f"{public}") == ("old", False, False)
            store.set(f"hishel/{public}", "new")
            assert read(http, f"{public}") == last


def test_what_says_nothing_is_not_kept(store: Client, http: CacheClient) -> None:
    store.set("hishel/k", "old", ttl=300)
    assert read(http, "k") == ("old", False, False)
    store.set("hishel/k", "new")
    assert read(http, "k") == ("new", False, False)


def test_a_value_that_is_the_same_is_not_sent_again(store: Client, http: CacheClient) -> None:
    store.set("hishel/k", "same", max_age=1)
    assert read(http, "k") == ("same", False, False)
    deadline = time.monotonic() + 30
    while not read(http, "k")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    store.set("hishel/k", "new", max_age=1)
    while read(http, "k")[0] != "new":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_key_that_has_ended_is_not_served(store: Client, http: CacheClient) -> None:
    store.set("hishel/k", "v", ttl=5, max_age=300)
    assert read(http, "k")[0] == "v"
    deadline = time.monotonic() + 30
    while http.get("k").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_read_that_waits_is_not_answered_out_of_the_cache(
    store: Client, http: CacheClient
) -> None:
    etag = store.set("hishel/k", "old", max_age=300)
    assert read(http, "k") == ("old", False, False)
    store.set("hishel/k", "new", max_age=300)
    answer = http.get("k", headers={"If-None-Match": etag, "Prefer": "wait=10"})
    assert answer.text == "new"
