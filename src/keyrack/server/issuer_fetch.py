"""Fetch the keys of an issuer over HTTPS; this is done in a process of its own."""

from __future__ import annotations

import ssl
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyrack.access.model import Issuer

_TIMEOUT: Final = 10.0
_MOST_BYTES: Final = 1 << 20


def fetch(issuer: Issuer) -> bytes:
    """Return what is at an issuer's URL."""
    asked = urllib.request.Request(issuer.jwks, headers={"Accept": "application/json"})
    if issuer.bearer_token_file is not None:
        with open(issuer.bearer_token_file, encoding="ascii") as file:
            asked.add_header("Authorization", f"Bearer {file.read().strip()}")
    context = ssl.create_default_context(cafile=issuer.ca)
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    with opener.open(asked, timeout=_TIMEOUT) as answer:
        return bytes(answer.read(_MOST_BYTES))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: a token that is sent along is for the one server that was named."""

    def redirect_request(self, *_: object) -> None:
        """Refuse."""
