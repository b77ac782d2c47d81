"""Batches: several operations that are done all or none, as one request."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, Final

from keyrack.client import chance, json_text
from keyrack.client.cacheability import Cacheability
from keyrack.client.calls import ApiCall, json_response, ttl_text
from keyrack.client.errors import BatchRefused, LockLost, ProtocolError
from keyrack.client.serializers import AUTO, BINARY, JSON, TEXT, essence
from keyrack.client.undo import number_of

if TYPE_CHECKING:
    from keyrack.client.keys import KeyCalls
    from keyrack.client.leases import Lease
    from keyrack.client.wire import Response

MOST_OPERATIONS: Final = 1000
_JSON_FIELD: Final = b"Content-Type: application/json\r\n"


class Handle:
    """What becomes of an operation of a batch: `value` of a read, `etag` of a write, `existed`.

    A handle that is asked before its batch was sent raises `RuntimeError`.
    """

    __slots__ = ("_key", "_keys", "_result")

    def __init__(self, keys: KeyCalls, key: bytes) -> None:
        self._keys = keys
        self._key = key
        self._result: dict[str, Any] | None = None

    def resolve(self, result: dict[str, Any]) -> None:
        """Take what the server says of the operation."""
        self._result = result

    @property
    def _answered(self) -> dict[str, Any]:
        if self._result is None:
            raise RuntimeError("The batch has not been sent: ask after its `with` block.")
        return self._result

    @property
    def existed(self) -> bool:
        """Whether the key was there before."""
        return bool(self._answered.get("existed"))

    @property
    def etag(self) -> str | None:
        """The key's ETag, None when it is missing."""
        revision = self._answered.get("revision")
        return f'"{revision}"' if revision else None

    @property
    def value(self) -> Any:
        """The value that was read, None when the key is missing; of a counter, its number."""
        result = self._answered
        if result.get("op") == "add":
            return int(result["value"])
        return None if "value" not in result else loaded(self._keys, result, self._key)


