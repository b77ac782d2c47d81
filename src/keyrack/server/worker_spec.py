"""What the supervisor gives to each worker that it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import socket

    from keyrack.server.store import Store
    from keyrack.server.tls import Certificates
    from keyrack.settings import Settings
    from keyrack.shared.access_board import AccessBoard
    from keyrack.shared.counters import Counters


class WorkerSpec(NamedTuple):
    """A worker's number, and all that it shares with the others."""

    settings: Settings
    slot: int
    listeners: list[socket.socket]
    store: Store
    counters: Counters
    certificates: Certificates | None
    lifeline: int
    """A descriptor at whose end the supervisor is gone."""
    access: AccessBoard | None = None
    """Who may log in; None where everybody may do everything."""


Entry: TypeAlias = Callable[[WorkerSpec], None]
"""What a worker runs: `keyrack.server.worker.run`, or a stand-in."""
