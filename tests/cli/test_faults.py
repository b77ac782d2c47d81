"""Services that go away in the middle, disks that are full, readers that have gone."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cli_support import Keyrack, shell
from cli_support.running import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK_EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@contextmanager
def going_away(answer: bytes = b"", times: int = 1000) -> Iterator[str]:
    """A service that reads a request, sends the beginning of an answer, and is gone."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(times):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


ASKING = [
    ("get", "a"),
    ("head", "a"),
    ("set", "a", "b"),
    ("del", "a"),
    ("del", "--prefix", "a", "--yes"),
    ("touch", "a", "--persist"),
    ("patch", "a", "{}"),
    ("incr", "a"),
    ("wait", "a"),
    ("history", "a"),
    ("ls",),
    ("ls", "--count"),
    ("tree",),
    ("find",),
    ("batch", "ops.json"),
    ("export",),
    ("import", "lines"),
    ("copy", ".", "file"),
    ("copy", "lines", "."),
    ("diff", "lines", "."),
    ("diff", "1h"),
    ("watch",),
    ("replay",),
    ("run", "a", "--", "true"),
    ("render", "template"),
    ("lock", "a", "--", "true"),
    ("unlock", "a", "--force"),
    ("locks",),
    ("verify", "--wait", "0"),
    ("info",),
    ("limits",),
    ("top", "-n", "1"),
    ("bench", "--seconds", "1"),
    ("snapshot", "save", "file"),
    ("token", "list"),
    ("token", "ticket", "--rule", "read keys:a"),
]
BEGINNINGS = {
    "nothing": b"",
    "a head": b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 100\r\n\r\nbegun',
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_a_service_that_goes_away_is_exit_code_3_and_a_sentence(
    home: Path, words: tuple[str, ...], beginning: str
) -> None:
    (home / "lines").write_bytes(b'{"key":"a","value":"1"}\n')
    (home / "ops.json").write_text("[]")
    (home / "template").write_text("${a}")
    if words[0] == "head" and beginning == "a head":
        pytest.skip("an answer to HEAD is whole with its head")
    with going_away(BEGINNINGS[beginning]) as url:
        at = words.index("--") if "--" in words else len(words)
        ended = Keyrack(url)(*words[:at], "--url", url, *words[at:])
    assert ended.code == 3, ended
    assert ended.err.startswith("keyrack: ")
    assert "Traceback" not in ended.err


def test_an_export_that_breaks_off_can_be_gone_on_with(keyrack: Keyrack, home: Path) -> None:
    for number in range(20):
        keyrack.out("set", f"k{number:02}", "v" * 100)
    lines = b"".join(b'{"key":"k%02d","value":"%s"}\n' % (n, b"v" * 100) for n in range(7))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    begun = head + b"%x\r\n%b\r\n" % (len(lines) - 9, lines[:-9])
    with going_away(begun) as url:
        ended = keyrack("export", "all", "--url", url)
    assert ended.code == 3
    assert "what came is in all.part; --resume goes on from there" in ended.err
    assert not (home / "all").exists()
    keyrack.out("export", "all", "--resume")
    assert len((home / "all").read_bytes().splitlines()) == 20


def test_a_copy_that_breaks_off_can_be_gone_on_with(keyrack: Keyrack, home: Path) -> None:
    lines = [b'{"key":"k%02d","value":"%b"}\n' % (n, b"v" * 300_000) for n in range(8)]
    (home / "from").write_bytes(b"".join(lines))
    program = (
        "import sys; from keyrack import cli; from keyrack.cli import service\n"
        "send, sent = service.Service.import_lines, []\n"
        "def once(self, lines, **more):\n"
        "    sent.append(1)\n"
        "    if len(sent) > 1: raise KeyboardInterrupt\n"
        "    return send(self, lines, **more)\n"
        "service.Service.import_lines = once\n"
        "sys.exit(cli.run(['copy', 'from', '.']))"
    )
    environ = environment(keyrack.url, home)
    environ["XDG_STATE_HOME"] = str(home / "state")
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, env=environ, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done
    assert "--resume goes on from here" in done.stderr
    before = int(keyrack.out("ls", "--count"))
    assert 0 < before < 8
    os.environ["XDG_STATE_HOME"] = str(home / "state")
    try:
        found = json.loads(keyrack.out("copy", "from", ".", "--resume", "-o", "json"))
    finally:
        del os.environ["XDG_STATE_HOME"]
    assert found["copied"] == 8 - before
    assert keyrack.out("ls", "--count") == "8\n"


def test_a_disk_that_is_full_under_an_export_is_a_sentence(keyrack: Keyrack, home: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    for number in range(40):
        keyrack.out("set", f"k{number}", "v" * 1000)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    for words in (["export", "out"], ["copy", ".", "out"]):
        argv = [sys.executable, "-m", "keyrack", *words]
        done = subprocess.run(
            argv,
            env=environment(keyrack.url, home),
            cwd=home,
            capture_output=True,
            text=True,
            preexec_fn=limited,
            check=False,
        )
        assert done.returncode == 2, done
        assert "cannot be written: File too large" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (home / "out").exists()
        keyrack.out(*words[:1], *words[1:], "--resume")
        assert len((home / "out").read_bytes().splitlines()) == 40
        (home / "out").unlink()


@pytest.mark.parametrize("words", ["ls -r", "export", "find", "ls -r -o json", "replay", "tree"])
def test_a_reader_that_has_gone_is_no_traceback(keyrack: Keyrack, home: Path, words: str) -> None:
    (home / "lines").write_bytes(
        b"".join(b'{"key":"some/longer/name/of/a/key/%06d","value":""}\n' % n for n in range(3000))
    )
    keyrack.out("import", "lines")
    ended = shell(f"set -o pipefail; keyrack {words} | head -n 1", keyrack.url, home)
    assert ended.err == ""
    assert ended.code in (0, 141)


def test_a_lock_that_is_lost_ends_the_program(keyrack: Keyrack, home: Path) -> None:
    program = "trap 'echo ended > ended; exit 0' TERM; while :; do sleep 0.05; done"
    argv = [sys.executable, "-m", "keyrack", "lock", "l", "--ttl", "1s", "--", "sh", "-c", program]
    environ = environment(keyrack.url, home)
    with subprocess.Popen(argv, env=environ, cwd=home, stderr=subprocess.PIPE) as holding:
        while not json.loads(keyrack.out("locks", "-o", "json")):
            assert holding.poll() is None
        keyrack.out("unlock", "l", "--force")
        _, err = holding.communicate(timeout=60)
    assert holding.returncode == 76, err
    assert b"The lock was lost" in err
    assert (home / "ended").exists()
