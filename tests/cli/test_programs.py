"""`run`, `render`, `watch --exec` and `lock` while keys change."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cli_support.running import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_support import Keyrack
    from keyrack_server import Server

PATIENCE_SECONDS = 60.0


@contextlib.contextmanager
def running(keyrack: Keyrack, home: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a verb beside the test; end it when the test has not."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keyrack", *words],
        env=environment(keyrack.url, home),
        cwd=home,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Its program is in its process group, and would stay.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def eventually(path: Path, text: str) -> None:
    """Wait until a file holds this."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, path.read_text() if path.exists() else "no file"
        time.sleep(0.02)


PROGRAM = 'echo "$NAME" > got; exec sleep 1000'


def test_a_program_is_started_again_when_its_environment_changes(
    keyrack: Keyrack, home: Path
) -> None:
    keyrack.out("set", "app/name", "one")
    with running(keyrack, home, "run", "app/", "--", "sh", "-c", PROGRAM) as process:
        eventually(home / "got", "one\n")
        keyrack.out("set", "app/name", "two")
        eventually(home / "got", "two\n")
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM


def test_a_program_can_be_told_by_a_signal_instead(keyrack: Keyrack, home: Path) -> None:
    keyrack.out("set", "app/name", "one")
    program = "trap 'echo heard > got' HUP; echo ready > got; while :; do sleep 0.05; done"
    flags = ("--signal", "HUP", "--", "sh", "-c", program)
    with running(keyrack, home, "run", "app/", *flags):
        eventually(home / "got", "ready\n")
        keyrack.out("set", "app/name", "two")
        eventually(home / "got", "heard\n")


def test_the_exit_code_is_that_of_the_program(keyrack: Keyrack) -> None:
    assert keyrack("run", "app/", "--", "sh", "-c", "exit 9").code == 9
    assert keyrack("lock", "l", "--", "sh", "-c", "exit 9").code == 9
    assert keyrack("lock", "l", "--", "sh", "-c", "kill -9 $$").code == 137
    assert keyrack("run", "app/", "--", "/etc").code == 126
    assert keyrack.out("locks") == ""


def test_each_holder_of_a_lock_has_a_higher_token(keyrack: Keyrack, home: Path) -> None:
    for name in ("first", "second"):
        program = f"echo $KEYRACK_TOKEN_FENCE > {name}"
        assert keyrack("lock", "l", "--", "sh", "-c", program).code == 0
    first, second = (int((home / name).read_text()) for name in ("first", "second"))
    assert first < second


def test_only_one_at_a_time_holds_a_lock(keyrack: Keyrack, home: Path) -> None:
    """Each takes the one number for itself, waits, and puts the next one back."""
    (home / "number").write_text("0")
    program = "n=$(cat number); sleep 0.1; echo $((n + 1)) > number"
    words = [sys.executable, "-m", "keyrack", "lock", "l", "--", "sh", "-c", program]
    environ = environment(keyrack.url, home)
    processes = [subprocess.Popen(words, env=environ, cwd=home) for _ in range(4)]
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0] * 4
    assert (home / "number").read_text() == "4\n"


def test_a_lock_is_given_back_when_its_holder_is_told_to_end(keyrack: Keyrack, home: Path) -> None:
    program = "echo ready > got; exec sleep 1000"
    with running(keyrack, home, "lock", "l", "--", "sh", "-c", program) as process:
        eventually(home / "got", "ready\n")
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert keyrack.out("locks") == ""


def test_a_file_is_written_again_when_a_key_changes_and_a_command_run(
    keyrack: Keyrack, home: Path
) -> None:
    keyrack.out("set", "name", "one")
    (home / "in").write_text("name=${name}\n")
    words = ("render", "in:out", "--watch", "--exec", "cat out >> log")
    with running(keyrack, home, *words):
        eventually(home / "out", "name=one\n")
        keyrack.out("set", "other", "x")
        keyrack.out("set", "name", "two")
        eventually(home / "log", "name=one\nname=two\n")


