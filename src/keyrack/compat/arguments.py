"""Reading the arguments of commands, as strictly as Redis does."""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.compat.replies import CommandError, not_an_integer, syntax_error
from keyrack.engines.contract import MAX_TTL_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
_FLOAT: Final = re.compile(
    rb"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?"
).fullmatch
INT64: Final = range(-(1 << 63), 1 << 63)
_GREATEST: Final = 308
"""The greatest power of ten that a number with a fraction has: as in a double."""
_FRACTION: Final = Decimal("1e-17")
"""Redis shows 17 digits behind the point."""
_EXACT: Final = decimal.Context(prec=1000, rounding=decimal.ROUND_HALF_EVEN)


def integer(text: bytes) -> int:
    """Return a signed number of 64 bits: decimal digits, no plus, no zeros before it."""
    if _INTEGER(text) is None or (number := int(text)) not in INT64:
        raise not_an_integer()
    return number


def fraction(text: bytes) -> Decimal:
    """Return a decimal number, be it with a point or an exponent, exactly as it was written."""
    if _FLOAT(text) is None:
        raise CommandError("value is not a valid float")
    number = Decimal(text.decode())
    if number and abs(number.adjusted()) > _GREATEST:
        raise CommandError("value is not a valid float")
    return number


def sum_of(one: Decimal, other: Decimal) -> bytes:
    """Return a sum as Redis writes it: no exponent, at most 17 digits of a fraction."""
    total = _EXACT.add(one, other)
    if total and total.adjusted() > _GREATEST:
        raise CommandError("increment would produce NaN or Infinity")
    text = f"{_EXACT.quantize(total, _FRACTION):f}"
    text = text.rstrip("0").rstrip(".")
    return b"0" if text in ("-0", "") else text.encode()


class GivenOptions(NamedTuple):
    """The options of a command: words, and words with a number or text behind them."""

    words: frozenset[bytes]
    values: dict[bytes, bytes]

    def has(self, name: bytes) -> bool:
        """Tell whether an option is there."""
        return name in self.words or name in self.values

    def one_of(self, *names: bytes) -> bytes | None:
        """Return which of some options is there; refuse several that exclude each other."""
        found = [name for name in names if self.has(name)]
        if len(found) > 1:
            raise syntax_error()
        return found[0] if found else None


def options(
    given: Sequence[bytes], words: Collection[bytes], valued: Collection[bytes]
) -> GivenOptions:
    """Read options in any order and case, of the same ones the last; refuse what is unknown."""
    found: set[bytes] = set()
    values: dict[bytes, bytes] = {}
    rest = iter(given)
    for one in rest:
        name = one.upper()
        if name in words:
            found.add(name)
        elif name in valued:
            value = next(rest, None)
            if value is None:
                raise syntax_error()
            values[name] = value
        else:
            raise syntax_error()
    return GivenOptions(frozenset(found), values)


ENDS: Final = (b"EX", b"PX", b"EXAT", b"PXAT")
"""GivenOptions that name an end: in seconds or milliseconds from now, or since 1970."""


def end_of(option: bytes, text: bytes, command: str, unix_ms: int) -> int:
    """Return in how many ms a key ends, 0 or less where it has ended already."""
    number = integer(text)
    if number <= 0:
        raise bad_end(command)
    return left_until(option, number, command, unix_ms)


def left_until(option: bytes, number: int, command: str, unix_ms: int) -> int:
    """Return how many ms are left until an end, be it in the past."""
    milliseconds = number * 1000 if option in (b"EX", b"EXAT") else number
    if milliseconds not in INT64:
        raise bad_end(command)
    left = milliseconds - unix_ms if option.endswith(b"AT") else milliseconds
    if left > MAX_TTL_MS:
        raise CommandError(
            f"invalid expire time in '{command}' command: at most ten years are possible here"
        )
    return left


def bad_end(command: str) -> CommandError:
    """Return what is told where a TTL is none."""
    return CommandError(f"invalid expire time in '{command}' command")
