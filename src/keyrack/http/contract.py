"""Reading what requests name, and writing what answers say: pure functions that both lanes call."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from keyrack.engines.contract import (
    BINARY,
    JSON,
    MAX_KEY_BYTES,
    MAX_MEDIA_TYPE_BYTES,
    MAX_TTL_MS,
    TEXT,
)
from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from keyrack.engines.contract import Record
    from keyrack.http.message import Request

_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TTL: Final = re.compile(rb"([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_MEDIA_TYPE: Final = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\x20-\x7e\t]*)?"
)
_FORM: Final = b"application/x-www-form-urlencoded"


_NULL: Final = msgspec.Raw(b"null")


class SetRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of `POST /set`. The value is kept as it was written, not as it was understood."""

    key: str
    value: msgspec.Raw
    ttl: msgspec.Raw = _NULL


class SetText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body that most `POST /set` have: a string and no TTL."""

    key: str
    value: str


class Pair(msgspec.Struct, gc=False):
    """The answer to `GET /get/<key>` for a value that is text."""

    key: str
    value: str


_decode_set: Final = msgspec.json.Decoder(SetRequest).decode
decode_set_text: Final = msgspec.json.Decoder(SetText).decode
_decode_string: Final = msgspec.json.Decoder(str).decode
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode
encode: Final = msgspec.json.Encoder().encode
NOT_JSON: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What a decoder raises; invalid UTF-8 is an error of Python's own."""


def key_of(raw: bytes) -> bytes:
    """Return the key that the rest of a raw path names: decoded once, never normalised."""
    if b"%" in raw:
        if _BAD_PERCENT.search(raw):
            raise Problem("bad-target", "A `%` in a path begins a byte of two hex digits: `%25`.")
        raw = unquote_to_bytes(raw)
    return checked_key(raw)


def checked_key(key: bytes) -> bytes:
    """Return the key if it can be one."""
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise Problem(
            "bad-key",
            f"The key has {len(key)} bytes; a key has 1 to {MAX_KEY_BYTES}.",
            limit=MAX_KEY_BYTES,
            actual=len(key),
        )
    if not key.isascii():
        try:
            key.decode()
        except UnicodeDecodeError as error:
            raise Problem("bad-key", f"The key is not UTF-8 at byte {error.start}.") from None
    return key


def parameters(query: bytes, known: frozenset[bytes]) -> dict[bytes, bytes]:
    """Return the parameters of a query, decoded; refuse unknown and repeated ones."""
    found: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        if name not in known:
            names = ", ".join(sorted(one.decode() for one in known)) or "none"
            shown = name.decode("ascii", "replace")
            raise Problem("bad-parameter", f"Unknown parameter {shown!r}. Known here: {names}.")
        if name in found:
            raise Problem("bad-parameter", f"The parameter {name.decode()!r} was given twice.")
        if _BAD_PERCENT.search(value):
            raise Problem("bad-parameter", "A `%` begins a byte of two hex digits: `%25`.")
        found[name] = unquote_to_bytes(value)
    return found


def ttl_ms(text: bytes) -> int:
    """Return a TTL given in seconds as whole milliseconds, at least 1. What is finer is cut off."""
    match = _TTL.fullmatch(text)
    if match is not None:
        fraction = (match[2] or b"")[:3].ljust(3, b"0")
        milliseconds = int(match[1]) * 1000 + int(fraction)
        if 1 <= milliseconds <= MAX_TTL_MS:
            return milliseconds
    raise Problem(
        "bad-ttl",
        f"The TTL {text[:40].decode('latin-1')!r} is not a number of seconds from 0.001 to "
        f"{MAX_TTL_MS // 1000}, like 60 or 0.5.",
    )


def set_request(request: Request) -> tuple[bytes, bytes, str, int]:
    """Return key, value, media type and TTL (ms, 0 for none) that a `POST /set` names."""
    require_json(request)
    asked = decode_json(request.body)
    key = checked_key(_utf8(asked.key))
    value, media_type = stored(bytes(asked.value), request.body)
    ttl = bytes(asked.ttl)
    return key, value, media_type, 0 if ttl == b"null" else ttl_ms(ttl)


