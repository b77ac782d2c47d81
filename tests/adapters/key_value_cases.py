"""A py-key-value store in Keyrack, asked everything that its protocols say.

The suite of py-key-value itself is not in its distributions. KEYRACK_URL is the service.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from key_value.aio.protocols.key_value import (
    AsyncDestroyStoreProtocol,
    AsyncEnumerateKeysProtocol,
    AsyncKeyValueProtocol,
)

from keyrack import AsyncClient
from keyrack.key_value import KeyrackStore

URL = os.environ["KEYRACK_URL"].replace("http", "keyrack") + "/key-value/"

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def store() -> Any:
    async with KeyrackStore(URL) as one:
        await one.destroy()
        yield one


async def test_it_speaks_the_protocols(store: KeyrackStore) -> None:
    for protocol in (AsyncKeyValueProtocol, AsyncEnumerateKeysProtocol, AsyncDestroyStoreProtocol):
        assert isinstance(store, protocol)


async def test_a_value_comes_back(store: KeyrackStore) -> None:
    assert await store.get("a") is None
    await store.put("a", {"n": [1, None, "ü"]})
    assert await store.get("a") == {"n": [1, None, "ü"]}
    assert await store.get("a", collection="other") is None
    assert await store.delete("a") is True
    assert await store.delete("a") is False


async def test_a_value_ends(store: KeyrackStore) -> None:
    await store.put("a", {"n": 1}, ttl=0.3)
    value, ttl = await store.ttl("a")
    assert value == {"n": 1}
    assert 0 < ttl <= 0.3
    await asyncio.sleep(0.4)
    assert await store.get("a") is None


async def test_many_forms(store: KeyrackStore) -> None:
    await store.put_many(["a", "b"], [{"n": 1}, {"n": 2}], ttl=60)
    assert await store.get_many(["a", "none", "b"]) == [{"n": 1}, None, {"n": 2}]
    assert [left is not None for _, left in await store.ttl_many(["a", "none"])] == [True, False]
    assert await store.delete_many(["a", "none"]) == 1
    assert await store.get_many([]) == []
    assert await store.delete_many([]) == 0


async def test_keys_are_enumerated_by_collection(store: KeyrackStore) -> None:
    for name in ("a", "b", "c"):
        await store.put(name, {"n": 1}, collection="one")
    await store.put("d", {"n": 1}, collection="two")
    assert await store.keys("one") == ["a", "b", "c"]
    assert await store.keys("one", limit=2) == ["a", "b"]
    assert await store.keys("three") == []


async def test_long_and_odd_keys_are_themselves(store: KeyrackStore) -> None:
    names = ["k" * 600, "k" * 601, "a b/..", "ü" * 100, "::"]
    for number, name in enumerate(names):
        await store.put(name, {"n": number}, collection="c" * 300)
    for number, name in enumerate(names):
        assert await store.get(name, collection="c" * 300) == {"n": number}


async def test_destroying_leaves_what_is_not_below_the_path(store: KeyrackStore) -> None:
    async with AsyncClient(os.environ["KEYRACK_URL"]) as client:
        await client.set("elsewhere", "v")
        await store.put("a", {"n": 1})
        assert await store.destroy() is True
        assert await store.get("a") is None
        assert await client.get("elsewhere") == "v"


async def test_a_client_that_was_given_stays_open() -> None:
    async with AsyncClient(os.environ["KEYRACK_URL"], prefix="given/") as client:
        async with KeyrackStore(client=client) as store:
            await store.put("a", {"n": 1})
        assert [entry.key async for entry in client.scan()] != []
        await client.delete_prefix("")


async def test_what_is_no_entry_is_nothing(store: KeyrackStore) -> None:
    async with AsyncClient.from_url(URL) as client:
        await store.put("a", {"n": 1})
        async for entry in client.scan():
            await client.set(entry.key, "no entry")
    assert await store.get("a") is None
