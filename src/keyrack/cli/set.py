"""`keyrack set`: store a value."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import shown_key
from keyrack.cli.spec import DONE, FILES, KEYS, MISSING, Argument, Command, Example, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service

COMMAND = Command(
    "Store a value, and print nothing. Without a VALUE, or with `-`, it is read from standard "
    "input; `@FILE` reads a file. Its type is text if it is UTF-8, else binary, unless --type says "
    "otherwise.",
    arguments=(
        Argument("KEY", "the key", kind=kinds.key, completes=KEYS),
        Argument("VALUE", "the value, `-` or `@FILE`", optional=True, completes=FILES),
    ),
    flags=(
        Flag(("--ttl",), "when the key is to end, like 90, 5m or 1h", "TIME", kinds.some_seconds),
        Flag(("--type",), "its media type", "MEDIA"),
        Flag(("--max-age",), "for how long caches may serve it", "TIME", kinds.whole_seconds),
        Flag(("--swr",), "and for how long after, while they ask", "TIME", kinds.whole_seconds),
        Flag(("--public",), "caches of several people, too, if everybody may read the key"),
        Flag(("--if-match",), "only if this is its ETag; * is any", "ETAG", kinds.tag),
        Flag(("--if-none-match",), "only if this is not its ETag; * is any", "ETAG", kinds.tag),
        Flag(("--add",), "only if the key is missing"),
        Flag(("--replace",), "only if the key is there"),
        Flag(("--literal",), "take VALUE as it is, also where it begins with @ or is -"),
        Flag(("-v", "--verbose"), "print the new ETag"),
    ),
    formats=("table", "json"),
    writes=True,
    names_lock=True,
    examples=(
        Example("Flags go anywhere.", "keyrack set greeting --ttl 5m hello"),
        Example(
            "From a pipe, or from a file:", "date | keyrack set now\nkeyrack set hosts @/etc/hosts"
        ),
        Example(
            "Caches in front of the service may serve it for 30 seconds:",
            "keyrack set front-page @/etc/hosts --max-age 30 --public",
        ),
        Example(
            "Only one of those who try it first has it:",
            "keyrack set leader me --add\nkeyrack set leader you --add || echo too late",
            "too late",
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Store the value; print its ETag when it is asked for."""
    conditions = _conditions(given)
    if given.max_age is None and (given.swr or given.public):
        raise Misused("--swr and --public say more of --max-age: give that as well.")
    value = _value(given)

    def question(service: Service) -> int:
        etag = service.set(
            given.key,
            value,
            media_type=given.type,
            ttl=given.ttl,
            max_age=given.max_age,
            swr=given.swr,
            public=given.public,
            **conditions,
        )
        printer = Printer(given, "table")
        if printer.as_json or given.verbose:
            known = {"key": given.key.decode("utf-8", "surrogateescape"), "etag": etag}
            printer.document(known, [etag])
            flush()
        return DONE

    def asked(service: Service) -> int:
        from keyrack.client import Conflict

        try:
            return question(service)
        except Conflict as error:
            if given.add:
                return saying.complain(f"The key {shown_key(given.key)} is there.", MISSING)
            if given.replace:
                return saying.complain(f"The key {shown_key(given.key)} is missing.", MISSING)
            raise error

    return asking.ask(given, asked)


def _conditions(given: argparse.Namespace) -> dict[str, Any]:
    named = [given.if_match, given.if_none_match, given.add or None, given.replace or None]
    if sum(one is not None for one in named) > 1 and (given.add or given.replace):
        raise Misused("--add and --replace go with no other condition.")
    if given.add:
        return {"if_none_match": "*"}
    if given.replace:
        return {"if_match": "*"}
    return {"if_match": given.if_match, "if_none_match": given.if_none_match}


def _value(given: argparse.Namespace) -> bytes:
    if given.value is not None and given.literal:
        return os.fsencode(given.value)
    return data_of(given.value)


def data_of(text: str | None) -> bytes:
    """Return what a word stands for: itself, standard input (`-` or nothing), or `@FILE`."""
    if text is None or text == "-":
        if sys.stdin.isatty():
            saying.say("What comes now is read from this terminal; end it with Ctrl-D.")
        return sys.stdin.buffer.read()
    return file_of(text[1:]) if text.startswith("@") else os.fsencode(text)


def file_of(path: str) -> bytes:
    """Return what a file holds. Raises `Misused`."""
    try:
        with open(path, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}.") from None
