"""Waiting for changes beside other work: a thread that watches, and says that there were some."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from keyrack.client import KeyrackError, Reset, Synced

if TYPE_CHECKING:
    from keyrack.cli.service import Service

_QUIET_SECONDS: Final = 0.2
"""Changes that come shortly after each other are taken for one."""


class Changes:
    """Whether anything changed below some prefixes. `failure` is what ended the watch."""

    def __init__(self, service: Service, prefixes: list[bytes]) -> None:
        self._news = threading.Event()
        self._synced = threading.Event()
        self._watch = service.watch(*prefixes, resync=True)
        self.failure: KeyrackError | None = None
        self._thread = threading.Thread(target=self._run, name="keyrack-changes", daemon=True)
        self._thread.start()

    def wait_synced(self) -> None:
        """Wait until everything that happens from now on will be noticed."""
        self._synced.wait()

    def wait(self, seconds: float) -> bool:
        """Wait so long for a change, and until no other follows; tell whether there was one."""
        if not self._news.wait(seconds):
            return False
        while self._news.is_set():
            self._news.clear()
            time.sleep(_QUIET_SECONDS)
        return True

    def close(self) -> None:
        """End it."""
        self._watch.close()

    def _run(self) -> None:
        listing = True
        try:
            for item in self._watch:
                if isinstance(item, Reset):
                    listing = True
                elif isinstance(item, Synced):
                    if not self._synced.is_set():
                        self._synced.set()
                    elif listing:
                        self._news.set()
                    listing = False
                elif not listing:
                    self._news.set()
        except KeyrackError as error:
            self.failure = error
        finally:
            self._synced.set()
            self._news.set()
