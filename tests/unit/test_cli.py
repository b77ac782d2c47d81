"""The verbs that ask a running service, against a stand-in for one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import socket
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import keyrack
from keyrack import cli
from keyrack.cli.table import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(20)

Stored = tuple[bytes, str]


class StandIn(BaseHTTPRequestHandler):
    """Keeps values by their raw path; `stored`, `seen` and `answer` are set up by each test."""

    protocol_version = "HTTP/1.1"
    stored: ClassVar[dict[str, Stored]]
    seen: ClassVar[list[BaseHTTPRequestHandler]]
    answer: ClassVar[tuple[int, str, bytes] | None]

    def do_GET(self) -> None:
        found = self.stored.get(self.path)
        if found is None:
            return self._problem(404, "key-not-found", "Key not found")
        return self._send(200, found[0], {"Content-Type": found[1], "ETag": '"7"'})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["If-None-Match"] == "*" and self.path in self.stored:
            return self._problem(412, "precondition-failed", "The key is at another\x1b revision.")
        self.stored[self.path] = (body, self.headers["Content-Type"] or "text/plain")
        return self._send(201, b"", {"ETag": '"8"'})

    def do_DELETE(self) -> None:
        if self.stored.pop(self.path.partition("?")[0], None) is None:
            return self._problem(404, "key-not-found", "Key not found")
        return self._send(204, b"", {})

    def parse_request(self) -> bool:
        fine = super().parse_request()
        self.seen.append(self)
        return fine

    def log_message(self, *_: object) -> None:
        pass

    def _problem(self, status: int, kind: str, detail: str) -> None:
        body = json.dumps({"type": f"/docs/problems/{kind}", "title": "No", "detail": detail})
        self._send(status, body.encode(), {"Content-Type": "application/problem+json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if self.answer is not None:
            status, kind, body = self.answer
            headers = {"Content-Type": kind}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class UnixServer(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[socket.socket, Any]:
        return super().get_request()[0], ("unix", 0)


@pytest.fixture
def handler() -> type[StandIn]:
    class Fresh(StandIn):
        stored: ClassVar = {}
        seen: ClassVar = []
        answer: ClassVar = None

    return Fresh


def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(handler: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("KEYRACK_URL", url)
    for _ in serving(server):
        yield url


def refused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


Capture = pytest.CaptureFixture[bytes]


# get, set, del


@pytest.mark.usefixtures("url")
def test_what_was_set_is_got_byte_for_byte_and_nothing_else(capsysbinary: Capture) -> None:
    assert cli.run(["set", "a", "x\udcff"]) == 0
    assert cli.run(["get", "a"]) == 0
    assert capsysbinary.readouterr() == (b"x\xff", b"")


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("arguments", [["-"], []])
def test_a_value_can_come_from_standard_input(
    handler: type[StandIn], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00\xff\n")))
    assert cli.run(["set", "a", *arguments]) == 0
    assert handler.stored["/v1/keys/a"][0] == b"\x00\xff\n"


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b", "a/b"),
        ("a//b", "a%2F%2Fb"),
        ("a b+c", "a%20b%2Bc"),
        ("ä?#%", "%C3%A4%3F%23%25"),
        ("..", "%2E%2E"),
        ("a/../b", "a%2F%2E%2E%2Fb"),
        ("\udcff", "%FF"),
    ],
)
def test_a_key_is_percent_encoded_so_that_no_proxy_changes_it(
    handler: type[StandIn], key: str, path: str
) -> None:
    assert cli.run(["set", "--", key, "v"]) == 0
    assert list(handler.stored) == [f"/v1/keys/{path}"]


@pytest.mark.usefixtures("url")
def test_options_of_set_are_sent(handler: type[StandIn]) -> None:
    flags = ["--ttl", "1.5", "--type", "image/png", "--if-match", "12", "--if-none-match", "*"]
    assert cli.run(["set", "a", "v", *flags]) == 0
    (request,) = handler.seen
    assert request.path == "/v1/keys/a?ttl=1.500"
    assert request.headers["Content-Type"] == "image/png"
    assert request.headers["If-Match"] == '"12"'
    assert request.headers["If-None-Match"] == "*"


@pytest.mark.usefixtures("url")
def test_without_a_type_none_is_sent_so_that_the_server_decides(handler: type[StandIn]) -> None:
    assert cli.run(["set", "a", ""]) == 0
    assert handler.seen[0].headers["Content-Type"] is None
    assert handler.seen[0].headers["Content-Length"] == "0"


@pytest.mark.usefixtures("url")
def test_set_prints_the_etag_only_when_asked(capsysbinary: Capture) -> None:
    assert cli.run(["set", "a", "v"]) == 0
    assert cli.run(["set", "a", "v", "--verbose"]) == 0
    assert capsysbinary.readouterr() == (b'"8"\n', b"")


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("verb", ["get", "del"])
def test_a_missing_key_is_exit_code_1(capsysbinary: Capture, verb: str) -> None:
    assert cli.run([verb, "no\nne"]) == 1
    assert capsysbinary.readouterr() == (b"", b"keyrack: The key 'no\\nne' is missing.\n")


@pytest.mark.usefixtures("url")
def test_del_removes_and_says_nothing(handler: type[StandIn], capsysbinary: Capture) -> None:
    handler.stored["/v1/keys/a"] = (b"v", "text/plain")
    assert cli.run(["del", "a"]) == 0
    assert handler.stored == {}
    assert capsysbinary.readouterr() == (b"", b"")


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("kind", "value", "printed"),
    [
        ("text/plain; charset=utf-8", b"x", b"x\n"),
        ("text/plain", b"x\n", b"x\n"),
        ("application/json", b"{}", b"{}\n"),
    ],
)
def test_on_a_terminal_a_text_ends_its_line(
    handler: type[StandIn],
    capsysbinary: Capture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    value: bytes,
    printed: bytes,
) -> None:
    handler.stored["/v1/keys/a"] = (value, kind)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.run(["get", "a"]) == 0
    assert capsysbinary.readouterr().out == printed


# What can go wrong


@pytest.mark.usefixtures("url")
def test_a_problem_prints_its_detail_and_no_control_characters(capsysbinary: Capture) -> None:
    assert cli.run(["set", "a", "v"]) == 0
    assert cli.run(["set", "a", "v", "--if-none-match", "*"]) == 1
    assert capsysbinary.readouterr().err == b"keyrack: The key is at another\\e revision.\n"


@pytest.mark.usefixtures("url")
def test_a_404_of_another_server_is_not_a_missing_key(
    handler: type[StandIn], capsysbinary: Capture
) -> None:
    handler.answer = (404, "text/html", b"<h1>Not here</h1>")
    assert cli.run(["get", "a"]) == 3
    assert b"answered 404 Not Found" in capsysbinary.readouterr().err


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff"])
def test_a_broken_problem_is_still_one_sentence(
    handler: type[StandIn], capsysbinary: Capture, body: bytes
) -> None:
    handler.answer = (500, "application/problem+json", body)
    assert cli.run(["get", "a"]) == 3
    assert b"answered 500" in capsysbinary.readouterr().err


def test_a_service_that_is_not_there_is_exit_code_3(capsysbinary: Capture, tmp_path: Path) -> None:
    assert cli.run(["get", "a", "--url", refused_url()]) == 3
    assert cli.run(["get", "a", "--uds", str(tmp_path / "none")]) == 3
    said = capsysbinary.readouterr().err.decode().splitlines()
    assert [line.startswith("keyrack: No service answers at ") for line in said] == [True, True]


def test_a_service_that_does_not_answer_in_time_is_exit_code_3(capsysbinary: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert cli.run(["set", "a", "v", "--url", url, "--timeout", "0.05"]) == 3
    said = capsysbinary.readouterr().err
    assert b"in time. Whether the change was made is not known." in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", ""],
        ["get", "a", "--url", "localhost:8088"],
        ["get", "a", "--url", "http://"],
        ["get", "a", "--url", "http://h:x"],
        ["set", "a", "v", "--type", "a\r\nb: c"],
    ],
)
def test_what_cannot_be_sent_is_exit_code_2(capsysbinary: Capture, arguments: list[str]) -> None:
    assert cli.run(arguments) == 2
    assert capsysbinary.readouterr().err.startswith(b"keyrack: ")


@pytest.mark.usefixtures("url")
def test_a_reader_that_has_gone_is_no_traceback(handler: type[StandIn]) -> None:
    handler.stored["/v1/keys/a"] = (bytes(1 << 20), "application/octet-stream")
    command = f"{sys.executable} -m keyrack get a | head -c 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, env=environment(), timeout=10, check=False
    )
    assert (done.stdout, done.stderr) == (b"\0", b"")


# The root


def test_the_version_and_help_are_printed(capsysbinary: Capture) -> None:
    assert cli.run(["--version"]) == 0
    assert capsysbinary.readouterr().out == f"keyrack {keyrack.__version__}\n".encode()
    assert cli.run(["help"]) == 0
    helped = capsysbinary.readouterr().out.decode()
    assert all(f"\n  {verb.split()[0]} " in helped for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsysbinary: Capture, verb: str) -> None:
    with contextlib.suppress(SystemExit):  # `serve` has its own parser, which ends so
        assert cli.run(["help", *verb.split()]) == 0
    assert capsysbinary.readouterr().out.startswith(f"usage: keyrack {verb} ".encode())


@pytest.mark.parametrize("arguments", [[], ["fetch"], ["fetch", "--help"], ["help", "fetch"]])
def test_what_is_no_command_is_exit_code_2(capsysbinary: Capture, arguments: list[str]) -> None:
    assert cli.run(arguments) == 2
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "x"], "--port 'x' is not a whole number from 0 to 65535."),
        (["--prot", "80"], "--prot is no setting (is --port meant?)."),
        (["--max_value=1m"], "--max_value is no setting (is --max-value meant?)."),
        (["--no-acess-log"], "--no-acess-log is no setting (is --no-access-log meant?)."),
        (["--frobnicate"], "--frobnicate is no setting; `keyrack serve --help` lists them."),
        (
            ["8088"],
            "'8088' is not expected: every setting is given by a flag, like --port 8088.",
        ),
        (["--port"], "argument --port: expected one argument"),
    ],
)
def test_what_cannot_be_a_setting_is_exit_code_2_and_one_line_like_others(
    capsysbinary: Capture, arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run(["serve", *arguments])
    (line,) = capsysbinary.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["message"]) == ("error", sentence)


def test_on_a_terminal_it_is_a_sentence() -> None:
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "keyrack", "serve", "--port", "x"]
    done = subprocess.run(command, stderr=writer, timeout=20, check=False)
    os.close(writer)
    assert done.returncode == 2
    said = os.read(reader, 1000)
    os.close(reader)
    assert said == b"keyrack serve: --port 'x' is not a whole number from 0 to 65535.\r\n"


def test_asking_verbs_import_nothing_of_the_server() -> None:
    code = (
        "import sys, keyrack.cli.get, keyrack.cli.set, keyrack.cli.delete;"
        "print({'uvicorn', 'starlette', 'lmdb', 'asyncio', 'msgspec', 'uvloop', 'json',"
        " 'keyrack.settings', 'keyrack.server'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=True, timeout=10
    )
    assert done.stdout == b"set()\n"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(keyrack.__file__))}
