"""What rules mean, and that the form which requests are judged by means the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrack.access.compiled import Permission, successor
from keyrack.access.rules import (
    DECISIONS,
    MOST_PATTERN_BYTES,
    Power,
    Rule,
    RuleError,
    RuleSet,
    Scope,
    Sourced,
    Verb,
    parse,
)
from keyrack.engines.contract import MAX_KEY_BYTES


def rule_set(*lines: str) -> RuleSet:
    return RuleSet((parse(line), None) for line in lines)


def may(rules: RuleSet, verb: Verb, key: bytes) -> bool:
    return rules.decide(Scope.KEYS, verb, key).allowed


def test_a_pattern_is_at_most_as_long_as_a_key() -> None:
    assert MOST_PATTERN_BYTES == MAX_KEY_BYTES
    parse("read keys:" + "a" * 511)
    with pytest.raises(RuleError, match="more than 511 bytes"):
        parse("read keys:" + "a" * 512)


def test_the_longest_pattern_decides() -> None:
    rules = rule_set(
        "read keys:app/*", "deny read keys:app/secret/*", "read keys:app/secret/public/*"
    )
    assert may(rules, Verb.READ, b"app/x")
    assert not may(rules, Verb.READ, b"app/secret/x")
    assert may(rules, Verb.READ, b"app/secret/public/x")
    assert not may(rules, Verb.READ, b"other")


def test_an_exact_pattern_goes_before_a_beginning_of_the_same_length() -> None:
    rules = rule_set("deny read keys:app*", "read keys:app")
    assert may(rules, Verb.READ, b"app")
    assert not may(rules, Verb.READ, b"apple")


def test_a_denial_goes_before_an_allowance_of_the_same_pattern() -> None:
    assert not may(rule_set("read keys:a*", "deny read keys:a*"), Verb.READ, b"ab")
    assert not may(rule_set("read keys:a", "deny all keys:a"), Verb.READ, b"a")


def test_a_rule_says_nothing_about_verbs_that_it_does_not_name() -> None:
    rules = rule_set("all keys:app/*", "deny delete keys:app/kept/*")
    assert may(rules, Verb.SET, b"app/kept/x")
    assert not may(rules, Verb.DELETE, b"app/kept/x")


def test_keys_and_locks_are_apart() -> None:
    rules = rule_set("all keys:a*", "read locks:b*")
    assert not rules.decide(Scope.LOCKS, Verb.READ, b"a").allowed
    assert rules.decide(Scope.LOCKS, Verb.READ, b"b").allowed
    assert not rules.decide(Scope.LOCKS, Verb.LOCK, b"b").allowed


def test_words_stand_for_several_verbs() -> None:
    rule = parse("write keys:a")
    assert isinstance(rule, Rule)
    assert rule.verbs == {Verb.SET, Verb.DELETE}
    assert parse("all locks:*") == parse("lock,read locks:*")


def test_every_key_can_be_named() -> None:
    assert parse("read keys:a%2A") == Rule(frozenset((Verb.READ,)), Scope.KEYS, b"a*", False)
    assert parse("read keys:a%20b%25%2a*") == Rule(
        frozenset((Verb.READ,)), Scope.KEYS, b"a b%*", True
    )
    assert parse("read keys:größe") == parse("read keys:gr%C3%B6%C3%9Fe")


def test_percent_signs_are_decoded_once() -> None:
    rule = parse("read keys:a%2541")
    assert isinstance(rule, Rule)
    assert rule.pattern == b"a%41"


def test_powers_are_bare_words() -> None:
    assert parse("admin") is Power.ADMIN
    assert rule_set("metrics", "read keys:a").powers == {Power.METRICS}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "is no rule"),
        ("read", "is no rule"),
        ("read  keys:a", "is no rule"),
        (" read keys:a", "is no rule"),
        ("read keys:a ", "is no rule"),
        ("read keys:a b", "is no rule"),
        ("allow read keys:a", "is no rule"),
        ("deny", "is no rule"),
        ("deny admin", "cannot be denied"),
        ("read app/*", "begins with 'keys:' or 'locks:'"),
        ("read key:app", "begins with 'keys:' or 'locks:'"),
        ("raed keys:a", "'raed' is nothing that is done with keys"),
        ("read, keys:a", "'' is nothing"),
        ("watch locks:a", "'watch' is nothing that is done with locks"),
        ("READ keys:a", "'READ' is nothing"),
        ("read keys:", "the pattern is empty"),
        ("read keys:a*b", "may only end a pattern"),
        ("read keys:**", "may only end a pattern"),
        ("read keys:100%", "two hexadecimal digits"),
        ("read keys:%zz", "two hexadecimal digits"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_sentence(line: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason):
        parse(line)


def test_a_token_has_at_most_two_hundred_rules() -> None:
    assert len(rule_set(*(f"read keys:{n}" for n in range(200))).in_order) == 200
    with pytest.raises(RuleError, match="at most 200 rules; these are 201"):
        rule_set(*(f"read keys:{n}" for n in range(201)))


def test_the_rule_that_decided_is_told_with_its_policy() -> None:
    rules = RuleSet([(parse("read keys:a*"), "readers"), (parse("deny read keys:ab*"), None)])
    allowed = rules.decide(Scope.KEYS, Verb.READ, b"ac")
    denied = rules.decide(Scope.KEYS, Verb.READ, b"abc")
    assert allowed.by is not None
    assert (str(allowed.by.rule), allowed.by.policy) == ("read keys:a*", "readers")
    assert denied.by is not None
    assert (str(denied.by.rule), denied.by.policy) == ("deny read keys:ab*", None)
    assert rules.decide(Scope.KEYS, Verb.READ, b"b").by is None


def test_the_rule_that_keeps_a_prefix_from_being_whole_is_told() -> None:
    rules = rule_set("read keys:a*", "deny read keys:a/secret")
    whole = rules.decide_whole(Scope.KEYS, Verb.READ, b"a/")
    assert whole.by is not None
    assert not whole.allowed
    assert str(whole.by.rule) == "deny read keys:a/secret"
    assert rules.decide_whole(Scope.KEYS, Verb.READ, b"a/b").allowed


# Few different bytes, so that patterns lie within one another and keys hit their edges.
_BYTES = st.lists(
    st.sampled_from([b"a", b"b", b"/", b"\0", b"\n", b"*", b"\xc3\xbc", b"\xff"]), max_size=5
)
_KEYS = _BYTES.map(b"".join)
_VERBS = st.sets(st.sampled_from([Verb.READ, Verb.SET]), min_size=1).map(frozenset)


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    pattern = draw(_KEYS)
    beginning = draw(st.booleans()) or not pattern
    return Rule(draw(_VERBS), Scope.KEYS, pattern, beginning, draw(st.booleans()))


_RULE_SETS = st.lists(_rules(), max_size=12).map(
    lambda rules: RuleSet((one, None) for one in rules)
)


def _edge_keys(rules: RuleSet) -> list[bytes]:
    patterns = [one.rule.pattern for one in rules.in_order]
    return [p + end for p in patterns for end in (b"", b"\0", b"a", b"z", b"\xff")]


@settings(max_examples=600, deadline=None)
@given(_RULE_SETS, st.lists(_KEYS, max_size=20))
def test_the_compiled_form_decides_as_the_definition_does(
    rules: RuleSet, keys: list[bytes]
) -> None:
    for verb in (Verb.READ, Verb.SET):
        permission = Permission(rules.naming(Scope.KEYS, verb))
        for key in keys + _edge_keys(rules):
            assert permission.allows(key) == rules.decide(Scope.KEYS, verb, key).allowed


@settings(max_examples=600, deadline=None)
@given(_RULE_SETS, st.lists(_KEYS, max_size=20), _KEYS)
def test_ranges_hold_exactly_the_allowed_keys_of_a_prefix(
    rules: RuleSet, keys: list[bytes], prefix: bytes
) -> None:
    ranges = Permission(rules.naming(Scope.KEYS, Verb.READ)).ranges(prefix)
    below = [key for key in keys + _edge_keys(rules) if key.startswith(prefix)]
    for key in below:
        inside = any(low <= key and (high is None or key < high) for low, high in ranges)
        assert inside == may(rules, Verb.READ, key)
    for (_, high), (low, _) in itertools.pairwise(ranges):
        assert high is not None
        assert high < low


@settings(max_examples=600, deadline=None)
@given(_RULE_SETS, _KEYS)
def test_a_prefix_is_whole_when_the_definition_says_so(rules: RuleSet, prefix: bytes) -> None:
    permission = Permission(rules.naming(Scope.KEYS, Verb.READ))
    assert (
        permission.allows_whole(prefix) == rules.decide_whole(Scope.KEYS, Verb.READ, prefix).allowed
    )


@settings(max_examples=300, deadline=None)
@given(_RULE_SETS, _KEYS)
def test_in_a_whole_prefix_every_key_is_allowed_and_in_any_other_one_is_not(
    rules: RuleSet, prefix: bytes
) -> None:
    keys = [prefix + end for end in (b"", b"fresh")]
    keys += [key + b"fresh" for key in _edge_keys(rules)] + _edge_keys(rules)
    below = [key for key in keys if key.startswith(prefix)]
    whole = rules.decide_whole(Scope.KEYS, Verb.READ, prefix).allowed
    assert whole == all(may(rules, Verb.READ, key) for key in below)


@settings(max_examples=300, deadline=None)
@given(_rules())
def test_a_rule_written_out_and_read_again_is_the_same(rule: Rule) -> None:
    assert parse(str(rule)) == rule


def test_where_everything_is_allowed_nothing_is_tested() -> None:
    assert (
        Permission(rule_set("all keys:*", "read keys:a*").naming(Scope.KEYS, Verb.READ)).test
        is None
    )


def test_nothing_is_allowed_without_a_rule() -> None:
    for scope, verb in DECISIONS:
        permission = Permission(RuleSet(()).naming(scope, verb))
        assert not permission.allows(b"a")
        assert permission.ranges(b"") == []


def test_two_hundred_nested_rules_make_a_short_expression() -> None:
    lines = [f"{'deny ' * (n % 2)}read keys:{'a' * (n + 1)}*" for n in range(200)]
    permission = Permission(rule_set(*lines).naming(Scope.KEYS, Verb.READ))
    assert permission.allows(b"a")
    assert not permission.allows(b"a" * 300)
    assert permission.allows(b"a" * 199)


@given(_KEYS)
def test_the_successor_is_behind_every_key_of_a_prefix(prefix: bytes) -> None:
    behind = successor(prefix)
    assert behind is None or prefix + b"\xff" * 600 < behind


def test_a_decision_and_its_source_compare_by_what_they_say() -> None:
    rule = parse("read keys:a")
    assert isinstance(rule, Rule)
    assert Sourced(rule, "p") in rule_set_of_policy("p", "read keys:a").in_order


def rule_set_of_policy(policy: str, *lines: str) -> RuleSet:
    return RuleSet((parse(line), policy) for line in lines)
