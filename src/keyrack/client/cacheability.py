"""What a write lets caches do that stand between the server and its readers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Cacheability(NamedTuple):
    """For how many seconds caches may serve a value; None: they may not keep it."""

    max_age: int | None = None
    swr: int | None = None
    """For how long after that, while they ask the server."""
    public: bool = False
    """Caches of several people, too, where everybody may read the key."""

    def members(self) -> dict[str, Any]:
        """Return what the JSON of a write says of it. Raises `ValueError`."""
        if self.max_age is None:
            if self.swr or self.public:
                raise ValueError("swr= and public= say more of max_age=: give that as well.")
            return {}
        found: dict[str, Any] = {"max_age": self.max_age}
        if self.swr:
            found["swr"] = self.swr
        if self.public:
            found["public"] = True
        return found

    def query(self, query: bytes) -> bytes:
        """Return a query with what it says of it. Raises `ValueError`."""
        for name, value in self.members().items():
            text = "true" if value is True else str(value)
            query += b"%b%b=%b" % (b"&" if query else b"?", name.encode(), text.encode())
        return query


NOTHING: Final = Cacheability()
"""Caches may not keep it."""
