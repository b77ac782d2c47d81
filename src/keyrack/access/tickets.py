"""Tickets: weaker and shorter than the token that makes them, and kept nowhere.

    krt_<base64url of what it says>.<base64url of the first 16 bytes of its HMAC-SHA256>

A ticket says whose it is, which text of that token made it, what it allows, and when it ends. It
counts as long as its parent does and may do all that the ticket says: a parent that is revoked,
disabled, expired or narrowed takes its tickets along, and so does a text that is rotated away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import Final

import msgspec

from keyrack.access.tokens import MalformedToken

PREFIX: Final = "krt_"
KEY_BYTES: Final = 32
MOST_RULES: Final = 32
MOST_SECONDS: Final = 86_400
_MAC_BYTES: Final = 16
_VERSION: Final = 1
_MOST_TEXT: Final = 6_000
"""So that a ticket fits into a request target."""


class Ticket(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a ticket says. `secret` names the parent's text that it was made with."""

    version: int
    parent: str
    secret: str
    rules: tuple[str, ...]
    expires: int


class WrongTicket(ValueError):
    """Raised for a ticket that this service has not made, or not with its present key."""


def new_key() -> bytes:
    """Return a key for the tickets of a store."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, parent: str, secret: str, rules: tuple[str, ...], expires: int) -> str:
    """Return the text of a ticket. Raises `ValueError` if it would be too long."""
    said = msgspec.json.encode(Ticket(_VERSION, parent, secret, rules, expires))
    text = PREFIX + _base64(said) + "." + _base64(_mac(key, said))
    if len(text) > _MOST_TEXT:
        raise ValueError(f"A ticket has at most {_MOST_TEXT} characters; use fewer rules.")
    return text


def read(key: bytes, text: str) -> Ticket:
    """Return what a ticket says, if it is one of ours. Raises `MalformedToken`, `WrongTicket`.

    Whether its time is over, or what its parent may do, is for others to tell.
    """
    said, dot, mac = text.removeprefix(PREFIX).partition(".")
    if not text.startswith(PREFIX) or not dot:
        raise MalformedToken("This is no complete ticket.")
    decoded = _decoded(said)
    if not hmac.compare_digest(_decoded(mac), _mac(key, decoded)):
        raise WrongTicket
    try:
        ticket = msgspec.json.decode(decoded, type=Ticket)
    except msgspec.DecodeError:
        raise WrongTicket from None
    if ticket.version != _VERSION:
        raise WrongTicket
    return ticket


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, hashlib.sha256)[:_MAC_BYTES]


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MalformedToken("This is no complete ticket.") from None
    if _base64(data) != text:
        raise MalformedToken("This is no complete ticket.")
    return data
