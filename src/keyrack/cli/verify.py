"""`keyrack verify`: check a running service from outside, the seed API to the letter.

The checks are those of `scripts/verify-api.sh`, which needs nothing but bash and curl; this verb
needs nothing but Keyrack, and so runs where its image does (`helm test`). A test keeps them alike.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from keyrack.cli.asking import MISUSED, OK, REFUSED, UNREACHABLE, complain
from keyrack.cli.parser import Parser
from keyrack.client.address import DEFAULT_URL

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON: Final = "application/json"
_STORED: Final = '{"status":"success","message":"key-value pair is set successfully"}'
_MISSING: Final = '{"status":"error","message":"Key not found"}'
_SECONDS: Final = 10.0
"""How long to wait for an answer."""


class _Answer(NamedTuple):
    """What is expected or was answered; the media type is empty when there is none."""

    status: int
    media_type: str
    body: str


class _Check(NamedTuple):
    """A request and the only answer that is right."""

    what: str
    expected: _Answer
    method: str
    path: str
    body: str | None = None


def checks(key: str) -> tuple[_Check, ...]:
    """Return all checks, in order; they use the one key and remove it at the end."""
    path, resource = f"/get/{key}", f"/v1/keys/{key}"
    stored, missing = _Answer(200, _JSON, _STORED), _Answer(404, _JSON, _MISSING)
    text = f'{{"key":"{key}","value":"value_1"}}'
    number = f'{{"key":"{key}","value":{{"n":[1,2.50]}}'
    return (
        _Check("a missing key is not found", missing, "GET", path),
        _Check("a key is set", stored, "POST", "/set", text),
        _Check("the key is got", _Answer(200, _JSON, text), "GET", path),
        _Check("the key is set again", stored, "POST", "/set", number + ',"ttl":60}'),
        _Check("a JSON value comes back as it was", _Answer(200, _JSON, number + "}"), "GET", path),
        _Check("the key is deleted", _Answer(204, "", ""), "DELETE", resource),
        _Check("a deleted key is not found", missing, "GET", path),
        _Check(
            "the service is healthy",
            _Answer(200, "text/plain; charset=utf-8", "ok\n"),
            "GET",
            "/healthz",
        ),
    )


def run(arguments: list[str]) -> int:
    """Check the service, print each check, and return the exit code of the first difference."""
    given = _parser().parse_args(arguments)
    if not _is_url(given.url):
        return complain(f"{given.url!r} is not a URL like {DEFAULT_URL}.", MISUSED)
    try:
        token = _token(given.token_file)
    except (OSError, UnicodeDecodeError) as error:
        return complain(f"{given.token_file} holds no token: {error}.", MISUSED)
    url = given.url.rstrip("/")
    print(f"checking {url}", flush=True)
    try:
        if not _ready(url, given.wait):
            return complain(
                f"{url}/readyz did not answer 200 within {given.wait:g} seconds.", UNREACHABLE
            )
        return _compare(url, token)
    except (OSError, http.client.HTTPException) as error:
        return complain(f"{url} gave no usable answer ({error}).", UNREACHABLE)


def _parser() -> Parser:
    parser = Parser(
        prog="keyrack verify",
        description="Check a running service from outside: the seed API, to the letter.",
        epilog="exit codes: 0 all is right, 1 an answer is not, 2 misused, 3 no answer",
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("KEYRACK_URL") or DEFAULT_URL,
        help=f"where the service is [KEYRACK_URL; default: {DEFAULT_URL}]",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for a service that is not ready yet [default: 30]",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file that holds the token to use [default: that of KEYRACK_TOKEN, if any]",
    )
    return parser


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("KEYRACK_TOKEN") or None
    with open(file, encoding="ascii") as opened:
        return opened.read().strip()


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _compare(url: str, token: str | None) -> int:
    # A key of this run alone, so that a service in use is not disturbed and runs do not meet.
    for check in checks(f"verify-{secrets.token_hex(8)}"):
        answered = _ask(url, check.method, check.path, check.body, token)
        if answered != check.expected:
            print("\n".join(_difference(url, check, answered)), file=sys.stderr)
            return REFUSED
        print(f"ok    {check.what}", flush=True)
    print("all checks passed")
    return OK


def _difference(url: str, check: _Check, answered: _Answer) -> Iterator[str]:
    yield f"FAIL  {check.what}: {check.method} {url}{check.path}"
    for name, answer in (("expected", check.expected), ("answered", answered)):
        yield f"      {name} {answer.status} {answer.media_type or '(no media type)'}"
        yield f"               {answer.body!r}"


def _ready(url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if _ask(url, "GET", "/readyz").status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(min(1.0, seconds))


def _ask(
    url: str, method: str, path: str, body: str | None = None, token: str | None = None
) -> _Answer:
    """Ask on a connection of its own: behind a Service each question may meet another pod."""
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        headers = {} if body is None else {"Content-Type": _JSON}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, parts.path + path, body, headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "backslashreplace")
        return _Answer(response.status, response.headers.get("Content-Type", ""), text)
    finally:
        connection.close()
