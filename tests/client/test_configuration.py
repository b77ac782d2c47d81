"""What a client is told: addresses, options, serializers."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import time
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from client_support import asked
from keyrack_server.server import clean_environment

import keyrack
from keyrack import Client, Json, KeyrackError, Msgspec, Raw, SignedPickle, Unreadable
from keyrack.client.address import address, options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = b"sixteen bytes or more"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("keyrack://h", {"url": "http://h:8088"}),
        ("keyrack://h:1/a/b", {"url": "http://h:1", "prefix": "a/b"}),
        ("keyracks://krk_t@h:1", {"url": "https://h:1", "token": "krk_t"}),
        ("https://h", {"url": "https://h:443"}),
        ("http://user:krk_t@[::1]:5", {"url": "http://[::1]:5", "token": "krk_t"}),
        ("keyrack+unix:///run/k%20.sock?prefix=x", {"uds": "/run/k .sock", "prefix": "x"}),
        (
            "keyrack://h?timeout=2.5&retries=0&max_connections=3&connect_timeout=1&token=t",
            {
                "url": "http://h:8088",
                "timeout": 2.5,
                "retries": 0,
                "max_connections": 3,
                "connect_timeout": 1.0,
                "token": "t",
            },
        ),
    ],
)
def test_a_url_of_one_piece_says_everything(url: str, expected: dict[str, Any]) -> None:
    assert options_of(url) == expected


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://h", "not a URL like keyrack://"),
        ("keyrack://", "not a URL like keyrack://"),
        ("keyrack+unix://h", "names no socket"),
        ("keyrack+unix:///", "names no socket"),
        ("keyrack://h:x", "port"),
        ("keyrack://h?timeout=soon", "no number"),
        ("keyrack://h?speed=9", "no option"),
    ],
)
def test_a_url_that_cannot_be_gets_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        keyrack.from_url(url)


@pytest.mark.parametrize(
    "url", ["h:1", "ftp://h", "http://", "http://h:x", "http://t@h", "http://h?x=1", "http://h#x"]
)
def test_an_address_that_cannot_be_gets_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Client(url)


def test_addresses_name_their_host() -> None:
    assert address("http://h").authority == "h:80"
    assert address("http://[::1]:5/").authority == "[::1]:5"
    assert address("https://bücher.example:5").authority == "xn--bcher-kva.example:5"
    assert address("http://h/kv/", "/run/s").authority == "localhost"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("inf")},
        {"connect_timeout": -1},
        {"max_connections": 0},
        {"retries": -1},
        {"serializer": "pickle"},
        {"token": "two\r\nlines"},
    ],
)
def test_an_option_that_cannot_be_gets_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Client("http://h", **options)


def test_the_environment_says_where_the_service_is(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("KEYRACK_URL", url)
    with Client() as client:
        assert client.info()["name"] == "keyrack"


def test_from_url_makes_a_client(url: str, key: str) -> None:
    with keyrack.from_url(f"{url}/inner?timeout=5".replace("http:", "keyrack:")) as client:
        client.set(key, "v")
    with Client(url) as client:
        assert client.get(f"inner{key}") == "v"


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = str(tmp_path_factory.mktemp("unix") / "k.sock")
    command = [sys.executable, "-m", "keyrack", "serve", "--uds", path, "--memory", "32m"]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL) as process:
        with Client(uds=path, retries=0) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(KeyrackError):
                    client.info()
                    break
                time.sleep(0.05)
        yield path
        process.terminate()


def test_a_unix_socket_is_as_good_as_a_port(socket_path: str, kind: str) -> None:
    with asked(kind, uds=socket_path) as client:
        client.set("a", "v")
        assert client.get("a") == "v"


# Serializers


class Order(msgspec.Struct):
    number: int
    lines: list[str]


def test_typed_values_are_checked_when_they_are_read(url: str, key: str) -> None:
    with Client(url, serializer=Msgspec(Order)) as orders, Client(url) as plain:
        orders.set(key, Order(7, ["a"]))
        assert orders.get(key) == Order(7, ["a"])
        assert plain.get(key) == {"number": 7, "lines": ["a"]}
        plain.set(key, {"number": "seven"})
        with pytest.raises(Unreadable, match="Order"):
            orders.get(key)
        plain.set(key, "text")
        with pytest.raises(Unreadable, match="not JSON"):
            orders.get(key)


def test_json_takes_help_for_what_it_has_not(url: str, key: str) -> None:
    with Client(url, serializer=Json(default=str)) as client:
        client.set(key, {"day": date(2026, 11, 30), "pair": (1, 2)})
        assert client.get(key) == {"day": "2026-11-30", "pair": [1, 2]}
    with Client(url, serializer=Json()) as client, pytest.raises(TypeError):
        client.set(key, date(2026, 11, 30))


def test_raw_leaves_the_media_type_to_the_server(url: str, key: str) -> None:
    with Client(url, serializer=Raw()) as client:
        client.set(key, b"text")
        assert client.get_value(key)[:2] == (b"text", "text/plain; charset=utf-8")
        client.set(key, b"\xff")
        assert client.get_value(key)[:2] == (b"\xff", "application/octet-stream")
        assert client.get(key) == b"\xff"
        with pytest.raises(TypeError, match="not int"):
            client.set(key, 5)


def test_a_signed_pickle_comes_back_only_from_its_own_key_and_secret(url: str, key: str) -> None:
    value = {1: (date(2026, 11, 30), {2, 3})}
    with Client(url, serializer=SignedPickle(SECRET)) as client, Client(url) as plain:
        client.set(key, value)
        assert client.get(key) == value
        stored = plain.get_value(key)
        assert stored is not None
        plain.set(key + "x", stored.data, media_type=stored.media_type)
        with pytest.raises(Unreadable, match="signature"):
            client.get(key + "x")
        broken = stored.data[:-1] + bytes([stored.data[-1] ^ 1])
        plain.set(key, broken, media_type=stored.media_type)
        with pytest.raises(Unreadable, match="signature"):
            client.get(key)
        plain.set(key, "not signed, not pickled")
        assert client.get(key) == "not signed, not pickled"
        forged = pickle.dumps(value)
        for data in (forged, bytes(32) + forged, b""):
            plain.set(key, data, media_type=stored.media_type)
            with pytest.raises(Unreadable, match="signature"):
                client.get(key)


def test_an_earlier_secret_is_good_for_reading(url: str, key: str) -> None:
    with Client(url, serializer=SignedPickle(SECRET)) as old:
        old.set(key, {1, 2})
    with Client(url, serializer=SignedPickle("a newer secret, longer", [SECRET])) as new:
        assert new.get(key) == {1, 2}
    with (
        Client(url, serializer=SignedPickle("a newer secret, longer")) as other,
        pytest.raises(Unreadable),
    ):
        other.get(key)


def test_a_key_cannot_lend_bytes_to_the_pickle_behind_it() -> None:
    signed = SignedPickle(SECRET)
    data, media_type = signed.dumps("v", b"key1")
    for key in (b"key", b"key11", b"1key", b""):
        with pytest.raises(Unreadable):
            signed.loads(data, media_type, key)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        SignedPickle("short")