def test_a_file_keeps_its_mode_and_is_never_seen_half(keyrack: Keyrack, home: Path) -> None:
    keyrack.out("set", "name", "x" * 10)
    (home / "in").write_text("${name}")
    assert keyrack("render", "in:out", "--mode", "600").code == 0
    assert (home / "out").stat().st_mode & 0o777 == 0o600
    (home / "out").chmod(0o640)
    keyrack.out("set", "name", "y")
    before = (home / "out").stat().st_ino
    assert keyrack("render", "in:out").code == 0
    assert (home / "out").stat().st_mode & 0o777 == 0o640
    assert (home / "out").stat().st_ino != before, "another file takes its name"
    (home / "in2").write_text("${gone}")
    assert keyrack("render", "in:out", "in2:out2").code == 1
    assert (home / "out").read_text() == "y"
    assert (
        sorted(os.listdir(home)) == [".config", "in", "in2", "out"] or not (home / "out2").exists()
    )


def test_a_template_of_jinja_is_refused_where_jinja_is_not(keyrack: Keyrack, home: Path) -> None:
    try:
        import jinja2  # noqa: F401 - whether it is there
    except ImportError:
        pass
    else:
        pytest.skip("Jinja is installed here")
    (home / "a.j2").write_text("{{ key('a') }}")
    ended = keyrack("render", "a.j2")
    assert ended.code == 2
    assert "not installed" in ended.err


def test_a_command_runs_for_each_change_with_its_value(keyrack: Keyrack, home: Path) -> None:
    since = keyrack.out("set", "mark", "x", "-v").strip().strip('"')
    keyrack.out("set", "a", "one")
    keyrack.out("del", "a")
    command = 'printf "%s %s %s\n" $KEYRACK_EVENT $KEYRACK_KEY "$(cat)" >> log'
    words = ("watch", "a", "--since", since, "--values", "--limit", "2", "--exec", command)
    assert keyrack(*words).code == 0
    lines = (home / "log").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["set", "a"], ["delete", "a"]]


def test_a_watch_of_what_is_forgotten_says_so(keyrack: Keyrack) -> None:
    ended = keyrack("watch", "--since", "1", "--limit", "1")
    assert ended.code == 1
    assert "history" in ended.err


def test_values_of_a_watch_are_exact(keyrack: Keyrack) -> None:
    since = keyrack.out("set", "mark", "x", "-v").strip().strip('"')
    keyrack("set", "a", stdin=b"\xff\x00")
    words = ("watch", "a", "--since", since, "--values", "--limit", "1", "-o", "json")
    found = json.loads(keyrack.out(*words))
    assert (found["encoding"], found["value"]) == ("base64", "/wA=")


def test_a_write_names_the_lock_that_it_depends_on(
    keyrack: Keyrack, server: Server, home: Path
) -> None:
    fence = json.dumps({"keys": "jobs/*", "lock": "jobs"}).encode()
    json_type = {"Content_Type": "application/json"}
    assert server.ask("PUT", "/v1/fences/jobs", fence, **json_type).status == 201
    try:
        ended = keyrack("set", "jobs/n", "1")
        assert (ended.code, "needs the lock" in ended.err) == (2, True)
        token = keyrack.out("lock", "jobs").strip()
        held = ("--lock", f"jobs:{token}")
        (home / "lines").write_text('{"key":"jobs/i","value":"v"}\n')
        assert keyrack("set", "jobs/n", "1", *held).code == 0
        assert keyrack.out("incr", "jobs/n", *held) == "2\n"
        assert keyrack("touch", "jobs/n", "--ttl", "1h", *held).code == 0
        assert keyrack("import", "lines", *held).code == 0
        assert keyrack("set", "jobs/j", "{}", "--type", "application/json", *held).code == 0
        assert keyrack("patch", "jobs/j", '{"a":1}', *held).code == 0
        assert keyrack("del", "jobs/j", "jobs/i", *held).code == 0
        assert keyrack("del", "--prefix", "jobs/", "--yes", *held).code == 0
        assert keyrack("unlock", "jobs", "--token", token).code == 0
        ended = keyrack("set", "jobs/n", "1", *held)
        assert (ended.code, "not held with this token" in ended.err) == (5, True)
        assert keyrack("set", "jobs/n", "1", "--lock", "jobs").code == 2
        program = f"{sys.executable} -m keyrack set --lock jobs jobs/n 5"
        assert keyrack("lock", "jobs", "--", "sh", "-c", program).code == 0
        assert keyrack.out("get", "jobs/n") == "5"
    finally:
        assert server.ask("DELETE", "/v1/fences/jobs").status == 204
