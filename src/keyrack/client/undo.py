"""Deletions that can be undone, and the undoing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.client import wire
from keyrack.client.calls import ApiCall, json_response
from keyrack.client.errors import ProtocolError

if TYPE_CHECKING:
    from keyrack.client.calls import Requests
    from keyrack.client.wire import Response

_LONG_SECONDS: Final = 600.0
"""What putting many keys back may take beyond the time for a call."""


class Deletion(NamedTuple):
    """What the deletion of a key did that can be undone; false where the key was missing."""

    deleted: int
    undo: int | None
    """What `Client.undo` takes; None where there is nothing that could be put back."""
    until: str | None
    """When the undo ends, as in RFC 3339."""

    def __bool__(self) -> bool:
        """Tell whether the key was there."""
        return self.deleted > 0


class UndoReport(NamedTuple):
    """What an undo came to, with what it came to before."""

    undo: int
    deleted: int
    restored: int
    kept_newer: int
    """How many were not put back because their key exists. They are kept until the undo ends."""
    ended: int
    """How many would have ended by now."""
    gone: int
    """How many were dropped because their room was needed."""
    until: str


class OpenUndo(NamedTuple):
    """A deletion that can be undone: of a `prefix`, of a `key`, or (neither) of a batch."""

    undo: int
    deleted: int
    left: int
    """How many keys can be put back."""
    since: str
    until: str
    prefix: str | None = None
    key: str | None = None
    restored: int = 0
    ended: int = 0
    gone: int = 0


NOTHING: Final = Deletion(0, None, None)
"""Of a key that was missing."""


def number_of(members: dict[str, Any]) -> int | None:
    """Return the undo that an answer names, None where it names none. Raises `ProtocolError`."""
    number = members.get("undo")
    try:
        return None if number is None else int(number)
    except (TypeError, ValueError):
        raise ProtocolError("The undo of the answer is no number.") from None


def deletion(members: dict[str, Any]) -> Deletion:
    """Return what an answer tells of a deletion. Raises `ProtocolError`."""
    return Deletion(int(members.get("deleted", 0)), number_of(members), members.get("until"))


def undo(requests: Requests, number: int | str) -> ApiCall[UndoReport]:
    """Put back what was deleted. To repeat it does no harm."""
    path = b"/v1/undo/%d" % int(number)
    data = requests.request(b"POST", path)

    def read(response: Response) -> UndoReport:
        members = json_response(response)
        try:
            return UndoReport(
                int(members["undo"]),
                int(members["deleted"]),
                int(members["restored"]),
                int(members["kept_newer"]),
                int(members["ended"]),
                int(members["gone"]),
                str(members["until"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("The answer is none to an undo.") from None

    return ApiCall("undo", data, read, True, _LONG_SECONDS)


def undos(requests: Requests, limit: int) -> ApiCall[list[OpenUndo]]:
    """Return the deletions that can be undone, the newest first."""
    data = requests.request(b"GET", b"/v1/undo" + wire.query([("limit", str(limit))]))

    def read(response: Response) -> list[OpenUndo]:
        try:
            return [_undoable(one) for one in json_response(response)["undos"]]
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("The answer is no list of undos.") from None

    return ApiCall("undos", data, read, True)


def _undoable(one: dict[str, Any]) -> OpenUndo:
    return OpenUndo(
        int(one["undo"]),
        int(one["deleted"]),
        int(one["left"]),
        str(one["since"]),
        str(one["until"]),
        one.get("prefix"),
        one.get("key"),
        int(one["restored"]),
        int(one["ended"]),
        int(one["gone"]),
    )
