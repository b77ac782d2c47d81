"""What is kept with a deletion that can be undone: for how long, whose it is, and what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from keyrack.http.api import codec
from keyrack.http.api.models import MAX_UNDO_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyrack.engines.contract import Result
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_LONGEST_NAME: Final = 300


class About(msgspec.Struct, array_like=True, gc=False):
    """What is kept with an undo."""

    by: str
    """Who has deleted."""
    prefix: bytes | None = None
    key: bytes | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(About).decode


class Keeping(NamedTuple):
    """What is kept of a deletion: until when (ms of the store's clock), and what is told of it."""

    until: int
    about: bytes


def keeping(
    sender: str,
    seconds: int,
    context: Context,
    *,
    prefix: bytes | None = None,
    key: bytes | None = None,
) -> Keeping:
    """Return what is kept of a deletion that can be undone for so many seconds."""
    until = context.engine.now() + seconds * 1000
    return Keeping(until, _encode(About(sender, prefix, key)))


def seconds_of(given: dict[bytes, bytes], context: Context) -> int:
    """Return for how long a deletion can be undone, 0 for not at all."""
    return codec.whole(given, b"undo", context.limits.undo_default, 0, MAX_UNDO_SECONDS)


def sender_of(request: Request) -> str:
    """Return what tells who has sent a request from everybody else."""
    # A ticket's requests are its token's.
    return request.grant.identity.meter[:_LONGEST_NAME]


def number_of(results: Iterable[Result]) -> tuple[int, int]:
    """Return the undo that the discards of one write have made, and when it ends; 0 for none."""
    for result in results:
        if result.existed and result.number:
            return result.revision, result.number
    return 0, 0


def about_of(about: bytes) -> About:
    """Return what was kept with an undo."""
    return _decode(about)
