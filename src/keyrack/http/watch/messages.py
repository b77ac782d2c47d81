"""Events as clients see them: lines of a `text/event-stream`, and members of JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.engines.contract import Change
from keyrack.http.api import codec
from keyrack.http.api.models import KeyEvent

if TYPE_CHECKING:
    from keyrack.engines.contract import Event, Record

OPENING: Final = b"retry: 1000\n\n"
HEARTBEAT: Final = b": still here\n\n"
_BEHIND: Final = "This client is too far behind. List again, then watch."
RESET: Final = b'event: reset\ndata: {"detail":"%b"}\n\n' % _BEHIND.encode()

REVOKED: Final = (
    b'event: reset\ndata: {"reason":"revoked",'
    b'"detail":"The sender may no longer watch this, or its token is over."}\n\n'
)

_NAMES: Final = {
    Change.SET: b"set",
    Change.DELETE: b"delete",
    Change.EXPIRE: b"expire",
    Change.EVICT: b"evict",
}

SHOWN: Final = frozenset(_NAMES)
"""Changes that are told of keys; those of locks are not."""


class _Data(msgspec.Struct, omit_defaults=True, gc=False):
    key: str
    revision: str
    time: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET
    encoding: str | msgspec.UnsetType = msgspec.UNSET


def clock_text(milliseconds: int) -> str:
    """Return a time of the store's clock as RFC 3339."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(event: Event) -> bytes:
    """Return an event as a message of an event stream."""
    data = _Data(event.key.decode(), str(event.revision), clock_text(event.time))
    return _message(event, data)


def with_value(event: Event, record: Record | None) -> bytes:
    """Return an event with the value that the key has now, if it has one."""
    data = _Data(event.key.decode(), str(event.revision), clock_text(event.time))
    if record is not None:
        data.value, encoding = codec.json_value(record)
        data.type = record.media_type
        data.encoding = encoding
    return _message(event, data)


def _message(event: Event, data: _Data) -> bytes:
    # Strings of JSON have no raw line breaks, so a key cannot begin a field of its own. Between the
    # tokens of a value they are white space, and would end the message.
    text = codec.encode(data).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.revision, _NAMES[event.change], text)


def synced(revision: int, prefixes: tuple[bytes, ...] | None = None) -> bytes:
    """Return the message that says: what came before is history, what comes now is news.

    `prefixes` are told to a client that has named none and may not watch everything.
    """
    more = b""
    if prefixes is not None:
        more = b',"prefixes":' + codec.encode([codec.text_of(one) for one in prefixes])
    return b'id: %d\nevent: synced\ndata: {"revision":"%d"%b}\n\n' % (revision, revision, more)


def reset(revision: int) -> bytes:
    """Return the message that says: what was before is gone, what comes now is news."""
    detail = b"What happened before is not known any more. List again; this goes on from here."
    return b'id: %d\nevent: reset\ndata: {"revision":"%d","detail":"%b"}\n\n' % (
        revision,
        revision,
        detail,
    )


def bookmark(revision: int) -> bytes:
    """Return the message that lets a client of quiet prefixes resume from a recent revision."""
    return b'id: %d\nevent: bookmark\ndata: {"revision":"%d"}\n\n' % (revision, revision)


def as_json(event: Event) -> KeyEvent:
    """Return an event as a member of an answer."""
    return KeyEvent(
        event=_NAMES[event.change].decode(),  # type: ignore[arg-type]  # one of the four
        key=event.key.decode(),
        revision=str(event.revision),
        time=clock_text(event.time),
    )
