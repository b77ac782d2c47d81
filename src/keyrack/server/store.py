"""What the rest of the server asks of a store, wherever that is.

The supervisor prepares the store before it forks, and each worker serves it then. Neither of them
knows which kind it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from keyrack.engines.contract import Engine
    from keyrack.engines.embedded.durability.data_directory import DataDirectory
    from keyrack.server.durability import Durability

Work: TypeAlias = "Callable[[Engine], Coroutine[Any, Any, None]]"


class TakeoverHandle(Protocol):
    """What another service needs to have the store as well, and then instead of this one."""

    @property
    def lock(self) -> int:
        """The descriptor that the store's lock belongs to."""

    def hand_over(self) -> None:
        """Leave the store's fate to another service."""

    def adopt(self) -> None:
        """Take it over from another service, or back."""


class Store(Protocol):
    """A store that this service may use."""

    @property
    def engine(self) -> str:
        """The name of its engine."""

    @property
    def path(self) -> str:
        """Where it is: a directory, or an address."""

    @property
    def memory(self) -> int | None:
        """Its limit in bytes; None where that is not for this service to set."""

    @property
    def named(self) -> bool:
        """Whether it outlives the service."""

    @property
    def notes(self) -> list[str]:
        """What an operator should know about it."""

    @property
    def data(self) -> DataDirectory | None:
        """Where it is kept on a disk, if this service does so."""

    @property
    def takeover(self) -> TakeoverHandle | None:
        """What a service that takes over gets; None where any number of services may have it."""

    def keep(self, running: bool) -> Durability | None:
        """Begin to keep it on a disk, if the settings say so. Raises `StoreError`.

        `running`: it is in use already, by a service that is being taken over.
        """

    def serve(self, work: Work) -> None:
        """Run a worker's event loop with the store open, and `work` in it."""

    @property
    def is_lost(self) -> bool:
        """Whether it was taken away from this service, so that no process can open it any more."""

    def close(self) -> None:
        """Give it up."""
