"""The text of a token: made, told apart from a mistyped one, and hashed.

    krk_<id: 8><secret: 33><check: 6>        51 characters, base62 after the first four

The id is public: logs, lists and addresses show it, and never the rest. The secret has 196 bits, so
a fast hash keeps it well, and no look-up compares secrets: it is a dictionary by digest. The last
six characters are a CRC32 of what comes before, so that a typing error is told from a wrong token
without a look-up, and so that scanners for leaked secrets can be sure of what they find.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import secrets
from typing import Final, NamedTuple

PREFIX: Final = "krk_"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 8
_SECRET_LENGTH: Final = 33
_CHECK_LENGTH: Final = 6
_BODY_LENGTH: Final = _ID_LENGTH + _SECRET_LENGTH
_SHAPE: Final = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_BODY_LENGTH}}})([0-9A-Za-z]{{6}})")
_HASH_SHAPE: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ID_SHAPE: Final = re.compile(rf"[0-9A-Za-z]{{{_ID_LENGTH}}}")


class MalformedToken(ValueError):
    """Raised for a text that no token can be: cut off, mistyped, or something else entirely."""


class NewToken(NamedTuple):
    """A token that was just made: the only moment at which its text is known."""

    id: str
    text: str
    hash: str


def new(token_id: str | None = None) -> NewToken:
    """Return a token with a new secret, and a new id unless one is given."""
    made = token_id or _random(_ID_LENGTH)
    body = made + _random(_SECRET_LENGTH)
    text = PREFIX + body + checksum(body)
    return NewToken(made, text, digest(text))


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def checksum(body: str) -> str:
    """Return the six characters that end a token with this body: its CRC32 in base62."""
    number = binascii.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECK_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def id_of(text: str) -> str:
    """Return the public id in a token's text. Raises `MalformedToken`."""
    match = _SHAPE.fullmatch(text)
    if match is None or checksum(match[1]) != match[2]:
        raise MalformedToken("This is no complete token.")
    return match[1][:_ID_LENGTH]


def is_id(text: str) -> bool:
    """Tell whether a text has the shape of a token's id."""
    return _ID_SHAPE.fullmatch(text) is not None


def digest(text: str) -> str:
    """Return what is kept of a token: `sha256:` and 64 hexadecimal digits of its whole text."""
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether a text has the shape of what `digest` returns."""
    return _HASH_SHAPE.fullmatch(text) is not None
