"""What the verbs that ask a running service share: the client, failures, questions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from keyrack.cli.parsing import Misused
from keyrack.cli.saying import complain, harmless
from keyrack.cli.service import Service
from keyrack.cli.spec import CONFLICT, FORBIDDEN, MISSING, MISUSED, UNREACHABLE
from keyrack.cli.target import Target, target_of
from keyrack.client import (
    Ambiguous,
    Forbidden,
    KeyrackError,
    ProtocolError,
    Raw,
    Refused,
    Timeout,
    Unauthenticated,
    Unreachable,
)

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Callable

_MISUSED_STATUSES: Final = frozenset((400, 405, 413, 414, 415, 416, 422, 428, 431))


def ask(given: argparse.Namespace, question: Callable[[Service], int]) -> int:
    """Ask the service that was named and return the exit code; say what went wrong."""
    target = target_of(given)
    if given.command.writes and target.read_only:
        return refuse_to_write(target)
    try:
        with service_of(target) as service:
            if given.command.names_lock and given.lock is not None:
                service.depend_on(*given.lock)
            return question(service)
    except KeyrackError as error:
        return failed(error, target)
    except ValueError as error:  # what cannot be sent, like a media type of two lines
        return complain(str(error), MISUSED)


def refuse_to_write(target: Target) -> int:
    """Say that a context is for reading only, and return the exit code."""
    return complain(f"The context {target.context!r} is for reading only.", FORBIDDEN)


def service_of(target: Target) -> Service:
    """Return a service to ask. Raises `Misused` for an address that cannot be one."""
    try:
        # A verb asks once: whoever typed it sees what happened, and can type it again.
        return Service(
            target.url,
            token=target.token,
            uds=target.uds,
            timeout=target.seconds,
            retries=0,
            serializer=Raw(),
            prefix=target.prefix,
            tls=None if target.ca is None else _trusting(target.ca),
        )
    except ValueError as error:
        raise Misused(str(error)) from None


def _trusting(file: str) -> ssl.SSLContext:
    import ssl  # not for those who do without

    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise Misused(f"{file} holds no certificates to trust: {reason}.") from None


def failed(error: KeyrackError, target: Target) -> int:
    """Say why a request did not succeed, and return the exit code."""
    sentence = str(error)
    if isinstance(error, Unauthenticated) and not target.token:
        sentence += " Give one with --token-file, KEYRACK_TOKEN or a context."
    return complain(sentence, exit_code(error))


def exit_code(error: KeyrackError) -> int:
    """Return the exit code of a failure: the one place where it is decided."""
    if isinstance(error, Unreachable | Ambiguous | ProtocolError | Timeout):
        return UNREACHABLE
    if isinstance(error, Unauthenticated | Forbidden):
        return FORBIDDEN
    if not isinstance(error, Refused):
        return UNREACHABLE
    if error.status in _MISUSED_STATUSES:
        return MISUSED
    if error.status == 409 or error.kind == "lock-lost":
        return CONFLICT
    if error.status in (404, 410, 412) and error.kind:
        return MISSING
    return UNREACHABLE


def is_sure(given: argparse.Namespace, question: str, target: Target) -> bool:
    """Ask whoever sits at the terminal. Raises `Misused` where nobody can answer and no --yes is.

    A context that is marked red is named in red, so that nobody takes it for another.
    """
    if given.yes:
        return True
    if not sys.stdin.isatty():
        raise Misused("Nobody can be asked here whether this is meant: say it with --yes.")
    name = ""
    if target.context is not None:
        name = f"[{harmless(target.context)}] "
        if target.color == "red" and sys.stderr.isatty():
            name = f"\x1b[31m{name}\x1b[0m"
    print(f"{name}{harmless(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
