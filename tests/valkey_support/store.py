"""Stores of services that tests start: flags for a store in memory become those for Valkey."""

from __future__ import annotations

import hashlib
import secrets

from keyrack.engines.valkey.address import parse
from keyrack.engines.valkey.engine import Options, ValkeyEngine
from keyrack.engines.valkey.servers import Login
from valkey_support.servers import alone, cluster, watched
from valkey_support.worlds import OnValkey

_SERVERS = {"valkey": alone, "valkey-sentinel": watched, "valkey-cluster": cluster}
_OPTIONS = {"valkey-cluster": "shards=1"}


def translated(engine: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return flags for a store in Valkey; a directory's name becomes a prefix."""
    rest, directory = list(flags), ""
    for name in ("--memory", "--store"):
        while name in rest:
            at = rest.index(name)
            if name == "--store":
                directory = rest[at + 1]
            del rest[at : at + 2]
    return "--engine", url_of(engine, directory), *rest


def url_of(engine: str, directory: str = "") -> str:
    """Return the address of the store that stands for a directory, or of a new one."""
    name = (
        hashlib.sha256(directory.encode()).hexdigest()[:12] if directory else secrets.token_hex(6)
    )
    address, _, options = _SERVERS[engine]().url.partition("/?")
    options = _OPTIONS.get(engine, options)
    return f"{address}/{name}" + (f"?{options}" if options else "")


def opened_for(engine: str, directory: str) -> OnValkey:
    """Open the store that stands for a directory."""
    address = parse(url_of(engine, directory))
    return OnValkey(ValkeyEngine(address, Login("", "", None, 5.0), Options(events=1_000_000)))
