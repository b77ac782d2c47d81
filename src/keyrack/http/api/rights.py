"""What each request needs: a row for every route, and the judging.

A request is judged from its head alone, before its body is read, wherever the head is enough. Where
it is not (the key of `POST /set`, batches, imports) the head has to show that something of the kind
is allowed at all, and the operation asks here again for each key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.access.rules import Scope, Verb
from keyrack.http.api import codec
from keyrack.http.api.state_names import state_of
from keyrack.http.gate import NOBODY, powerless, refused, unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyrack.http.problems import Problem
    from keyrack.http.protocol.request import Request


class Need(NamedTuple):
    """What a route needs, in words, and the function that raises `Problem` where it is missing.

    `check` is None where nothing is ever needed, not even credentials that are good.
    """

    told: str
    check: Callable[[Request], None] | None


def require(request: Request, scope: Scope, verb: Verb, key: bytes, **members: int) -> None:
    """Make sure that a verb is allowed on a key, or a lock. `members` are told with a refusal."""
    test = request.grant.rights.permission(scope, verb).test
    if test is not None and not test(key):
        decision = request.grant.rights.rules.decide(scope, verb, key)
        raise refused(request, _shown(scope, key), verb, decision, **members)


def require_whole(request: Request, verb: Verb, prefix: bytes) -> None:
    """Make sure that a verb is allowed on every key that begins with a prefix."""
    rights = request.grant.rights
    if not rights.permission(Scope.KEYS, verb).allows_whole(prefix):
        decision = rights.rules.decide_whole(Scope.KEYS, verb, prefix)
        shown = f"all keys that begin with {_text(prefix)!r}" if prefix else "all keys"
        raise refused(request, shown, verb, decision)


def require_some(request: Request, verb: Verb, prefix: bytes = b"") -> None:
    """Make sure that a verb is allowed on a key that begins with a prefix, whichever."""
    if not request.grant.rights.permission(Scope.KEYS, verb).ranges(prefix):
        raise none_allowed(request, verb, prefix)


def none_allowed(request: Request, verb: Verb, prefix: bytes) -> Problem:
    """Return what is told where a verb is allowed on no key that begins with a prefix."""
    decision = request.grant.rights.rules.decide_whole(Scope.KEYS, verb, prefix)
    shown = f"any key that begins with {_text(prefix)!r}" if prefix else "any key"
    return refused(request, shown, verb, decision)


def lists_everything(request: Request) -> bool:
    """Tell whether the sender may list all keys, and so may know how many there are."""
    return request.grant.rights.permission(Scope.KEYS, Verb.LIST).allows_whole(b"")


def judge(name: str, request: Request) -> None:
    """Make sure that a request may take the route with this name. Raises `Problem`."""
    check = NEEDS[name].check
    if check is not None:
        require_known(request)
        check(request)


def require_known(request: Request) -> None:
    """Make sure that somebody is known who sent a request, or that anybody may do something."""
    if request.head.denial is not None:
        request.refusal = request.head.denial
        raise request.head.denial
    if request.grant is NOBODY:
        raise unauthenticated(request)


def _shown(scope: Scope, key: bytes) -> str:
    return f"{'the lock ' if scope is Scope.LOCKS else ''}{_text(key)!r}"


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


# Checks


def _on_key(path: str, *verbs: Verb, scope: Scope = Scope.KEYS) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        key = codec.key_of(request.path[len(path) :])
        for verb in verbs:
            require(request, scope, verb, key)

    return check


def _on_state(verb: Verb) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        require(request, Scope.KEYS, verb, state_of(request.path))

    return check


def _somewhere(*verbs: Verb) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        for verb in verbs:
            require_some(request, verb)

    return check


def _prefix(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    given = dict(codec.pairs(request.query))
    return codec.prefix_of(given.get(b"prefix", b"")), given


def _listing(request: Request) -> None:
    prefix, given = _prefix(request)
    if codec.switch(given, b"count_only"):
        require_whole(request, Verb.LIST, prefix)
        return
    require_some(request, Verb.LIST, prefix)
    if codec.switch(given, b"values"):
        require_some(request, Verb.READ, prefix)


def _deleting(request: Request) -> None:
    prefix, given = _prefix(request)
    dry = codec.switch(given, b"dry_run")
    require_whole(request, Verb.LIST if dry else Verb.DELETE, prefix)


def _exporting(request: Request) -> None:
    prefix, _ = _prefix(request)
    require_whole(request, Verb.READ, prefix)
    require_whole(request, Verb.LIST, prefix)


def _watching(request: Request) -> None:
    given = codec.pairs(request.query)
    prefixes = [codec.prefix_of(value) for name, value in given if name == b"prefix"]
    verbs = [Verb.WATCH]
    if codec.switch(dict(given), b"values"):
        verbs.append(Verb.READ)
    for verb in verbs:
        for prefix in prefixes:
            require_whole(request, verb, prefix)
        if not prefixes:
            require_some(request, verb)


def require_admin(request: Request) -> None:
    """Make sure that the sender may do what concerns others."""
    if not request.grant.rights.admin:
        raise powerless(request, "admin")


def _measuring(request: Request) -> None:
    if not request.grant.rights.metrics:
        raise powerless(request, "metrics")


def _known(request: Request) -> None:
    """Whoever is known may do it."""


_NOTHING: Final = Need("nothing", None)
_ANYBODY: Final = Need("any token", _known)
_ADMIN: Final = Need("`admin`", require_admin)

NEEDS: Final[dict[str, Need]] = {
    "set": Need("`set` of the key", _somewhere(Verb.SET)),
    "get": Need("`read` of the key", _on_key("/get/", Verb.READ)),
    "key_get": Need(
        "`read` of the key; only who may `set` it as well is given a lease to recompute it",
        _on_key("/v1/keys/", Verb.READ),
    ),
    "key_put": Need("`set` of the key", _on_key("/v1/keys/", Verb.SET)),
    "key_delete": Need("`delete` of the key", _on_key("/v1/keys/", Verb.DELETE)),
    "key_patch": Need("`set` of the key", _on_key("/v1/keys/", Verb.SET)),
    "lease_release": Need("`set` of the key", _on_key("/v1/leases/", Verb.SET)),
    "keys_list": Need(
        "`list` of some key under the prefix, `read` as well with `values=true`; `list` of all of "
        "them with `count_only=true`",
        _listing,
    ),
    "keys_delete": Need(
        "`delete` of all keys under the prefix; `list` of them with `dry_run=true`", _deleting
    ),
    "undos": Need("any token; only an `admin` is shown those of others", _known),
    "undo": Need(
        "`set` of all keys under the prefix that was deleted, or of each key; the deletion is the "
        "sender's own, or the sender has `admin`",
        _known,
    ),
    "batch": Need("for each operation what it needs by itself; `check` needs `read`", _known),
    "counter": Need("`set` and `read` of the key", _on_key("/v1/counters/", Verb.SET, Verb.READ)),
    "lock_acquire": Need("`lock` of the lock", _on_key("/v1/locks/", Verb.LOCK, scope=Scope.LOCKS)),
    "lock_release": Need(
        "`lock` of the lock, `admin` as well with `force=true`",
        _on_key("/v1/locks/", Verb.LOCK, scope=Scope.LOCKS),
    ),
    "locks_list": Need("`read` of each lock that it shows", _known),
    "lock_show": Need("`read` of the lock", _on_key("/v1/locks/", Verb.READ, scope=Scope.LOCKS)),
    "terraform_read": Need("`read` of the key `terraform/{key}`", _on_state(Verb.READ)),
    "terraform_write": Need("`set` of the key `terraform/{key}`", _on_state(Verb.SET)),
    "terraform_remove": Need("`delete` of the key `terraform/{key}`", _on_state(Verb.DELETE)),
    "terraform_lock": Need("`set` of the key `terraform/{key}`", _on_state(Verb.SET)),
    "terraform_unlock": Need("`set` of the key `terraform/{key}`", _on_state(Verb.SET)),
    "terraform_lock_show": Need("`read` of the key `terraform/{key}`", _on_state(Verb.READ)),
    "terraform_versions": Need("`read` of the key `terraform/{key}`", _on_state(Verb.READ)),
    "terraform_restore": Need("`set` of the key `terraform/{key}`", _on_state(Verb.SET)),
    "fences_list": _ADMIN,
    "fence_show": _ADMIN,
    "fence_put": _ADMIN,
    "fence_drop": _ADMIN,
    "quotas_list": _ADMIN,
    "quota_show": _ADMIN,
    "quota_put": _ADMIN,
    "quota_drop": _ADMIN,
    "watch": Need(
        "`watch` of all keys under each prefix, `read` as well with `values=true`; without a "
        "prefix `watch` of some key",
        _watching,
    ),
    "key_events": Need("`read` of the key", _on_key("/v1/events/", Verb.READ)),
    "export": Need("`read` and `list` of all keys under the prefix", _exporting),
    "import": Need("`set` of the key of each line", _somewhere(Verb.SET)),
    "snapshot": _ADMIN,
    "slow": _ADMIN,
    "slow_clear": _ADMIN,
    "hot": _ADMIN,
    "big": _ADMIN,
    "clients_list": _ADMIN,
    "client_end": _ADMIN,
    "auth_tokens_list": _ADMIN,
    "auth_token_create": _ADMIN,
    "auth_token_show": _ADMIN,
    "auth_token_change": _ADMIN,
    "auth_token_revoke": _ADMIN,
    "auth_token_rotate": _ADMIN,
    "auth_policies_list": _ADMIN,
    "auth_policy_put": _ADMIN,
    "auth_policy_delete": _ADMIN,
    "auth_tickets_rotate": _ADMIN,
    "auth_ticket_create": Need("any token; each rule has to be allowed to it as a whole", _known),
    "auth_self": _ANYBODY,
    "auth_check": Need("any token; about another one `admin`", _known),
    "metrics": Need("`metrics` or `admin`", _measuring),
    "info": _ANYBODY,
    "limits": _ANYBODY,
    "healthz": _NOTHING,
    "readyz": _NOTHING,
    "openapi": _NOTHING,
    "docs": _NOTHING,
    "home": _NOTHING,
}
"""What each route needs, by its name. A route without a row fails a test, and is not served."""
