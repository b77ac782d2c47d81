"""The operator's file in the supervisor: read before the first fork, and again when it changes.

The workers are told through `AccessBoard`. A file that cannot be used changes nothing: what it said
before goes on to count, and the log, the metrics and the exit code of a start say so.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.access import file, tokens
from keyrack.access.changes import FileWatch
from keyrack.access.model import AccessFile, Token
from keyrack.access.sections import AccessFileError
from keyrack.server.issuer_keys import IssuerKeys
from keyrack.shared.access_board import AccessBoard

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.access.model import Issuer
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_LOOK_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 10.0
"""Between two readings of a file that could not be used: what it needs may have come."""

_REFUSED: Final = {"event": "auth_refused"}

_log = logging.getLogger("keyrack.auth")


class AccessKeeper:
    """Publishes who is let in. Raises `AccessFileError` where the first reading finds a mistake."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.board = AccessBoard(settings.workers)
        self._watch = FileWatch(())
        self._due = 0.0
        self._retry_due: float | None = None
        self._published = b""
        self._told = ""
        self._keys = IssuerKeys()
        self._remote: list[Issuer] = []
        self._load()

    def look(self, counters: Counters, become_child: Callable[[], None]) -> None:
        """Look, now and then, whether something has changed, and tell the workers. Call it often.

        `become_child` is what a forked process has to do first.
        """
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LOOK_SECONDS
        if self._remote:
            self._keys.look(self._remote, self.board.keys_wanted(), become_child)
        if self._watch.changed() or (self._retry_due is not None and now >= self._retry_due):
            self.reload(counters)

    def ended(self, pid: int, status: int, counters: Counters) -> None:
        """Learn that a child process has ended."""
        if self._keys.ended(pid, status):
            self.reload(counters)

    def reload(self, counters: Counters) -> None:
        """Read the files now. One that cannot be used is told of, and changes nothing."""
        again = self._retry_due is not None
        self._retry_due = None
        try:
            changed = self._load()
        except AccessFileError as error:
            self.board.fail()
            self._retry_due = time.monotonic() + _RETRY_SECONDS
            if not again or str(error) != self._told:
                _log.error("%s What counted before still counts.", error, extra=_REFUSED)
            self._told = str(error)
            return
        if changed:
            counters.wake_all()
            _log.info("who is let in has changed", extra={"event": "auth_reloaded"})

    def _load(self) -> bool:
        """Read the files and publish what they say; tell whether that is something new."""
        access = AccessFile()
        paths: list[str] = []
        warnings: list[str] = []
        if self._settings.auth_file is not None:
            loaded = file.load(self._settings.auth_file)
            access, warnings = loaded.access, loaded.warnings
            paths += loaded.files
        if self._settings.token_file is not None:
            paths.append(self._settings.token_file)
        self._watch.follow(paths)
        self._remote = [one for one in access.issuers if file.is_url(one.jwks)]
        issuers = tuple(
            msgspec.structs.replace(one, keys=self._keys.known(one.jwks))
            if file.is_url(one.jwks)
            else one
            for one in access.issuers
        )
        single = self._single()
        access = msgspec.structs.replace(access, tokens=(*access.tokens, *single), issuers=issuers)
        for warning in warnings:
            _log.warning("%s", warning)
        document = msgspec.json.encode(access)
        changed = document != self._published
        self._published = document
        # Published anyway: a file that is as it was ends a failure.
        self.board.publish(document, time.time_ns() // 1_000_000)
        return changed

    def _single(self) -> tuple[Token, ...]:
        """Return the one token that is given without a file, if there is one."""
        text, name = self._settings.token, "KEYRACK_TOKEN"
        if self._settings.token_file is not None:
            text, name = _token_of(self._settings.token_file), "token file"
        if text is None:
            return ()
        return (Token(tokens.id_of(text), tokens.digest(text), name, ("admin",)),)


def _token_of(path: str) -> str:
    try:
        with open(path, encoding="ascii") as opened:
            text = opened.read(1000).strip()
        tokens.id_of(text)
    except OSError as error:
        raise AccessFileError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, tokens.MalformedToken):
        raise AccessFileError(
            f"{path} holds no whole token; `keyrack token new` prints one."
        ) from None
    return text
