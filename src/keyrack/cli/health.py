"""`keyrack health`: tell by the exit code whether a service is alive, for containers and scripts.

Without being told where, it asks the service that this environment's settings (KEYRACK_PORT,
KEYRACK_UDS, KEYRACK_TLS_CERT, KEYRACK_CONFIG, ...) would start. That is what a container's health
check needs: it follows every change of these settings, and none has to be given twice.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from keyrack.cli import saying
from keyrack.cli.printing import Printer
from keyrack.cli.spec import FILES, Command, Flag

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

HEALTHY: Final = 0
UNHEALTHY: Final = 1
_SECONDS: Final = 3.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that nobody connects to, and what to connect to instead."""


class _Target(NamedTuple):
    """Where to ask. `verified` says whether the certificate must be good for the host."""

    shown: str
    host: str
    port: int | None
    path: str = "/healthz"
    uds: str | None = None
    https: bool = False
    verified: bool = True


class _Unhealthy(Exception):
    """Raised when the service is not alive; the message is one sentence."""


COMMAND = Command(
    "Tell by the exit code whether a service is alive, and print nothing. Without being told "
    "where, it asks the service that this environment's settings (KEYRACK_PORT, KEYRACK_UDS, "
    "KEYRACK_CONFIG, …) would start.",
    flags=(
        Flag(
            ("--url",),
            "where the service is [KEYRACK_URL; default: where `keyrack serve` would be]",
            "URL",
        ),
        Flag(("--uds",), "a Unix socket to use instead", "PATH", completes=FILES),
    ),
    asks=False,
    codes=(
        (0, "alive"),
        (1, f"not alive within {_SECONDS:g} seconds, or not to be asked"),
    ),
)


def run(given: argparse.Namespace) -> int:
    """Ask /healthz once. Print nothing when it answers 200, and one sentence otherwise."""
    printer = Printer(given, "table")
    problem = None
    try:
        with _deadline(_SECONDS):
            _ask(_target(given.url, given.uds))
    except _Unhealthy as found:
        problem = str(found)
    if printer.as_json:
        printer.document({"healthy": problem is None, "detail": problem})
    if problem is not None:
        return saying.complain(problem, UNHEALTHY)
    return HEALTHY


# Where


def _target(url: str | None, uds: str | None) -> _Target:
    """Return what was named: by flags, else by KEYRACK_URL, else by the service's own settings."""
    if uds is not None:
        return _unix(uds)
    if url or (url := os.environ.get("KEYRACK_URL")):
        return _named(url)
    return _own()


def _unix(path: str) -> _Target:
    return _Target(f"the Unix socket {path!r}", "localhost", None, uds=path)


def _named(url: str) -> _Target:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host:
        raise _Unhealthy(f"{url!r} is not a URL like http://127.0.0.1:8088.")
    path = parts.path.rstrip("/") + "/healthz"
    return _Target(url, host, port, path, https=parts.scheme == "https")


def _own() -> _Target:
    from keyrack import settings

    try:
        own, _ = settings.load({})
    except settings.SettingsError as error:
        raise _Unhealthy(str(error)) from None
    if own.uds is not None:
        return _unix(own.uds)
    if own.port == 0:
        raise _Unhealthy("With port 0 the service is anywhere: name it with --url.")
    host, https = _ANYWHERE.get(own.host, own.host), own.tls_cert is not None
    shown = f"http{'s' if https else ''}://{f'[{host}]' if ':' in host else host}:{own.port}"
    # The certificate is for the name that clients use, which is seldom this address.
    return _Target(shown, host, own.port, https=https, verified=False)


# Asking


def _ask(target: _Target) -> None:
    connection = _connection(target)
    try:
        if target.uds is not None:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(target.uds)
        connection.request("GET", target.path)
        status = connection.getresponse().status
    except TimeoutError:
        raise _Unhealthy(f"{target.shown} did not answer within {_SECONDS:g} seconds.") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _Unhealthy(f"No service answers at {target.shown} ({reason}).") from None
    finally:
        connection.close()
    if status != http.client.OK:
        raise _Unhealthy(f"{target.shown} answered {status} instead of 200.")


def _connection(target: _Target) -> http.client.HTTPConnection:
    if target.https:
        context = _tls(target.verified)
        return http.client.HTTPSConnection(target.host, target.port, context=context)
    return http.client.HTTPConnection(target.host, target.port)


def _tls(verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verified:
        # The service on this very machine, asked by its address instead of its name.
        context.check_hostname = False  # nosemgrep: tls-that-trusts-everybody
        context.verify_mode = ssl.CERT_NONE  # nosemgrep: tls-that-trusts-everybody
    return context


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` inside when the time is up, however the bytes trickle in.

    A socket's own time-out would begin anew with each of them.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
