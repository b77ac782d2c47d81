"""How tokens are shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.access.model import shown_moment

if TYPE_CHECKING:
    from keyrack.access.model import Token


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


def line(token: dict[str, Any]) -> str:
    """Return the line of a token in a list."""
    what = ", ".join((*token["policies"], *(repr(rule) for rule in token["rules"]))) or "nothing"
    ends = f"until {token['expires']}" if token["expires"] else "no end"
    state = "  disabled" if token["disabled"] else ""
    return f"{token['id']}  {token['source']:5}  {token['name']}  {ends}  {what}{state}"
