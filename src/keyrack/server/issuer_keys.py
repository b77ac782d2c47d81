"""The keys of issuers that are fetched from a URL, by a child process: nothing waits for it.

The supervisor neither waits nor has threads: a fork fetches, writes what came into a file in
memory, and ends. What is fetched is kept until the next time; a fetch that fails changes nothing.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.access.file import check_jwks
from keyrack.access.sections import AccessFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.access.model import Issuer

_EVERY_SECONDS: Final = 600.0
_AGAIN_SECONDS: Final = 60.0
"""The least between two fetches, however many unknown keys are asked for."""

_MOST_BYTES: Final = 1 << 20

_log = logging.getLogger("keyrack.auth")


class _Fetch(NamedTuple):
    """A fetch that is under way."""

    pid: int
    file: int


class IssuerKeys:
    """Fetches the keys of issuers. `become_child` is what a forked process has to do first."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._fetching: dict[str, _Fetch] = {}
        self._fetched: dict[str, float] = {}

    def known(self, url: str) -> str:
        """Return what was fetched last, empty before the first time."""
        return self._known.get(url, "")

    def look(self, issuers: list[Issuer], wanted: bool, become_child: Callable[[], None]) -> None:
        """Fetch the keys that are due; `wanted`: one was asked for that is not known."""
        now = time.monotonic()
        for issuer in issuers:
            last = self._fetched.get(issuer.jwks)
            due = last is None or now - last > (_AGAIN_SECONDS if wanted else _EVERY_SECONDS)
            if due and issuer.jwks not in self._fetching:
                self._fetched[issuer.jwks] = now
                self._begin(issuer, become_child)

    def _begin(self, issuer: Issuer, become_child: Callable[[], None]) -> None:
        file = os.memfd_create("keyrack-keys", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                become_child()
                # Only the child needs what speaks HTTP, and the limit on memory counts it.
                from keyrack.server.issuer_fetch import fetch

                os.write(file, fetch(issuer))
                code = 0
            except Exception as error:
                os.write(file, str(error).encode()[:1000])
            finally:
                os._exit(code)
        self._fetching[issuer.jwks] = _Fetch(pid, file)

    def ended(self, pid: int, status: int) -> bool:
        """Learn that a child has ended; tell whether keys have changed by it."""
        for url, fetching in list(self._fetching.items()):
            if fetching.pid == pid:
                del self._fetching[url]
                text = os.pread(fetching.file, _MOST_BYTES, 0).decode("utf-8", "replace")
                os.close(fetching.file)
                return self._take(url, text, failed=status != 0)
        return False

    def _take(self, url: str, text: str, *, failed: bool) -> bool:
        try:
            if failed:
                raise AccessFileError(f"The keys at {url} cannot be fetched: {text}.")
            check_jwks(text, url)
        except AccessFileError as error:
            _log.error("%s Those that are known still count.", error)
            return False
        changed = self._known.get(url) != text
        self._known[url] = text
        return changed
