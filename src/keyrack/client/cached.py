"""The keys of functions whose results are kept: which call has which key."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_KEY_BYTES: Final = 510
_PLAIN: Final = (str, int, float, bool, bytes, type(None))


class CallKeys:
    """Makes the key of each call of a function.

    `key` is a function of the same arguments, or a text with their names in braces
    (`"user/{user_id}"`). Without it the key is the function's name with its arguments, which are
    plain values then.
    """

    def __init__(self, function: Callable[..., Any], key: Callable[..., str] | str | None) -> None:
        self._key = key
        self._signature = inspect.signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"

    def of(self, given: tuple[Any, ...], named: dict[str, Any]) -> str:
        """Return the key of a call. Raises `TypeError` where its arguments do not tell it."""
        if callable(self._key):
            return _bounded(self._key(*given, **named))
        bound = self._signature.bind(*given, **named)
        bound.apply_defaults()
        if self._key is not None:
            return _bounded(self._key.format(**bound.arguments))
        shown = ",".join(f"{name}={self._shown(one)}" for name, one in bound.arguments.items())
        return _bounded(f"{self._name}({shown})")

    def _shown(self, argument: Any) -> str:
        if type(argument) in _PLAIN:
            return repr(argument)
        if type(argument) is tuple:
            return f"({','.join(map(self._shown, argument))})"
        if type(argument) is dict and all(type(name) is str for name in argument):
            members = (f"{name!r}:{self._shown(argument[name])}" for name in sorted(argument))
            return f"{{{','.join(members)}}}"
        kind = type(argument).__name__
        raise TypeError(
            f"A {kind} among the arguments of {self._name} does not say which key it has: give "
            "cached() a key=, a text like 'user/{user_id}' or a function."
        )


def _bounded(key: str) -> str:
    """Return a key that is not too long, with a hash in place of its end."""
    data = key.encode()
    if len(data) <= _LONGEST_KEY_BYTES:
        return key
    return f"{data[:400].decode('utf-8', 'ignore')}:{hashlib.sha256(data).hexdigest()}"
