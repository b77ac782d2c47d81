"""Who may log in: tokens, Basic, tickets, certificates, peers; and who may not."""

from __future__ import annotations

import base64

import pytest

from keyrack.access import tickets, tokens
from keyrack.access.model import AccessFile, Certificate, Peer, Policy, Rate, Token
from keyrack.access.rules import Scope, Verb, parse
from keyrack.access.table import LoginFailed, Reason, Table

NOW = 1_800_000_000.0
MADE = tokens.new()


def table(*kept: Token, stored: tuple[Token, ...] = (), **access: object) -> Table:
    policies = {"app": Policy(("all keys:app/*", "deny all keys:app/secret/*"))}
    made = AccessFile(tokens=kept, policies=policies, **access)  # type: ignore[arg-type]  # its fields
    return Table(made, stored, ticket_key=b"k" * 32)


def token(made: tokens.NewToken = MADE, **more: object) -> Token:
    fields = {"name": "billing", "policies": ("app",), **more}
    return Token(made.id, made.hash, **fields)  # type: ignore[arg-type]  # its fields


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def reason(of: Table, credentials: bytes, now: float = NOW) -> Reason:
    with pytest.raises(LoginFailed) as caught:
        of.authenticate(credentials, now)
    return caught.value.reason


def test_a_token_stands_for_the_rules_of_its_policies() -> None:
    grant = table(token()).authenticate(bearer(MADE.text), NOW)
    assert grant.identity.id == MADE.id
    assert grant.identity.source == "file"
    assert grant.reads is not None
    assert grant.reads(b"app/x")
    assert not grant.reads(b"app/secret/x")
    assert not grant.reads(b"other")


def test_who_may_do_everything_has_nothing_to_be_tested() -> None:
    grant = table(token(policies=("admin",))).authenticate(bearer(MADE.text), NOW)
    assert grant.reads is None
    assert grant.sets is None
    assert grant.rights.admin
    assert grant.rights.metrics


def test_a_scheme_is_written_in_any_case() -> None:
    for scheme in (b"bearer ", b"BEARER ", b"Bearer  "):
        assert table(token()).authenticate(scheme + MADE.text.encode(), NOW)


def test_the_password_of_basic_may_be_a_token() -> None:
    pair = base64.b64encode(b"anybody:" + MADE.text.encode())
    assert table(token()).authenticate(b"Basic " + pair, NOW).identity.id == MADE.id


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (b"", Reason.SCHEME),
        (b"Digest abc", Reason.SCHEME),
        (MADE.text.encode(), Reason.SCHEME),
        (b"Bearer", Reason.MALFORMED),
        (b"Bearer secret", Reason.MALFORMED),
        (b"Bearer " + MADE.text.encode()[:-1], Reason.MALFORMED),
        (b"Bearer \xff\xfe", Reason.MALFORMED),
        (b"Basic %%%", Reason.MALFORMED),
        (b"Basic " + base64.b64encode(b"no colon"), Reason.MALFORMED),
        (b"Bearer " + tokens.new().text.encode(), Reason.UNKNOWN),
        (b"Bearer krt_abc", Reason.MALFORMED),
        (b"Bearer eyJhbGciOiJub25lIn0.e30.", Reason.UNKNOWN),
    ],
    ids=[str(number) for number in range(12)],
)
def test_wrong_credentials_are_told_apart_as_far_as_is_safe(
    credentials: bytes, why: Reason
) -> None:
    assert reason(table(token()), credentials) is why


def test_an_expired_token_says_so_and_a_disabled_one_looks_like_none() -> None:
    assert table(token(expires=NOW + 1)).authenticate(bearer(MADE.text), NOW).expires == NOW + 1
    assert reason(table(token(expires=NOW)), bearer(MADE.text)) is Reason.EXPIRED
    assert reason(table(token(disabled=True)), bearer(MADE.text)) is Reason.UNKNOWN


def test_while_a_token_is_rotated_both_texts_count_and_then_the_next_one_alone() -> None:
    after = tokens.new(MADE.id)
    both = table(token(hash_next=after.hash, not_after=NOW + 10))
    assert both.authenticate(bearer(MADE.text), NOW).expires == NOW + 10
    assert both.authenticate(bearer(after.text), NOW).expires is None
    assert reason(both, bearer(MADE.text), NOW + 10) is Reason.EXPIRED
    assert both.authenticate(bearer(after.text), NOW + 10).identity.id == MADE.id


def test_the_operator_s_token_and_policy_count_before_the_store_s() -> None:
    other = tokens.new(MADE.id)
    made = Table(
        AccessFile(tokens=(token(),), policies={"app": Policy(("read keys:file/*",))}),
        (token(other, policies=("admin",)),),
        {"app": Policy(("read keys:store/*",))},
    )
    grant = made.authenticate(bearer(MADE.text), NOW)
    assert grant.rights.rules.lines() == ["read keys:file/*"]
    assert reason(made, bearer(other.text)) is Reason.UNKNOWN


def test_a_policy_that_is_gone_gives_nothing() -> None:
    made = table(stored=(token(policies=("vanished",)),))
    grant = made.authenticate(bearer(MADE.text), NOW)
    assert grant.rights.rules.lines() == []
    assert grant.reads is not None
    assert not grant.reads(b"app/x")


