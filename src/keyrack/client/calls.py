"""A call: the bytes of a request, and what its answer means. No socket is touched here.

`Client` and `AsyncClient` differ in how they send; what they send, and what they make of the
answer, is the same and is here and in the modules beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from keyrack.client import json_text, wire
from keyrack.client.errors import ProtocolError
from keyrack.client.refusals import refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.client.wire import Response

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ApiCall(NamedTuple, Generic[T_co]):
    """One request and what its answer means.

    `repeatable` says that sending it twice is the same as sending it once. `wait` is the seconds
    that the server was asked to wait. `bodyless` is for `HEAD`.
    """

    operation: str
    data: bytes
    read: Callable[[Response], T_co]
    repeatable: bool
    wait: float = 0.0
    bodyless: bool = False

    def with_fields(self, fields: bytes) -> ApiCall[T_co]:
        """Return the same call with more fields in its request."""
        line, _, rest = self.data.partition(b"\r\n")
        return self._replace(data=b"%b\r\n%b%b" % (line, fields, rest))


class Requests:
    """Makes requests as bytes. What each of a client's requests says is worked out once.

    `root` is the path that the service is below, `authority` the Host field, `prefix` is put before
    every key and taken off every key that comes back.
    """

    def __init__(
        self, authority: str, root: str = "", token: str | None = None, prefix: str | bytes = ""
    ) -> None:
        fields = wire.field("Host", authority)
        fields += wire.field("User-Agent", "keyrack-python")
        if token:
            fields += wire.field("Authorization", f"Bearer {token}")
        self.root: Final = wire.root_path(root)
        self.prefix: Final = wire.key_bytes(prefix)
        self._keys: Final = self.root + b"/v1/keys/"
        self._tail = b" HTTP/1.1\r\n" + fields
        self._end = self._tail + b"\r\n"

    def say_always(self, fields: bytes) -> None:
        """Have every request that is made from now on carry more fields."""
        self._tail += fields
        self._end = self._tail + b"\r\n"

    def key(self, key: str | bytes) -> bytes:
        """Return a key's bytes with the prefix before them."""
        return self.prefix + wire.key_bytes(key)

    def prefix_of(self, prefix: str | bytes) -> bytes:
        """Return the beginning of keys that a caller's prefix stands for."""
        return self.prefix + wire.key_bytes(prefix)

    def without_prefix(self, key: str) -> str:
        """Return a key that came back as the caller names it. Raises `ProtocolError`."""
        if not self.prefix:
            return key
        prefix = self.prefix.decode("utf-8", "replace")
        if not key.startswith(prefix):
            raise ProtocolError(f"The server told of {key!r}, which is not below {prefix!r}.")
        return key[len(prefix) :]

    def on_key(self, method: bytes, key: bytes, fields: bytes = b"") -> bytes:
        """Return a request without a body for a key."""
        return b"%b %b%b%b%b\r\n" % (method, self._keys, wire.key_path(key), self._tail, fields)

    def get(self, key: bytes) -> bytes:
        """Return the request that reads a key."""
        return b"GET " + self._keys + wire.key_path(key) + self._end

    def put(self, key: bytes, query: bytes, fields: bytes, body: bytes) -> bytes:
        """Return the request that stores a body under a key."""
        return b"PUT %b%b%b%b%bContent-Length: %d\r\n\r\n%b" % (
            self._keys,
            wire.key_path(key),
            query,
            self._tail,
            fields,
            len(body),
            body,
        )

    def request(
        self, method: bytes, target: bytes, fields: bytes = b"", body: bytes | None = None
    ) -> bytes:
        """Return a request. `target` begins behind `root`; fields end with a line break each."""
        head = b"%b %b%b%b%b" % (method, self.root, target, self._tail, fields)
        if body is None:
            return head + b"\r\n"
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def chunked(self, method: bytes, target: bytes, fields: bytes) -> bytes:
        """Return the head of a request whose body comes in chunks."""
        fields += b"Transfer-Encoding: chunked\r\n"
        return b"%b %b%b%b%b\r\n" % (method, self.root, target, self._tail, fields)


def ttl_text(ttl: float) -> str:
    """Return seconds as the server reads them, to the millisecond."""
    return str(ttl) if ttl.__class__ is int else f"{ttl:.3f}"


def ends_query(ttl: float | None, stale: float | None) -> bytes:
    """Return the query of a write that says when a key ends, and its stale copy."""
    if ttl is None:
        if stale is not None:
            raise ValueError("stale= needs ttl=: what does not end is never stale.")
        return b""
    query = b"?ttl=" + ttl_text(ttl).encode()
    return query + b"&stale=" + ttl_text(stale).encode() if stale else query


def quoted_etag(etag: str) -> str:
    """Return an ETag as a field has it: a bare revision gets its quotes."""
    return f'"{etag}"' if etag.isdigit() else etag


def conditions(if_match: str | None, if_none_match: str | None) -> bytes:
    """Return the fields of a request that depends on a key's present state."""
    fields = b""
    if if_match is not None:
        fields += wire.field("If-Match", quoted_etag(if_match))
    if if_none_match is not None:
        fields += wire.field("If-None-Match", quoted_etag(if_none_match))
    return fields


def json_body(value: Any) -> bytes:
    """Return the JSON of what a request says."""
    return json_text.dumps(value)


def json_response(answer: Response, *statuses: int) -> Any:
    """Return what a successful answer says. Raises `Refused` or `ProtocolError`."""
    if answer.status not in (statuses or (200,)):
        raise refused(answer)
    try:
        return json_text.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"The answer is no JSON: {error}.") from None
