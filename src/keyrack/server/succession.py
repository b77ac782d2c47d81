"""Taking over from an earlier service, and being taken over by a later one.

`takeover` knows what two services say to each other; this is what it means for this one.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING

from keyrack.server.takeover import Handover, Predecessor, Ready, Settled, Step

if TYPE_CHECKING:
    from keyrack.server.processes import Patience, Shared, WorkerProcesses

_log = logging.getLogger("keyrack.supervisor")


class Links:
    """The connections to other services. `close` lets go of them, in a child."""

    def __init__(self, handover: Handover | None, predecessor: Predecessor | None) -> None:
        self.handover = handover
        self.predecessor = predecessor

    def close(self) -> None:
        """Close them, so that the other side notices the supervisor's end, not a worker's."""
        if self.handover is not None:
            self.handover.close()
        if self.predecessor is not None:
            self.predecessor.close()


class Succession:
    """This service between the one before it and the one after it, if there are any."""

    def __init__(
        self, shared: Shared, links: Links, processes: WorkerProcesses, patience: Patience
    ) -> None:
        self._listeners = shared.listeners
        self._handle = shared.store.takeover
        self._counters = shared.counters
        self._leaving_seconds = shared.settings.takeover_timeout
        self._handover = links.handover
        self._predecessor = links.predecessor
        self._processes = processes
        self._patience = patience
        self._settle_at: float | None = None
        self._settled = self._predecessor is None
        self._leave_by: float | None = None
        """When the last workers are told to end, once another service has taken over."""

    @property
    def takes_over(self) -> bool:
        """Whether this service began beside another one."""
        return self._predecessor is not None

    @property
    def leaving(self) -> bool:
        """Whether another service has taken over."""
        return self._leave_by is not None

    @property
    def is_over(self) -> bool:
        """Whether those who leave have had their time."""
        return self._leave_by is not None and time.monotonic() > self._leave_by

    @property
    def under_way(self) -> bool:
        """Whether another service is to be looked at often."""
        return self.leaving or (self._handover is not None and self._handover.under_way)

    @property
    def alone(self) -> bool:
        """Whether the service before this one is gone, if there was one."""
        return self._predecessor is None or self._predecessor.gone

    def share(self) -> None:
        """Tell the workers whether others have the store as well, whose commits wake nobody."""
        asked = self._handover is not None and self._handover.under_way
        others = not self.alone or asked or self.leaving
        self._processes.shares_sockets = others
        self._counters.set_shared(others)

    def succeed(self) -> None:
        """All workers serve: what the earlier service had is now this one's."""
        if self._predecessor is not None:
            self._adopt()
            self._predecessor.tell(Ready())
            self._settle_at = time.monotonic() + self._patience.settle

    def settle(self) -> None:
        """Tell the earlier service that it need not come back if this one ends."""
        if self._predecessor is not None and not self._settled:
            self._predecessor.tell(Settled())
        self._settled = True

    def look(self, announced: bool) -> None:
        """See what other services do; they are answered once this one is `announced`."""
        earlier = self._predecessor
        if earlier is not None and not earlier.gone:
            if earlier.look():
                _log.info("%s has ended", earlier.name, extra={"event": "taken_over"})
                self.share()
            elif self._settle_at is not None and time.monotonic() > self._settle_at:
                self.settle()
        if self._handover is not None and announced:
            self._attend(self._handover)

    def _attend(self, handover: Handover) -> None:
        step = handover.step()
        if step is Step.ASKED:
            _log.info("%s takes over", handover.successor, extra={"event": "takeover_asked"})
            self.share()
        elif step is Step.WITHDRAWN:
            _log.warning("%s has given up; this service goes on", handover.successor)
            self.share()
        elif step is Step.READY:
            self._leave(handover)
        elif step is Step.ABANDONED:
            _log.error("%s has ended already; this service goes on", handover.successor)
            self._come_back()

    def _leave(self, handover: Handover) -> None:
        _log.info(
            "%s has taken over; this service ends with its last connection",
            handover.successor,
            extra={"event": "leaving"},
        )
        self._leave_by = time.monotonic() + self._leaving_seconds
        self._processes.replacing = False
        self._listeners.hand_over()
        if self._handle is not None:
            self._handle.hand_over()
        self.settle()
        self._counters.set_leaving(True)

    def _come_back(self) -> None:
        """Serve again. Workers that leave cannot be called back; they end and are replaced."""
        self._leave_by = None
        self._processes.replacing = True
        self._counters.set_leaving(False)
        self._adopt()
        self.share()
        self._processes.signal(signal.SIGTERM)

    def _adopt(self) -> None:
        self._listeners.adopt()
        if self._handle is not None:
            self._handle.adopt()
