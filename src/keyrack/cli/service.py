"""The client of the command line: what `Client` can, and operations that only people ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from keyrack.client import Client, HistoryGone, json_text, wire
from keyrack.client.calls import ApiCall, conditions, json_body, json_response
from keyrack.client.fencing import held_field
from keyrack.client.keys import raise_unless_missing
from keyrack.client.refusals import refused
from keyrack.client.watching import EventStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.client.wire import Response

_CHANGES = frozenset(("set", "delete", "expire", "evict"))


class KeyFacts(NamedTuple):
    """What is known of a key beside its value; `ttl` is the seconds left, None for no end."""

    media_type: str
    size: int
    etag: str
    ttl: float | None


class Service(Client):
    """A running service, asked over HTTP. Raises `KeyrackError` as `Client` does."""

    def __enter__(self) -> Service:
        return self

    def depend_on(self, name: bytes, token: int) -> None:
        """Have every write from now on be done only while a lock is held with a token."""
        self._requests.say_always(held_field(self._requests.key(name), token))

    def head(self, key: bytes) -> KeyFacts | None:
        """Return what is known of a key, None when it is missing."""
        data = self._requests.on_key(b"HEAD", self._requests.key(key))
        return self._send(ApiCall("head", data, _read_head, True, bodyless=True))

    def json(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        body: bytes | None = None,
        media_type: str = "application/json",
        query: Iterable[tuple[str, str | bytes]] = (),
        seconds: float = 0.0,
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer, None for no body.

        What is sent is a document or a body that is JSON already; `seconds` is what the answer may
        take beyond the time for a call. Raises `Refused` for any status but 2xx.
        """
        if document is not None:
            body = json_body(document)
        fields = b"" if body is None else wire.field("Content-Type", media_type)
        target = path.encode("ascii") + wire.query(list(query))
        data = self._requests.request(method.encode("ascii"), target, fields, body)
        return self._send(ApiCall("json", data, _read_json, method == "GET", seconds))

    def raw(self, path: str, query: Iterable[tuple[str, str | bytes]]) -> bytes:
        """Return the body of an answer to a read as it came. Raises `Refused`."""
        target = path.encode("ascii") + wire.query(list(query))
        data = self._requests.request(b"GET", target)
        return self._send(ApiCall("raw", data, _read_body, True))

    def lines(self, path: str, query: Iterable[tuple[str, str | bytes]]) -> Iterator[bytes]:
        """Yield the lines of an answer as they come. Raises `Refused`."""
        target = path.encode("ascii") + wire.query(list(query))
        rest = b""
        for piece in self._sender.stream(self._requests.request(b"GET", target)):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole

    def events(
        self, prefixes: Iterable[bytes], since: int, *, values: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield what happened after a revision, up to now: `event` and what is told of it.

        Raises `HistoryGone` where the history does not reach back.
        """
        asked: list[tuple[str, str | bytes]] = [("prefix", self.prefixed(one)) for one in prefixes]
        asked += [("since", str(since)), *([("values", "true")] if values else [])]
        fields = b"Accept: text/event-stream\r\n"
        request = self._requests.request(b"GET", b"/v1/watch" + wire.query(asked), fields)
        stream = EventStream()
        for piece in self._sender.stream(request):
            for message in stream.feed(piece):
                if message.event == "synced":
                    return
                if message.event in _CHANGES:
                    told = json_text.loads(message.data)
                    told["key"] = self.without_prefix(told["key"])
                    yield {"event": message.event, **told}

    def oldest(self) -> int:
        """Return the revision that the history reaches back to."""
        try:
            for _ in self.events((), 1):
                break
        except HistoryGone as gone:
            return int(gone.oldest)
        return 1

    def revision(self) -> int:
        """Return the revision of the last change."""
        _, page = self.json("GET", "/v1/keys", query=[("limit", "1")])
        return int(page["revision"])

    def patch_text(self, key: bytes, text: bytes, if_match: str | None) -> str:
        """Apply a merge patch as it was written, and return the key's ETag."""
        fields = b"Content-Type: application/merge-patch+json\r\n" + conditions(if_match, None)
        target = b"/v1/keys/" + wire.key_path(self._requests.key(key))
        data = self._requests.request(b"PATCH", target, fields, text)
        return self._send(ApiCall("patch", data, _read_etag, False))

    def exchange(self, method: str, path: str, body: str | None = None) -> Response:
        """Return an answer as it came, whatever it is. The body is sent as JSON."""
        fields = b"" if body is None else b"Content-Type: application/json\r\n"
        data = None if body is None else body.encode()
        request = self._requests.request(method.encode("ascii"), path.encode("ascii"), fields, data)
        return self._send(ApiCall("exchange", request, _read_anything, method == "GET"))

    def text(self, path: str) -> str:
        """Return the text of a page. Raises `Refused` for any status but 200."""
        data = self._requests.request(b"GET", path.encode("ascii"))
        return self._send(ApiCall("text", data, _read_text, True))

    def load_request(self, key: bytes, value: bytes | None) -> bytes:
        """Return the bytes of a request that stores a value, or reads the key for None."""
        name = self._requests.key(key)
        return (
            self._requests.get(name) if value is None else self._requests.put(name, b"", b"", value)
        )

    def path_of_lock(self, name: bytes) -> str:
        """Return the path of a lock."""
        return "/v1/locks/" + wire.key_path(self._requests.key(name)).decode("ascii")

    def prefixed(self, prefix: bytes) -> bytes:
        """Return a prefix with this client's own before it."""
        return self._requests.prefix_of(prefix)

    def without_prefix(self, key: str) -> str:
        """Return a key that came back as the caller names it."""
        return self._requests.without_prefix(key)


def _read_head(answer: Response) -> KeyFacts | None:
    if answer.status != 200:
        if answer.status == 404 and answer.field(b"Server") == "keyrack":
            return None  # without a body nobody says which problem it is
        raise_unless_missing(answer)
        return None
    ttl = answer.field(b"Keyrack-TTL")
    return KeyFacts(
        answer.field(b"Content-Type") or "",
        int(answer.field(b"Content-Length") or 0),
        answer.field(b"ETag") or "",
        None if ttl is None else float(ttl),
    )


def _read_json(answer: Response) -> tuple[int, Any]:
    if not 200 <= answer.status < 300:
        raise refused(answer)
    if not answer.body:
        return answer.status, None
    return answer.status, json_response(answer, answer.status)


def _read_anything(answer: Response) -> Response:
    return answer


def _read_etag(answer: Response) -> str:
    if not 200 <= answer.status < 300:
        raise refused(answer)
    return answer.field(b"ETag") or ""


def _read_body(answer: Response) -> bytes:
    if answer.status != 200:
        raise refused(answer)
    return answer.body


def _read_text(answer: Response) -> str:
    return _read_body(answer).decode("utf-8", "replace")
