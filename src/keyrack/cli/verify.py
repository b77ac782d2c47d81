"""`keyrack verify`: check a running service from outside, the seed API to the letter.

The checks are those of `scripts/verify-api.sh`, which needs nothing but bash and curl; this verb
needs nothing but Keyrack, and so runs where its image does (`helm test`). A test keeps them alike.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.cli import asking, kinds, saying
from keyrack.cli.printing import Printer, flush
from keyrack.cli.spec import DONE, REFUSED, UNREACHABLE, Command, Flag
from keyrack.cli.target import target_of
from keyrack.client import Ambiguous, KeyrackError, Unavailable, Unreachable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.service import Service

COMMAND = Command(
    "Check a running service from outside: the seed API, to the letter. It stores one key of its "
    "own, and removes it.",
    flags=(
        Flag(
            ("--wait",),
            "how long to wait for a service that is not ready yet [default: 30]",
            "TIME",
            kinds.seconds,
            30.0,
        ),
    ),
    writes=True,
    codes=((0, "all is right"), (1, "an answer is not what it should be")),
)

_JSON: Final = "application/json"
_STORED: Final = '{"status":"success","message":"key-value pair is set successfully"}'
_MISSING: Final = '{"status":"error","message":"Key not found"}'


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


def run(given: argparse.Namespace) -> int:
    """Check the service, print each check, and return the exit code of the first difference."""
    target = target_of(given)
    if target.read_only:
        return asking.refuse_to_write(target)
    with asking.service_of(target) as service:
        printer = Printer(given, "table")
        shown = service.endpoint.shown.rstrip("/")
        _tell(printer, f"checking {shown}")
        try:
            if not _ready(service, given.wait):
                return saying.complain(
                    f"{shown}/readyz did not answer 200 within {given.wait:g} seconds.", UNREACHABLE
                )
            return _compare(service, printer, shown)
        except KeyrackError as error:
            return saying.complain(f"{shown} gave no usable answer ({error}).", UNREACHABLE)


def _tell(printer: Printer, line: str) -> None:
    if not printer.as_json:
        printer.line(line)
        flush()


def _compare(service: Service, printer: Printer, shown: str) -> int:
    # A key of this run alone, so that a service in use is not disturbed and runs do not meet.
    done: list[dict[str, object]] = []
    failure = ""
    for check in checks(f"verify-{secrets.token_hex(8)}"):
        answered = _ask(service, check.method, check.path, check.body)
        done.append({"check": check.what, "ok": answered == check.expected})
        if answered != check.expected:
            failure = "\n".join(_difference(shown, check, answered))
            break
        _tell(printer, f"ok    {check.what}")
    found = {"url": shown, "ok": not failure, "checks": done}
    printer.document(found, () if failure else ("all checks passed",))
    if failure:
        print(failure, file=sys.stderr)
    return REFUSED if failure else DONE


def _difference(url: str, check: _Check, answered: _Answer) -> Iterator[str]:
    yield f"FAIL  {check.what}: {check.method} {url}{check.path}"
    for name, answer in (("expected", check.expected), ("answered", answered)):
        yield f"      {name} {answer.status} {answer.media_type or '(no media type)'}"
        yield f"               {answer.body!r}"


def _ready(service: Service, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if _ask(service, "GET", "/readyz").status == 200:
                return True
        except (Unreachable, Ambiguous, Unavailable):
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(min(1.0, seconds))


def _ask(service: Service, method: str, path: str, body: str | None = None) -> _Answer:
    """Ask on a connection of its own: behind a Service each question may meet another pod."""
    service.close()
    response = service.exchange(method, path, body)
    text = response.body.decode("utf-8", "backslashreplace")
    return _Answer(response.status, response.field(b"Content-Type") or "", text)
