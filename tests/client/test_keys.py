"""Single keys, with every kind of client against a real service."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from client_support import client_of
from keyrack_server.server import ENGINE

from keyrack import UNCHANGED, Conflict, NotFound, Refused, TooLarge, Unreadable

if TYPE_CHECKING:
    from client_support import Asked, Where

    from keyrack import Client

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ("text ü", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        (b"\x00\xff", "application/octet-stream"),
        ({"a": [1, 2.5, None, True, "ü"], "b": {}}, "application/json"),
        ([1, [2]], "application/json"),
        (17, "application/json"),
        (True, "application/json"),
        (None, "application/json"),
        (1 << 70, "application/json"),
    ],
)
def test_a_value_comes_back_equal_and_of_its_type(
    client: Asked, key: str, value: Any, media_type: str
) -> None:
    etag = client.set(key, value)
    got = client.get(key, "default")
    assert got == value
    assert type(got) is type(value)
    stored = client.get_value(key)
    assert (stored.media_type, stored.etag, stored.ttl) == (media_type, etag, None)


@pytest.mark.parametrize(
    "value", [(1, 2), {1: 2}, {1, 2}, object(), [(1,)], {"a": {1: 2}}, float("nan")]
)
def test_a_value_that_would_not_come_back_equal_is_refused(sync: Client, value: Any) -> None:
    with pytest.raises(TypeError, match=r"\.$"):
        sync.set("refused", value)
    assert sync.get("refused") is None


def test_a_value_that_is_part_of_itself_is_refused(sync: Client) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError):
        sync.set("refused", value)


def test_a_missing_key_is_the_default(client: Asked, key: str) -> None:
    assert client.get(key) is None
    assert client.get(key, 5) == 5
    assert client.get_value(key) is None
    assert client.delete(key) is False


@pytest.mark.parametrize(
    "suffix", ["", "/", "//x", "/../y", " +%?#&=", "ü/☃", "\n\0", ".", "a" * 480]
)
def test_any_key_is_itself(client: Asked, key: str, suffix: str) -> None:
    name = key + suffix
    client.set(name, name)
    assert client.get(name) == name
    assert client.get(name.encode()) == name
    assert client.delete(name) is True


def test_what_can_be_no_key_gets_a_sentence(client: Asked) -> None:
    with pytest.raises(ValueError, match="at least one character"):
        client.get("")
    with pytest.raises(ValueError, match="surrogate"):
        client.get("\udcff")
    with pytest.raises(TypeError, match="not int"):
        client.get(5)
    with pytest.raises(Refused, match="511") as caught:
        client.set("a" * 512, "v")
    assert (caught.value.status, caught.value.kind) == (400, "bad-key")


def test_a_ttl_is_kept_to_the_millisecond(client: Asked, key: str) -> None:
    client.set(key, "v", ttl=0.15)
    assert 0 < client.get_value(key).ttl <= 0.15
    time.sleep(0.2)
    assert client.get(key) is None
    client.set(key, "v", ttl=60)
    assert 59 < client.get_value(key).ttl <= 60


def test_conditions_hold_or_are_a_conflict_with_the_etag(client: Asked, key: str) -> None:
    first = client.set(key, "1", if_none_match="*")
    with pytest.raises(Conflict) as caught:
        client.set(key, "2", if_none_match="*")
    assert caught.value.etag == first
    second = client.set(key, "2", if_match=first)
    assert client.set(key, "3", if_match=second.strip('"')) > second
    with pytest.raises(Conflict):
        client.delete(key, if_match=second)
    assert client.get(key) == "3"


def test_add_and_replace_say_by_none_that_they_did_nothing(client: Asked, key: str) -> None:
    assert client.replace(key, "1") is None
    assert client.add(key, "1") is not None
    assert client.add(key, "2") is None
    assert client.get(key) == "1"
    assert client.replace(key, "3", ttl=9) == client.get_value(key).etag


def test_an_unchanged_value_is_told_as_such(client: Asked, key: str) -> None:
    etag = client.set(key, "v")
    assert client.get_value(key, if_none_match=etag) is UNCHANGED
    assert client.get_value(key, if_none_match=etag, wait=1) is UNCHANGED
    assert client.get_value(key, if_none_match='"1"').data == b"v"


def test_a_patch_changes_members(client: Asked, key: str) -> None:
    client.set(key, {"a": 1, "b": 2})
    etag = client.patch(key, {"b": None, "c": 3})
    assert client.get(key) == {"a": 1, "c": 3}
    with pytest.raises(Conflict):
        client.patch(key, {"x": 1}, if_match='"1"')
    assert client.patch(key, {}, if_match=etag) >= etag
    with pytest.raises(NotFound):
        client.patch(key + "-missing", {})


def test_a_value_beyond_the_limit_says_the_limit(client: Asked, key: str) -> None:
    with pytest.raises(TooLarge) as caught:
        client.set(key, bytes((1 << 20) + 1))
    assert caught.value.limit == 1 << 20
    value = bytes(range(256)) * 4096
    client.set(key, value)
    assert client.get(key) == value


def test_a_prefix_is_put_before_keys(where: Where, sync: Client, key: str) -> None:
    with client_of(where, prefix=f"{key}/ü ") as inner:
        inner.set("a", "v")
        assert inner.get("a") == "v"
    assert sync.get(f"{key}/ü a") == "v"


def test_the_media_type_decides_and_not_the_bytes(sync: Client, key: str) -> None:
    sync.set(key, b'{"a":1}')
    assert sync.get(key) == b'{"a":1}'
    sync.set(key, '{"a":1}')
    assert sync.get(key) == '{"a":1}'
    sync.set(key, b"{", media_type="application/json")
    with pytest.raises(Unreadable, match="JSON"):
        sync.get(key)
    sync.set(key, b"\xff", media_type="text/plain; charset=latin-1")
    assert sync.get(key) == b"\xff"
    sync.set(key, b"[1]", media_type="Application/JSON; charset=utf-8")
    assert sync.get(key) == [1]


def test_what_is_exported_can_be_imported(client: Asked, key: str) -> None:
    client.set(f"{key}/1", "v")
    client.set(f"{key}/ü+", b"\xff", ttl=100)
    lines = b"".join(client.export(f"{key}/"))
    assert lines.count(b"\n") == 2
    for name in (f"{key}/1", f"{key}/ü+"):
        client.delete(name)
    report = client.import_lines([lines[:7], b"", lines[7:]])
    assert report == {"imported": 2, "failed": 0, "errors": [], "stopped": False}
    assert client.get(f"{key}/ü+") == b"\xff"


def test_an_import_can_be_told_to_stop_at_an_error(client: Asked, key: str) -> None:
    lines = [b"no json\n", json.dumps({"key": key, "value": "v"}).encode()]
    assert client.import_lines(iter(lines))["failed"] == 1
    client.delete(key)
    assert client.import_lines(lines, stop_on_error=True)["stopped"] is True
    assert client.get(key) is None


def test_the_service_tells_about_itself(client: Asked) -> None:
    assert client.info()["name"] == "keyrack"
    assert client.limits()


@pytest.mark.skipif(ENGINE == "commit", reason="this service takes snapshots")
def test_a_snapshot_that_is_not_to_be_had_is_a_refusal(client: Asked) -> None:
    with pytest.raises(Refused) as caught:
        list(client.snapshot())
    assert caught.value.kind == "no-snapshots"
