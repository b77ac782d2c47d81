"""Changing the operator's file, offline: what `keyrack token create --file` does.

What the file says stays as it is written, comments included; a token is a section at its end.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from typing import TYPE_CHECKING, Final

from keyrack.access.file import parse
from keyrack.access.model import Token, shown_moment
from keyrack.access.sections import AccessFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_FILE: Final = "version = 1\n"
_SECTION: Final = re.compile(r"(?m)^[ \t]*\[")
_TOKENS: Final = re.compile(r"[ \t]*\[\[[ \t]*tokens[ \t]*\]\]")


def add(path: str, token: Token) -> None:
    """Add a token to a file, which is made if it is missing. Raises `AccessFileError`."""
    text = _read(path)
    gap = "" if text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    _write(path, text + gap + written(token))


def replace(path: str, token: Token) -> None:
    """Put a token in the place of the one with its id. Raises `AccessFileError`."""
    text = _read(path)
    start, end = _section(text, token.id, path)
    _write(path, text[:start] + written(token) + _gap(text[start:end]) + text[end:])


def remove(path: str, token_id: str) -> None:
    """Remove a token from a file. Raises `AccessFileError`."""
    text = _read(path)
    start, end = _section(text, token_id, path)
    _write(path, text[:start] + text[end:])


def written(token: Token) -> str:
    """Return a token as a section of the file."""
    pairs: list[tuple[str, str | None]] = [
        ("id", _quoted(token.id)),
        ("hash", _quoted(token.hash)),
        ("hash_next", _quoted(token.hash_next)),
        ("not_after", _moment(token.not_after)),
        ("name", _quoted(token.name or None)),
        ("policies", _list(token.policies)),
        ("rules", _list(token.rules)),
        ("expires", _moment(token.expires)),
        ("disabled", "true" if token.disabled else None),
        ("rate", _quoted(None if token.rate is None else str(token.rate))),
        ("watches", None if token.watches is None else str(token.watches)),
        ("from", _list(token.sources)),
        ("created", _moment(token.created)),
        ("created_by", _quoted(token.created_by)),
    ]
    lines = (f"{key} = {value}\n" for key, value in pairs if value is not None)
    return "[[tokens]]\n" + "".join(lines)


def _quoted(text: str | None) -> str | None:
    if text is None:
        return None
    escaped = (f"\\u{ord(c):04X}" if c < " " or c in '"\\\x7f' else c for c in text)
    return '"' + "".join(escaped) + '"'


def _list(texts: tuple[str, ...]) -> str | None:
    return "[" + ", ".join(str(_quoted(text)) for text in texts) + "]" if texts else None


def _moment(moment: float | None) -> str | None:
    return None if moment is None else shown_moment(moment)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return _NEW_FILE
    except OSError as error:
        raise AccessFileError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise AccessFileError(f"{path} is no UTF-8.") from None


def _section(text: str, token_id: str, path: str) -> tuple[int, int]:
    """Return where the section of a token begins and ends."""
    starts = [match.start() for match in _SECTION.finditer(text)]
    of_the_token = re.compile(rf"(?m)^[ \t]*id[ \t]*=[ \t]*['\"]{re.escape(token_id)}['\"]")
    found = [
        (start, end)
        for start, end in itertools.pairwise([*starts, len(text)])
        if _TOKENS.match(text, start) and of_the_token.search(text, start, end)
    ]
    if len(found) != 1:
        raise AccessFileError(f"{path} has no section [[tokens]] with the id {token_id!r}.")
    return found[0]


def _gap(section: str) -> str:
    """Return the empty lines and comments that end a section."""
    kept = re.search(r"(?:\n[ \t]*(?:#[^\n]*)?)*\Z", section)
    return (kept[0] if kept else "").removeprefix("\n")


def _write(path: str, text: str) -> None:
    """Replace a file, all or nothing, by one that can be used."""
    parse(text, path)
    target = os.path.realpath(path)
    try:
        with _sibling(target) as part:
            with open(part, "w", encoding="utf-8", opener=_private) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _keep_owner(target, part)
            os.rename(part, target)
        _sync_directory(os.path.dirname(target))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise AccessFileError(
                f"{path} is mounted by itself, so it cannot be replaced: mount the directory that "
                "it is in."
            ) from None
        raise AccessFileError(f"{path} cannot be written: {error.strerror}.") from None


@contextlib.contextmanager
def _sibling(target: str) -> Iterator[str]:
    part = f"{target}.{os.getpid()}.part"
    try:
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keep_owner(target: str, part: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(target)
        os.chmod(part, found.st_mode & 0o777)
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(part, found.st_uid, found.st_gid)


def _sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
