"""What is said about a single key, and what the answers mean."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.client import chance, wire
from keyrack.client.cacheability import NOTHING, Cacheability
from keyrack.client.calls import ApiCall, conditions, ends_query, json_response, ttl_text
from keyrack.client.errors import ProtocolError
from keyrack.client.refusals import MISSING, refused
from keyrack.client.serializers import AUTO, BINARY, JSON, TEXT
from keyrack.client.undo import NOTHING as NO_DELETION
from keyrack.client.undo import Deletion, deletion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyrack.client.calls import Requests
    from keyrack.client.serializers import Serializer
    from keyrack.client.wire import Response


class Value(NamedTuple):
    """A stored value: its bytes, media type, ETag, and seconds left if it has a TTL."""

    data: bytes
    media_type: str
    etag: str
    ttl: float | None


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""What `get_value` returns when the key is at the ETag that was named."""


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""The TTL of an update that leaves the key's TTL as it is."""

_STORED: Final = frozenset((200, 201, 204))
_FIELDS: Final[dict[str, bytes]] = {
    kind: wire.field("Content-Type", kind) for kind in (TEXT, BINARY, JSON)
}


class KeyCalls:
    """Calls about single keys, with the values that a serializer understands."""

    def __init__(self, requests: Requests, serializer: Serializer) -> None:
        self.requests = requests
        self.serializer = serializer

    def get(self, key: str | bytes, default: Any) -> ApiCall[Any]:
        """Read a key's value."""
        name = self.requests.key(key)
        return ApiCall("get", self.requests.get(name), partial(self._value, name, default), True)

    def _value(self, key: bytes, default: Any, answer: Response) -> Any:
        if answer.status != 200:
            raise_unless_missing(answer)
            return default
        _check_ours(answer)
        return self.loads(answer.body, answer.field(b"Content-Type") or "", key)

    def loads(self, data: bytes, media_type: str, key: bytes) -> Any:
        """Return what stored bytes stand for."""
        if self.serializer is AUTO and media_type == TEXT:
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        return self.serializer.loads(data, media_type, key)

    def get_value(
        self,
        key: str | bytes,
        if_none_match: str | None,
        wait: float | None,
        max_stale: float | None = None,
    ) -> ApiCall[Value | Unchanged | None]:
        """Read a key as it is stored; with `wait`, once it differs from `if_none_match`."""
        fields = conditions(None, if_none_match)
        if wait is not None:
            fields += b"Prefer: wait=%d\r\n" % max(0, round(wait))
        if max_stale is not None:
            fields += b"Cache-Control: max-stale=%d\r\n" % max(0, round(max_stale))
        data = self.requests.on_key(b"GET", self.requests.key(key), fields)
        return ApiCall("get", data, _read_value, True, wait or 0.0)

    def set(
        self,
        key: str | bytes,
        value: Any,
        *,
        ttl: float | None = None,
        stale: float | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str | None = None,
        caching: Cacheability = NOTHING,
    ) -> ApiCall[str]:
        """Store a value, and return its ETag."""
        fields = conditions(if_match, if_none_match)
        repeatable = not fields
        if _is_revision(if_match):
            fields, repeatable = fields + _remembered(), True
        data = self._put(key, value, ttl, fields, media_type, stale, caching)
        return ApiCall("set", data, _read_etag, repeatable)

    def add(
        self, key: str | bytes, value: Any, ttl: float | None, media_type: str | None
    ) -> ApiCall[str | None]:
        """Store a value if the key is missing, and return its ETag; None if it is there."""
        data = self._put(key, value, ttl, b"If-None-Match: *\r\n", media_type)
        return ApiCall("add", data, _read_etag_if_held, False)

    def replace(
        self, key: str | bytes, value: Any, ttl: float | None, media_type: str | None
    ) -> ApiCall[str | None]:
        """Store a value if the key is there, and return its ETag; None if it is missing."""
        data = self._put(key, value, ttl, b"If-Match: *\r\n", media_type)
        return ApiCall("replace", data, _read_etag_if_held, False)

    def _put(
        self,
        key: str | bytes,
        value: Any,
        ttl: float | None,
        fields: bytes,
        media_type: str | None,
        stale: float | None = None,
        caching: Cacheability = NOTHING,
    ) -> bytes:
        name = self.requests.key(key)
        body, kind = self.serializer.dumps(value, name)
        if media_type is not None:
            kind = media_type
        if kind:
            fields += _FIELDS.get(kind) or wire.field("Content-Type", kind)
        query = b"" if ttl is None and stale is None else ends_query(ttl, stale)
        if caching is not NOTHING:
            query = caching.query(query)
        return self.requests.put(name, query, fields, body)

    def delete_undoable(
        self, key: str | bytes, if_match: str | None, undo: int
    ) -> ApiCall[Deletion]:
        """Remove a key so that it can be undone, and tell how."""
        # A repeat is answered with what the first one has done: else nobody knew how to undo it.
        fields = conditions(if_match, None) + _remembered()
        path = b"/v1/keys/" + wire.key_path(self.requests.key(key))
        query = wire.query([("undo", str(undo))])
        data = self.requests.request(b"DELETE", path + query, fields)
        repeatable = if_match is None or _is_revision(if_match)
        return ApiCall("delete", data, _read_deletion, repeatable)

    def delete(self, key: str | bytes, if_match: str | None) -> ApiCall[bool]:
        """Remove a key, and tell whether it was there."""
        fields = conditions(if_match, None)
        repeatable = not fields
        if _is_revision(if_match):
            fields, repeatable = fields + _remembered(), True
        data = self.requests.on_key(b"DELETE", self.requests.key(key), fields)
        return ApiCall("delete", data, _read_done, repeatable)

    def patch(
        self, key: str | bytes, merge: Mapping[str, Any], if_match: str | None
    ) -> ApiCall[str]:
        """Change members of a JSON value, and return its ETag."""
        import json  # only for those that speak JSON

        fields = b"Content-Type: application/merge-patch+json\r\n" + conditions(if_match, None)
        if if_match is not None:
            # Without a condition a merge patch that is applied twice leaves what it leaves once.
            fields += _remembered()
        body = json.dumps(merge, separators=(",", ":"), allow_nan=False).encode()
        target = b"/v1/keys/" + wire.key_path(self.requests.key(key))
        data = self.requests.request(b"PATCH", target, fields, body)
        return ApiCall("patch", data, _read_etag, True)

    def touch(self, key: str | bytes, ttl: float | None) -> ApiCall[bool]:
        """Give a key another TTL, or none, and tell whether it was there."""
        target = b"/v1/keys/" + wire.key_path(self.requests.key(key))
        query = b"?ttl=" + (b"none" if ttl is None else ttl_text(ttl).encode())
        data = self.requests.request(b"PATCH", target + query)
        return ApiCall("touch", data, _read_done, True)


