"""Reading a header section: what RFC 9112 demands, and what the fields mean for us.

The parser (llhttp) has read the fields; this module judges them. Everything here is a pure
function of the fields, so its result can be shared by all requests with the same bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import ANY, MAX_TTL_MS, Condition
from keyrack.http.problems import Problem
from keyrack.http.protocol.guard import Judgement
from keyrack.http.protocol.request import Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyrack.http.protocol.guard import Guard

MAX_FIELDS: Final = 100
MAX_HEAD_BYTES: Final = 32 * 1024
MAX_TARGET_BYTES: Final = 8 * 1024

_SINGLE: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"expect",
        b"origin",
        b"authorization",
        b"idempotency-key",
        b"last-event-id",
        b"keyrack-recompute",
    )
)
_CHANGING: Final = frozenset(
    (
        b"if-match",
        b"if-none-match",
        b"range",
        b"if-range",
        b"content-encoding",
        b"content-range",
        b"prefer",
        b"idempotency-key",
        b"last-event-id",
        b"keyrack-recompute",
        b"keyrack-lock",
    )
)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_MAX_STALE: Final = re.compile(rb'max-stale(?:="?([0-9]{1,18})"?)?', re.I)
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_ONE_TAG: Final = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
_TAG: Final = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*+)"')
# Possessive throughout: a list of tags is read in one pass, whatever a hostile client makes of it.
_TAG_LIST: Final = re.compile(
    rb"[ \t,]*+" + _ONE_TAG + rb"(?:[ \t]*+,[ \t,]*+" + _ONE_TAG + rb")*+[ \t,]*+"
)
_WELCOME: Final = Judgement()
_NONE: Final = [b""]
_REVISION: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
"""Tags are compared as they are written: with a zero before it, it is another one."""


def read(
    fields: Sequence[tuple[bytes, bytes]],
    http_1_0: bool,
    guard: Guard,
    authority: bytes | None = None,
) -> Head:
    """Return what a header section means; raise `Problem` where it must be refused.

    `authority` is what a target in absolute form names; it counts instead of the Host field.
    """
    values = _by_name(fields)
    head = Head()
    head.http_1_0 = http_1_0
    head.host = _host(values, http_1_0)
    if authority is not None:
        head.host = _authority(authority)
        fields = [(b"host", head.host), *(field for field in fields if field[0] != b"host")]
    head.fields = tuple(fields)
    head.content_length = _body_length(values, http_1_0)
    head.content_type = _first(values, b"content-type")
    head.wants_continue = _wants_continue(values, http_1_0)
    head.condition = condition(values)
    head.weak_match = any(b"W/" in value for value in values.get(b"if-match", ()))
    head.is_coded = _is_coded(_first(values, b"content-encoding"))
    head.prefer = b", ".join(values.get(b"prefer", ()))
    head.idempotency_key = _first(values, b"idempotency-key")
    head.max_stale = _max_stale(values.get(b"cache-control", ()))
    head.lease = _first(values, b"keyrack-recompute")
    head.locks = b", ".join(values.get(b"keyrack-lock", ()))
    head.verdict = guard.judge(values, head.host)
    head.shared = guard.cors.shared(values)
    head.credentials = _first(values, b"authorization")
    head.grant = head.denial = None
    head.known_since = 0.0
    head.wants_page = values.get(b"accept", _NONE)[0].startswith(b"text/html")
    head.plain = (
        _CHANGING.isdisjoint(values)
        and head.max_stale is None
        and head.verdict == _WELCOME
        and not head.wants_page
    )
    options = _tokens(values.get(b"connection", ()))
    head.keep_alive = b"close" not in options and (not http_1_0 or b"keep-alive" in options)
    head.cacheable = (
        not http_1_0
        and head.plain
        and not head.shared
        and head.content_length >= 0
        and not head.wants_continue
        and b"upgrade" not in values
    )
    return head


def _by_name(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    for name in _SINGLE.intersection(values):
        if len(values[name]) > 1:
            slug = "bad-host" if name == b"host" else "malformed-message"
            raise Problem(slug, f"The field {name.decode()} was sent {len(values[name])} times.")
    return values


def _first(values: dict[bytes, list[bytes]], name: bytes) -> bytes | None:
    found = values.get(name)
    return found[0] if found else None


def _host(values: dict[bytes, list[bytes]], http_1_0: bool) -> bytes:
    host = _first(values, b"host")
    if host is None:
        if http_1_0:
            return b""
        raise Problem("bad-host", "Send a Host field with the name and port that you call.")
    if not _HOST.fullmatch(host):
        raise Problem("bad-host", "The Host field is a name or an address, and maybe a port.")
    return host


def _authority(named: bytes) -> bytes:
    if not _HOST.fullmatch(named):
        raise Problem("bad-host", "The target names no host: a name or an address, maybe a port.")
    return named


def _body_length(values: dict[bytes, list[bytes]], http_1_0: bool) -> int:
    length = _first(values, b"content-length")
    codings = values.get(b"transfer-encoding")
    if codings is not None:
        if length is not None:
            raise Problem("malformed-message", "Send Content-Length or Transfer-Encoding, not both")
        if http_1_0:
            raise Problem("malformed-message", "HTTP/1.0 has no Transfer-Encoding.")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise Problem("malformed-message", "The only transfer coding supported is `chunked`.")
        return -1
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise Problem("malformed-message", "Content-Length is a decimal number of bytes.")
    return int(length)


def _is_coded(coding: bytes | None) -> bool:
    return coding is not None and coding.strip().lower() != b"identity"


def _wants_continue(values: dict[bytes, list[bytes]], http_1_0: bool) -> bool:
    expect = _first(values, b"expect")
    if expect is None or http_1_0:
        return False
    if expect.lower() != b"100-continue":
        raise Problem("expectation-failed", "The only expectation supported is `100-continue`.")
    return True


def _max_stale(values: Iterable[bytes]) -> int | None:
    """Return for how many ms a value may be over; None where the sender does not take it then."""
    for directive in b",".join(values).split(b","):
        match = _MAX_STALE.fullmatch(directive.strip())
        if match is not None:
            return MAX_TTL_MS if match[1] is None else min(int(match[1]) * 1000, MAX_TTL_MS)
    return None


def _tokens(values: Iterable[bytes]) -> set[bytes]:
    return {token.strip().lower() for value in values for token in value.split(b",")}


def condition(values: dict[bytes, list[bytes]]) -> Condition | None:
    """Return the preconditions of RFC 9110 section 13.1, or None when there are none."""
    match = values.get(b"if-match")
    none_match = values.get(b"if-none-match")
    if match is None and none_match is None:
        return None
    return Condition(
        None if match is None else _revisions(b", ".join(match), "If-Match", weak=False),
        None
        if none_match is None
        else _revisions(b", ".join(none_match), "If-None-Match", weak=True),
    )


def _revisions(value: bytes, field: str, *, weak: bool) -> frozenset[int]:
    """Return the revisions that a list of entity tags names. Tags that are none of ours match none.

    If-Match compares strongly: a weak tag never matches. If-None-Match compares weakly.
    """
    if value.strip() == b"*":
        return ANY
    if not _TAG_LIST.fullmatch(value):
        raise Problem("bad-condition", f'{field} is `*` or entity tags like "1795474670195050".')
    return frozenset(
        int(tag)
        for is_weak, tag in _TAG.findall(value)
        if (weak or not is_weak) and _REVISION.fullmatch(tag)
    )
