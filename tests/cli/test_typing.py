"""What is typed: flags anywhere, times, sizes, typos, conditions, exit codes."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server

from keyrack.access import tokens
from keyrack.cli import kinds, table

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack


def test_flags_go_anywhere(keyrack: Keyrack) -> None:
    words = ["key", "value", "--ttl 5m", "--type text/x"]
    for order in itertools.permutations(words):
        typed = [word for part in order for word in part.split()]
        keys_first = typed.index("key") < typed.index("value")
        assert keyrack("set", *typed).code == 0, typed
        key, value = ("key", "value") if keys_first else ("value", "key")
        found = json.loads(keyrack.out("get", key, "-o", "json"))
        assert (found["value"], found["type"]) == (value, "text/x")
        assert 100 < found["ttl"] <= 300
        keyrack.out("del", key)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("500ms", 0.5), ("90s", 90), ("1h30m", 5400), ("2d", 172_800)],
)
def test_times_are_seconds_or_carry_units(text: str, seconds: float) -> None:
    assert kinds.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "x", "5 m", "1e3", "m", "nan", "inf", "20000d"])
def test_what_is_no_time_is_told_with_what_is(keyrack: Keyrack, text: str) -> None:
    ended = keyrack("set", "a", "b", f"--ttl={text}")
    assert ended.code == 2
    assert "--ttl: " in ended.err
    assert "5m" in ended.err or "ten years" in ended.err
    assert keyrack("get", "a").code == 1


@pytest.mark.parametrize("text", ["0", "0s", "-1", "x"])
def test_a_time_out_of_nothing_is_a_sentence(keyrack: Keyrack, text: str) -> None:
    ended = keyrack("get", "a", f"--timeout={text}")
    assert ended.code == 2
    assert ended.err.startswith("keyrack: --timeout: ")
    assert "Errno" not in ended.err


@pytest.mark.parametrize(
    ("text", "size"), [("10", 10), ("1k", 1024), ("1.5g", 3 << 29), ("512MiB", 512 << 20)]
)
def test_sizes_are_bytes_or_carry_units(text: str, size: int) -> None:
    assert kinds.size(text) == size


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lst", "ls"),
        ("wach a", "watch"),
        ("ls --recursiv", "--recursive"),
        ("context lst", "list"),
        ("del --prefx a", "--prefix"),
        ("help exprt", "export"),
    ],
)
def test_a_typo_gets_a_proposal(keyrack: Keyrack, typed: str, meant: str) -> None:
    ended = keyrack(*typed.split())
    assert ended.code == 2
    assert f"(is {meant} meant?)" in ended.err


@pytest.mark.parametrize("verb", [verb for verb in table.VERBS if verb not in table.RAW])
def test_a_flag_that_is_none_is_refused_by_every_verb(keyrack: Keyrack, verb: str) -> None:
    ended = keyrack(*verb.split(), "--frobnicate")
    assert ended.code == 2
    assert "--frobnicate is no flag of this command" in ended.err


def test_conditions_decide_whether_a_key_is_removed(keyrack: Keyrack) -> None:
    etag = keyrack.out("set", "a", "1", "-v").strip().strip('"')
    keyrack.out("set", "a", "2")
    assert keyrack("del", "a", "--if-match", etag).code == 1
    assert keyrack.out("get", "a") == "2"
    now = json.loads(keyrack.out("head", "a", "-o", "json"))["etag"]
    assert keyrack("del", "a", "--if-match", now.strip('"')).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["del"],
        ["del", "a", "--prefix", "a"],
        ["del", "--prefix", "", "--yes"],
        ["del", "--prefix", "a", "--if-match", "1"],
        ["set", "a", "b", "--add", "--replace"],
        ["set", "a", "@none"],
        ["touch", "a"],
        ["touch", "a", "--ttl", "1", "--persist"],
        ["wait", "a", "--gone", "--exists"],
        ["wait", "a", "--etag", "1"],
        ["incr", "a", "x"],
        ["incr", "a", "9223372036854775808"],
        ["ls", "--limit", "0"],
        ["diff", "1h", "."],
        ["replay", "--from", "tomorrow"],
        ["lock"],
        ["lock", "a", "true"],
        ["unlock", "a"],
        ["run", "a"],
        ["render"],
        ["render", "none"],
        ["copy", "a"],
        ["export", "--resume"],
        ["import", "--resume"],
        ["batch", "none"],
        ["completion", "tcsh"],
        ["get", "a", "-o", "yaml"],
        ["get", "a", "--color", "blue"],
        ["get", "a", "--ca", "none", "--url", "https://127.0.0.1:1"],
        ["get", "a", "--token-file", "none"],
        ["get", "a", "--context", "none"],
        ["get", ""],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_exit_code_2_and_one_sentence(
    keyrack: Keyrack, words: list[str]
) -> None:
    ended = keyrack(*words)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith("keyrack: ")
    assert ended.err.count("\n") == 1


def test_rights_are_exit_code_4(home: Path) -> None:
    from cli_support import Keyrack

    with Server(environ={"KEYRACK_TOKEN": tokens.new().text}) as server:
        url = f"http://127.0.0.1:{server.port}"
        for words in (["get", "a"], ["head", "a"], ["ls"], ["info"], ["token", "list"]):
            ended = Keyrack(url)(*words, "--url", url)
            assert ended.code == 4, (words, ended)
        assert "--token-file" in ended.err


def test_a_wait_ends_with_what_it_waits_for(keyrack: Keyrack) -> None:
    def later() -> None:
        time.sleep(0.3)
        keyrack_server_set(keyrack)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        ended = keyrack("wait", "ready", "--timeout", "60s", "-o", "json")
    finally:
        thread.join()
    assert ended.code == 0
    assert json.loads(ended.out)["key"] == "ready"
    assert keyrack("wait", "ready", "--gone", "--timeout", "100ms").code == 124


def keyrack_server_set(keyrack: Keyrack) -> None:
    """Store it from beside: the streams of this process are the command's now."""
    from keyrack.client import Client

    with Client(keyrack.url) as client:
        client.set("ready", "yes")
