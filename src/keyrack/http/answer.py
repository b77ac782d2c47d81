"""An answer, as both lanes pass it around. Names of fields are lower case."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    """What is sent back. Content-Length, Date and Server are added by the lane that sends it."""

    status: int
    headers: Headers = ()
    body: bytes = b""
