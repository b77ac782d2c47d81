"""The states of a connection."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """How far a connection is on its way to its end."""

    OPEN = "requests are read and served"
    LAST = "the answer that comes next is the last one, and says so"
    UNWELCOME = "one connection too many: what comes first is refused"
    ENDING = "nothing more is read as a request; it closes when everything is answered"
    LINGERING = "the last answer is sent; what still comes is thrown away"
    CLOSED = "the client is gone"
