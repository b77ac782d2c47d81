"""A py-key-value store in Keyrack, for FastMCP and others.

from keyrack.key_value import KeyrackStore

store = KeyrackStore("keyrack://127.0.0.1:8088/mcp/")
mcp = FastMCP("demo", auth=OAuthProxy(..., client_storage=store))
"""

# mypy: disable-error-code="import-not-found, misc"
# (py-key-value is there where this is used, and not where it is checked.)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from key_value.aio._utils.compound import compound_key
from key_value.aio._utils.sanitization import HashExcessLengthStrategy
from key_value.aio._utils.serialization import BasicSerializationAdapter
from key_value.aio.errors import DeserializationError
from key_value.aio.stores.base import (
    BaseContextManagerStore,
    BaseDestroyStore,
    BaseEnumerateKeysStore,
)

from keyrack.client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from key_value.aio._utils.managed_entry import ManagedEntry

_LONGEST_PART_BYTES: Final = 240
"""Of collection and key: together with what is between them they are a key of Keyrack."""
_MOST_KEYS: Final = 10_000


class KeyrackStore(BaseDestroyStore, BaseEnumerateKeysStore, BaseContextManagerStore):
    """A store in Keyrack. `url` is as `keyrack.from_url` takes it; its path is before every key.

    A client that is given instead stays open when the store is closed. `destroy` removes what is
    under the path, and refuses where there is none.
    """

    def __init__(
        self,
        url: str = "keyrack://127.0.0.1:8088/key-value/",
        *,
        client: AsyncClient | None = None,
        default_collection: str | None = None,
        **options: Any,
    ) -> None:
        self._client = client or AsyncClient.from_url(url, **options)
        self._adapter = BasicSerializationAdapter(date_format="isoformat", value_format="dict")
        super().__init__(
            default_collection=default_collection,
            client_provided_by_user=client is not None,
            key_sanitization_strategy=HashExcessLengthStrategy(_LONGEST_PART_BYTES),
            collection_sanitization_strategy=HashExcessLengthStrategy(_LONGEST_PART_BYTES),
            stable_api=True,
        )

    async def _setup(self) -> None:
        if not self._client_provided_by_user:
            self._exit_stack.push_async_callback(self._client.aclose)

    def _name(self, collection: str, key: str) -> str:
        name: str = compound_key(
            collection=self._sanitize_collection(collection), key=self._sanitize_key(key)
        )
        return name

    def _loaded(self, text: Any) -> ManagedEntry | None:
        if not isinstance(text, str):
            return None
        try:
            return self._adapter.load_json(json_str=text)
        except DeserializationError:
            return None

    def _dumped(self, collection: str, key: str, entry: ManagedEntry) -> str:
        text: str = self._adapter.dump_json(entry=entry, key=key, collection=collection)
        return text

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        return self._loaded(await self._client.get(self._name(collection, key)))

    async def _get_managed_entries(
        self, *, collection: str, keys: Sequence[str]
    ) -> list[ManagedEntry | None]:
        names = [self._name(collection, key) for key in keys]
        found = await self._client.get_many(names) if names else {}
        return [self._loaded(found.get(name)) for name in names]

    async def _put_managed_entry(
        self, *, collection: str, key: str, managed_entry: ManagedEntry
    ) -> None:
        text = self._dumped(collection, key, managed_entry)
        ttl = _least(managed_entry.ttl)
        await self._client.set(self._name(collection, key), text, ttl=ttl)

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        texts = {
            self._name(collection, key): self._dumped(collection, key, entry)
            for key, entry in zip(keys, managed_entries, strict=True)
        }
        if texts:
            await self._client.set_many(texts, ttl=_least(ttl))

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return await self._client.delete(self._name(collection, key))

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        names = [self._name(collection, key) for key in keys]
        return await self._client.delete_many(names) if names else 0

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        most = min(limit or _MOST_KEYS, _MOST_KEYS)
        prefix = compound_key(collection=self._sanitize_collection(collection), key="")
        found: list[str] = []
        async for entry in self._client.scan(prefix, page=min(most, 1000)):
            if len(found) >= most:
                break
            found.append(entry[0][len(prefix) :])
        return found

    async def _delete_store(self) -> bool:
        await self._client.delete_prefix("")
        return True


def _least(ttl: float | None) -> float | None:
    return None if ttl is None else max(float(ttl), 0.001)
