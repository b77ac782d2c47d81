"""Where requests are counted: a word of the shared counters for each operation and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.http.api.routes import ROUTES
from keyrack.http.api.statuses import STATUSES
from keyrack.shared.counters import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Sequence

OTHER: Final = "other"
"""What requests count as that no route takes."""
OPERATIONS: Final = (*ROUTES, OTHER)


class RequestWords:
    """The words of some operations and statuses, as seen from the beginning of a worker's slot."""

    def __init__(self, operations: Sequence[str], statuses: Sequence[int]) -> None:
        self.number = len(operations) * len(statuses)
        """How many words that takes."""
        self._rows = {name: REQUESTS + i * len(statuses) for i, name in enumerate(operations)}
        self._columns = {status: column for column, status in enumerate(statuses)}
        self._unknown = self._columns[500]

    def word(self, operation: str, status: int) -> int:
        """Return the word that counts requests for an operation that were answered with a status.

        A status that is in no table is counted as 500, so that it is noticed.
        """
        return self._rows[operation] + self._columns.get(status, self._unknown)


REQUEST_WORDS: Final = RequestWords(OPERATIONS, STATUSES)
request_word: Final = REQUEST_WORDS.word
