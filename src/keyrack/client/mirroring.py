"""What a mirror holds, and what each thing that a watch tells makes of it."""

from __future__ import annotations

from typing import Any

from keyrack.client.watching import Reset, Synced, WatchEvent, WatchItem


class MirrorState:
    """The values under a prefix, and up to which revision they are right; 0 before they are.

    After a `Reset` the values of before stay until the new ones are all there: no reader ever sees
    half of them.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.values: dict[str, Any] = {}
        self._listing: dict[str, Any] | None = None
        self.revision = 0

    def apply(self, item: WatchItem) -> bool:
        """Take what a watch tells; return whether the values are right up to another revision."""
        if isinstance(item, Reset):
            self._listing = {}
            return False
        if isinstance(item, Synced):
            if self._listing is not None:
                self.values, self._listing = self._listing, None
            self.revision = max(self.revision, item.revision)
            return True
        self._change(item, self.values if self._listing is None else self._listing)
        if item.synced:
            self.revision = max(self.revision, item.revision)
        return item.synced

    def _change(self, event: WatchEvent, values: dict[str, Any]) -> None:
        key = event.key[len(self._prefix) :]
        if event.kind == "set" and event.has_value:
            values[key] = event.value
        else:
            # A key that was set and has no value any more is gone; that is told next.
            values.pop(key, None)
