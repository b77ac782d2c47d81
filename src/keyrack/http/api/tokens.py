"""Who may log in, over HTTP: tokens and policies that the store keeps, and what one may do oneself.

What the operator's file says is shown here as well, and changed there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from keyrack.access import rules, tickets, tokens
from keyrack.access.model import (
    BUILT_IN,
    MOST_POLICIES,
    MOST_TOKENS,
    Policy,
    Token,
    checked_policy_name,
    checked_token_name,
    moment_of,
    network_of,
    rate_of,
    rotated,
    shown_moment,
)
from keyrack.access.rules import DECISIONS, Scope, Verb
from keyrack.engines.contract import MAX_ADMIN_BYTES, Refusal, Why
from keyrack.http.access_control import AccessChange
from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.codec import etag
from keyrack.http.api.keys import refused
from keyrack.http.api.token_model import (
    CheckRequest,
    CheckResult,
    CheckResults,
    Pending,
    PolicyList,
    PolicyRequest,
    PolicyShown,
    RotateRequest,
    Self,
    TicketMade,
    TicketRequest,
    TokenChange,
    TokenMade,
    TokenPage,
    TokenRequest,
    TokenShown,
)
from keyrack.http.gate import powerless
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from keyrack.access.table import Known, Table
    from keyrack.http.access_control import AccessControl
    from keyrack.http.answer import Headers
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_ATTEMPTS: Final = 8
_SOON: Final = ((b"Retry-After", b"1"),)
_NONE: Final[frozenset[bytes]] = frozenset()
_PAGE: Final = frozenset((b"after", b"limit"))
_TOKENS: Final = b"/v1/auth/tokens/"
_POLICIES: Final = b"/v1/auth/policies/"
_ROTATE: Final = b"/rotate"
MOST_SHOWN: Final = 1000
_SHOWN: Final = 100
_NO_STORE: Final = ((b"Cache-Control", b"no-store"),)
_MERGE_PATCH: Final = b"application/merge-patch+json"

_decode_token: Final = msgspec.json.Decoder(TokenRequest).decode
_decode_change: Final = msgspec.json.Decoder(TokenChange).decode
_decode_rotate: Final = msgspec.json.Decoder(RotateRequest).decode
_decode_policy: Final = msgspec.json.Decoder(PolicyRequest).decode
_decode_check: Final = msgspec.json.Decoder(CheckRequest).decode
_decode_ticket: Final = msgspec.json.Decoder(TicketRequest).decode


_EMPTY: Final = {"policies": (), "rules": (), "sources": (), "disabled": False, "name": ""}
"""What a member becomes that is null in a patch; all others are None then."""


class _Overtaken(Exception):
    """Raised where somebody else has changed a token since it was looked at."""


# Tokens


async def create(request: Request, context: Context) -> Answer:
    """`POST /v1/auth/tokens`: make a token, and tell its text this once."""
    codec.parameters(request.query, _NONE)
    access, table = _controlled(context)
    if request.head.idempotency_key is not None:
        # The answer would be kept, and the secret with it.
        raise Problem("bad-parameter", "No Idempotency-Key here: the answer must not be kept.")
    asked = codec.read_json(request, _decode_token)
    if len(table.tokens) >= MOST_TOKENS:
        raise Problem("bad-token", f"There are {MOST_TOKENS} tokens, the most there may be.")
    made = tokens.new()
    now = time.time()
    token = _checked(
        table,
        Token(
            id=made.id,
            hash=made.hash,
            name=asked.name,
            policies=tuple(asked.policies),
            rules=tuple(asked.rules),
            expires=None if asked.ttl is None else now + asked.ttl,
            rate=None if asked.rate is None else _value(rate_of, asked.rate),
            watches=asked.watches,
            sources=tuple(asked.sources),
            created=float(int(now)),
            created_by=request.grant.identity.key,
        ),
    )
    await _make(access, AccessChange().add_token(token))
    request.made = token.id
    shown = _shown(access, token, "store")
    location = (b"Location", _TOKENS + made.id.encode())
    body = TokenMade(token=made.text, **msgspec.structs.asdict(shown))
    return _json(body, 201, location, *_tag(token))


async def list_tokens(request: Request, context: Context) -> Answer:
    """`GET /v1/auth/tokens`: a page of all tokens, without their secrets."""
    given = codec.parameters(request.query, _PAGE)
    access, table = _controlled(context)
    limit = codec.whole(given, b"limit", _SHOWN, 1, MOST_SHOWN)
    after = given.get(b"after", b"").decode("utf-8", "replace")
    found = [known for known in table.tokens if known.token.id > after]
    page = [_shown(access, known.token, known.source) for known in found[:limit]]
    return _json(TokenPage(page, page[-1].id if len(found) > limit else None))


async def show(request: Request, context: Context) -> Answer:
    """`GET /v1/auth/tokens/{id}`: one token, its rules in the order of decision."""
    codec.parameters(request.query, _NONE)
    access, table = _controlled(context)
    known = _named(request, table)
    tag = _tag(known.token) if known.source == "store" else ()
    return _json(_shown(access, known.token, known.source, decides=True), 200, *tag)


async def change(request: Request, context: Context) -> Answer:
    """`PATCH /v1/auth/tokens/{id}`: change members; those that are null go."""
    codec.parameters(request.query, _NONE)
    if (request.head.content_type or b"").split(b";")[0].strip().lower() != _MERGE_PATCH:
        raise Problem("unsupported-media-type", "Send the patch as `application/merge-patch+json`.")
    asked = codec.decoded(request.body, _decode_change)

    def changed(table: Table, before: Token) -> Token:
        token = _checked(table, _patched(before, asked))
        if table.rights_of(before).admin and not (
            table.rights_of(token).admin and not token.disabled and not _is_over(token)
        ):
            _refuse_last(table, token.id)
        return token

    access, token, pending = await _replace(request, context, changed)
    shown = _shown(access, token, "store", decides=True)
    return _json(shown, 202 if pending else 200, *_tag(token))


async def rotate(request: Request, context: Context) -> Answer:
    """`POST /v1/auth/tokens/{id}/rotate`: another secret; the present one counts for a while."""
    codec.parameters(request.query, _NONE)
    if request.head.idempotency_key is not None:
        raise Problem("bad-parameter", "No Idempotency-Key here: the answer must not be kept.")
    asked = codec.read_json(request, _decode_rotate) if request.body else RotateRequest()
    made = tokens.new(_token_id(request))

    def changed(_: Table, before: Token) -> Token:
        return rotated(before, made.hash, asked.overlap, time.time())

    access, token, _ = await _replace(request, context, changed)
    shown = _shown(access, token, "store")
    body = TokenMade(token=made.text, **msgspec.structs.asdict(shown))
    return _json(body, 200, *_tag(token))


async def revoke(request: Request, context: Context) -> Answer:
    """`DELETE /v1/auth/tokens/{id}`: when this is answered with 204, no worker lets it in."""
    codec.parameters(request.query, _NONE)

    def changed(table: Table, before: Token) -> None:
        if table.rights_of(before).admin:
            _refuse_last(table, before.id)

    return _done(await _attempt(request, context, changed))


async def _replace(
    request: Request, context: Context, changed: Callable[[Table, Token], Token]
) -> tuple[AccessControl, Token, int]:
    """Change a token; return it, and how many workers have not said that they know."""
    made: list[Token] = []

    def change(table: Table, before: Token) -> Token:
        after = msgspec.structs.replace(changed(table, before), serial=before.serial + 1)
        made.append(after)
        return after

    pending = await _attempt(request, context, change)
    access, _ = _controlled(context)
    return access, made[-1], pending


async def _attempt(
    request: Request, context: Context, changed: Callable[[Table, Token], Token | None]
) -> int:
    """Make a token what `changed` returns, or remove it where that is None.

    Where somebody else changes it meanwhile it is looked at anew: what they did stays, and an
    If-Match that named what was before it fails.
    """
    for _ in range(_ATTEMPTS):
        access, table = _controlled(context)
        before = _changeable(request, table).token
        _demand_tag(request, before)
        after = changed(table, before)
        change = AccessChange()
        change = change.drop_token(before) if after is None else change.replace_token(before, after)
        try:
            return await _make(access, change)
        except _Overtaken:
            await access.catch_up()
    raise Problem("unavailable", "Others change this token all the time. Try again.", _SOON)


def _tag(token: Token) -> Headers:
    return ((b"ETag", etag(token.serial + 1)),)


def _demand_tag(request: Request, token: Token) -> None:
    condition = request.head.condition
    if condition is not None and not condition.holds(token.serial + 1):
        detail = "The token is at another ETag; this answer carries it."
        raise Problem("precondition-failed", detail, _tag(token))


# Policies


async def list_policies(request: Request, context: Context) -> Answer:
    """`GET /v1/auth/policies`: all policies."""
    codec.parameters(request.query, _NONE)
    _, table = _controlled(context)
    shown = [PolicyShown(name, list(lines), "built-in") for name, lines in BUILT_IN.items()]
    for name, policy in table.policies.items():
        source = "file" if name in table.access.policies else "store"
        rate = None if policy.rate is None else str(policy.rate)
        shown.append(PolicyShown(name, list(policy.rules), source, rate, policy.watches))
    return _json(PolicyList(sorted(shown, key=lambda one: one.name)))


async def put_policy(request: Request, context: Context) -> Answer:
    """`PUT /v1/auth/policies/{name}`: define a policy, or change it for all who have it."""
    codec.parameters(request.query, _NONE)
    access, table = _controlled(context)
    name = _policy_name(request)
    _value(checked_policy_name, name)
    if name in table.access.policies:
        raise Problem("token-in-file", f"The policy {name!r} is in the operator's file.")
    asked = codec.read_json(request, _decode_policy)
    rate = None if asked.rate is None else _value(rate_of, asked.rate)
    policy = Policy(tuple(asked.rules), rate, asked.watches)
    _check_rules(policy.rules)
    _check_users(table, name, policy)
    existed = name in table.stored_policies
    pending = await _make(access, AccessChange().put_policy(name, policy))
    return Answer(202 if pending else 204 if existed else 201, _NO_STORE)


async def drop_policy(request: Request, context: Context) -> Answer:
    """`DELETE /v1/auth/policies/{name}`: remove a policy that nobody has."""
    codec.parameters(request.query, _NONE)
    access, table = _controlled(context)
    name = _policy_name(request)
    if name in table.access.policies or name in BUILT_IN:
        raise Problem("token-in-file", f"The policy {name!r} is not one that the store keeps.")
    if name not in table.stored_policies:
        raise Problem("token-not-found", f"There is no policy {name!r}.")
    users = [k.token.id for k in table.tokens if name in k.token.policies and k.source == "store"]
    if users:
        raise Problem(
            "policy-in-use",
            f"{len(users)} tokens have the policy {name!r}: {', '.join(users[:20])}.",
        )
    return _done(await _make(access, AccessChange().drop_policy(name)))


# Oneself


async def show_self(request: Request, context: Context) -> Answer:
    """`GET /v1/auth/self`: who the sender is, and what they may do."""
    codec.parameters(request.query, _NONE)
    grant = request.grant
    identity = grant.identity
    return _json(
        Self(
            identity.id,
            identity.name,
            identity.source,
            list(identity.policies),
            grant.rights.rules.lines(),
            None if grant.expires is None else shown_moment(grant.expires),
            anonymous=identity.source == "anonymous",
        )
    )


async def check(request: Request, context: Context) -> Answer:
    """`POST /v1/auth/check`: what is allowed, and by which rule; to oneself or to another."""
    codec.parameters(request.query, _NONE)
    asked = codec.read_json(request, _decode_check)
    rights = request.grant.rights
    if asked.token is not None and asked.token != request.grant.identity.id:
        if not rights.admin:
            raise powerless(request, "admin")
        _, table = _controlled(context)
        rights = table.rights_of(_found(table, asked.token).token)
    results = []
    for one in asked.checks:
        scope = Scope.LOCKS if one.lock is not UNSET else Scope.KEYS
        name = one.lock if isinstance(one.lock, str) else one.key
        if not isinstance(name, str) or (one.lock is not UNSET and one.key is not UNSET):
            raise Problem("bad-json", "A check names a `key` or a `lock`.")
        verb = Verb(one.verb)
        if (scope, verb) not in DECISIONS:
            raise Problem("bad-json", f"{verb.value!r} is not done with {scope.value}.")
        found = rights.rules.decide(scope, verb, codec.utf8(name))
        by = found.by
        results.append(
            CheckResult(
                found.allowed,
                None if by is None else str(by.rule),
                None if by is None else by.policy,
            )
        )
    return _json(CheckResults(results))


async def make_ticket(request: Request, context: Context) -> Answer:
    """`POST /v1/auth/tickets`: a weaker token for a short time, kept nowhere."""
    codec.parameters(request.query, _NONE)
    _, table = _controlled(context)
    asked = codec.read_json(request, _decode_ticket)
    grant = request.grant
    if grant.identity.id is None or not grant.secret:
        raise Problem("bad-token", "Only a token makes tickets, and none makes tickets of tickets.")
    for text in asked.rules:
        if not grant.rights.covers(_value(rules.parse, text)):
            raise Problem(
                "forbidden",
                f"A ticket may do no more than its maker: {text!r} is not allowed as a whole.",
                token=grant.identity.id,
                rule=text,
            )
    if table.ticket_key is None:
        raise Problem("unavailable", "The key of tickets is not known yet; try again soon.")
    expires = int(time.time() + asked.ttl)
    lines = tuple(asked.rules)
    text = _value(
        lambda key: tickets.seal(key, str(grant.identity.id), grant.secret, lines, expires),
        table.ticket_key,
    )
    return _json(TicketMade(text, shown_moment(expires)), 201)


async def rotate_tickets(request: Request, context: Context) -> Answer:
    """`POST /v1/auth/tickets/rotate`: another key for tickets, which ends all there are."""
    codec.parameters(request.query, _NONE)
    access, _ = _controlled(context)
    return _done(await _make(access, AccessChange().put_ticket_key()))


# Helpers


def _controlled(context: Context) -> tuple[AccessControl, Table]:
    access = context.access
    if access is None or access.gate.table is None:
        raise Problem(
            "no-access-control",
            "Everybody may do everything here. Start the service with --auth or KEYRACK_TOKEN.",
        )
    return access, access.gate.table


def _json(body: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, (*JSON_HEADERS, *headers), codec.encode(body))


def _done(pending: int) -> Answer:
    return _json(Pending(pending), 202) if pending else Answer(204, _NO_STORE)


async def _make(access: AccessControl, made: AccessChange) -> int:
    if made.longest() > MAX_ADMIN_BYTES:
        raise Problem(
            "bad-token",
            f"A token or a policy takes at most {MAX_ADMIN_BYTES} bytes in the store. Divide the "
            "rules into several policies.",
        )
    outcome, pending = await access.make(made)
    if isinstance(outcome, Refusal):
        if outcome.why is Why.CONDITION:
            raise _Overtaken
        raise refused(outcome)
    return pending


def _token_id(request: Request) -> str:
    return request.path[len(_TOKENS) :].removesuffix(_ROTATE).decode("latin-1")


def _named(request: Request, table: Table) -> Known:
    return _found(table, _token_id(request))


def _found(table: Table, token_id: str) -> Known:
    known = table.token(token_id)
    if known is None:
        raise Problem("token-not-found", f"There is no token with the id {token_id[:20]!r}.")
    return known


def _changeable(request: Request, table: Table) -> Known:
    known = _named(request, table)
    if known.source == "file":
        raise Problem(
            "token-in-file",
            f"The token {known.token.id} is in the operator's file (or KEYRACK_TOKEN): change it "
            "there.",
        )
    return known


def _policy_name(request: Request) -> str:
    return codec.key_of(request.path[len(_POLICIES) :]).decode()


def _refuse_last(table: Table, token_id: str) -> None:
    if table.other_admin(token_id, time.time()):
        return
    raise Problem("last-admin", "Nobody else could administer the service then.")


def _is_over(token: Token) -> bool:
    return token.expires is not None and token.expires <= time.time()


def _value(check: Any, *given: Any) -> Any:
    """Return what `check` makes of something; what it refuses is told to the client."""
    try:
        return check(*given)
    except ValueError as error:
        raise Problem("bad-token", str(error)) from None


def _check_rules(lines: Iterable[str]) -> None:
    for line in lines:
        _value(rules.parse, line)


def _checked(table: Table, token: Token) -> Token:
    """Return a token that can be kept."""
    _value(checked_token_name, token.name)
    _check_rules(token.rules)
    for network in token.sources:
        _value(network_of, network)
    for policy in token.policies:
        if not table.defined(policy):
            raise Problem("bad-token", f"There is no policy {policy!r}.")
    if len(token.policies) > MOST_POLICIES:
        raise Problem("bad-token", f"A token has at most {MOST_POLICIES} policies.")
    _value(table.rights_of, token)
    return token


def _check_users(table: Table, name: str, policy: Policy) -> None:
    """Refuse a policy that would give a token too many rules."""
    for known in table.tokens:
        if name in known.token.policies:
            others = [p for p in known.token.policies if p != name]
            lines = len(policy.rules) + len(known.token.rules)
            lines += sum(len(table.policies[p].rules) for p in others if p in table.policies)
            if lines > rules.MOST_RULES:
                raise Problem(
                    "bad-token",
                    f"The token {known.token.id} would have {lines} rules; "
                    f"{rules.MOST_RULES} are the most.",
                )


def _patched(token: Token, asked: TokenChange) -> Token:
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in msgspec.structs.asdict(asked).items()
        if value is not UNSET
    }
    if "expires" in changes and changes["expires"] is not None:
        changes["expires"] = _value(moment_of, changes["expires"])
    if "rate" in changes and changes["rate"] is not None:
        changes["rate"] = _value(rate_of, changes["rate"])
    for name, empty in _EMPTY.items():
        if name in changes and changes[name] is None:
            changes[name] = empty
    return msgspec.structs.replace(token, **changes)


def _shown(
    access: AccessControl, token: Token, source: str, *, decides: bool = False
) -> TokenShown:
    used = access.last_use(token.id)
    return TokenShown(
        id=token.id,
        name=token.name,
        source=source,
        policies=list(token.policies),
        rules=list(token.rules),
        expires=None if token.expires is None else shown_moment(token.expires),
        disabled=token.disabled,
        rate=None if token.rate is None else str(token.rate),
        watches=token.watches,
        sources=list(token.sources),
        created=None if token.created is None else shown_moment(token.created),
        created_by=token.created_by,
        last_used=None if used is None else shown_moment(used),
        rotating_until=None if token.not_after is None else shown_moment(token.not_after),
        decides=access.decides(token) if decides else UNSET,
    )
