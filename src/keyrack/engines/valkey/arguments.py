"""Writes as the functions inside Valkey take them, and outcomes as they give them.

`library.lua` is the other side of this: what is said here about arguments and replies is said there
in code. Letters name operations and spaces; a condition follows them in the same argument.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from keyrack.engines import record as wire
from keyrack.engines.contract import (
    ANY,
    Add,
    Check,
    Delete,
    Discard,
    Get,
    Outcome,
    Refusal,
    Remember,
    Restore,
    Result,
    Set,
    Space,
    Touch,
    Why,
)
from keyrack.engines.valkey.layout import KINDS
from keyrack.engines.valkey.resp import encode_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Condition, Operation, Write

OPERATIONS: Final = {
    "s": ("what", "key", "ttl", "rest"),
    "S": ("what", "key", "ttl", "stale", "rest"),
    "d": ("what", "key"),
    "D": ("what", "key", "until", "undo", "about", "keep"),
    "U": ("what", "key", "undo"),
    "g": ("what", "key"),
    "a": ("what", "key", "delta", "initial", "ttl", "new_ttl"),
    "t": ("what", "key", "ttl", "stale"),
    "c": ("what", "key"),
    "r": ("what", "name", "fingerprint", "ttl"),
}
"""What follows one another for each operation, by its letter: the first of `what`. The letter of
a space and a condition come behind it there."""
FUNCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "write": ("seen", "*"),
    "remove": ("seen", "*"),
    "read": ("*",),
    "sizes": ("*",),
    "fresh": ("*",),
    "copies": ("prefix",),
    "tokens": (),
    "scan": ("prefix", "after", "limit", "backwards", "delimiter", "most_bytes"),
    "count": ("prefix", "after", "steps"),
    "sweep": ("seen", "limit", "me", "lease_ms"),
    "lease": ("me", "lease_ms"),
    "due": ("limit",),
    "trim": ("limit", "kept"),
    "log": ("limit",),
    "raise": ("least", "told"),
    "events": ("after", "limit"),
    "events_raising": ("after", "limit", "least", "read_before"),
    "events_of": ("key", "below", "limit", "most"),
    "state": (),
    "empty_trash": ("most",),
    "undos": ("below", "most"),
    "undo": ("number",),
    "trashed": ("number", "after", "most"),
}
"""What each function of the library takes behind the clock, the number of the shard and that of all
shards; a star is any number of further ones."""

LONG: Final = 1 << 14
"""Bytes from which on a value is sent without being copied."""

_MOST_REVISION: Final = (1 << 64) - 1
_COUNT: Final = Struct(">H")
_MOST_NAMED: Final = 65_535
_SET: Final = {space: b"s" + kind for space, kind in KINDS.items()}
_SET_STALE: Final = b"S" + KINDS[Space.KEYS]
_DELETE: Final = {space: b"d" + kind for space, kind in KINDS.items()}
_TOUCH: Final = {space: b"t" + kind for space, kind in KINDS.items()}
_CHECK: Final = {space: b"c" + kind for space, kind in KINDS.items()}
_WHY: Final = {why.value.encode(): why for why in Why}


def arguments_of(write: Write) -> tuple[int, list[bytes]]:
    """Return a write as arguments of the function `write`: how many, and as they are sent.

    Long values are pieces of their own, so that they are not copied.
    """
    if len(write) == 1:
        (operation,) = write
        if type(operation) is Set and len(operation.value) > LONG:
            return _long_set(operation)
        arguments = _ARGUMENTS[type(operation)](operation)
        return len(arguments), [encode_arguments(arguments)]
    count, pieces = 1, [encode_arguments([b"#%d" % len(write)])]
    for operation in write:
        if type(operation) is Set and len(operation.value) > LONG:
            more, parts = _long_set(operation)
            count += more
            pieces += parts
        else:
            arguments = _ARGUMENTS[type(operation)](operation)
            count += len(arguments)
            pieces.append(encode_arguments(arguments))
    return count, pieces


def _long_set(operation: Set) -> tuple[int, list[bytes]]:
    """What `_set` and `encode_arguments` make of it, the value in a piece of its own."""
    before = _rest(operation, b"")
    size = len(before) + len(operation.value)
    arguments = _set_head(operation)
    head = b"%b$%d\r\n%b" % (encode_arguments(arguments), size, before)
    return len(arguments) + 1, [head, operation.value, b"\r\n"]


def only_removes(write: Write) -> bool:
    """Tell whether a write needs no memory: it is done also while the server is full."""
    return all(isinstance(operation, Delete | Discard | Get | Check) for operation in write)


def _set(operation: Set) -> list[bytes]:
    return [*_set_head(operation), _rest(operation, operation.value)]


def _rest(operation: Set, value: bytes) -> bytes:
    return wire.cached_rest(wire.pack_rest(value, operation.media_type), operation.cache_control)


def _set_head(operation: Set) -> list[bytes]:
    condition = condition_of(operation.condition)
    if operation.stale_ms and operation.ttl_ms > 0:
        times = b"%d" % operation.ttl_ms, b"%d" % operation.stale_ms
        return [_SET_STALE + condition, operation.key, *times]
    return [_SET[operation.space] + condition, operation.key, b"%d" % operation.ttl_ms]


def _delete(operation: Delete) -> list[bytes]:
    return [_DELETE[operation.space] + condition_of(operation.condition), operation.key]


def _discard(operation: Discard) -> list[bytes]:
    return [
        b"Dk" + condition_of(operation.condition),
        operation.key,
        b"%d" % operation.until,
        b"%d" % operation.undo,
        operation.about,
        b"1" if operation.keep else b"0",
    ]


def _restore(operation: Restore) -> list[bytes]:
    return [b"Uk", operation.key, b"%d" % operation.undo]


def _get(operation: Get) -> list[bytes]:
    return [b"gk" + condition_of(operation.condition), operation.key]


def _add(operation: Add) -> list[bytes]:
    return [
        b"ak" + condition_of(operation.condition),
        operation.key,
        b"%d" % operation.delta,
        b"%d" % operation.initial,
        b"%d" % operation.ttl_ms,
        b"%d" % operation.new_ttl_ms,
    ]


def _touch(operation: Touch) -> list[bytes]:
    what = _TOUCH[operation.space] + condition_of(operation.condition)
    return [what, operation.key, b"%d" % operation.ttl_ms, b"%d" % operation.stale_ms]


def _check(operation: Check) -> list[bytes]:
    return [_CHECK[operation.space] + condition_of(operation.condition), operation.key]


def _remember(operation: Remember) -> list[bytes]:
    what = b"rd" if operation.only_done else b"ra"
    return [what, operation.key, operation.fingerprint, b"%d" % operation.ttl_ms]


_ARGUMENTS: Final[dict[type, Callable[[Operation], list[bytes]]]] = {
    Set: _set,  # type: ignore[dict-item]  # each takes its own kind of operation
    Delete: _delete,  # type: ignore[dict-item]  # as above
    Discard: _discard,  # type: ignore[dict-item]  # as above
    Restore: _restore,  # type: ignore[dict-item]  # as above
    Get: _get,  # type: ignore[dict-item]  # as above
    Add: _add,  # type: ignore[dict-item]  # as above
    Touch: _touch,  # type: ignore[dict-item]  # as above
    Check: _check,  # type: ignore[dict-item]  # as above
    Remember: _remember,  # type: ignore[dict-item]  # as above
}


def condition_of(condition: Condition | None) -> bytes:
    """Return a condition as it follows an operation's letters; nothing when there is none."""
    if condition is None:
        return b""
    newest = b"" if condition.newest is None else b"<" + condition.newest.to_bytes(8, "big")
    if condition.match is None and condition.none_match is None and not newest:
        return b""
    return newest + _named(condition.match) + _named(condition.none_match)


