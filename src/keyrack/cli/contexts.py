"""Services by name: `~/.config/keyrack/contexts.toml`, which its owner alone may read."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMBERS: Final = (
    "url",
    "uds",
    "token",
    "token_file",
    "token_command",
    "ca",
    "prefix",
    "read_only",
    "color",
)
"""What a context may say."""


class ContextsError(Exception):
    """Raised when the file cannot be used. The message is a sentence."""


class Contexts(NamedTuple):
    """What the file says: each context by its name, and which one is used."""

    current: str | None
    named: dict[str, dict[str, Any]]


def path() -> str:
    """Return where the file is."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "keyrack", "contexts.toml")


def load() -> Contexts:
    """Return what the file says, nothing where there is none. Raises `ContextsError`."""
    file = path()
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return Contexts(None, {})
    except OSError as error:
        raise ContextsError(f"{file} cannot be read: {error.strerror}.") from None
    with open(descriptor, "rb") as opened:
        mode = os.fstat(descriptor).st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ContextsError(f"Others may read {file}, which holds tokens: `chmod 600 {file}`.")
        return _parsed(file, opened.read())


def _parsed(file: str, data: bytes) -> Contexts:
    import tomllib  # only for those who have such a file

    try:
        found = tomllib.loads(data.decode())
    except ValueError as error:
        raise ContextsError(f"{file} is no TOML: {error}.") from None
    named = found.pop("context", {})
    current = found.pop("current", None)
    if found or not isinstance(named, dict) or not isinstance(current, str | None):
        raise ContextsError(f"{file} has `current` and tables like [context.NAME], nothing else.")
    for name, members in named.items():
        _check(file, name, members)
    return Contexts(current, named)


def _check(file: str, name: str, members: Any) -> None:
    if not isinstance(members, dict):
        raise ContextsError(f"{file}: context.{name} is no table.")
    for member, value in members.items():
        if member not in MEMBERS:
            raise ContextsError(f"{file}: context {name!r} has no {member!r}.")
        if not isinstance(value, bool if member == "read_only" else str):
            raise ContextsError(f"{file}: {member} of context {name!r} has the wrong type.")


def save(contexts: Contexts) -> None:
    """Write the file, for its owner alone. Raises `ContextsError`."""
    file = path()
    part = f"{file}.part"
    try:
        os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as opened:
            opened.write(_toml(contexts))
            opened.flush()
            os.fsync(descriptor)
        os.replace(part, file)
    except OSError as error:
        raise ContextsError(f"{file} cannot be written: {error.strerror}.") from None


def _toml(contexts: Contexts) -> str:
    lines = [] if contexts.current is None else [f"current = {_text(contexts.current)}"]
    for name, members in contexts.named.items():
        lines += ["", f"[context.{_text(name)}]", *_members(members)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _members(members: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} = {str(value).lower() if isinstance(value, bool) else _text(value)}"
        for name, value in members.items()
    ]


def _text(text: str) -> str:
    import json  # only for those who write

    # A JSON string is a TOML string as well, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
