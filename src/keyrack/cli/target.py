"""Which service a verb asks, and as whom: a flag, else a variable, else a context."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.cli import contexts, kinds
from keyrack.cli.parsing import Misused
from keyrack.client.address import DEFAULT_URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

DEFAULT_SECONDS: Final = 10.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that nobody connects to, and what to connect to instead."""


class Target(NamedTuple):
    """Where to ask, and how. `context` is the name of the context that it came from."""

    url: str = DEFAULT_URL
    uds: str | None = None
    token: str = ""
    ca: str | None = None
    seconds: float = DEFAULT_SECONDS
    prefix: str = ""
    read_only: bool = False
    context: str | None = None
    color: str = ""


def target_of(given: argparse.Namespace) -> Target:
    """Return the service that flags, variables or a context name. Raises `Misused`."""
    try:
        return _token(given, _address(given))
    except contexts.ContextsError as error:
        raise Misused(str(error)) from None


def _address(given: argparse.Namespace) -> Target:
    environ = os.environ
    seconds = _seconds(given.timeout)
    own = Target(seconds=seconds, ca=given.ca)
    if given.uds or given.url:
        return own._replace(url=given.url or DEFAULT_URL, uds=given.uds)
    if given.context:
        return _of_context(own, given.context)
    if url := environ.get("KEYRACK_URL"):
        return own._replace(url=url)
    if name := environ.get("KEYRACK_CONTEXT"):
        return _of_context(own, name)
    if uds := environ.get("KEYRACK_UDS"):
        return own._replace(uds=uds)
    if url := own_url(environ):
        return own._replace(url=url)
    current = contexts.load().current
    return own if current is None else _of_context(own, current)


def own_url(environ: Mapping[str, str]) -> str:
    """Return where a service would be that KEYRACK_HOST and KEYRACK_PORT are settings of."""
    port = environ.get("KEYRACK_PORT", "")
    if not (port.isascii() and port.isdecimal()):
        return ""  # in Kubernetes it is tcp://…, and nobody's setting
    host = environ.get("KEYRACK_HOST") or "127.0.0.1"
    host = _ANYWHERE.get(host, host)
    scheme = "https" if environ.get("KEYRACK_TLS_CERT") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _seconds(text: str | None) -> float:
    if text is None:
        return DEFAULT_SECONDS
    try:
        return kinds.some_seconds(text)
    except ValueError as error:
        raise Misused(f"--timeout: {error}") from None


def _of_context(own: Target, name: str) -> Target:
    named = contexts.load().named
    if name not in named:
        known = ", ".join(sorted(named)) or "none"
        raise Misused(f"There is no context {name!r}; there are: {known}.")
    found = named[name]
    return own._replace(
        url=found.get("url") or DEFAULT_URL,
        uds=found.get("uds"),
        ca=own.ca or found.get("ca"),
        prefix=found.get("prefix", ""),
        read_only=found.get("read_only", False),
        context=name,
        color=found.get("color", ""),
    )


# The token


def _token(given: argparse.Namespace, target: Target) -> Target:
    return target._replace(token=_given_token(given) or _token_of_context(target.context))


def _given_token(given: argparse.Namespace) -> str:
    if given.token_file:
        return _in_file(given.token_file)
    if given.token:
        print(
            "keyrack: others on this machine can see --token in `ps`; --token-file hides it.",
            file=sys.stderr,
        )
        return str(given.token)
    if token := os.environ.get("KEYRACK_TOKEN"):
        return token
    file = os.environ.get("KEYRACK_TOKEN_FILE")
    return _in_file(file) if file else ""


def _token_of_context(name: str | None) -> str:
    # A context's token goes to that context's service, and to no other that a flag names.
    if name is None:
        return ""
    found: dict[str, Any] = contexts.load().named[name]
    if "token_command" in found:
        return _of_command(found["token_command"])
    if "token_file" in found:
        return _in_file(os.path.expanduser(found["token_file"]))
    return str(found.get("token", ""))


def _in_file(path: str) -> str:
    try:
        with open(path, encoding="ascii") as opened:
            return opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no ASCII"
        raise Misused(f"{path} holds no token: {reason}.") from None


def _of_command(command: str) -> str:
    # A command line of the user's own file, which nobody else may read or write.
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=False)  # nosec B602
    if done.returncode:
        raise Misused(f"The token_command {command!r} ended with {done.returncode}.")
    return done.stdout.decode("ascii", "replace").strip()
