"""Reading what requests name, and writing what answers say: pure functions that both lanes call."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar
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
from keyrack.http.api.models import SetRequest, SetText
from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.contract import Record
    from keyrack.http.api.models import ExportedKey
    from keyrack.http.protocol.request import Request

T = TypeVar("T")

_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TTL: Final = re.compile(rb"([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_MEDIA_TYPE: Final = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\x20-\x7e\t]*)?"
)
_NUMBER: Final = re.compile(rb'([0-9]{1,9})|"([0-9]{1,9})"')
_WHOLE: Final = re.compile(rb"[0-9]{1,9}")
_REVISION: Final = re.compile(rb"[0-9]{1,19}")
_FORM: Final = b"application/x-www-form-urlencoded"
PIECE: Final = 3 << 14
"""Characters or bytes that are encoded at a time. Base64 has no padding after so many."""

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
        found[name] = _unquoted(value)
    return found


def _unquoted(value: bytes) -> bytes:
    """Return a value of a query, which is form-urlencoded: `+` is a space, `%2B` a plus."""
    return unquote_to_bytes(value.replace(b"+", b" "))


def pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    """Return the parameters of a query, decoded, whatever they are: to look at, not to obey."""
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    return [(name, _unquoted(value)) for name, _, value in parts]


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


def stale_ms(text: bytes | None, ttl: int) -> int:
    """Return for how long a stale copy is kept, given in seconds like a TTL; 0 for none."""
    if text is None or text == b"null":
        return 0
    if ttl <= 0:
        raise Problem("bad-ttl", "A stale copy is kept of a key that ends: give a TTL as well.")
    return ttl_ms(text)


def set_request(request: Request) -> tuple[SetRequest, tuple[bytes, bytes, str, int, int]]:
    """Return what a `POST /set` asks for, and what it means.

    That is key, value, media type, TTL (ms, 0 for none) and how long it is kept stale.
    """
    require_json(request)
    asked = decoded(request.body, _decode_set)
    key = checked_key(utf8(asked.key))
    value, media_type = stored(bytes(asked.value), request.body)
    text = bytes(asked.ttl)
    ttl = 0 if text == b"null" else ttl_ms(text)
    return asked, (key, value, media_type, ttl, stale_ms(bytes(asked.stale), ttl))


def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON: a page's form cannot say so."""
    kind = request.head.content_type
    if kind is None or kind.split(b";")[0].strip().lower() != b"application/json":
        raise Problem(
            "unsupported-media-type", "Send the body with `Content-Type: application/json`."
        )


def read_json(request: Request, decode: Callable[[bytes], T]) -> T:
    """Return a JSON body as the type that an operation takes."""
    require_json(request)
    return decoded(request.body, decode)


def as_utf8(body: bytes) -> bytes:
    """Return a text without its byte order mark; refuse UTF-16, which Windows likes to write."""
    if body.startswith(codecs.BOM_UTF8):
        return body[len(codecs.BOM_UTF8) :]
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in body[:2]:
        raise Problem("bad-json", "This is UTF-16. Send it in UTF-8.")
    return body


def decoded(body: bytes, decode: Callable[[bytes], T]) -> T:
    """Return JSON as a type; refuse what is not UTF-8, or names a member twice."""
    body = as_utf8(body)
    try:
        asked = decode(body)
    except msgspec.ValidationError as error:
        raise Problem("bad-json", f"The body is not what is expected here: {error}.") from None
    except NOT_JSON as error:
        raise Problem("bad-json", f"The body cannot be read as JSON: {error}.") from None
    _refuse_repeated(body)
    return asked


QUOTES_OF_TWO_STRINGS: Final = 8
"""An object of two members that are strings: with no more quotes there is room for no third."""
_QUOTES_OF_KEY_AND_VALUE: Final = 6
"""Of a line of an import: two names and a key. Those of the value are its affair."""


