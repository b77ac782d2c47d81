"""What `--engine` names: scheme, servers, and what there is to say about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from keyrack.engines.valkey.layout import CLUSTER_SHARDS, MAX_SHARDS

if TYPE_CHECKING:
    from urllib.parse import SplitResult

DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_SCHEME: Final = re.compile(r"valkey(s?)(?:-(cluster|sentinel))?")
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,64}")
EXPECTED: Final = (
    "an address like valkey://host:6379/prefix, valkeys://host (TLS), "
    "valkey-cluster://host1,host2 or valkey-sentinel://host1,host2/?master=name"
)


class Address(NamedTuple):
    """A store on Valkey. `kind` is `single`, `cluster` or `sentinel`."""

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    prefix: bytes = b""
    """What all names of the store begin with, so that several stores can share a server."""
    shards: int = 1
    master: str = ""
    user: str = ""
    password: str = ""


def parse(url: str) -> Address:
    """Return what an address says. Raises `ValueError` with what is wrong with it."""
    parts = urlsplit(url)
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None:
        raise ValueError(EXPECTED)
    kind = scheme[2] or "single"
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    default_port = SENTINEL_PORT if kind == "sentinel" else DEFAULT_PORT
    options = _options(parts, kind)
    address = Address(
        kind,
        bool(scheme[1]),
        tuple(_host(text, default_port) for text in hosts.split(",")),
        _prefix(parts),
        _shards(options, kind),
        options.get("master", ""),
        unquote(user),
        unquote(password),
    )
    if kind == "single" and len(address.hosts) > 1:
        raise ValueError("one host; several are a valkey-cluster:// or a valkey-sentinel://")
    return address


def _host(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"{EXPECTED}; {text!r} is no host")
    port = int(match[3]) if match[3] else default_port
    if not 0 < port < 65536:
        raise ValueError(f"a port from 1 to 65535, not {port}")
    return match[1] or match[2], port


def _prefix(parts: SplitResult) -> bytes:
    prefix = unquote(parts.path[1:])
    if not _PREFIX.fullmatch(prefix) or parts.fragment:
        raise ValueError("a prefix of at most 64 letters, digits and any of _ . : / -")
    return prefix.encode()


def _options(parts: SplitResult, kind: str) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    allowed = {"single": set(), "cluster": {"shards"}, "sentinel": {"master"}}[kind]
    if unknown := given.keys() - allowed:
        raise ValueError(f"no parameter {min(unknown)!r} in a {kind} address")
    if kind == "sentinel" and not given.get("master"):
        raise ValueError("the name under which Sentinel knows the servers: /?master=name")
    return given


def _shards(options: dict[str, str], kind: str) -> int:
    if "shards" not in options:
        return CLUSTER_SHARDS if kind == "cluster" else 1
    shards = int(options["shards"]) if re.fullmatch("[1-9][0-9]{0,3}", options["shards"]) else 0
    if not 0 < shards <= MAX_SHARDS:
        raise ValueError(f"a number of shards from 1 to {MAX_SHARDS}")
    return shards


def shown(address: Address) -> str:
    """Return the address without its password, for logs and `/v1/info`."""
    scheme = "valkeys" if address.tls else "valkey"
    if address.kind != "single":
        scheme += f"-{address.kind}"
    hosts = (f"[{host}]" if ":" in host else host for host, _ in address.hosts)
    ports = (port for _, port in address.hosts)
    servers = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    return f"{scheme}://{servers}/{address.prefix.decode()}"
