"""`keyrack token` on a file: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from keyrack.access import tokens
from keyrack.access.file import load
from keyrack.access.model import Rate, rotated
from keyrack.access.model import Token as Kept
from keyrack.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "auth.toml")


def created(path: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert run(["token", "create", "--file", path, *more]) == 0
    return capsys.readouterr().out.strip()


def test_a_new_token_is_printed_with_what_is_kept_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "new", "--hash"]) == 0
    text, token_id, digest = capsys.readouterr().out.splitlines()
    assert token_id == f'id = "{tokens.id_of(text)}"'
    assert digest == f'hash = "{tokens.digest(text)}"'


def test_a_token_is_made_in_a_file_and_shown_once(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = created(
        path, capsys, "--name", "dashboard", "--policy", "read-only", "--rule", "metrics",
        "--ttl", "90d", "--rate", "5/s", "--watches", "2", "--from", "10.0.0.0/8",
    )  # fmt: skip
    (kept,) = load(path).access.tokens
    assert kept.hash == tokens.digest(text)
    assert (kept.id, kept.name) == (tokens.id_of(text), "dashboard")
    assert (kept.policies, kept.rules) == (("read-only",), ("metrics",))
    assert (kept.rate, kept.watches, kept.sources) == (Rate(5, 5), 2, ("10.0.0.0/8",))
    assert kept.expires is not None
    assert kept.created is not None
    assert kept.expires - kept.created == 90 * 86_400
    with open(path) as opened:
        assert text[12:45] not in opened.read()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "Say what it may do"),
        (["--rule", "raed keys:a"], "'raed' is nothing"),
        (["--policy", "other"], "there is no policy 'other'"),
        (["--admin", "--ttl", "soon"], "'soon' is no time"),
        (["--admin", "--ttl", "0"], "the time must be above 0"),
        (["--admin", "--rate", "x"], "is no rate"),
        (["--admin", "--from", "here"], "is no network"),
        (["--admin", "--name", "a\nb"], "is no name"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_sentence(
    flags: list[str], sentence: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "create", "--file", path, *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_tokens_of_a_file_are_listed_and_shown(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = created(path, capsys, "--name", "ci", "--rule", "set keys:ci/*", "--rule", "read keys:*")
    token_id = tokens.id_of(text)
    assert run(["token", "list", "--file", path]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{token_id}  file    ci    -  ")
    assert run(["token", "list", "--file", path, "-o", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == ["set keys:ci/*", "read keys:*"]
    assert run(["token", "show", token_id, "--file", path]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  set keys:ci/*", "  read keys:*"]
    assert run(["token", "show", "AAAAAAAA", "--file", path]) == 1


def test_a_check_tells_the_rule_and_ends_with_what_it_says(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    token_id = tokens.id_of(created(path, capsys, "--rule", "read keys:app/*"))
    asked = ["token", "check", "--file", path, "--id", token_id]
    assert run([*asked, "read", "app/x"]) == 0
    assert capsys.readouterr().out == "allowed: read keys:app/*\n"
    assert run([*asked, "set", "app/x"]) == 1
    assert capsys.readouterr().out == "not allowed: no rule fits\n"
    assert run([*asked, "lock", "app/x"]) == 2
    assert run([*asked, "lock", "app/x", "--lock"]) == 1


def test_a_token_is_rotated_in_its_file(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = created(path, capsys, "--admin")
    token_id = tokens.id_of(text)
    assert run(["token", "rotate", token_id, "--file", path, "--overlap", "10m"]) == 0
    after = capsys.readouterr().out.strip()
    (kept,) = load(path).access.tokens
    assert tokens.id_of(after) == token_id
    assert (kept.hash, kept.hash_next) == (tokens.digest(text), tokens.digest(after))
    assert kept.not_after is not None
    assert run(["token", "rotate", token_id, "--file", path, "--overlap", "0"]) == 0
    last = capsys.readouterr().out.strip()
    (kept,) = load(path).access.tokens
    assert (kept.hash, kept.hash_next, kept.not_after) == (tokens.digest(last), None, None)


def test_of_three_texts_in_a_row_the_last_two_count() -> None:
    token = rotated(rotated(Kept("id", "one"), "two", 60, 100.0), "three", 60, 110.0)
    assert (token.hash, token.hash_next, token.not_after) == ("two", "three", 170.0)


def test_a_token_is_revoked_in_its_file(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    token_id = tokens.id_of(created(path, capsys, "--admin"))
    assert run(["token", "revoke", token_id, "--file", path]) == 0
    assert load(path).access.tokens == ()
    assert run(["token", "revoke", token_id, "--file", path]) == 2
    assert "has no section" in capsys.readouterr().err


def test_a_service_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "list", "--url", "http://127.0.0.1:1"]) == 3
    assert "No service answers" in capsys.readouterr().err
    assert run(["token", "list", "--url", "ftp://127.0.0.1"]) == 2


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--help"]) == 0
    commands = re.findall(r"^ {2}(\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert commands == ["new", "create", "list", "show", "revoke", "rotate", "check", "ticket"]
