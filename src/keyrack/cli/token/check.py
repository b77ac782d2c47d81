"""`keyrack token check`: tell whether something is allowed, and by which rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.access.file import load
from keyrack.access.grant import rights_of
from keyrack.access.rules import DECISIONS, Scope, Verb
from keyrack.access.sections import AccessFileError
from keyrack.cli import asking, saying
from keyrack.cli.parsing import Misused
from keyrack.cli.printing import Printer
from keyrack.cli.spec import DONE, FILES, KEYS, MISUSED, REFUSED, Argument, Command, Flag

if TYPE_CHECKING:
    import argparse

    from keyrack.access.model import AccessFile
    from keyrack.cli.service import Service


def _verb(text: str) -> str:
    known = sorted({verb.value for _, verb in DECISIONS})
    if text not in known:
        raise ValueError(f"{text!r} is none of {', '.join(known)}.")
    return text


COMMAND = Command(
    "Tell whether something is allowed, and by which rule: to the token that the command uses, to "
    "another one (which needs `admin`), or, offline, to one in a file.",
    arguments=(
        Argument("VERB", "what is to be done, like read or set", kind=_verb),
        Argument("KEY", "the key; with --lock the name of a lock", completes=KEYS),
    ),
    flags=(
        Flag(("--lock",), "it is about a lock"),
        Flag(("--id",), "the id of another token", "ID"),
        Flag(("--file",), "the file that it is in; needs --id", "FILE", completes=FILES),
    ),
    codes=((0, "allowed"), (1, "not allowed")),
)


def run(given: argparse.Namespace) -> int:
    """Print the answer and the rule; the exit code is 0 where it is allowed, 1 where it is not."""
    scope = Scope.LOCKS if given.lock else Scope.KEYS
    if (scope, Verb(given.verb)) not in DECISIONS:
        raise Misused(f"{given.verb!r} is nothing that is done with {scope.value}.")
    if given.file is None:
        return asking.ask(given, lambda service: _in_service(service, given))
    if given.id is None:
        raise Misused("--file needs --id, the token in it that is asked about.")
    try:
        access = load(given.file).access
    except AccessFileError as error:
        return saying.complain(str(error), MISUSED)
    return _in_file(access, given, scope)


def _in_service(service: Service, given: argparse.Namespace) -> int:
    check = {"verb": given.verb, "lock" if given.lock else "key": given.key}
    document: dict[str, Any] = {"checks": [check]}
    if given.id is not None:
        document["token"] = given.id
    _, answer = service.json("POST", "/v1/auth/check", document)
    (result,) = answer["results"]
    return _print(given, result["allowed"], result["rule"], result["policy"])


def _in_file(access: AccessFile, given: argparse.Namespace, scope: Scope) -> int:
    for token in access.tokens:
        if token.id == given.id:
            rights = rights_of(token.policies, token.rules, access.policies)
            key = given.key.encode("utf-8", "surrogateescape")
            found = rights.rules.decide(scope, Verb(given.verb), key)
            rule = None if found.by is None else str(found.by.rule)
            return _print(given, found.allowed, rule, None if found.by is None else found.by.policy)
    raise Misused(f"There is no token {given.id!r} in the file.")


def _print(given: argparse.Namespace, allowed: bool, rule: str | None, policy: str | None) -> int:
    by = "no rule fits" if rule is None else f"{rule}" + (f" (policy {policy})" if policy else "")
    found = {"allowed": allowed, "rule": rule, "policy": policy}
    Printer(given, "table").document(found, [f"{'allowed' if allowed else 'not allowed'}: {by}"])
    return DONE if allowed else REFUSED
