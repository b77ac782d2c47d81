"""What a person sees on the terminal when the service is ready."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from keyrack import __version__

if TYPE_CHECKING:
    from keyrack.server.store import Store
    from keyrack.settings import Settings

_FIRST = "/v1/keys/greeting"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""Addresses to listen on that nobody connects to, and what to connect to instead."""


def facts(settings: Settings, store: Store, urls: list[str]) -> dict[str, Any]:
    """Return what the log says of a service that is ready.

    `memory` is in bytes, 0 where it is not for this service to limit.
    """
    return {
        "event": "ready",
        "version": __version__,
        "urls": urls,
        "engine": store.engine,
        "store": store.path,
        "memory": store.memory or 0,
        "workers": settings.workers,
    }


def banner(settings: Settings, store: Store, urls: list[str]) -> str:
    """Return the text: where the service is, what it holds, how to stop it, what to try first."""
    fate = "kept at the end" if store.named else "removed at the end"
    memory = f"{store.memory >> 20} MiB at most" if store.memory is not None else "as Valkey is set"
    curl = _curl(settings, urls[0])
    return f"""\
Keyrack {__version__} is ready: {"  ".join(urls)}

  store    {store.path} ({fate})
  memory   {memory}
  workers  {settings.workers}
  stop     Ctrl-C

  {curl} -X PUT -d hello
  {curl}
"""


def _curl(settings: Settings, url: str) -> str:
    if settings.uds is not None:
        return f"curl --unix-socket {shlex.quote(settings.uds)} http://localhost{_FIRST}"
    for listened, connected in _EVERYWHERE.items():
        url = url.replace(f"//{listened}:", f"//{connected}:")
    return f"curl {shlex.quote(url + _FIRST)}"  # shells take IPv6's brackets for a pattern
