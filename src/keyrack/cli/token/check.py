"""`keyrack token check`: tell whether something is allowed, and by which rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyrack.access.file import load
from keyrack.access.grant import rights_of
from keyrack.access.rules import DECISIONS, Scope, Verb
from keyrack.access.sections import AccessFileError
from keyrack.cli.asking import MISUSED, OK, REFUSED, complain
from keyrack.cli.token import service

if TYPE_CHECKING:
    from keyrack.access.model import AccessFile


def run(arguments: list[str]) -> int:
    """Print the answer and the rule; the exit code is 0 where it is allowed, 1 where it is not."""
    parser = service.parser(
        "check",
        "Tell whether something is allowed, and by which rule: to the token that the command uses, "
        "to another one (which needs `admin`), or, offline, to one in a file.",
    )
    parser.add_argument("verb", choices=sorted({verb.value for _, verb in DECISIONS}))
    parser.add_argument("key", help="the key; with --lock the name of a lock")
    parser.add_argument("--lock", action="store_true", help="it is about a lock")
    parser.add_argument("--id", help="the id of another token")
    parser.add_argument("--file", metavar="FILE", help="the file that it is in; needs --id")
    given = parser.parse_args(arguments)
    scope = Scope.LOCKS if given.lock else Scope.KEYS
    if (scope, Verb(given.verb)) not in DECISIONS:
        return complain(f"{given.verb!r} is nothing that is done with {scope.value}.", MISUSED)
    if given.file is None:
        check = {"verb": given.verb, "lock" if given.lock else "key": given.key}
        return service.ask(given, lambda running: _in_service(running, check, given.id))
    if given.id is None:
        return complain("--file needs --id, the token in it that is asked about.", MISUSED)
    try:
        access = load(given.file).access
    except AccessFileError as error:
        return complain(str(error), MISUSED)
    return _in_file(access, given.id, scope, Verb(given.verb), given.key)


def _in_service(running: service.Service, check: dict[str, str], token_id: str | None) -> int:
    document: dict[str, Any] = {"checks": [check]}
    if token_id is not None:
        document["token"] = token_id
    _, answer = running.ask("POST", "/v1/auth/check", document)
    (result,) = answer["results"]
    return _print(result["allowed"], result["rule"], result["policy"])


def _in_file(access: AccessFile, token_id: str, scope: Scope, verb: Verb, key: str) -> int:
    for token in access.tokens:
        if token.id == token_id:
            rights = rights_of(token.policies, token.rules, access.policies)
            found = rights.rules.decide(scope, verb, key.encode("utf-8", "surrogateescape"))
            rule = None if found.by is None else str(found.by.rule)
            return _print(found.allowed, rule, None if found.by is None else found.by.policy)
    return complain(f"There is no token {token_id!r} in the file.", MISUSED)


def _print(allowed: bool, rule: str | None, policy: str | None) -> int:
    by = "no rule fits" if rule is None else f"{rule}" + (f" (policy {policy})" if policy else "")
    print(f"{'allowed' if allowed else 'not allowed'}: {by}")
    return OK if allowed else REFUSED
