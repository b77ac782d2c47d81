"""The methods of `Client` about many keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.client import many, undo
from keyrack.client.commands import Commands
from keyrack.client.groups import Batch, Pipeline
from keyrack.client.mapping import KeyMapping
from keyrack.client.watch import Mirror, Watch
from keyrack.client.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from keyrack.client.many import Folder, PrefixDeletion, ScanEntry
    from keyrack.client.undo import OpenUndo, UndoReport


class ManyCommands(Commands):
    """Methods about many keys."""

    def get_many(self, keys: Iterable[str | bytes]) -> dict[Any, Any]:
        """Return the values of keys; those that are missing are left out.

        Up to 1000 keys are read at one moment; of more, each thousand is.
        """
        return self._sender.run(many.get_many(self._keys, keys))

    def set_many(self, values: Mapping[Any, Any], *, ttl: float | None = None) -> dict[Any, str]:
        """Store values, and return their ETags.

        Up to 1000 values of 1 MiB together are stored all or none; of more, each such part is.
        """
        return self._sender.run(many.set_many(self._keys, values, ttl))

    def delete_many(self, keys: Iterable[str | bytes]) -> int:
        """Remove keys, and return how many were there. Up to 1000 are removed at one moment."""
        return self._sender.run(many.delete_many(self._keys, keys))

    def scan(
        self,
        prefix: str | bytes = "",
        *,
        delimiter: str | None = None,
        values: bool = False,
        reverse: bool = False,
        page: int = 1000,
    ) -> Iterator[ScanEntry | Folder]:
        """Yield the keys under a prefix in their order, and with a delimiter folders among them.

        Each page of at most 1000 is one moment, the whole is not.
        """
        after = None
        while True:
            call = many.page(self._keys, prefix, after, page, delimiter, values, reverse)
            found = self._send(call)
            yield from found.items
            after = found.after
            if after is None:
                return

    def count(self, prefix: str | bytes = "") -> int:
        """Return how many keys there are under a prefix. O(keys counted)."""
        return self._send(many.count(self._requests, prefix))

    def delete_prefix(
        self,
        prefix: str | bytes,
        *,
        dry_run: bool = False,
        everything: bool = False,
        undo: int | None = None,
        at: int | None = None,
    ) -> PrefixDeletion:
        """Remove the keys under a prefix, or say what would be removed.

        Keys that are set meanwhile are left alone, and with `at` (the revision of a dry run) those
        that were changed after it. With `undo` it can be undone for so many seconds. An empty
        prefix needs `everything`.
        """
        call = many.delete_prefix(self._requests, prefix, dry_run, everything, undo, at)
        return self._send(call)

    def undo(self, number: int | str) -> UndoReport:
        """Put back what was deleted, as far as its keys are missing now. To repeat it is no harm.

        Raises `Refused` where there is no such deletion that could be undone.
        """
        return self._send(undo.undo(self._requests, number))

    def undos(self, limit: int = 100) -> list[OpenUndo]:
        """Return the deletions that can be undone, the newest first."""
        return self._send(undo.undos(self._requests, limit))

    def mapping(self, prefix: str, *, ttl: float | None = None) -> KeyMapping:
        """Return the keys under a prefix as a `MutableMapping`; what is set gets the TTL."""
        return KeyMapping(self._sender, self._keys, prefix, ttl)

    def batch(self, *, undo: int | None = None) -> Batch:
        """Return operations that a `with` block collects, done all or none at its end.

        With `undo` its deletions can be undone for so many seconds: see `undo` of the batch.
        """
        return Batch(self._sender, self._keys, undo)

    def pipeline(self) -> Pipeline:
        """Return requests to be collected in a `with` block, and sent at once at its end."""
        return Pipeline(self._sender, self._keys)

    def watch(
        self,
        *prefixes: str | bytes,
        since: int | None = None,
        values: bool = False,
        resync: bool = False,
    ) -> Watch:
        """Return an iterator of the changes under the prefixes, each once and in order.

        It goes on by itself when its connection breaks. `since` is a revision to go on after. Where
        the history does not reach back, it raises `HistoryGone`; with `resync` it yields `Reset`,
        all present keys and `Synced` instead, and also begins so when there is no `since`.
        """
        return Watch(self._sender, Watching(self._keys, prefixes, since, values, resync))

    def mirror(self, prefix: str) -> Mirror:
        """Return a mapping of the keys under a prefix that keeps itself up to date."""
        watching = Watching(self._keys, (prefix,), None, values=True, resync=True)
        return Mirror(Watch(self._sender, watching), prefix)
