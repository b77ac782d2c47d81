"""What is said when the service is ready."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.server.banner import banner, facts
from keyrack.settings import Settings


class Store:
    """A store in a directory."""

    engine = "embedded"
    path = "/dev/shm/keyrack-x"
    memory = 64 << 20
    named = False


def greeted(url: str, **settings: Any) -> str:
    store: Any = Store()
    return banner(Settings(workers=2, **settings), store, [url])


def test_the_greeting_says_where_what_and_how_to_stop() -> None:
    text = greeted("http://127.0.0.1:8088")
    for said in ("http://127.0.0.1:8088\n", Store.path, "removed at the end", "64 MiB", "Ctrl-C"):
        assert said in text


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("http://0.0.0.0:80", "curl http://127.0.0.1:80/v1/keys/greeting\n"),
        ("http://[::]:80", "curl 'http://[::1]:80/v1/keys/greeting'\n"),
        ("https://a.example:80", "curl https://a.example:80/v1/keys/greeting\n"),
    ],
)
def test_the_first_command_can_be_typed_as_it_stands(url: str, command: str) -> None:
    assert command in greeted(url)


def test_the_first_command_for_a_unix_socket_names_it() -> None:
    text = greeted("unix:/run/a b", uds="/run/a b")
    assert "curl --unix-socket '/run/a b' http://localhost/v1/keys/greeting\n" in text


def test_the_log_gets_the_same_facts() -> None:
    store: Any = Store()
    found = facts(Settings(workers=2), store, ["http://127.0.0.1:8088"])
    assert found["event"] == "ready"
    assert (found["urls"], found["store"]) == (["http://127.0.0.1:8088"], Store.path)
    assert (found["memory"], found["workers"]) == (64 << 20, 2)
