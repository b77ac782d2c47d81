"""What is seen on a terminal: questions, colours, progress, and what Ctrl-C does."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from cli_support.running import environment
from cli_support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack

ESCAPE = "\x1b["


@pytest.fixture
def environ(keyrack: Keyrack, home: Path) -> dict[str, str]:
    return environment(keyrack.url, home)


def seen(environ: dict[str, str], *arguments: str) -> str:
    with Terminal(environ, *arguments) as terminal:
        assert terminal.ended() == 0, terminal.seen
        return terminal.seen


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, "0"), ("n", 1, "2"), ("", 1, "2")])
def test_the_removal_of_a_prefix_is_asked_for(
    keyrack: Keyrack, environ: dict[str, str], answer: str, code: int, left: str
) -> None:
    keyrack.out("set", "old/1", "x")
    keyrack.out("set", "old/2", "x")
    with Terminal(environ, "del", "--prefix", "old/") as terminal:
        shown = terminal.until(r"Remove 2 keys\? \[y/N\] ")
        assert "2 keys begin with 'old/': old/1, old/2" in shown
        terminal.type(f"{answer}\n")
        assert terminal.ended() == code
    assert keyrack.out("ls", "old/", "--count") == f"{left}\n"


def test_a_context_that_is_marked_red_is_named_in_red(
    keyrack: Keyrack, environ: dict[str, str]
) -> None:
    keyrack.out("set", "old/1", "x")
    keyrack.out("context", "add", "prod", "--url", keyrack.url, "--red")
    del environ["KEYRACK_URL"]
    with Terminal(environ, "del", "--prefix", "old/") as terminal:
        terminal.until(re.escape(f"{ESCAPE}31m[prod] {ESCAPE}0mRemove 1 key?"))
        terminal.type("n\n")
        assert terminal.ended() == 1


def test_ctrl_c_at_a_question_removes_nothing(keyrack: Keyrack, environ: dict[str, str]) -> None:
    keyrack.out("set", "old/1", "x")
    with Terminal(environ, "del", "--prefix", "old/") as terminal:
        terminal.until(r"\[y/N\] ")
        terminal.interrupt()
        assert terminal.ended() == 130
        assert "Traceback" not in terminal.seen
    assert keyrack.out("get", "old/1") == "x"


def test_a_text_ends_its_line_and_bytes_are_refused(
    keyrack: Keyrack, environ: dict[str, str]
) -> None:
    keyrack.out("set", "text", "hello")
    keyrack.out("set", "image", "-", "--type", "image/png", stdin=b"\x89PNG")
    keyrack.out("set", "evil", "\x1b]0;owned\x07")
    assert seen(environ, "get", "text") == "hello\r\n"
    assert seen(environ, "get", "image", "-o", "hex").startswith("00000000  89 50 4e 47")
    for key, size in (("image", 4), ("evil", 10)):
        with Terminal(environ, "get", key) as terminal:
            assert terminal.ended() == 2
        assert re.search(rf"{size} bytes of \S+.*; use `-o hex`, or redirect", terminal.seen)
        assert "\x1b" not in terminal.seen


def test_lists_are_coloured_unless_somebody_does_not_want_it(
    keyrack: Keyrack, environ: dict[str, str]
) -> None:
    keyrack.out("set", "a/b", "x")
    assert ESCAPE in seen(environ, "ls", "-rl")
    assert ESCAPE not in seen({**environ, "NO_COLOR": "1"}, "ls", "-rl")
    assert ESCAPE not in seen(environ, "ls", "-rl", "--color", "never")
    assert ESCAPE not in keyrack.out("ls", "-rl")
    assert ESCAPE in keyrack.out("ls", "-rl", "--color", "always")


def test_a_key_cannot_drive_the_terminal(keyrack: Keyrack, environ: dict[str, str]) -> None:
    keyrack.out("set", "--", "evil\x1b[31m\x07\u202e", "x")
    for arguments in (("ls",), ("ls", "-l"), ("tree",), ("find",), ("ls", "-o", "json")):
        shown = seen({**environ, "NO_COLOR": "1"}, *arguments)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown), arguments


def test_progress_is_shown_on_a_terminal_only(
    keyrack: Keyrack, environ: dict[str, str], home: Path
) -> None:
    keyrack.out("set", "a", "x")
    assert "exported 1 keys" in seen(environ, "export", str(home / "out"))
    assert "100%" in seen(environ, "import", str(home / "out"))
    quiet = keyrack("export", "again")
    assert quiet.err == ""
    assert "exported 1 keys" in keyrack("export", "again", "--progress").err


def test_ctrl_c_ends_a_watch_without_a_word(keyrack: Keyrack, environ: dict[str, str]) -> None:
    with Terminal(environ, "watch") as terminal:
        time.sleep(0.5)  # what it does then does not matter
        for number in range(100):
            keyrack.out("set", f"k{number}", "x")
            if "set" in terminal.seen or terminal._more(0.2):
                break
        terminal.until("k[0-9]")
        terminal.interrupt()
        assert terminal.ended() == 130
        assert "Traceback" not in terminal.seen


def test_top_fills_the_screen_and_gives_it_back(keyrack: Keyrack, environ: dict[str, str]) -> None:
    with Terminal(environ, "top", "-d", "100ms") as terminal:
        terminal.until("OPERATION")
        terminal.type("h")
        terminal.until("KEY +A SECOND")
        terminal.type("q")
        assert terminal.ended() == 0
        assert terminal.seen.startswith("\x1b[?1049h")
        assert terminal.seen.endswith("\x1b[?25h\x1b[?1049l")
    with Terminal(environ, "top", "-d", "100ms") as terminal:
        terminal.until("OPERATION")
        terminal.interrupt()
        assert terminal.ended() == 130
        assert terminal.seen.endswith("\x1b[?25h\x1b[?1049l")


def test_ctrl_c_goes_to_the_program_that_holds_the_lock(
    keyrack: Keyrack, environ: dict[str, str]
) -> None:
    program = "trap 'echo heard; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    with Terminal(environ, "lock", "l", "--", "sh", "-c", program) as terminal:
        terminal.until("ready")
        terminal.interrupt()
        assert terminal.ended() == 7
        assert "heard" in terminal.seen
    assert keyrack.out("locks") == "", "and the lock was given back"
