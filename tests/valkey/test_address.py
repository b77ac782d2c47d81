"""What `--engine` may name, and that no password of it is ever shown."""

from __future__ import annotations

import pytest

from keyrack.engines.valkey.address import Address, parse, shown
from keyrack.settings import Settings, SettingsError, load


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("valkey://h", Address("single", False, (("h", 6379),))),
        ("valkey://h:1/p:q/", Address("single", False, (("h", 1),), b"p:q/")),
        ("valkeys://[::1]:7", Address("single", True, (("::1", 7),))),
        ("valkey-cluster://a,b:7", Address("cluster", False, (("a", 6379), ("b", 7)), shards=64)),
        ("valkey-cluster://a/?shards=1", Address("cluster", False, (("a", 6379),))),
        (
            "valkeys-sentinel://a,b/x?master=m",
            Address("sentinel", True, (("a", 26379), ("b", 26379)), b"x", master="m"),
        ),
        (
            "valkey://u%40x:p%3A%2F@h",
            Address("single", False, (("h", 6379),), user="u@x", password="p:/"),
        ),
    ],
)
def test_an_address_says_where_a_store_is(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "valkey:h",
        "valkey://",
        "valkey://a,b",
        "valkey://h:0",
        "valkey://h:65536",
        "valkey://h:x",
        "valkey://h/a{b}",
        "valkey://h/" + "x" * 65,
        "valkey://h?shards=2",
        "valkey-cluster://h?shards=0",
        "valkey-cluster://h?shards=1025",
        "valkey-sentinel://h",
        "valkey-sentinel://h?master=",
        "valkey://h#x",
    ],
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="is not embedded, or an address like valkey://"):
        load({"engine": url}, {})


def test_an_address_is_shown_without_its_password() -> None:
    assert shown(parse("valkeys://u:secret@h/p")) == "valkeys://h:6379/p"
    assert shown(parse("valkey-cluster://:secret@[::1]:7,b")) == (
        "valkey-cluster://[::1]:7,b:6379/"
    )


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        ({"engine": "valkey://u:secret@"}, {}),
        ({}, {"KEYRACK_ENGINE": "valkey://:secret@h:0"}),
        ({"engine_password": "secret\0"}, {}),
    ],
)
def test_no_message_shows_a_password(flags: dict[str, object], environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as raised:
        load(flags, environ)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"engine_cert": __file__}, "it needs --engine-key"),
        ({"engine_password": "x", "engine_password_file": __file__}, "not both"),
        ({"engine": "valkey://h", "takeover": "true"}, "start the new service beside the old one"),
        (
            {"engine": "valkey://h", "durability": "commit", "data_dir": "/d"},
            "What Valkey keeps on a disk is set there",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load(flags, {})


def test_the_embedded_engine_is_the_default() -> None:
    assert Settings().engine == "embedded"
