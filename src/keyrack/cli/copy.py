"""`keyrack copy`: copy keys from one place to another."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import asking, kinds, places, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.progress import FLAG, Progress
from keyrack.cli.spec import (
    CONFLICT,
    DONE,
    FILES,
    FORBIDDEN,
    MISUSED,
    Argument,
    Command,
    Example,
    Flag,
)
from keyrack.client import KeyrackError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.places import Place

_PART_BYTES: Final = 1 << 20
"""So many bytes of lines are one request: what was done is known after each."""
COMMAND = Command(
    "Copy keys, with their values, types and what is left of their TTLs. A place is a URL, "
    "unix:///PATH, @CONTEXT, `.` for the service that flags and variables name, or a file. Keys "
    "that are there are replaced, others stay. When it breaks off, the same command with --resume "
    "goes on behind the last key that was copied.",
    arguments=(
        Argument("SOURCE", "where they are", completes=FILES),
        Argument("TARGET", "where they go", completes=FILES),
    ),
    flags=(
        Flag(("--prefix",), "only keys that begin with this", "PREFIX", kinds.raw, b""),
        Flag(("--resume",), "go on with a copy that broke off"),
        FLAG,
    ),
    codes=((CONFLICT, "some keys could not be stored"),),
    examples=(
        Example(
            "Out of a service, and into one:",
            "keyrack set app/name Keyrack\n"
            "keyrack copy . app.ndjson --prefix app/\n"
            "keyrack copy app.ndjson $KEYRACK_URL -o json",
            '{"copied": 1, "failed": 0, "errors": []}',
        ),
    ),
)


class _State:
    """The last key that was copied from one place to another, in a file of this user."""

    def __init__(self, source: Place, target: Place, prefix: bytes) -> None:
        base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        name = "\0".join(map(_absolute, (source, target))).encode() + b"\0" + prefix
        digest = hashlib.sha256(name).hexdigest()[:16]
        self._path = os.path.join(base, "keyrack", f"copy-{digest}")
        self._noted = False

    def load(self) -> str | None:
        """Return the key, None where nothing was copied yet."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            self._noted = True
            return file.read().decode()
        return None

    def note(self, part: bytes) -> None:
        """Keep the last key of lines that are done; one that cannot be read is told elsewhere."""
        with contextlib.suppress(OSError, Misused):
            key = places.key_of(part.rsplit(b"\n", 2)[-2])
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(self._path, "wb") as file:
                file.write(key.encode())
            self._noted = True

    def remove(self) -> None:
        """Forget it: all was copied."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def tell(self) -> None:
        """Say how to go on."""
        if self._noted:
            saying.say("keyrack: the same command with --resume goes on from here.")


def run(given: argparse.Namespace) -> int:
    """Copy, and say how many keys there were."""
    source, target = places.place_of(given.source, given), places.place_of(given.target, given)
    if source == target:
        raise Misused("It makes no sense to copy a place to itself.")
    if target.target is not None and target.target.read_only:
        return saying.complain(f"{target.name} is for reading only.", FORBIDDEN)
    state = _State(source, target, given.prefix)
    after = state.load() if given.resume else None
    progress = Progress("copied", shown=given.progress)
    report: dict[str, Any] = {"copied": 0, "failed": 0, "errors": []}
    try:
        with places.exported(source, given.prefix, after) as pieces:
            whole = places.whole_lines(progress.watch(pieces))
            if target.target is None:
                _to_file(target.name, whole, state, report, resumed=after is not None)
            else:
                _to_service(target, whole, state, report)
    except KeyrackError as error:
        state.tell()
        return saying.complain(str(error), asking.exit_code(error))
    except OSError as error:
        state.tell()
        return saying.complain(f"{target.name} cannot be written: {error.strerror}.", MISUSED)
    except KeyboardInterrupt:
        state.tell()
        raise
    state.remove()
    return _told(given, report)


def _to_service(
    target: Place, pieces: Iterator[bytes], state: _State, report: dict[str, Any]
) -> None:
    assert target.target is not None
    with asking.service_of(target.target) as service:
        for part in _parts(pieces):
            found = service.import_lines([part])
            report["copied"] += found["imported"]
            report["failed"] += found["failed"]
            report["errors"] += [error["detail"] for error in found["errors"]]
            state.note(part)


def _parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    waiting, size = [], 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PART_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _to_file(
    path: str, pieces: Iterator[bytes], state: _State, report: dict[str, Any], *, resumed: bool
) -> None:
    part = f"{path}.part"
    with open(part, "ab" if resumed else "wb") as file:
        for piece in _parts(pieces):
            file.write(piece)
            file.flush()
            report["copied"] += piece.count(b"\n")
            state.note(piece)
        os.fsync(file.fileno())
    os.replace(part, path)


def _told(given: argparse.Namespace, report: dict[str, Any]) -> int:
    printer = Printer(given, "table")
    for detail in report["errors"]:
        saying.complain(detail, CONFLICT)
    if printer.as_json:
        printer.document(report)
    else:
        saying.say(f"{report['copied']:,} keys copied, {report['failed']} failed")
    return CONFLICT if report["failed"] else DONE


def _absolute(place: Place) -> str:
    if place.target is None:
        return os.path.abspath(place.name)
    return place.target.uds or place.target.url
