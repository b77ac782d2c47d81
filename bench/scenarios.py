"""What is sent to Keyrack: what users send, not only what is fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.load import Load, Request, reads, writes
from keyrack.access import tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

# The seed API: what Keyrack is measured by, and what the peers that have no API of their own speak.
READ: Final = Request("GET", "/get/$k")
WRITE: Final = Request("POST", "/set", '{"key":"$k","value":"$v"}', "application/json")
SEED_LOADS: Final = {"get": reads(READ), "set": writes(WRITE)}

_TEXT: Final = "text/plain; charset=utf-8"
_BINARY: Final = "application/octet-stream"
_KEY_GET: Final = Request("GET", "/v1/keys/$k")
_KEY_PUT: Final = Request("PUT", "/v1/keys/$k", "$v", _TEXT)
LARGE_KEYS: Final = 50
CLOSE: Final = "Connection: close"
SIZES: Final = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}


LIKE: Final[Mapping[str, str]] = {
    "get-request-id": "get",
    "get-traceparent": "get",
    "get-forwarded": "get",
    "get-many-tokens": "get",
    "set-request-id": "set",
    "v1-get-request-id": "v1-get",
    "v1-put-request-id": "v1-put",
}
"""Loads whose header sections differ, and the same request with one section."""


def _with(request: Request, fields: str) -> Request:
    return Request(request.method, request.path, request.body, request.media_type, fields)


def large(size: int) -> tuple[Request, Request]:
    """Return a read and a write of a value of so many bytes."""
    path = f"/v1/keys/large-{size}/$k"
    return Request("GET", path), Request("PUT", path, f"$b({size})", _BINARY)


def _loads() -> dict[str, Load]:
    """Return all loads by name, the four hot requests first."""
    loads = {
        "get": reads(READ),
        "set": writes(WRITE),
        "v1-get": reads(_KEY_GET),
        "v1-put": writes(_KEY_PUT),
        "mixed": Load(READ, WRITE, 90),
        "get-request-id": reads(_with(READ, "X-Request-Id: $n")),
        "get-traceparent": reads(_with(READ, "Traceparent: 00-$n-00f067aa0ba902b7-01")),
        "get-forwarded": reads(_with(READ, "X-Forwarded-For: 10.0.0.1, $n")),
        "set-request-id": writes(_with(WRITE, "X-Request-Id: $n")),
        "v1-get-request-id": reads(_with(_KEY_GET, "X-Request-Id: $n")),
        "v1-put-request-id": writes(_with(_KEY_PUT, "X-Request-Id: $n")),
        "get-many-tokens": reads(_with(READ, "X-Client: $c")),
        "get-close": reads(_with(READ, CLOSE)),
        "put-ttl": writes(Request("PUT", "/v1/keys/$k?ttl=600", "$v", _TEXT)),
    }
    for name, size in SIZES.items():
        read, write = large(size)
        loads[f"put-{name}"] = writes(write, requests=LARGE_KEYS, keys=LARGE_KEYS)
        loads[f"get-{name}"] = reads(read, requests=LARGE_KEYS, keys=LARGE_KEYS)
    return loads


LOADS: Final[Mapping[str, Load]] = _loads()
HOT: Final = ("get", "set", "v1-get", "v1-put")
MEANING: Final[Mapping[str, str]] = {
    "get": "GET /get/<key>",
    "set": "POST /set",
    "v1-get": "GET /v1/keys/{key}",
    "v1-put": "PUT /v1/keys/{key}",
    "mixed": "90 % GET /get, 10 % POST /set",
    "get-request-id": "GET /get, another X-Request-Id each time",
    "get-traceparent": "GET /get, another traceparent each time",
    "get-forwarded": "GET /get, another X-Forwarded-For each time",
    "set-request-id": "POST /set, another X-Request-Id each time",
    "v1-get-request-id": "GET /v1/keys, another X-Request-Id each time",
    "v1-put-request-id": "PUT /v1/keys, another X-Request-Id each time",
    "get-many-tokens": "GET /get from 2,000 clients with a header section each",
    "put-ttl": "PUT /v1/keys?ttl=",
    "get-close": "GET /get, one connection a request",
    **{f"get-{name}": f"GET /v1/keys of {size:,} bytes" for name, size in SIZES.items()},
    **{f"put-{name}": f"PUT /v1/keys of {size:,} bytes" for name, size in SIZES.items()},
}

# Who sends it: the hot requests with a token


def _token(token_id: str) -> str:
    """Return the text of a token that everybody may know: it lets nobody in anywhere else."""
    body = f"{token_id:0<41}"
    return tokens.PREFIX + body + tokens.checksum(body)


TOKENS: Final[Mapping[str, str]] = {name: _token(f"bench{name[:3]}") for name in (
    "full", "prefix", "denials",
)}  # fmt: skip
"""The text of each token, by what it may do."""
_RULES: Final = {
    "full": ("admin", "all keys:*"),
    "prefix": ("all keys:key*",),
    "denials": (
        "all keys:key*",
        "all keys:other/*",
        *(f"deny all keys:key:{number}/*" for number in range(3)),
    ),
}
TOKEN_LOADS: Final[Mapping[str, Load]] = {
    f"{load}-{name}": Load(
        _with(LOADS[load].read, f"Authorization: Bearer {text}"),
        _with(LOADS[load].write, f"Authorization: Bearer {text}"),
        LOADS[load].read_percent,
    )
    for load in HOT
    for name, text in TOKENS.items()
}
TOKEN_MEANING: Final[Mapping[str, str]] = {
    f"{load}-{name}": f"{MEANING[load]}, {told}"
    for load in HOT
    for name, told in (
        ("full", "token with full rights"),
        ("prefix", "token with one prefix"),
        ("denials", "token with 5 rules, 3 of them denials"),
    )
}


def access_file() -> str:
    """Return the operator's file that lets in these tokens, and, for the preload, everybody."""
    lines = ["version = 1", 'anonymous = ["read-write"]']
    for name, text in TOKENS.items():
        lines += ["[[tokens]]", f'id = "{tokens.id_of(text)}"', f'hash = "{tokens.digest(text)}"']
        lines += [f'name = "bench {name}"', f"rules = {list(_RULES[name])}"]
    return "\n".join(lines) + "\n"
