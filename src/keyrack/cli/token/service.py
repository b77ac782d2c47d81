"""What the verbs that work on a running service share: flags, one request, its failures."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from keyrack.cli.asking import MISUSED, REFUSED, UNREACHABLE, complain
from keyrack.cli.parser import Parser
from keyrack.client.address import DEFAULT_URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_EPILOG: Final = (
    "The token that the command itself uses is that of KEYRACK_TOKEN or --token-file. "
    "exit codes: 0 done, 1 refused, 2 misused, 3 the service did not answer"
)


class Failure(Exception):
    """Raised when a request did not succeed. The message is a sentence; `code` the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def parser(verb: str, description: str) -> Parser:
    """Return a parser with the flags that say where the service is, and who asks."""
    made = Parser(prog=f"keyrack token {verb}", description=description, epilog=_EPILOG)
    made.add_argument(
        "--url",
        default=os.environ.get("KEYRACK_URL") or DEFAULT_URL,
        help=f"where the service is [KEYRACK_URL; default: {DEFAULT_URL}]",
    )
    made.add_argument("--uds", metavar="PATH", help="a Unix socket to use instead of the URL")
    made.add_argument(
        "--token-file", metavar="FILE", help="a file that holds the token to use [KEYRACK_TOKEN]"
    )
    made.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for the service [default: 10]",
    )
    return made


def ask(given: argparse.Namespace, work: Callable[[Service], int]) -> int:
    """Do some work with the service that the flags name and return the exit code."""
    try:
        return work(Service(given.url, given.uds, _token(given.token_file), given.timeout))
    except Failure as error:
        return complain(str(error), error.code)


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("KEYRACK_TOKEN") or None
    try:
        with open(file, encoding="ascii") as opened:
            return opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} holds no token: {error}.", MISUSED) from None


class Service:
    """A running service, asked one thing at a time."""

    def __init__(self, url: str, uds: str | None, token: str | None, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{url!r} is not a URL like {DEFAULT_URL}.", MISUSED)
        self._where = uds or url
        self._root = parts.path.rstrip("/")
        self._token = token
        self._connection = _connection(parts.scheme, parts.hostname, parts.port, uds, timeout)

    def ask(self, method: str, path: str, document: object = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer. Raises `Failure` for any but 2xx."""
        headers = {"User-Agent": "keyrack"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        body = None
        if document is not None:
            body = json.dumps(document)
            headers["Content-Type"] = "application/json"
            if method == "PATCH":
                headers["Content-Type"] = "application/merge-patch+json"
        try:
            self._connection.request(method, self._root + path, body, headers)
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"{self._where} does not answer: {error}.", UNREACHABLE) from None
        finally:
            self._connection.close()
        found = _json(raw)
        if response.status >= 300:
            raise Failure(_sentence(response.status, found), REFUSED)
        return response.status, found


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None


def _sentence(status: int, found: Any) -> str:
    if isinstance(found, dict) and isinstance(found.get("detail"), str):
        return str(found["detail"])
    return f"The service answered {status}."


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket at the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(
    scheme: str, host: str, port: int | None, uds: str | None, timeout: float
) -> http.client.HTTPConnection:
    if uds is not None:
        return _UnixConnection(uds, timeout)
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout)
