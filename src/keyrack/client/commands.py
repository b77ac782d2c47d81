"""The methods of `Client` that concern the service, and what it shares with the other groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client import fencing, service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyrack.client.config import Observer
    from keyrack.client.fencing import NamedFence
    from keyrack.client.keys import KeyCalls
    from keyrack.client.sending import Sender


class Commands:
    """What all groups of methods share: how calls are sent, and how keys and values are said."""

    def __init__(self, sender: Sender, keys: KeyCalls) -> None:
        self._sender = sender
        self._send = sender.send
        self._keys = keys
        self._requests = keys.requests

    def observe(self, observer: Observer | None) -> None:
        """Let an observer be told of every call from now on; None for none."""
        self._sender.observer = observer


class ServiceCommands(Commands):
    """Methods about the service as a whole."""

    def export(self, prefix: str | bytes = "") -> Iterator[bytes]:
        """Yield the keys under a prefix as NDJSON, in pieces that end anywhere.

        Raises `KeyrackError` when the export breaks off: what came before is not all.
        """
        return self._sender.stream(service.export(self._requests, prefix))

    def import_lines(
        self, lines: Iterable[bytes], *, stop_on_error: bool = False
    ) -> dict[str, Any]:
        """Send NDJSON as `export` gives it, and return the server's report."""
        call = service.importing(self._requests, stop_on_error)
        return self._sender.upload(call, lines)

    def snapshot(self) -> Iterator[bytes]:
        """Have a snapshot taken, and yield its file in pieces.

        Raises `KeyrackError` when it breaks off: what came before is no snapshot.
        """
        return self._sender.stream(service.snapshot(self._requests))

    def fence(self, name: str, *, keys: str, lock: str | bytes) -> None:
        """Have every write of `keys` (a key, or a beginning and `*`) need a lock from now on.

        The prefix of the client is before the keys and the lock. It takes the right `admin`.
        """
        self._send(fencing.put(self._requests, name, keys, lock))

    def drop_fence(self, name: str) -> bool:
        """Remove a fence, and tell whether it was there."""
        return self._send(fencing.drop(self._requests, name))

    def fences(self) -> list[NamedFence]:
        """Return all fences, in the order of their names."""
        return self._send(fencing.all_of(self._requests))

    def info(self) -> dict[str, Any]:
        """Return what runs, and how full it is."""
        return self._send(service.info(self._requests))

    def limits(self) -> dict[str, Any]:
        """Return every limit that the service enforces."""
        return self._send(service.limits(self._requests))

    def whoami(self) -> dict[str, Any]:
        """Return who the token says this is, and what it may do."""
        return self._send(service.whoami(self._requests))

    def can(self, verb: str, key: str | bytes) -> bool:
        """Tell whether the token may do something with a key; the verb is one of a rule's."""
        return self._send(service.can(self._requests, verb, key))
