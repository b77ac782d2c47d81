"""Reading TOML so that each mistake is told with its line.

TOML says nothing of lines once it is read, so the line of a mistake is looked for in the text. That
is good enough for messages, and nothing else depends on it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from keyrack.access import rules, tokens
from keyrack.access.model import MOST_POLICIES, Rate, moment_of, network_of, rate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class AccessFileError(Exception):
    """Raised for a file that cannot be used. One sentence: where, what, what instead."""


_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")


class Lines:
    """Where in the text of a file a part of it is. `path` is how messages call the file."""

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.split("\n")
        self._path = path

    def table(self, name: str, number: int = 0) -> int:
        """Return the line of a table's header, or of the numbered one of an array of tables."""
        headers = [
            at
            for at, line in enumerate(self._lines, 1)
            if (match := _HEADER.fullmatch(line)) and match[1].replace(" ", "") == name
        ]
        if number < len(headers):
            return headers[number]
        return headers[0] if headers else self.key(name, 1)

    def key(self, name: str, start: int) -> int:
        """Return the first line from `start` on that sets a key; `start` if none does."""
        return self._first(re.compile(rf"(?:^|[\s{{,])[\"']?{re.escape(name)}[\"']?\s*[=.]"), start)

    def value(self, value: str, start: int) -> int:
        """Return the first line from `start` on that holds a value; `start` if none does."""
        return self._first(re.compile(re.escape(value)), start)

    def _first(self, pattern: re.Pattern[str], start: int) -> int:
        for at in range(start - 1, len(self._lines)):
            if pattern.search(self._lines[at]):
                return at + 1
        return start

    def wrong(self, line: int, sentence: str) -> AccessFileError:
        """Return what is raised for a mistake in a line."""
        return AccessFileError(f"{self._path}, line {line}: {sentence.rstrip('.')}.")


class Section:
    """A table of a file: what it says, the line where it begins, how messages call it.

    Whatever is not as it has to be raises `AccessFileError`.
    """

    def __init__(self, lines: Lines, raw: dict[str, Any], line: int, called: str) -> None:
        self.lines = lines
        self.raw = raw
        self.line = line
        self.called = called

    def only(self, known: Iterable[str]) -> None:
        """Make sure that nothing is said that means nothing."""
        for key in self.raw:
            if key not in known:
                raise self.wrong(
                    key, f"{key!r} means nothing in {self.called}; {', '.join(known)} do"
                )

    def tables(self, key: str, header: str = "") -> list[Section]:
        """Return the tables of an array of tables."""
        given = self.raw.get(key, [])
        header = header or key
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise self.wrong(key, f"`{key}` are tables, each under [[{header}]]")
        return [
            Section(self.lines, raw, self._line_of(header, number), _called(key, raw))
            for number, raw in enumerate(given)
        ]

    def _line_of(self, header: str, number: int) -> int:
        if "." not in header:
            return self.lines.table(header, number)
        at = self.line  # counted from the table that they belong to
        for _ in range(number + 1):
            at = self.lines.value(f"[{header}]", at + 1)
        return at

    # Values

    def rules(self, key: str = "rules") -> tuple[str, ...]:
        """Return a list of rules."""
        given = self.texts(key)
        for text in given:
            try:
                rules.parse(text)
            except rules.RuleError as error:
                line = self.lines.value(text or '""', self.line)
                raise self.lines.wrong(line, str(error)) from None
        return given

    def policies(self, known: frozenset[str], key: str = "policies") -> tuple[str, ...]:
        """Return a list of names of policies that there are."""
        given = self.texts(key)
        for name in given:
            if name not in known:
                there_are = ", ".join(sorted(known))
                raise self.wrong(key, f"there is no policy {name!r}; there are {there_are}")
        if len(given) > MOST_POLICIES:
            raise self.wrong(key, f"there are at most {MOST_POLICIES} policies in a list")
        return given

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; an empty one where there is none."""
        given = self.raw.get(key, [])
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise self.wrong(key, f"`{key}` is a list of texts")
        return tuple(given)

    def text(self, key: str, fits: Callable[[str], bool], expected: str) -> str:
        """Return a text that has to be there."""
        given = self.raw.get(key)
        if not isinstance(given, str) or not fits(given):
            raise self.wrong(key, f"`{key}` of {self.called} is {expected}")
        return given

    def checked(self, key: str, check: Callable[[str], str]) -> str | None:
        """Return a text as `check` returns it, None where there is none."""
        given = self.raw.get(key)
        if given is None:
            return None
        if not isinstance(given, str):
            raise self.wrong(key, f"`{key}` is a text")
        try:
            return check(given)
        except ValueError as error:
            raise self.wrong(key, str(error)) from None

    def digest(self, key: str) -> str:
        """Return a hash of a token."""
        return self.text(key, tokens.is_digest, "`sha256:` and 64 hexadecimal digits")

    def moment(self, key: str) -> float | None:
        """Return a moment in seconds since 1970, None where there is none."""
        given = self.raw.get(key)
        if given is None:
            return None
        if isinstance(given, datetime) and given.tzinfo is not None:
            return given.timestamp()
        if isinstance(given, str):
            try:
                return moment_of(given)
            except ValueError:
                pass
        raise self.wrong(key, f"`{key}` is a moment like 2027-06-01T00:00:00Z")

    def switch(self, key: str) -> bool:
        """Return true or false, which is the default."""
        given = self.raw.get(key, False)
        if not isinstance(given, bool):
            raise self.wrong(key, f"`{key}` is true or false")
        return given

    def whole(self, key: str) -> int | None:
        """Return a whole number that is not negative, None where there is none."""
        given = self.raw.get(key)
        if given is None:
            return None
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            raise self.wrong(key, f"`{key}` is a whole number")
        return given

    def rate(self, key: str = "rate") -> Rate | None:
        """Return a rate, None where there is none."""
        given = self.raw.get(key)
        if given is None:
            return None
        try:
            return rate_of(str(given))
        except ValueError as error:
            raise self.wrong(key, str(error)) from None

    def networks(self, key: str) -> tuple[str, ...]:
        """Return a list of networks."""
        given = self.texts(key)
        for text in given:
            try:
                network_of(text)
            except ValueError as error:
                raise self.wrong(key, str(error)) from None
        return given

    # Mistakes

    def wrong(self, key: str, sentence: str) -> AccessFileError:
        """Return what is raised for a mistake in what a key is set to."""
        line = self.lines.key(key, self.line)
        if line == self.line == 1:
            line = self.lines.table(key)
        return self.lines.wrong(line, sentence)


def _called(key: str, raw: dict[str, Any]) -> str:
    for name in ("id", "san", "uid", "gid", "issuer"):
        if name in raw:
            return f"the {key.rstrip('s')} {raw[name]!r}"
    return f"each of `{key}`"