def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON: a page's form cannot say so."""
    kind = request.head.content_type
    if kind is None or kind.split(b";")[0].strip().lower() != b"application/json":
        raise Problem(
            "unsupported-media-type", "Send the body with `Content-Type: application/json`."
        )


def decode_json(body: bytes) -> SetRequest:
    """Return the members of a `POST /set` body."""
    try:
        asked = _decode_set(body)
    except msgspec.ValidationError as error:
        raise Problem(
            "bad-json", f'{error}. Send {{"key":"...","value":...}}, and maybe "ttl".'
        ) from None
    except NOT_JSON as error:
        raise Problem("bad-json", f"The body cannot be read as JSON: {error}.") from None
    if body.count(b'"') != QUOTES_OF_TWO_STRINGS or bytes(asked.value)[:1] != b'"':
        _refuse_repeated(body)
    return asked


QUOTES_OF_TWO_STRINGS: Final = 8
"""An object of two members that are strings: with no more quotes there is room for no third."""


def _refuse_repeated(body: bytes) -> None:
    """Refuse an object that names a member twice: readers differ in which one they take."""
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except Problem:
        raise
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json", f"The body cannot be read as JSON: {error}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise Problem("bad-json", "An object in the body has two members of the same name.")


def stored(value: bytes, body: bytes) -> tuple[bytes, str]:
    """Return how a JSON value is stored: a string as text, anything else as it was written."""
    if value[:1] != b'"':
        _check_utf8(body)
        return value, JSON
    if b"\\" in value:
        return _utf8(_decode_string(value)), TEXT
    text = value[1:-1]
    _check_utf8(text)
    return text, TEXT


def _check_utf8(text: bytes) -> None:
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise Problem("bad-json", f"The body is not UTF-8 at byte {error.start}.") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Problem("bad-json", "A string in the body has half of a surrogate pair.") from None


def shown(key: bytes, record: Record) -> bytes:
    """Return the JSON that `GET /get/<key>` answers for a record."""
    if record.media_type == JSON and _is_json(record.value):
        return b'{"key":%b,"value":%b}' % (encode(key.decode()), record.value)
    if record.media_type.startswith("text/"):
        try:
            return encode(Pair(key.decode(), record.value.decode()))
        except UnicodeDecodeError:
            pass
    value = base64.b64encode(record.value)
    return b'{"key":%b,"value":"%b","encoding":"base64"}' % (encode(key.decode()), value)


def _is_json(value: bytes) -> bool:
    """Tell whether bytes are one JSON text; with PUT anything can be called JSON."""
    try:
        _skip(value)
        value.decode()
    except NOT_JSON:
        return False
    return True


def media_type_of(request: Request) -> str:
    """Return the media type that a `PUT` stores the body with.

    curl calls every body a form unless told otherwise, so a form, like a body without a type, is
    text when it is UTF-8 and bytes when it is not.
    """
    given = request.head.content_type
    if not given or given.split(b";")[0].strip().lower() == _FORM:
        return TEXT if _is_utf8(request.body) else BINARY
    if len(given) > MAX_MEDIA_TYPE_BYTES or not _MEDIA_TYPE.fullmatch(given):
        raise Problem(
            "unsupported-media-type",
            "Content-Type is a media type like `text/plain; charset=utf-8`, of at most "
            f"{MAX_MEDIA_TYPE_BYTES} bytes.",
        )
    return given.decode("ascii")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def etag(revision: int) -> bytes:
    """Return the entity tag of a revision."""
    return b'"%d"' % revision


def seconds(milliseconds: int) -> bytes:
    """Return milliseconds as decimal seconds, never rounded: `59.998`."""
    return b"%d.%03d" % divmod(milliseconds, 1000)


def path_text(raw: bytes) -> str:
    """Return a raw path as the text that ASGI calls `path`; what is no UTF-8 is replaced."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")
