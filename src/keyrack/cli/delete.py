"""`keyrack del`: remove keys, or all below a prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.cli import asking, kinds, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer, flush
from keyrack.cli.saying import escaped, shown_key
from keyrack.cli.spec import DONE, KEYS, MISSING, Argument, Command, Example, Flag
from keyrack.cli.target import target_of

if TYPE_CHECKING:
    import argparse

    from keyrack.cli.service import Service
    from keyrack.client.many import PrefixDeletion

_UNDO_SECONDS: Final = 600

COMMAND = Command(
    "Remove keys, or all keys below a prefix. Of several keys all are removed at one moment. The "
    "removal of a prefix is shown first, with how many keys there are and a few of them; it is "
    "asked for on a terminal, and needs --yes elsewhere. What was removed can be put back for ten "
    "minutes: `keyrack undo` says how.",
    arguments=(
        Argument("KEY", "the keys", optional=True, many=True, kind=kinds.key, completes=KEYS),
    ),
    flags=(
        Flag(("--prefix",), "all keys that begin with this", "PREFIX", kinds.raw, completes=KEYS),
        Flag(("--all",), "all keys there are"),
        Flag(("--if-match",), "only if this is its ETag; * is any", "ETAG", kinds.tag),
        Flag(("-n", "--dry-run"), "remove nothing, show what would be removed"),
        Flag(("-y", "--yes"), "do not ask"),
        Flag(("--undo",), "how long it can be undone", "SECONDS", kinds.whole_seconds),
        Flag(("--no-undo",), "remove for good, so that it cannot be undone"),
    ),
    writes=True,
    names_lock=True,
    examples=(
        Example(
            "One key, and one that is not there:",
            'keyrack set a 1\nkeyrack del a\nkeyrack del a || echo "exit code $?"',
            "exit code 1",
        ),
        Example(
            "What would go?",
            "keyrack set old/1 x\nkeyrack set old/2 x\nkeyrack del --prefix old/ --dry-run",
            "2 keys begin with 'old/': old/1, old/2",
        ),
        Example(
            "In a script nobody can be asked:", "keyrack del --prefix old/ --yes", "2 keys removed"
        ),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Remove what was named."""
    wanted = [bool(given.key), given.prefix is not None, given.all]
    if sum(wanted) != 1:
        raise Misused("Name keys, or --prefix, or --all.")
    if given.prefix == b"":
        raise Misused("An empty prefix is every key: say --all.")
    if given.key:
        return asking.ask(given, lambda service: _of_keys(service, given))
    if given.if_match is not None:
        raise Misused("--if-match is about one key, not about a prefix.")
    return asking.ask(given, lambda service: _of_prefix(service, given))


# Keys


def _of_keys(service: Service, given: argparse.Namespace) -> int:
    if given.dry_run:
        present = [key for key in given.key if service.head(key) is not None]
        return _told(given, present, dry_run=True)
    if len(given.key) == 1:
        (key,) = given.key
        done = service.delete(key, if_match=given.if_match, undo=_seconds(given))
        return _told(given, [key] if done else [], done.undo)
    with service.batch(undo=_seconds(given)) as batch:
        handles = {key: batch.delete(key, if_match=given.if_match) for key in given.key}
    return _told(given, [key for key, handle in handles.items() if handle.existed], batch.undo)


def _seconds(given: argparse.Namespace) -> int:
    """Return for how long a removal can be undone, 0 for not at all."""
    if given.no_undo:
        return 0
    return _UNDO_SECONDS if given.undo is None else int(given.undo)


def _tell_undo(undo: int | None) -> None:
    if undo is not None:
        saying.say(f"To put it back: keyrack undo {undo}")


def _told(
    given: argparse.Namespace,
    removed: list[bytes],
    undo: int | None = None,
    *,
    dry_run: bool = False,
) -> int:
    printer = Printer(given, "table")
    missing = [key for key in dict.fromkeys(given.key) if key not in removed]
    shown = {
        "deleted": len(removed),
        "dry_run": dry_run,
        "missing": [key.decode("utf-8", "surrogateescape") for key in missing],
        "undo": undo,
    }
    if dry_run or printer.as_json:
        printer.document(shown, (f"{escaped(key.decode())}" for key in removed))
        flush()
    _tell_undo(undo)
    for key in missing:
        saying.complain(f"The key {shown_key(key)} is missing.", MISSING)
    return MISSING if missing else DONE


# A prefix


def _of_prefix(service: Service, given: argparse.Namespace) -> int:
    prefix: bytes = given.prefix or b""
    printer = Printer(given, "table")
    # The key of a context's prefix alone is no empty prefix for the service, and none for a person.
    planned = service.delete_prefix(prefix, dry_run=True, everything=given.all)
    if given.dry_run:
        printer.document(planned._asdict(), [_sentence(prefix, planned)])
        flush()
        return DONE
    saying.say(_sentence(prefix, planned))
    if not asking.is_sure(given, f"Remove {_keys(planned.deleted)}?", target_of(given)):
        return saying.complain("Nothing was removed.", MISSING)
    # What was changed since it was shown is not removed by the answer to that.
    done = service.delete_prefix(
        prefix, everything=given.all, undo=_seconds(given), at=planned.revision
    )
    newer = f", {_keys(done.kept_newer)} changed meanwhile and left" if done.kept_newer else ""
    printer.document(done._asdict(), [f"{_keys(done.deleted)} removed{newer}"])
    flush()
    _tell_undo(done.undo)
    return DONE


def _sentence(prefix: bytes, planned: PrefixDeletion) -> str:
    sample = ", ".join(escaped(key) for key in planned.sample)
    more = ", …" if planned.deleted > len(planned.sample) else ""
    what = f"begin with {shown_key(prefix)}" if prefix else "are there"
    return f"{_keys(planned.deleted)} {what}: {sample}{more}" if sample else f"0 keys {what}"


def _keys(count: int) -> str:
    return f"{count:,} {'key' if count == 1 else 'keys'}"
