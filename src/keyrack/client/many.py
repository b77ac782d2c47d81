"""Work on many keys: batches that are cut to what the server takes, pages, prefixes, counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.client import chance, wire
from keyrack.client.batching import MOST_OPERATIONS, Operations, loaded
from keyrack.client.calls import ApiCall, conditions, json_body, json_response, ttl_text
from keyrack.client.errors import ProtocolError, Refused, TooLarge
from keyrack.client.undo import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from keyrack.client.calls import Requests
    from keyrack.client.keys import KeyCalls
    from keyrack.client.steps import Steps
    from keyrack.client.wire import Response

_LARGEST_BODY_BYTES: Final = 1 << 20
"""A batch is cut when it is longer, unless a single value is."""
_LONG_SECONDS: Final = 600.0
"""What work on a whole prefix may take beyond the time for a call."""
_SPREAD: Final = "keys-in-several-shards"


class ScanEntry(NamedTuple):
    """A key of a scan. `ttl` is the seconds left, None for no end; `value` is there on demand."""

    key: str
    etag: str
    size: int
    media_type: str
    ttl: float | None
    value: Any = None


class Folder(NamedTuple):
    """What keys share up to the delimiter of a scan."""

    name: str


class PrefixDeletion(NamedTuple):
    """What the deletion of a prefix did, or would do. `sample` has a few keys of a dry run."""

    deleted: int
    dry_run: bool
    sample: list[str]
    revision: int = 0
    """Of a dry run: what `at` takes, so that only what was looked at is removed."""
    kept_newer: int = 0
    """How many keys were left alone because they were changed after `at`."""
    undo: int | None = None
    """What `Client.undo` takes; None where nothing can be put back."""
    until: str | None = None
    """When the undo ends, as in RFC 3339."""


class PastEvent(NamedTuple):
    """What happened to a key: `kind` is `set`, `delete`, `expire` or `evict`; `time` RFC 3339."""

    kind: str
    key: str
    revision: int
    time: str


class ScanPage(NamedTuple):
    """A page of a scan; `after` is where the next one begins, None for no more."""

    items: list[ScanEntry | Folder]
    after: str | None
    revision: int


# Batches that are cut


def get_many(keys: KeyCalls, names: Iterable[str | bytes]) -> Steps[dict[Any, Any]]:
    """Read keys; those that are missing are left out. Each cut is one moment."""
    found: dict[Any, Any] = {}
    waiting = _cut(list(dict.fromkeys(names)))
    while waiting:
        cut = waiting.pop(0)
        operations = Operations(keys)
        for name in cut:
            operations.get(name)
        try:
            yield operations.call()
        except TooLarge:
            if len(cut) == 1:
                raise
            waiting[:0] = [cut[: len(cut) // 2], cut[len(cut) // 2 :]]
            continue
        except Refused as error:
            if error.kind != _SPREAD:
                raise
            for name in cut:
                found |= yield _get_one(keys, name)
            continue
        pairs = zip(cut, operations.handles, strict=True)
        found |= {name: handle.value for name, handle in pairs if handle.existed}
    return found


_ABSENT: Final = object()


def _get_one(keys: KeyCalls, name: str | bytes) -> ApiCall[dict[Any, Any]]:
    call = keys.get(name, _ABSENT)

    def read(response: Response) -> dict[Any, Any]:
        value = call.read(response)
        return {} if value is _ABSENT else {name: value}

    return ApiCall(call.operation, call.data, read, True)


def _cut(names: Sequence[str | bytes]) -> list[Sequence[str | bytes]]:
    return [names[at : at + MOST_OPERATIONS] for at in range(0, len(names), MOST_OPERATIONS)]


def set_many(keys: KeyCalls, values: Mapping[Any, Any], ttl: float | None) -> Steps[dict[Any, str]]:
    """Store values, and return their ETags. Each cut is done as a whole or not at all."""
    etags: dict[Any, str] = {}
    names = list(values)
    at = 0
    while at < len(names):
        operations = Operations(keys)
        begin = at
        while at < len(names) and _has_room(operations):
            operations.set(names[at], values[names[at]], ttl=ttl)
            at += 1
        try:
            yield operations.call()
        except Refused as error:
            if error.kind != _SPREAD:
                raise
            for name in names[begin:at]:
                etags[name] = yield keys.set(name, values[name], ttl=ttl)
            continue
        for name, handle in zip(names[begin:at], operations.handles, strict=True):
            etags[name] = str(handle.etag)
    return etags


def _has_room(operations: Operations) -> bool:
    return len(operations) < MOST_OPERATIONS and operations.size < _LARGEST_BODY_BYTES


def delete_many(keys: KeyCalls, names: Iterable[str | bytes]) -> Steps[int]:
    """Remove keys, and return how many were there. Each cut is done as a whole or not at all."""
    deleted = 0
    for cut in _cut(list(dict.fromkeys(names))):
        operations = Operations(keys)
        for name in cut:
            operations.delete(name)
        try:
            yield operations.call()
        except Refused as error:
            if error.kind != _SPREAD:
                raise
            for name in cut:
                deleted += yield keys.delete(name, None)
            continue
        deleted += sum(handle.existed for handle in operations.handles)
    return deleted


# Pages


def page(
    keys: KeyCalls,
    prefix: str | bytes,
    after: str | None,
    limit: int,
    delimiter: str | None,
    values: bool,
    reverse: bool,
) -> ApiCall[ScanPage]:
    """Read a page of keys in their order."""
    requests = keys.requests
    asked: list[tuple[str, str | bytes]] = [
        ("prefix", requests.prefix_of(prefix)),
        ("limit", str(limit)),
    ]
    if after is not None:
        asked.append(("after", after))
    if delimiter:
        asked.append(("delimiter", delimiter))
    if values:
        asked.append(("values", "true"))
    if reverse:
        asked.append(("reverse", "true"))
    data = requests.request(b"GET", b"/v1/keys" + wire.query(asked))

    def read(response: Response) -> ScanPage:
        return _page(keys, json_response(response), reverse)

    return ApiCall("scan", data, read, True)


def _page(keys: KeyCalls, shown: Any, reverse: bool) -> ScanPage:
    try:
        items: list[tuple[str, ScanEntry | Folder]] = [
            (one["key"], _entry(keys, one)) for one in shown["keys"]
        ]
        items += (
            (name, Folder(keys.requests.without_prefix(name))) for name in shown.get("folders", ())
        )
        items.sort(key=lambda item: item[0].encode(), reverse=reverse)
        return ScanPage([item for _, item in items], shown["next"], int(shown["revision"]))
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("The answer is no page of keys.") from None


def _entry(keys: KeyCalls, shown: dict[str, Any]) -> ScanEntry:
    name = shown["key"]
    value = loaded(keys, shown, name.encode()) if "value" in shown else None
    etag = f'"{shown["revision"]}"'
    short = keys.requests.without_prefix(name)
    return ScanEntry(short, etag, shown["size"], shown["type"], shown["ttl"], value)


# Prefixes and histories


def count(requests: Requests, prefix: str | bytes) -> ApiCall[int]:
    """Count the keys under a prefix."""
    query = wire.query([("prefix", requests.prefix_of(prefix)), ("count_only", "true")])
    data = requests.request(b"GET", b"/v1/keys" + query)
    return ApiCall("count", data, lambda r: int(_member(r, "count")), True, _LONG_SECONDS)


def delete_prefix(
    requests: Requests,
    prefix: str | bytes,
    dry_run: bool,
    everything: bool,
    undo: int | None = None,
    at: int | None = None,
) -> ApiCall[PrefixDeletion]:
    """Remove the keys under a prefix."""
    whole = requests.prefix_of(prefix)
    if not whole and not everything:
        raise ValueError("Without a prefix this removes every key: say everything=True.")
    asked: list[tuple[str, str | bytes]] = [("prefix", whole)]
    if dry_run:
        asked.append(("dry_run", "true"))
    if not whole:
        asked.append(("all", "true"))
    asked += [(name, str(n)) for name, n in (("undo", undo), ("at", at)) if n is not None]
    data = requests.request(b"DELETE", b"/v1/keys" + wire.query(asked))

    def read(response: Response) -> PrefixDeletion:
        sample = [requests.without_prefix(key) for key in _member(response, "sample", ())]
        return PrefixDeletion(
            int(_member(response, "deleted")),
            dry_run,
            sample,
            int(_member(response, "revision")),
            int(_member(response, "kept_newer", 0)),
            number_of(json_response(response)),
            json_response(response).get("until"),
        )

    # What is set again meanwhile may be removed by a repeat: it is not repeated by itself.
    return ApiCall("delete_prefix", data, read, dry_run, _LONG_SECONDS)


def history(requests: Requests, key: str | bytes, limit: int) -> ApiCall[list[PastEvent]]:
    """Return the last known events of a key, newest first."""
    path = b"/v1/events/" + wire.key_path(requests.key(key))
    data = requests.request(b"GET", path + wire.query([("limit", str(limit))]))

    def read(response: Response) -> list[PastEvent]:
        return [key_event(requests, str(one["event"]), one) for one in _member(response, "events")]

    return ApiCall("history", data, read, True)


def key_event(requests: Requests, kind: str, shown: dict[str, Any]) -> PastEvent:
    """Return an event of a key as it is told in JSON. Raises `ProtocolError`."""
    try:
        key = requests.without_prefix(shown["key"])
        return PastEvent(kind, key, int(shown["revision"]), str(shown["time"]))
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("The answer tells of no event.") from None


def _member(response: Response, name: str, default: Any = None) -> Any:
    shown = json_response(response)
    found = shown.get(name, default) if isinstance(shown, dict) else None
    if found is None:
        raise ProtocolError(f"The answer has no {name!r}.")
    return found


# Counters


def incr(
    requests: Requests,
    key: str | bytes,
    delta: int,
    initial: int,
    ttl: float | None,
    if_match: str | None = None,
    ttl_if_new: float | None = None,
) -> ApiCall[int]:
    """Add to a counter, and return its number."""
    asked: dict[str, Any] = {"delta": str(delta), "initial": str(initial)}
    if ttl is not None:
        asked["ttl"] = float(ttl_text(ttl))
    if ttl_if_new is not None:
        asked["ttl_if_new"] = float(ttl_text(ttl_if_new))
    path = b"/v1/counters/" + wire.key_path(requests.key(key))
    fields = b"Content-Type: application/json\r\nIdempotency-Key: %b\r\n" % chance.new_id()
    fields += conditions(if_match, None)
    data = requests.request(b"POST", path, fields, json_body(asked))
    return ApiCall("incr", data, lambda response: int(_member(response, "value")), True)
