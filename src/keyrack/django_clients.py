"""The clients of `keyrack.django`, which all caches of a process share."""

# Django is there where this is used, and not where it is checked.
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from keyrack.client import AsyncClient, Client, SignedPickle
from keyrack.client.address import options_of
from keyrack.client.serializers import PlainOrSigned

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS: Final = frozenset(("token", "timeout", "connect_timeout", "max_connections", "retries"))
"""Members of a cache's OPTIONS that are its client's."""


class DjangoClients:
    """The clients of a process, with their connections: Django makes a cache for each request."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Client, AsyncClient]] = {}
        self._lock = threading.Lock()

    def of(self, location: str, options: Mapping[str, Any]) -> tuple[Client, AsyncClient]:
        kind = options.get("serializer", "signed")
        name = repr((location, sorted(options.items())))
        with self._lock:
            if name not in self._made:
                given = {key: value for key, value in options.items() if key in OPTIONS}
                given = {**options_of(location), **given, "serializer": _serializer(kind)}
                self._made[name] = Client(**given), AsyncClient(**given)
            return self._made[name]


def _serializer(kind: str) -> PlainOrSigned:
    if kind == "plain":
        return PlainOrSigned(None)
    if kind != "signed":
        raise ImproperlyConfigured('OPTIONS["serializer"] is "signed" or "plain".')
    secrets = [_derived(one) for one in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
    return PlainOrSigned(SignedPickle(secrets[0], secrets[1:]))


def _derived(secret: str | bytes) -> bytes:
    text = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(b"keyrack.django:" + text).digest()


CLIENTS: Final = DjangoClients()
