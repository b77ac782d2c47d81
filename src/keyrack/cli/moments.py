"""Moments of a store's history: a revision, a time, or how long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from keyrack.shared import units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.service import Service


class Moment(NamedTuple):
    """One of the two is set."""

    revision: int | None = None
    time: datetime | None = None

    def is_before(self, event: dict[str, Any]) -> bool:
        """Tell whether an event happened after this moment."""
        if self.revision is not None:
            return int(event["revision"]) > self.revision
        assert self.time is not None
        return datetime.fromisoformat(event["time"]) > self.time


def moment(text: str) -> Moment:
    """Return what `1796039056794850`, `2026-11-30T11:44Z` or `10m` means. Raises `ValueError`."""
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return Moment(revision=int(text))
    try:
        return Moment(time=datetime.now(UTC) - timedelta(seconds=units.seconds_of(text)))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        shapes = "a revision, a time like 2026-11-30T11:44Z, or how long ago, like 10m"
        raise ValueError(f"{text!r} is not {shapes}.") from None
    return Moment(time=found if found.tzinfo else found.astimezone())


def events(
    service: Service, prefix: bytes, since: Moment | None, *, values: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield what happened after a moment, up to now; from the beginning of the history for None.

    Raises `HistoryGone` for a revision that the history does not reach back to.
    """
    position = since.revision if since is not None else None
    known = service.oldest() if position is None else position
    for event in service.events([prefix], known, values=values):
        if since is None or since.is_before(event):
            yield event
