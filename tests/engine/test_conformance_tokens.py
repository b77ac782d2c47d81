"""Who may log in is kept beside what users store, and is no part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.engines.contract import (
    ANY,
    MAX_ADMIN_BYTES,
    Condition,
    Delete,
    Refusal,
    Set,
    Space,
    Why,
)

if TYPE_CHECKING:
    from engine_support.world import World


def token(key: bytes, value: bytes = b"{}", **more: object) -> Set:
    return Set(b"{auth}" + key, value, space=Space.ADMIN, **more)  # type: ignore[arg-type]  # its fields


def tokens(world: World) -> dict[bytes, bytes]:
    return world.engine.all_of(Space.ADMIN)


def test_tokens_are_set_replaced_and_removed(world: World) -> None:
    assert tokens(world) == {}
    world.engine.write([(token(b"a", b"1"), token(b"b", b"2"))])
    world.engine.write([(token(b"a", b"3"),)])
    assert tokens(world) == {b"{auth}a": b"3", b"{auth}b": b"2"}
    world.engine.write([(Delete(b"{auth}a", space=Space.ADMIN),)])
    assert tokens(world) == {b"{auth}b": b"2"}


def test_a_token_is_made_only_if_there_is_none(world: World) -> None:
    free = Condition(none_match=ANY)
    (made,) = world.engine.write([(token(b"a", condition=free),)])
    (again,) = world.engine.write([(token(b"a", condition=free),)])
    assert not isinstance(made, Refusal)
    assert isinstance(again, Refusal)


def test_tokens_are_no_keys_and_have_no_events(world: World) -> None:
    world.engine.write([(Set(b"key", b"v"),)])
    before = world.engine.usage()
    world.engine.write([(token(b"a"), token(b"b"))])
    after = world.engine.usage()
    assert (after.keys, after.keys_with_ttl, after.events) == (1, 0, before.events)
    assert [key for key, _ in world.engine.scan().entries] == [b"key"]
    assert world.engine.get(b"{auth}a") is None
    assert [event.key for event in world.engine.events_after(0, 100)].count(b"{auth}a") == 0


def test_tokens_outlive_a_restart(world: World) -> None:
    longest = b"x" * MAX_ADMIN_BYTES
    world.engine.write([(token(b"a", longest), token(b"b"))])
    world.restart()
    assert tokens(world) == {b"{auth}a": longest, b"{auth}b": b"{}"}


def test_a_write_of_tokens_is_all_or_none(world: World) -> None:
    taken = Condition(match=ANY)
    (refused,) = world.engine.write([(token(b"a"), token(b"b", condition=taken))])
    assert isinstance(refused, Refusal)
    assert tokens(world) == {}


def test_of_two_who_replace_the_same_token_one_is_refused(world: World) -> None:
    """A token is kept under another key after each change; see `http.access_control`."""

    def change(to: bytes) -> tuple[Delete | Set, ...]:
        there = Condition(match=ANY)
        free = Condition(none_match=ANY)
        return (Delete(b"{auth}t", there, Space.ADMIN), token(b"t.1", to, condition=free))

    world.engine.write([(token(b"t", b"0"),)])
    first, second = world.engine.write([change(b"a"), change(b"b")])
    assert not isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    assert second.why is Why.CONDITION
    assert tokens(world) == {b"{auth}t.1": b"a"}
