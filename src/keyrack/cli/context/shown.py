"""How contexts are shown: never with their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.cli import contexts
from keyrack.cli.parsing import Misused
from keyrack.cli.spec import CONTEXTS, Argument

if TYPE_CHECKING:
    from keyrack.cli.contexts import Contexts

NAME: Final = Argument("NAME", "its name", completes=CONTEXTS)


def loaded() -> Contexts:
    """Return what the file says. Raises `Misused`."""
    try:
        return contexts.load()
    except contexts.ContextsError as error:
        raise Misused(str(error)) from None


def saved(found: Contexts) -> None:
    """Write the file. Raises `Misused`."""
    try:
        contexts.save(found)
    except contexts.ContextsError as error:
        raise Misused(str(error)) from None


def members_of(found: Contexts, name: str) -> dict[str, Any]:
    """Return what a context says. Raises `Misused` for one that there is not."""
    if name not in found.named:
        known = ", ".join(sorted(found.named)) or "none"
        raise Misused(f"There is no context {name!r}; there are: {known}.")
    return found.named[name]


def document(found: Contexts, name: str) -> dict[str, Any]:
    """Return a context for people and programs, without its token."""
    members = dict(members_of(found, name))
    if "token" in members:
        members["token"] = "(hidden)"
    return {"name": name, "current": name == found.current, **members}
