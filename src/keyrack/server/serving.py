"""How a worker serves an engine: with which connections, and how its writes are done.

A row for each kind of engine: one that answers at once, one whose writes are acknowledged later
(when they are durable), one that is on the other side of a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from keyrack.http.asked import Asked
from keyrack.http.connection import Connection
from keyrack.http.late import LateReads, LateWrites
from keyrack.http.turn import at_once, over_there
from keyrack.server.remote_upkeep import RemoteUpkeep
from keyrack.server.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.engines.contract import Engine, Reads, WaitingEngine
    from keyrack.http.turn import Perform


def _nobody(wanted: bool, told: Callable[[], None]) -> None:
    """Changes are made by workers of this service alone, which wake one another."""


class Serving(NamedTuple):
    """What a worker needs to know of its engine."""

    store: Engine | WaitingEngine
    reads: Reads
    perform: Perform
    protocol: type[Connection]
    upkeep: type[Upkeep]
    listen: Callable[[bool, Callable[[], None]], None] = _nobody
    """Has the function called whenever somebody elsewhere changes something, or no longer."""


def direct(engine: Engine) -> Serving:
    """Serve an engine that reads and writes while it is called."""
    return Serving(engine, engine, at_once(engine), Connection, Upkeep)


def acknowledged_later(engine: Engine, perform: Perform) -> Serving:
    """Serve an engine that reads while it is called, and whose writes `perform` concludes later."""
    return Serving(engine, engine, perform, LateWrites, Upkeep)


def remote(
    engine: WaitingEngine, listen: Callable[[bool, Callable[[], None]], None] = _nobody
) -> Serving:
    """Serve an engine all of whose answers come later."""
    return Serving(engine, Asked(engine), over_there(engine), LateReads, RemoteUpkeep, listen)
