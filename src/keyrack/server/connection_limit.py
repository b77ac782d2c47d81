"""How many connections there may be, and what becomes of one too many: 503, then the end.

A connection that is accepted and told so is better than one that waits in the kernel's queue until
its client gives up: proxies try another server at once. What nobody accepts any more because the
process has no descriptor left would be dropped without a word, so that bound is kept as well.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from keyrack.shared.counters import OPEN_CONNECTIONS, TURNED_AWAY
from keyrack.system import raise_file_limit

if TYPE_CHECKING:
    from keyrack.shared.counters import Counters

_OWN_FILES: Final = 48
"""Descriptors that a worker needs for itself, besides one for each worker and each listener; some
are for the connections that are just being turned away."""
_LEAST: Final = 8
_FILES_OF_A_START: Final = 32
_PAUSE: Final = 10.0
"""Seconds between two lines in the log about connections that were turned away."""

_log = logging.getLogger("keyrack.connections")


def most_connections(files: int, workers: int, listeners: int) -> int:
    """Return how many connections a worker can hold that may have so many files open."""
    return max(_LEAST, files - _OWN_FILES - workers - listeners)


class TooFewFiles(Exception):
    """Raised at start: the processes of a service cannot open what they need. One sentence."""


def demand_files(workers: int) -> None:
    """Raise the limit of open files as far as it goes. Raises `TooFewFiles`."""
    files, needed = raise_file_limit(), _FILES_OF_A_START + 2 * workers
    if files < needed:
        raise TooFewFiles(
            f"This process may have {files} files open, and a service with {workers} workers "
            f"needs {needed}. Raise the limit (`ulimit -n`, or LimitNOFILE of systemd)."
        )


class ConnectionLimit:
    """The connections of one worker, as part of those of the service.

    `most` is the service's limit, None for none; `most_here` is this process's own.
    """

    def __init__(self, counters: Counters, slot: int, most: int | None, most_here: int) -> None:
        self._counters = counters
        self._count = counters.slot(slot)
        self._most = most
        self._most_here = most_here
        self._told = 0
        self._silent_until = 0.0

    def turns_away(self) -> bool:
        """Tell whether the connection that was just counted is one too many; count it, if so."""
        full = self._count[OPEN_CONNECTIONS] > self._most_here or (
            self._most is not None and self._counters.total(OPEN_CONNECTIONS) > self._most
        )
        self._count[TURNED_AWAY] += full
        return full

    def tell(self) -> None:
        """Log, now and then, what became of connections too many. Call it regularly."""
        if time.monotonic() >= self._silent_until and (self._tell_turned_away() or _tell_dropped()):
            self._silent_until = time.monotonic() + _PAUSE

    def _tell_turned_away(self) -> bool:
        turned_away = self._count[TURNED_AWAY]
        if turned_away == self._told:
            return False
        _log.warning(
            "%d connections were one too many and were answered 503: there may be %d here%s",
            turned_away - self._told,
            self._most_here,
            "" if self._most is None else f", and {self._most} in all (--max-connections)",
            extra={"event": "turned_away"},
        )
        self._told = turned_away
        return True


def _tell_dropped() -> bool:
    """Log that no file can be opened, if so: the event loop then drops connections in silence."""
    try:
        os.close(os.dup(2))
    except OSError as error:
        _log.error(
            "no file can be opened (%s): new connections are dropped. Raise the limit on open "
            "files, or see what else has so many open.",
            error.strerror,
            extra={"event": "dropped"},
        )
        return True
    return False