def test_a_token_has_its_own_rate_or_the_strictest_of_its_policies() -> None:
    policies = {
        "fast": Policy(rate=Rate(100, 100)),
        "slow": Policy(rate=Rate(10, 20), watches=3),
    }
    both = ("fast", "slow")
    made = Table(AccessFile(tokens=(token(policies=both),), policies=policies))
    grant = made.authenticate(bearer(MADE.text), NOW)
    assert (grant.rate, grant.watches, grant.plain) == (Rate(10, 20), 3, False)
    own = Table(AccessFile(tokens=(token(policies=both, rate=Rate(5, 5)),), policies=policies))
    assert own.authenticate(bearer(MADE.text), NOW).rate == Rate(5, 5)


def test_anonymous_visitors_have_what_the_operator_gives_them() -> None:
    assert table().anonymous is None
    anonymous = table(anonymous=("read-only",)).anonymous
    assert anonymous is not None
    assert anonymous.reads is None
    assert anonymous.sets is not None
    assert not anonymous.sets(b"a")


def test_a_certificate_is_known_by_any_of_its_names() -> None:
    made = table(certificates=(Certificate("spiffe://prod/cart", ("app",)),))
    assert made.certificate(["other"]) is None
    grant = made.certificate(["cart.example", "spiffe://prod/cart"])
    assert grant is not None
    assert (grant.identity.source, grant.identity.name) == ("certificate", "spiffe://prod/cart")


def test_a_peer_is_known_by_its_user_and_group() -> None:
    made = table(peers=(Peer(uid=1000, policies=("app",)), Peer(gid=50, policies=("metrics",))))
    assert made.peer(1, 1) is None
    grant = made.peer(1000, 50)
    assert grant is not None
    assert grant.identity.policies == ("app", "metrics")


# Tickets


def ticket(of: Table, *rules: str, text: str = MADE.text, expires: int = int(NOW) + 60) -> str:
    grant = of.authenticate(bearer(text), NOW)
    assert of.ticket_key is not None
    return tickets.seal(of.ticket_key, MADE.id, grant.secret, rules, expires)


def test_a_ticket_stands_for_its_own_rules_and_its_maker_s_identity() -> None:
    made = table(token())
    grant = made.authenticate(bearer(ticket(made, "read keys:app/x")), NOW)
    assert grant.identity.source == "ticket"
    assert grant.identity.id == MADE.id
    assert grant.expires == NOW + 60
    assert grant.reads is not None
    assert grant.reads(b"app/x")
    assert not grant.reads(b"app/y")


def test_a_ticket_ends_with_its_time_and_not_after_its_maker() -> None:
    made = table(token(expires=NOW + 30))
    text = ticket(made, "read keys:app/x")
    assert made.authenticate(bearer(text), NOW).expires == NOW + 30
    assert reason(made, bearer(text), NOW + 60) is Reason.EXPIRED


def test_a_ticket_dies_when_its_maker_is_revoked_disabled_or_may_do_less() -> None:
    text = ticket(table(token()), "read keys:app/x")
    assert reason(table(), bearer(text)) is Reason.UNKNOWN
    assert reason(table(token(disabled=True)), bearer(text)) is Reason.UNKNOWN
    assert reason(table(token(policies=("metrics",))), bearer(text)) is Reason.UNKNOWN


def test_a_ticket_dies_with_the_text_that_made_it() -> None:
    text = ticket(table(token()), "read keys:app/x")
    after = tokens.new(MADE.id)
    both = table(token(hash_next=after.hash, not_after=NOW + 10))
    assert both.authenticate(bearer(text), NOW).expires == NOW + 10
    assert reason(both, bearer(text), NOW + 11) is Reason.EXPIRED
    assert reason(table(token(after)), bearer(text)) is Reason.UNKNOWN


def test_no_byte_of_a_ticket_can_be_changed() -> None:
    made = table(token())
    text = ticket(made, "read keys:app/x")
    for place in range(4, len(text)):
        for character in "Az0_-.":
            if text[place] != character:
                wrong = text[:place] + character + text[place + 1 :]
                assert reason(made, bearer(wrong)) in (Reason.UNKNOWN, Reason.MALFORMED)


def test_a_ticket_of_another_key_is_not_known() -> None:
    text = ticket(table(token()), "read keys:app/x")
    other = Table(AccessFile(tokens=(token(),)), ticket_key=b"x" * 32)
    assert reason(other, bearer(text)) is Reason.UNKNOWN


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        ("read keys:app/x", True),
        ("read,set keys:app/x/*", True),
        ("all keys:app/*", False),  # it has a hole
        ("read keys:app/secret/x", False),
        ("read keys:ap*", False),
        ("read locks:app/x", False),
        ("deny all keys:*", True),
        ("admin", False),
        ("metrics", False),
    ],
)
def test_a_rule_is_covered_where_all_that_it_allows_is_allowed(rule: str, covered: bool) -> None:
    rights = table().rights(("app",), ())
    assert rights.covers(parse(rule)) is covered


def test_who_administers_besides_a_token_is_known() -> None:
    other = tokens.new()
    made = table(token(policies=("admin",)), token(other, policies=("admin",), expires=NOW + 5))
    assert made.other_admin(MADE.id, NOW)
    assert not made.other_admin(MADE.id, NOW + 5)
    assert made.users_of("admin") == sorted((MADE.id, other.id))


def test_rights_are_shared_by_those_who_have_the_same() -> None:
    made = table()
    assert made.rights(("app",), ()) is made.rights(("app",), ())
    assert made.rights(("app",), ()).permission(Scope.KEYS, Verb.READ) is made.rights(
        ("app",), ()
    ).permission(Scope.KEYS, Verb.READ)
