"""Which service is asked and as whom: flags, variables, contexts."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def file(home: Path) -> Path:
    return home / ".config" / "keyrack" / "contexts.toml"


def add(keyrack: Keyrack, name: str, *flags: str) -> None:
    assert keyrack("context", "add", name, *flags).code == 0


def test_the_file_is_for_its_owner_alone(keyrack: Keyrack, file: Path) -> None:
    assert keyrack("context", "add", "a", "--url", NOBODY, "--token-stdin", stdin=b"s\n").code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "s" in file.read_text()
    assert '"token": "(hidden)"' in keyrack.out("context", "show", "-o", "json")
    file.chmod(0o640)
    for words in (["get", "a", "--context", "a"], ["context", "list"]):
        ended = keyrack(*words)
        assert ended.code == 2
        assert f"chmod 600 {file}" in ended.err


def test_a_flag_wins_over_a_variable_and_that_over_a_context(
    keyrack: Keyrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(keyrack, "nobody", "--url", NOBODY)
    add(keyrack, "here", "--url", keyrack.url)
    assert keyrack("info").code == 0, "the variable wins over the context that is used"
    assert keyrack("info", "--url", NOBODY).code == 3
    assert keyrack("info", "--context", "nobody").code == 3
    monkeypatch.delenv("KEYRACK_URL")
    assert keyrack("info").code == 3, "the first context is the one that is used"
    monkeypatch.setenv("KEYRACK_CONTEXT", "here")
    assert keyrack("info").code == 0
    monkeypatch.delenv("KEYRACK_CONTEXT")
    add(keyrack, "here", "--url", keyrack.url, "--use")
    assert keyrack("info").code == 0


def test_the_port_that_the_service_would_take_is_asked(
    keyrack: Keyrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEYRACK_URL")
    monkeypatch.setenv("KEYRACK_PORT", keyrack.url.rpartition(":")[2])
    monkeypatch.setenv("KEYRACK_HOST", "0.0.0.0")
    assert keyrack("health").code == 0
    assert keyrack("set", "a", "b").code == 0
    assert keyrack.out("get", "a") == "b"


def test_a_port_of_kubernetes_is_nobodys_setting(
    keyrack: Keyrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(keyrack, "here", "--url", keyrack.url)
    monkeypatch.delenv("KEYRACK_URL")
    monkeypatch.setenv("KEYRACK_PORT", "tcp://10.0.0.1:8088")
    assert keyrack("info").code == 0


def test_a_prefix_is_before_every_key_and_taken_off_again(keyrack: Keyrack) -> None:
    add(keyrack, "team", "--url", keyrack.url, "--prefix", "team/")
    assert keyrack("set", "a/b", "v", "--context", "team").code == 0
    keyrack.out("set", "other", "x")
    assert keyrack.out("get", "team/a/b") == "v"
    for words in (["ls", "-r"], ["find"]):
        assert keyrack.out(*words, "--context", "team") == "a/b\n"
    assert json.loads(keyrack.out("replay", "--context", "team", "-o", "json"))[-1]["key"] == "a/b"
    assert "a/" in keyrack.out("tree", "--context", "team")
    assert keyrack("del", "--all", "--yes", "--context", "team").code == 0
    assert keyrack.out("ls", "-r") == "other\n"


WRITING = [
    ("set", "a", "b"),
    ("del", "a"),
    ("touch", "a", "--persist"),
    ("patch", "a", "{}"),
    ("incr", "a"),
    ("batch", "ops"),
    ("import", "lines"),
    ("copy", "lines", "@prod"),
    ("lock", "a"),
    ("unlock", "a", "--force"),
    ("token", "create", "--admin"),
    ("token", "revoke", "a"),
    ("verify",),
    ("bench",),
]


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_a_context_for_reading_refuses_what_writes(
    keyrack: Keyrack, home: Path, words: tuple[str, ...]
) -> None:
    (home / "ops").write_text("[]")
    (home / "lines").write_text("")
    add(keyrack, "prod", "--url", keyrack.url, "--read-only")
    ended = keyrack(*words, "--context", "prod")
    assert ended.code == 4, ended
    assert "for reading only" in ended.err
    assert keyrack("ls", "--context", "prod").code == 0


def test_the_token_of_a_context_goes_to_its_own_service_only(
    keyrack: Keyrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keyrack.cli import parsing, target
    from keyrack.cli.spec import Command

    add(keyrack, "a", "--url", NOBODY, "--token-command", "echo secret")
    monkeypatch.delenv("KEYRACK_URL")
    given = parsing.parse(Command(""), [])
    assert target.target_of(given).token == "secret"
    given = parsing.parse(Command(""), ["--url", NOBODY])
    assert target.target_of(given).token == ""
    monkeypatch.setenv("KEYRACK_TOKEN", "mine")
    assert target.target_of(given).token == "mine"


def test_a_token_in_the_arguments_is_warned_of(keyrack: Keyrack) -> None:
    ended = keyrack("info", "--token", "krk_x")
    assert ended.code == 0
    assert "others on this machine can see --token in `ps`" in ended.err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("current = 1", "nothing else"),
        ("[context.a]\nurll = ''", "has no 'urll'"),
        ("[context.a]\nurl = 1", "has the wrong type"),
        ("[context", "is no TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_what_is_wrong(
    keyrack: Keyrack, file: Path, text: str, sentence: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    file.chmod(0o600)
    ended = keyrack("context", "list")
    assert ended.code == 2
    assert sentence in ended.err


def test_names_and_values_of_any_kind_are_kept(keyrack: Keyrack) -> None:
    name = 'a "b"\\\n\x7fü'
    add(keyrack, name, "--uds", "/run/ü\t.sock", "--prefix", "'\"")
    found = json.loads(keyrack.out("context", "show", name, "-o", "json"))
    assert (found["name"], found["uds"], found["prefix"]) == (name, "/run/ü\t.sock", "'\"")
