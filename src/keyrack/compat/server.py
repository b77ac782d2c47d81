"""Redis' commands that are about no key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.compat.replies import SimpleString

if TYPE_CHECKING:
    from keyrack.compat.replies import Reply
    from keyrack.compat.strings import Arguments
    from keyrack.compat.transaction import Transaction

_PONG: Final = SimpleString("PONG")


async def ping(given: Arguments, view: Transaction) -> Reply:
    """`PING [message]`."""
    return given[0] if given else _PONG


async def echo(given: Arguments, view: Transaction) -> Reply:
    """`ECHO message`."""
    return given[0]


async def time(given: Arguments, view: Transaction) -> Reply:
    """`TIME`: seconds since 1970, and microseconds."""
    seconds, milliseconds = divmod(view.store.unix_ms(), 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]