def _is_revision(tag: str | None) -> bool:
    """Tell whether a condition names a state: what compares and sets can then be repeated.

    For `*` the server is not asked to remember the answer, in its memory and for ten minutes:
    caches and queues send thousands of these a second.
    """
    return tag is not None and tag != "*"


def _remembered() -> bytes:
    return b"Idempotency-Key: %b\r\n" % chance.new_id()


def _read_value(answer: Response) -> Value | Unchanged | None:
    if answer.status == 304:
        return UNCHANGED
    if answer.status != 200:
        raise_unless_missing(answer)
        return None
    etag = _check_ours(answer)
    ttl = answer.field(b"Keyrack-TTL")
    media_type = answer.field(b"Content-Type") or ""
    try:
        return Value(answer.body, media_type, etag, None if ttl is None else float(ttl))
    except ValueError:
        raise ProtocolError(f"The TTL {ttl!r} of the answer is no number.") from None


def _read_etag(answer: Response) -> str:
    if answer.status not in _STORED:
        raise refused(answer)
    return _check_ours(answer)


def _read_etag_if_held(answer: Response) -> str | None:
    return None if answer.status == 412 else _read_etag(answer)


def _read_deletion(answer: Response) -> Deletion:
    if answer.status == 204:
        return Deletion(1, None, None)
    return deletion(json_response(answer)) if _read_done(answer) else NO_DELETION


def _read_done(answer: Response) -> bool:
    if answer.status in (200, 204):
        return True
    raise_unless_missing(answer)
    return False


def raise_unless_missing(answer: Response) -> None:
    """Raise `Refused`, unless the answer is that the key is missing. Not every 404 says so."""
    error = refused(answer)
    if error.kind != MISSING:
        raise error


def _check_ours(answer: Response) -> str:
    """Return the ETag that every answer of Keyrack about a key has."""
    etag = answer.field(b"ETag")
    if not etag:
        raise ProtocolError("The answer has no ETag: what answers there is no Keyrack server.")
    return etag
