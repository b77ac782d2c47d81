"""Where requests are counted: a word of the shared counters for each operation and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.http.api.routes import ROUTES
from keyrack.http.api.statuses import STATUSES
from keyrack.shared.counters import REQUESTS, latency_word

if TYPE_CHECKING:
    from collections.abc import Sequence

OTHER: Final = "other"
"""What requests count as that no route takes."""
LAYERS: Final = ("upstash",)
"""APIs of others, which `--compat` names. All requests of one count as an operation."""
OPERATIONS: Final = (*ROUTES, *LAYERS, OTHER)


_LISTS: Final = frozenset(
    (
        "keys_list", "locks_list", "key_events", "auth_tokens_list", "auth_policies_list",
        "slow", "clients_list", "terraform_versions", "fences_list", "quotas_list",
    )
)  # fmt: skip
_BULK: Final = frozenset(("export", "import", "snapshot", "keys_delete", "big", "hot"))
LIST_WORDS: Final = {
    name: latency_word("list" if name in _LISTS else "bulk")
    for name in OPERATIONS
    if name in _LISTS | _BULK
}
"""Operations of the fast lane that are more than a read of a key: where their latency counts."""
WIDE_WORDS: Final = {
    name: latency_word("list" if name in _LISTS else "bulk" if name in _BULK else "wide")
    for name in OPERATIONS
}
"""Where the latency of the wide lane's operations counts."""


class RequestWords:
    """The words of some operations and statuses, as seen from the beginning of a worker's slot.

    Behind those of its statuses each operation has one for requests whose sender may not do it.
    """

    def __init__(self, operations: Sequence[str], statuses: Sequence[int]) -> None:
        width = len(statuses) + 1
        self.number = len(operations) * width
        """How many words that takes."""
        self._rows = {name: REQUESTS + i * width for i, name in enumerate(operations)}
        self._columns = {status: column for column, status in enumerate(statuses)}
        self._unknown = self._columns[500]

    def word(self, operation: str, status: int) -> int:
        """Return the word that counts requests for an operation that were answered with a status.

        A status that is in no table is counted as 500, so that it is noticed.
        """
        return self._rows[operation] + self._columns.get(status, self._unknown)

    def denied(self, operation: str) -> int:
        """Return the word that counts requests that their senders had no right to."""
        return self._rows[operation] + len(self._columns)


REQUEST_WORDS: Final = RequestWords(OPERATIONS, STATUSES)
request_word: Final = REQUEST_WORDS.word
denied_word: Final = REQUEST_WORDS.denied