def _refuse_repeated(body: bytes) -> None:
    """Refuse an object that names a member twice: readers differ in which one they take."""
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except Problem:
        raise
    except (ValueError, RecursionError) as error:
        raise Problem("bad-json", f"The body cannot be read as JSON: {error}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> None:
    unique_dict(pairs)


def unique_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object, if each is there once."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Problem("bad-json", "An object in the body has two members of the same name.")
    return members


def check_json(text: bytes) -> None:
    """Refuse what is not one JSON text in UTF-8. Numbers may have any size."""
    try:
        _skip(text)
        text.decode()
    except NOT_JSON as error:
        raise Problem("bad-json", f"It cannot be read as JSON: {error}.") from None


def stored(value: bytes, body: bytes) -> tuple[bytes, str]:
    """Return how a JSON value is stored: a string as text, anything else as it was written."""
    if value[:1] != b'"':
        _check_utf8(body)
        return value, JSON
    if b"\\" in value:
        return utf8(_decode_string(value)), TEXT
    text = value[1:-1]
    _check_utf8(text)
    return text, TEXT


def _check_utf8(text: bytes) -> None:
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise Problem("bad-json", f"The body is not UTF-8 at byte {error.start}.") from None


def utf8(text: str) -> bytes:
    """Return a string's bytes; JSON can write half of a surrogate pair, UTF-8 cannot."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Problem("bad-json", "A string in the body has half of a surrogate pair.") from None


def shown(key: bytes, record: Record) -> bytes:
    """Return the JSON that `GET /get/<key>` answers for a record."""
    value, encoding = json_value(record)
    end = b"" if encoding is msgspec.UNSET else b',"encoding":"base64"'
    return b'{"key":%b,"value":%b%b}' % (encode(key.decode()), bytes(value), end)


def json_value(record: Record) -> tuple[msgspec.Raw, Literal["base64"] | msgspec.UnsetType]:
    """Return a value as JSON shows it, and its encoding: JSON as itself, text, else base64."""
    kind = record.media_type
    if kind != JSON and kind != TEXT:
        kind = kind.partition(";")[0].strip().lower()
    if kind == JSON and _is_json(record.value):
        return msgspec.Raw(record.value), msgspec.UNSET
    if kind.startswith("text/"):
        try:
            return msgspec.Raw(encode(record.value.decode())), msgspec.UNSET
        except UnicodeDecodeError:
            pass
    return as_base64(record.value), "base64"


def plain_value(record: Record) -> bytes | str | None:
    """Return what `json_value` encodes: JSON as it is, a text, or None where it takes base64.

    Most values are short, and need not be looked at before they are encoded.
    """
    kind = record.media_type.partition(";")[0].strip().lower()
    if kind == JSON and _is_json(record.value):
        return record.value
    if kind.startswith("text/"):
        try:
            return record.value.decode()
        except UnicodeDecodeError:
            return None
    return None


def string_pieces(value: str | bytes) -> Iterator[bytes]:
    """Yield the JSON string of a text, or of bytes in base64, each piece in about a millisecond."""
    yield b'"'
    for start in range(0, len(value), PIECE):
        part = value[start : start + PIECE]
        yield encode(part)[1:-1] if isinstance(part, str) else base64.b64encode(part)
    yield b'"'


def from_base64(text: bytes) -> bytes:
    """Return the bytes that base64 stands for."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem("bad-json", f"A value is not base64: {error}.") from None


def _is_json(value: bytes) -> bool:
    """Tell whether bytes are one JSON text; with PUT anything can be called JSON."""
    try:
        _skip(value)
        value.decode()
    except NOT_JSON:
        return False
    return True


def media_type_of(given: bytes | None, body: bytes) -> str:
    """Return the media type that a `PUT` stores the body with.

    curl calls every body a form unless told otherwise, so a form, like a body without a type, is
    text when it is UTF-8 and bytes when it is not.
    """
    if not given or given.split(b";")[0].strip().lower() == _FORM:
        return TEXT if _is_utf8(body) else BINARY
    return checked_media_type(given.decode("latin-1"))


def checked_media_type(given: str) -> str:
    """Return a media type if it can be one."""
    if len(given) > MAX_MEDIA_TYPE_BYTES or not _MEDIA_TYPE.fullmatch(given):
        raise Problem(
            "unsupported-media-type",
            "A media type is like `text/plain; charset=utf-8`, and has at most "
            f"{MAX_MEDIA_TYPE_BYTES} characters.",
        )
    return given


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


def as_base64(value: bytes) -> msgspec.Raw:
    """Return bytes as a JSON string of base64."""
    return msgspec.Raw(b'"%b"' % base64.b64encode(value))


class ExportedLine(NamedTuple):
    """A line of an import that was read."""

    given: ExportedKey
    value: bytes
    """The JSON of the value."""
    bare: bool
    """Nothing but a key and a value is in it."""


def exported_line(line: bytes, decode: Callable[[bytes], ExportedKey]) -> ExportedLine:
    """Return a line of an import; refuse one that names a member twice.

    What is inside a value is the value's affair: one that was stored is exported as it is.
    """
    try:
        given = decode(line)
    except NOT_JSON as error:
        raise Problem("bad-json", f"The line cannot be read: {error}.") from None
    value = bytes(given.value)
    # With no more quotes than these there is room for no further member, whatever its name.
    quotes = line.count(b'"') - value.count(b'"')
    if quotes == _QUOTES_OF_KEY_AND_VALUE:
        return ExportedLine(given, value, bare=True)
    if quotes != _QUOTES_OF_KEY_AND_VALUE + _quotes_of_others(given):
        _refuse_repeated(line.replace(value, b"0") if value[:1] in (b"{", b"[") else line)
    return ExportedLine(given, value, bare=False)


def _quotes_of_others(given: ExportedKey) -> int:
    """Return how many quotes members have at least, other than key and value, if each is once."""
    quotes = 0
    for text in (given.type, given.encoding):
        quotes += 0 if text is msgspec.UNSET else 4
    for number in (given.ttl, given.stale):
        quotes += 0 if number is msgspec.UNSET else 2
    return quotes


def milliseconds(given: float) -> int:
    """Return a TTL that was given as a JSON number of seconds."""
    found = round(given * 1000) if 0 < given < MAX_TTL_MS else 0
    if not 1 <= found <= MAX_TTL_MS:
        raise Problem("bad-ttl", f"A TTL is from 0.001 to {MAX_TTL_MS // 1000} seconds.")
    return found


def digest(*parts: bytes) -> bytes:
    """Return 32 bytes that stand for several texts, wherever one ends and the next begins."""
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()


# Parameters


def prefix_of(value: bytes) -> bytes:
    """Return a beginning of keys; it may be empty, and need not end with a whole character."""
    if len(value) > MAX_KEY_BYTES:
        raise Problem("bad-parameter", f"A prefix has at most {MAX_KEY_BYTES} bytes.")
    return value


def delimiter_of(value: bytes) -> bytes:
    """Return what ends a folder's name: whole characters, so that a folder's name is text."""
    if not _is_utf8(value):
        raise Problem("bad-parameter", "A delimiter is UTF-8.")
    return prefix_of(value)


def text_of(key: bytes) -> str:
    """Return a key, or a beginning of keys, for JSON; half a character is shown as U+FFFD."""
    return key.decode("utf-8", "replace")


def switch(given: dict[bytes, bytes], name: bytes) -> bool:
    """Return a parameter that is `true` or `false`, false when it is not given."""
    value = given.get(name, b"false")
    if value not in (b"true", b"false"):
        raise Problem("bad-parameter", f"{name.decode()} is true or false.")
    return value == b"true"


def whole(given: dict[bytes, bytes], name: bytes, default: int, least: int, most: int) -> int:
    """Return a parameter that is a whole number within bounds."""
    if name not in given:
        return default
    if not _WHOLE.fullmatch(given[name]) or not least <= int(given[name]) <= most:
        raise Problem(
            "bad-parameter",
            f"{name.decode()} is a whole number from {least} to {most}.",
            limit=most,
        )
    return int(given[name])


def revision_of(value: bytes, name: str) -> int:
    """Return a revision that was given as decimal digits."""
    if not _REVISION.fullmatch(value):
        raise Problem("bad-parameter", f"{name} is a revision: up to 19 digits.")
    return int(value)


def integer(text: str) -> int:
    """Return the number that a member names whose pattern has been checked.

    The patterns of JSON Schema end with `$`, which in Python lets a line break pass.
    """
    if text.endswith("\n"):
        raise Problem("bad-number", f"{text!r} is no number: it ends with a line break.")
    return int(text)


def wait_seconds(request: Request, most: float) -> float:
    """Return how long `Prefer: wait=` (RFC 7240) allows to wait, 0 when it does not ask to."""
    return min(float(preference(request.head.prefer, b"wait")), most)


def preference(prefer: bytes, wanted: bytes) -> int:
    """Return the whole number that a preference has (RFC 7240), 0 where there is none."""
    for one in prefer.split(b","):
        name, _, value = one.partition(b";")[0].partition(b"=")
        if name.strip().lower() != wanted:
            continue
        match = _NUMBER.fullmatch(value.strip())
        # RFC 7240, section 2: what is not understood is as if it had not been there.
        if match is not None:
            return int(match[1] or match[2])
    return 0


def watch_parameters(query: bytes) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
    """Return the prefixes of a watch, which may be several, and its other parameters."""
    prefixes: list[bytes] = []
    others: list[bytes] = []
    for part in query.split(b"&"):
        if part.startswith(b"prefix=") or part == b"prefix":
            found = parameters(part, frozenset((b"prefix",)))
            prefixes.append(prefix_of(found[b"prefix"]))
        else:
            others.append(part)
    known = frozenset((b"since", b"values", b"lastEventId"))
    return tuple(dict.fromkeys(prefixes)), parameters(b"&".join(others), known)
