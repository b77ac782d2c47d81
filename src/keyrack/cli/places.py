"""Where keys are copied from and to: a service by its URL or context, or a file."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from keyrack.cli import asking, lines
from keyrack.cli.parsing import Misused
from keyrack.cli.target import Target, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_PIECE_BYTES = 1 << 18


class Place(NamedTuple):
    """A service to ask, or else the path of a file."""

    name: str
    target: Target | None


def place_of(word: str, given: argparse.Namespace) -> Place:
    """Return what a word names. Raises `Misused`."""
    if word.startswith("@"):
        return Place(word, _target(given, context=word[1:]))
    scheme = urlsplit(word).scheme
    if scheme in ("http", "https"):
        return Place(word, _target(given, url=word))
    if scheme == "unix":
        return Place(word, _target(given, uds=unquote(urlsplit(word).path)))
    if word == ".":
        return Place(word, target_of(given))
    return Place(word, None)


def _target(given: argparse.Namespace, **where: str) -> Target:
    nowhere = {"url": None, "uds": None, "context": None}
    return target_of(argparse.Namespace(**{**vars(given), **nowhere, **where}))


@contextlib.contextmanager
def exported(place: Place, prefix: bytes, after: str | None = None) -> Iterator[Iterator[bytes]]:
    """Lend the lines of a place in pieces that end anywhere, perhaps behind a key."""
    if place.target is None:
        with _read(place.name) as pieces:
            yield pieces if after is None and not prefix else _chosen(pieces, prefix, after)
        return
    with asking.service_of(place.target) as service:
        yield _of_service(service, prefix, after)


def _of_service(service: Service, prefix: bytes, after: str | None) -> Iterator[bytes]:
    return service.export(prefix) if after is None else lines.after(service, prefix, after)


@contextlib.contextmanager
def _read(path: str) -> Iterator[Iterator[bytes]]:
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield iter(lambda: file.read(_PIECE_BYTES), b"")


def whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces that end with lines. Raises `Misused` where the last one is not whole."""
    rest = b""
    for piece in pieces:
        at = piece.rfind(b"\n") + 1
        if at:
            yield rest + piece[:at]
            rest = piece[at:]
        else:
            rest += piece
    if rest.strip():
        yield rest + b"\n"


def _chosen(pieces: Iterator[bytes], prefix: bytes, after: str | None) -> Iterator[bytes]:
    for piece in whole_lines(pieces):
        for line in piece.splitlines(keepends=True):
            key = key_of(line).encode()
            if key.startswith(prefix) and (after is None or key > after.encode()):
                yield line


def key_of(line: bytes) -> str:
    """Return the key of a line. Raises `Misused` for what is none."""
    import msgspec

    try:
        return lines.read(line).key
    except msgspec.DecodeError as error:
        raise Misused(f"A line cannot be read: {error}.") from None
