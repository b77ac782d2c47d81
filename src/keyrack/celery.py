"""Celery's results in Keyrack.

    app = Celery(broker="...", backend="keyrack.celery:KeyrackBackend+keyrack://127.0.0.1:8088/celery:")

Chords count with one request a part, and results end by themselves (`result_expires`).
"""

# mypy: disable-error-code="import-not-found, misc"
# (Celery is there where this is used, and not where it is checked.)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured

from keyrack.client import Client, Raw

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_URL = "keyrack://127.0.0.1:8088/celery:"


class KeyrackBackend(KeyValueStoreBackend):
    """Results in Keyrack. The URL's path is put before every key.

    `result_backend_transport_options` may have `token`, `timeout`, `connect_timeout`,
    `max_connections` and `retries`.
    """

    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, url=url, **kwargs)
        options = dict(self.app.conf.get("result_backend_transport_options") or {})
        options.pop("global_keyprefix", None)
        try:
            self._client = Client.from_url(_url(url), serializer=Raw(), **options)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(str(error)) from None

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url})

    def _seconds(self) -> float | None:
        return float(self.expires) if self.expires else None

    def get(self, key: bytes) -> bytes | None:
        """Return a key's bytes, None when it is missing."""
        found: bytes | None = self._client.get(key)
        return found

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the bytes of keys, all of one moment."""
        found = self._client.get_many(keys)
        return [found.get(key) for key in keys]

    def set(self, key: bytes, value: str | bytes) -> None:
        """Store a result."""
        self._client.set(key, value, ttl=self._seconds())

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        self._client.delete(key)

    def incr(self, key: bytes) -> int:
        """Count a part of a chord."""
        return self._client.incr(key)

    def expire(self, key: bytes, value: float) -> bool:
        """Let a key end after so many seconds; 0 is no end."""
        return self._client.touch(key, float(value)) if value else self._client.persist(key)


def _url(url: str | None) -> str:
    """Return the URL behind the name of this class, which Celery takes off or leaves."""
    _, found, rest = (url or _DEFAULT_URL).partition("KeyrackBackend+")
    return rest if found else url or _DEFAULT_URL
