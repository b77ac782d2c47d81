"""`keyrack wait`: wait until a key is there, gone, or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, KEYS, TIMED_OUT, Argument, Command, Example, Flag
from keyrack.client import Ambiguous, Timeout, Unreachable

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Wait until a key exists, is gone, or changes, and print nothing. The service tells when: "
    "nothing is asked again and again.",
    arguments=(Argument("KEY", "the key", kind=kinds.key, completes=KEYS),),
    flags=(
        Flag(("--exists",), "until it is there (this is the default)"),
        Flag(("--gone",), "until it is not there"),
        Flag(("--changes",), "until it is another than now, or than --etag says"),
        Flag(("--etag",), "the state that --changes is to differ from", "ETAG", kinds.tag),
        Flag(
            ("--timeout",),
            "give up after this time [default: 1h]",
            "TIME",
            kinds.some_seconds,
            3600.0,
            attribute="patience",
        ),
    ),
    codes=((TIMED_OUT, "it did not happen in time"),),
    examples=(
        Example(
            "A job goes on when another one is ready:",
            "(sleep 0.2; keyrack set ready yes) &\nkeyrack wait ready --timeout 10s && echo go",
            "go",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Wait for it."""
    wanted = [name for name in ("exists", "gone", "changes") if getattr(given, name)]
    if len(wanted) > 1:
        raise Misused("Say one of --exists, --gone and --changes.")
    until = (wanted or ["exists"])[0]
    if given.etag is not None and until != "changes":
        raise Misused("--etag goes with --changes.")

    def question(service: Service) -> int:
        try:
            value = service.wait(given.key, until=until, etag=given.etag, timeout=given.patience)
        except (Unreachable, Ambiguous):
            raise
        except Timeout:
            shown = f"{shown_key(given.key)} within {given.patience:g} s"
            return saying.complain(f"Nothing of that kind happened to {shown}.", TIMED_OUT)
        key = given.key.decode("utf-8", "surrogateescape")
        etag = None if value is None else value.etag
        Printer(given, "table").document({"key": key, "etag": etag})
        return DONE

    return asking.ask(given, question)
