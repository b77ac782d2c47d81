"""Where a service is, and what a client is told about it in one URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    import ssl

    from keyrack.client.local_service import LocalService

DEFAULT_URL: Final = "http://127.0.0.1:8088"
_PORTS: Final = {"http": 80, "https": 443}
_DEFAULT_PORT: Final = 8088


class Endpoint(NamedTuple):
    """Where to connect to. `root` is put before every path; `shown` is for messages."""

    shown: str
    host: str
    port: int
    root: str = ""
    uds: str | None = None
    tls: ssl.SSLContext | None = None
    local: LocalService | None = None
    """The service itself, where it is in this process."""

    @property
    def authority(self) -> str:
        """What the Host field says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        has_port = self.uds is None and self.local is None
        return f"{host}:{self.port}" if has_port else host


def address(url: str, uds: str | None = None, tls: ssl.SSLContext | None = None) -> Endpoint:
    """Return where a URL points to. Raises `ValueError` with a sentence for one that cannot be.

    With `uds` the connection goes to that socket, and of the URL only the path counts.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"{url!r} is not a URL like {DEFAULT_URL}.")
    if parts.username is not None:
        raise ValueError("A token does not belong into the URL: give it as token=.")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has a part behind the path that means nothing here.")
    if not host.isascii():
        host = host.encode("idna").decode()
    if parts.scheme == "https" and tls is None:
        import ssl  # not for those who do without

        tls = ssl.create_default_context()
    root = parts.path.rstrip("/")
    if uds is not None:
        return Endpoint(f"the Unix socket {uds!r}", "localhost", 0, root, uds)
    context = tls if parts.scheme == "https" else None
    return Endpoint(url, host, port or _PORTS[parts.scheme], root, None, context)


_SCHEMES: Final = {"keyrack": "http", "keyracks": "https", "http": "http", "https": "https"}
_SECONDS: Final = ("timeout", "connect_timeout")
_NUMBERS: Final = ("max_connections", "retries")


def options_of(url: str) -> dict[str, Any]:
    """Return the arguments of a client that a URL of one piece stands for.

    `keyrack://TOKEN@HOST:8088/PREFIX?timeout=2`, `keyracks://` for TLS, and
    `keyrack+unix:///run/keyrack.sock?prefix=PREFIX`. Raises `ValueError` with a sentence.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    made: dict[str, Any] = {}
    if parts.scheme == "keyrack+unix":
        made["uds"] = unquote(parts.path)
        if len(made["uds"]) < 2 or parts.hostname:
            raise ValueError(f"{url!r} names no socket: keyrack+unix:///run/keyrack.sock does.")
    elif parts.scheme in _SCHEMES and parts.hostname:
        made["url"] = _http_url(parts.scheme, parts.hostname, _port(url))
        if prefix := unquote(parts.path[1:]):
            made["prefix"] = prefix
    else:
        raise ValueError(f"{url!r} is not a URL like keyrack://127.0.0.1:8088/prefix.")
    if token := parts.password or parts.username:
        made["token"] = unquote(token)
    for name, value in given.items():
        made[name] = _option(name, value)
    return made


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        raise ValueError(f"{url!r} has a port that cannot be one.") from None


def _http_url(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    if port is None:
        port = _PORTS.get(scheme, _DEFAULT_PORT)
    return f"{_SCHEMES[scheme]}://{shown}:{port}"


def _option(name: str, value: str) -> Any:
    try:
        if name in _SECONDS:
            return float(value)
        if name in _NUMBERS:
            return int(value)
    except ValueError:
        raise ValueError(f"{name}={value!r} is no number.") from None
    if name in ("prefix", "token"):
        return value
    known = ", ".join((*_SECONDS, *_NUMBERS, "prefix", "token"))
    raise ValueError(f"{name!r} is no option of a URL; these are: {known}.")
