"""What a command answers, as Redis does, whatever protocol carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from keyrack.engines.contract import Refusal


class SimpleString(str):
    """A reply that is a word of the server's own, like `OK`, and no value of a user's."""

    __slots__ = ()


OK: Final = SimpleString("OK")
Reply: TypeAlias = "SimpleString | bytes | int | list[Reply] | None"


class CommandError(Exception):
    """A command that did nothing. `code` is Redis' word for the kind, `detail` the sentence.

    `refusal` is why the engine refused a write, if it was that.
    """

    def __init__(self, detail: str, code: str = "ERR", refusal: Refusal | None = None) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.refusal = refusal

    def __str__(self) -> str:
        return f"{self.code} {self.detail}"


def not_an_integer() -> CommandError:
    """Return what is told where a number was expected."""
    return CommandError("value is not an integer or out of range")


def syntax_error() -> CommandError:
    """Return what is told where options make no sense, or not together."""
    return CommandError("syntax error")
