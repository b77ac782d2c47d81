"""The command line where a standard stream is full, closed, or read no further."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYRACK = f'"{sys.executable}" -m keyrack'
READER_GONE = 141
"""What a shell makes of a program that SIGPIPE ended."""


class Ended(NamedTuple):
    code: int
    said: str


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server() as server:
        server.put("small", b"x" * 10)
        server.put("big", b"x" * 900_000)
        yield f"http://127.0.0.1:{server.port}"


def shell(line: str, url: str = "") -> Ended:
    """Run a line of bash, in which the first word stands for the command."""
    environment = {**os.environ, "KEYRACK_URL": url}
    argv = ["bash", "-c", f"set -o pipefail; {line.replace('keyrack', KEYRACK, 1)}"]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    return Ended(ended.returncode, ended.stderr)


PRINTING = [
    "get small",
    "get big",
    "export",
    "set k v --verbose",
    "token new",
    "verify",
    "help",
    "--version",
    "--help",
    "serve --help",
    "get --help",
    "token --help",
]


@pytest.mark.parametrize("verb", PRINTING)
def test_a_full_disk_is_told_in_one_sentence(url: str, verb: str) -> None:
    expected = "keyrack: Standard output cannot be written: No space left on device.\n"
    assert shell(f"keyrack {verb} >/dev/full", url) == (2, expected)


@pytest.mark.parametrize("verb", PRINTING)
def test_a_closed_output_is_told_in_one_sentence(url: str, verb: str) -> None:
    expected = "keyrack: Standard output cannot be written: Bad file descriptor.\n"
    assert shell(f"keyrack {verb} >&-", url) == (2, expected)


@pytest.mark.parametrize("verb", ["set unsent", "set unsent -", "import", "import -"])
def test_a_closed_input_is_told_in_one_sentence_and_nothing_is_stored(url: str, verb: str) -> None:
    expected = "keyrack: Standard input cannot be read: Bad file descriptor.\n"
    assert shell(f"keyrack {verb} <&-", url) == (2, expected)
    assert shell("keyrack get unsent", url).code == 1


@pytest.mark.parametrize("verb", ["get big", "export"])
def test_a_reader_that_has_gone_is_no_error_that_is_told(url: str, verb: str) -> None:
    assert shell(f"keyrack {verb} | head -c 10 >/dev/null", url) == (READER_GONE, "")


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize(
    ("verb", "code"), [("get none", 1), ("get", 2), ("get a --url http://127.0.0.1:1", 3)]
)
def test_where_nobody_can_be_told_the_exit_code_is_what_it_is(
    url: str, verb: str, code: int, where: str
) -> None:
    assert shell(f"keyrack {verb} {where}", url) == (code, "")


def test_what_prints_nothing_does_not_care(url: str) -> None:
    assert shell("keyrack set quiet v >&- <&- 2>&-", url) == (0, "")
    assert shell("keyrack health >/dev/full", url) == (0, "")


def test_a_pipe_that_does_not_block_is_waited_for(url: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    argv = [sys.executable, "-m", "keyrack", "get", "big", "--url", url]
    with subprocess.Popen(argv, stdout=writing, stderr=subprocess.PIPE) as asking:
        os.close(writing)
        with open(reading, "rb") as read:
            assert len(read.read()) == 900_000
        assert asking.communicate(timeout=60)[1] == b""
    assert asking.returncode == 0


def test_an_input_that_does_not_block_is_waited_for(url: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    argv = [sys.executable, "-m", "keyrack", "set", "late", "--url", url]
    with subprocess.Popen(argv, stdin=reading, stderr=subprocess.PIPE) as asking:
        os.close(reading)
        os.write(writing, b"first ")
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(0.5)
        os.write(writing, b"second")
        os.close(writing)
        assert asking.communicate(timeout=60)[1] == b""
    assert asking.returncode == 0
    assert shell("keyrack get late | grep -qx 'first second'", url).code == 0


def test_what_the_encoding_has_not_is_shown_all_the_same() -> None:
    program = "import sys; from keyrack.cli import streams; streams.guard(print, ['\xe9'])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-c", program]
    assert subprocess.check_output(argv, env=environment, timeout=60) == b"['\\xe9']\n"
