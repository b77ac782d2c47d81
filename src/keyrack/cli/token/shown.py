"""How tokens are shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyrack.access.model import shown_moment
from keyrack.cli.printing import Column
from keyrack.cli.spec import FILES, Argument, Flag

if TYPE_CHECKING:
    from keyrack.access.model import Token

ID: Final = Argument("ID", "the token's id, the 8 characters behind krk_")
FILE: Final = Flag(
    ("--file",), "the file that it is in, instead of a service", "FILE", completes=FILES
)
COLUMNS: Final = (
    Column("ID", "id"),
    Column("SOURCE", "source"),
    Column("NAME", "name"),
    Column("EXPIRES", "expires"),
    Column("USED", "used"),
    Column("MAY", "may"),
    Column("DISABLED", "disabled"),
)


def document(token: Token) -> dict[str, Any]:
    """Return a token of a file as the service would tell of it."""
    return {
        "id": token.id,
        "name": token.name,
        "source": "file",
        "policies": list(token.policies),
        "rules": list(token.rules),
        "expires": None if token.expires is None else shown_moment(token.expires),
        "disabled": token.disabled,
    }


def row(token: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a token in a table."""
    return {**token, "may": may(token), "used": token.get("last_used")}


def line(token: dict[str, Any]) -> str:
    """Return the line of a token."""
    ends = f"until {token['expires']}" if token["expires"] else "no end"
    state = "  disabled" if token["disabled"] else ""
    used = f"  used {token['last_used']}" if token.get("last_used") else ""
    return f"{token['id']}  {token['source']:5}  {token['name']}  {ends}  {may(token)}{used}{state}"


def may(token: dict[str, Any]) -> str:
    """Return what a token may do, in short."""
    return ", ".join((*token["policies"], *(repr(rule) for rule in token["rules"]))) or "nothing"