def _named(revisions: frozenset[int] | None) -> bytes:
    if revisions is None:
        return b"-"
    if revisions == ANY:
        return b"*"
    # What has more than 64 bits is no revision and matches none.
    numbers = [number for number in revisions if 0 <= number <= _MOST_REVISION][:_MOST_NAMED]
    return b"=" + _COUNT.pack(len(numbers)) + b"".join(n.to_bytes(8, "big") for n in numbers)


def outcome_of(write: Write, reply: Any) -> Outcome:
    """Return the outcome of a write from the function's reply to it."""
    if type(reply) is int:
        return (Result(reply >> 1, bool(reply & 1)),)
    if reply and type(reply[0]) is bytes:
        return _refusal_of(*reply)
    operations = write[1:] if write and isinstance(write[0], Remember) else write
    return tuple(map(_result_of, operations, reply))


def _refusal_of(
    why: bytes, index: int, revision: int, holder: bytes | None = None, at: int = 0
) -> Refusal:
    record = None if holder is None else wire.unpack(holder)
    return Refusal(_WHY[why], index, None if revision < 0 else revision, record, at)


def _result_of(operation: Operation, reply: Any) -> Result:
    if type(reply) is int:
        return Result(reply >> 1, bool(reply & 1))
    if isinstance(operation, Get):
        (raw,) = reply
        record = None if raw is None else wire.unpack(raw)
        return Result(0 if record is None else record.revision, record is not None, record)
    number, text = reply
    return Result(number >> 1, bool(number & 1), number=int(text))