class Operations:
    """Operations in their order. Each method adds one; nothing is sent here."""

    def __init__(self, keys: KeyCalls, undo: int | None = None) -> None:
        self._keys = keys
        self._seconds = undo
        self.undo: int | None = None
        """When it is done: what `Client.undo` takes to put back what it has deleted."""
        self.until: str | None = None
        """When that ends, as in RFC 3339."""
        self._texts: list[bytes] = []
        self.handles: list[Handle] = []
        self._writes = False
        self._locks: dict[int, Lease] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self.handles)

    def get(self, key: str | bytes) -> Handle:
        """Read a key, as the operations before have left it."""
        return self._add("get", key, {})

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
        max_age: int | None = None,
        swr: int | None = None,
        public: bool = False,
    ) -> Handle:
        """Store a value. A condition that does not hold refuses the batch."""
        members = _conditions(if_match, if_none_match) | _ttl(ttl)
        members |= Cacheability(max_age, swr, public).members()
        if stale is not None:
            members["stale"] = float(ttl_text(stale))
        name = self._keys.requests.key(key)
        raw = _value(*self._keys.serializer.dumps(value, name), media_type, members)
        return self._add("set", key, members, raw, writes=True)

    def add(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> Handle:
        """Store a value; the batch is refused if the key is there."""
        return self.set(key, value, ttl=ttl, if_none_match="*")

    def replace(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> Handle:
        """Store a value; the batch is refused if the key is missing."""
        return self.set(key, value, ttl=ttl, if_match="*")

    def delete(self, key: str | bytes, *, if_match: str | None = None) -> Handle:
        """Remove a key; that it is missing is no failure."""
        return self._add("delete", key, _conditions(if_match, None), writes=True)

    def incr(self, key: str | bytes, delta: int = 1, *, initial: int = 0) -> Handle:
        """Add to a counter; the handle's `value` is its number."""
        members = {"delta": str(delta), "initial": str(initial)}
        return self._add("add", key, members, writes=True)

    def touch(self, key: str | bytes, ttl: float | None) -> Handle:
        """Give a key another TTL, or none; the batch is refused if it is missing."""
        return self._add("touch", key, _ttl(ttl) or {"ttl": None}, writes=True)

    def check(
        self, key: str | bytes, *, if_match: str | None = None, if_none_match: str | None = None
    ) -> Handle:
        """Refuse the batch unless the key is in a state."""
        members = _conditions(if_match, if_none_match)
        if not members:
            raise ValueError("A check names if_match or if_none_match.")
        return self._add("check", key, members)

    def check_lock(self, lock: Lease) -> Handle:
        """Refuse the batch unless a lock is still held. Raises `LockLost` if that is known now."""
        lock.check()
        self._locks[len(self.handles)] = lock
        name = _text(self._keys.requests.key(lock.name))
        members = {"op": "check", "lock": name, "token": str(lock.token)}
        return self._put(members, b"", None, False)

    def _add(
        self,
        op: str,
        key: str | bytes,
        members: dict[str, Any],
        value: bytes | None = None,
        *,
        writes: bool = False,
    ) -> Handle:
        name = self._keys.requests.key(key)
        return self._put({"op": op, "key": _text(name), **members}, name, value, writes)

    def _put(
        self, members: dict[str, Any], name: bytes, value: bytes | None, writes: bool
    ) -> Handle:
        text = json_text.dumps(members)
        if value is not None:
            text = b'%b,"value":%b}' % (text[:-1], value)
        handle = Handle(self._keys, name)
        self._texts.append(text)
        self.handles.append(handle)
        self._writes = self._writes or writes
        self.size += len(text) + 1
        return handle

    def call(self) -> ApiCall[None]:
        """Return the call that does them; its answer is told to the handles."""
        kept = b"" if self._seconds is None else b',"undo":%d' % self._seconds
        body = b'{"operations":[%b]%b}' % (b",".join(self._texts), kept)
        fields = _JSON_FIELD
        if self._writes:
            # What only reads can be repeated as it is, and need not be remembered.
            fields += b"Idempotency-Key: %b\r\n" % chance.new_id()
        data = self._keys.requests.request(b"POST", b"/v1/batch", fields, body)
        return ApiCall("batch", data, self._read, True)

    def _read(self, response: Response) -> None:
        try:
            answer = json_response(response)
            self.undo, self.until = number_of(answer), answer.get("until")
            results = answer["results"]
            for handle, result in zip(self.handles, results, strict=True):
                handle.resolve(result)
        except BatchRefused as error:
            lock = self._locks.get(error.index)
            if lock is None:
                raise
            detail = f"The lock {lock.name!r} is not held any more: nothing was done."
            raise LockLost(detail) from error
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("The answer is none to a batch.") from None


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ValueError(f"The key {name!r} is not UTF-8.") from None


def _conditions(if_match: str | None, if_none_match: str | None) -> dict[str, Any]:
    given = {"if_match": if_match, "if_none_match": if_none_match}
    return {name: tag.strip('"') for name, tag in given.items() if tag is not None}


def _ttl(ttl: float | None) -> dict[str, Any]:
    return {} if ttl is None else {"ttl": float(ttl_text(ttl))}


def _value(body: bytes, kind: str, media_type: str | None, members: dict[str, Any]) -> bytes:
    """Return a value as a batch has it, and add the members that say how it is to be read."""
    kind = kind if media_type is None else media_type
    # A string would be taken for text, whatever its type says.
    if kind == JSON and body[:1] != b'"' and media_type is None:
        return body
    if kind in (TEXT, ""):
        try:
            return json_text.dumps(body.decode())
        except UnicodeDecodeError:
            pass
    members["encoding"] = "base64"
    if kind not in (BINARY, ""):
        members["type"] = kind
    return b'"%b"' % binascii.b2a_base64(body, newline=False)


def loaded(keys: KeyCalls, shown: dict[str, Any], key: bytes) -> Any:
    """Return the value of what JSON shows of a key: `value`, `type`, and perhaps `encoding`."""
    value, media_type = shown["value"], str(shown.get("type", TEXT))
    try:
        if shown.get("encoding") == "base64":
            return keys.loads(binascii.a2b_base64(value, strict_mode=True), media_type, key)
    except ValueError:
        raise ProtocolError("A value of the answer is no base64.") from None
    if essence(media_type) != JSON:
        return keys.loads(str(value).encode(), media_type, key)
    if keys.serializer is AUTO:
        return value
    return keys.loads(json_text.dumps(value), media_type, key)
