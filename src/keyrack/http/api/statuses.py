"""Every status that is ever answered: those of the route table and of the table of problems."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from keyrack.http.api.routes import ROUTES
from keyrack.http.problems import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUSES: Final = tuple(
    sorted(
        {answer.status for route in ROUTES.values() for answer in route.answers}
        | {kind.status for kind in KINDS.values()}
    )
)

_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""What RFC 9110 calls some statuses; Python does so since 3.13."""


def _status_line(status: int) -> bytes:
    phrase = _PHRASES.get(status) or HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final[Mapping[int, bytes]] = {status: _status_line(status) for status in STATUSES}
