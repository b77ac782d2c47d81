"""The console's files, as the server hands them out: compressed once, named by their content.

The page itself is small and is never cached. Every other file is below a path that holds a hash of
all of them, so that a browser may keep it for ever and never mixes two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy of the console: only its own files, and no text becomes code."""

_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


_COMMENTS: Final = re.compile(
    rb"^ *//.*\n"
    rb"|^ */\*\*(?:[^*]|\*(?!/))*\*/ *\n"
    rb"|/\*\* @(?:[^*]|\*(?!/))*\*/ ?",
    re.MULTILINE,
)
"""Whole lines of comment, and types in comments: a third of the bytes, of no use to a browser."""


class Asset(NamedTuple):
    """A file of the console. `packed` is `data` compressed by gzip."""

    media_type: str
    data: bytes
    packed: bytes


@cache
def assets() -> dict[str, Asset]:
    """Return all files but the page, by their path below the version's directory."""
    return dict(_files(resources.files("keyrack.console") / "static", ""))


@cache
def version() -> str:
    """Return a name for this very set of files: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, asset in sorted(assets().items()):
        digest.update(f"{name}\0{len(asset.data)}\0".encode())
        digest.update(asset.data)
    return digest.hexdigest()[:16]


@cache
def page() -> Asset:
    """Return the page that loads the rest."""
    source = (resources.files("keyrack.console") / "static" / "index.html").read_text("utf-8")
    return _asset("text/html; charset=utf-8", source.replace("{{hash}}", version()).encode())


def _files(directory: Traversable, before: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in sorted(directory.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found += _files(entry, f"{before}{entry.name}/")
            continue
        media_type = _TYPES.get(entry.name[entry.name.rfind(".") :])
        if media_type is not None:
            data = entry.read_bytes()
            own = not before and entry.name.endswith(".js")
            found.append(
                (before + entry.name, _asset(media_type, without_comments(data) if own else data))
            )
    return found


def without_comments(source: bytes) -> bytes:
    """Return a module of ours without what is only for people who read its source."""
    return _COMMENTS.sub(b"", source)


def _asset(media_type: str, data: bytes) -> Asset:
    return Asset(media_type, data, gzip.compress(data, 9, mtime=0))
