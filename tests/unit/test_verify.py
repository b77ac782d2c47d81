"""`keyrack verify`: what it accepts, what it finds, and that it checks what the script checks."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyrack import cli
from keyrack.cli import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify-api.sh"
JSON = "application/json"

Reply = tuple[int, str, str]


class Store:
    """The seed API on a dictionary; `spoil` may change each reply."""

    def __init__(self, spoil: Callable[[str, str, Reply], Reply]) -> None:
        self.values: dict[str, str] = {}
        self.spoil = spoil

    def reply(self, method: str, path: str, body: str) -> Reply:
        return self.spoil(method, path, self._reply(method, path, body))

    def _reply(self, method: str, path: str, body: str) -> Reply:
        if path in ("/healthz", "/readyz"):
            return 200, "text/plain; charset=utf-8", "ok\n"
        key = path.rpartition("/")[2]
        if method == "POST":
            key = json.loads(body)["key"]
            self.values[key] = re.sub(r',"ttl":\d+', "", body)
            return 200, JSON, verify._STORED
        if method == "DELETE":
            del self.values[key]
            return 204, "", ""
        if key not in self.values:
            return 404, JSON, verify._MISSING
        return 200, JSON, self.values[key]


@contextmanager
def served(spoil: Callable[[str, str, Reply], Reply] = lambda m, p, r: r) -> Iterator[str]:
    store = Store(spoil)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            status, media_type, text = store.reply(self.command, self.path, body)
            self.send_response(status)
            if media_type:
                self.send_header("Content-Type", media_type)
            if status != 204:
                self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_checks_are_those_of_the_script_in_its_order() -> None:
    in_script = re.findall(r"^check '([^']+)'", SCRIPT.read_text(), re.MULTILINE)
    assert [check.what for check in verify.checks("k")] == in_script


def test_a_service_that_answers_to_the_letter_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with served() as url:
        assert cli.run(["verify", "--url", url + "/"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"checking {url}"
    assert out[1:-1] == [f"ok    {check.what}" for check in verify.checks("k")]
    assert out[-1] == "all checks passed"


def test_no_key_is_left_behind() -> None:
    seen: set[str] = set()

    def note(method: str, path: str, reply: Reply) -> Reply:
        seen.add(f"{method} {path.rpartition('/')[0]}")
        return reply

    with served(note) as url:
        cli.run(["verify", "--url", url])
    assert "DELETE /v1/keys" in seen


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a missing key is not found", lambda m, p, r: (200, *r[1:]) if r[0] == 404 else r),
        ("a key is set", lambda m, p, r: (r[0], "text/plain", r[2]) if m == "POST" else r),
        ("the key is got", lambda m, p, r: (*r[:2], r[2] + "\n") if "value_1" in r[2] else r),
        (
            "a JSON value comes back as it was",
            lambda m, p, r: (*r[:2], r[2].replace("2.50", "2.5")),
        ),
        ("the key is deleted", lambda m, p, r: (200, *r[1:]) if m == "DELETE" else r),
        ("the service is healthy", lambda m, p, r: (*r[:2], "OK") if p == "/healthz" else r),
    ],
)
def test_the_first_difference_ends_it_and_is_shown(
    what: str, change: Callable[[str, str, Reply], Reply], capsys: pytest.CaptureFixture[str]
) -> None:
    with served(change) as url:
        assert cli.run(["verify", "--url", url]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"FAIL  {what}: ")
    assert "expected" in error
    assert "answered" in error


def test_a_service_that_is_not_ready_is_waited_for_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(lambda m, p, r: (503, *r[1:]) if p == "/readyz" else r) as url:
        assert cli.run(["verify", "--url", url, "--wait", "0.2"]) == 3
    assert capsys.readouterr().err == (
        f"keyrack: {url}/readyz did not answer 200 within 0.2 seconds.\n"
    )


def test_a_service_that_gets_ready_in_time_is_checked() -> None:
    answers = iter([503, 503])

    def starting(method: str, path: str, reply: Reply) -> Reply:
        return (next(answers, 200), *reply[1:]) if path == "/readyz" else reply

    with served(starting) as url:
        assert cli.run(["verify", "--url", url, "--wait", "5"]) == 0


@pytest.mark.parametrize("url", ["keyrack:8088", "ftp://keyrack", "http://", "http://host:port"])
def test_what_is_no_url_is_refused_with_a_sentence(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["verify", "--url", url]) == 2
    assert capsys.readouterr().err == f"keyrack: {url!r} is not a URL like http://127.0.0.1:8088.\n"


def test_the_variable_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as url:
        monkeypatch.setenv("KEYRACK_URL", url)
        assert cli.run(["verify"]) == 0
