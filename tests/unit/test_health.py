"""`keyrack health`, against stand-ins for a service."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import keyrack
from keyrack import cli
from keyrack.cli import health

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(20)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KEYRACK_")]:
        monkeypatch.delenv(name)


class StandIn(BaseHTTPRequestHandler):
    """Answers /healthz with `status`, and everything else with 404."""

    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path.endswith("/healthz") else 404)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_: object) -> None:
        pass


class UnixServer(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[socket.socket, Any]:
        return super().get_request()[0], ("unix", 0)


def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    for _ in serving(server):
        yield server.server_port


# Where it asks


def test_a_service_that_is_alive_is_exit_code_0_and_silence(port: int, capsys: Capture) -> None:
    assert cli.run(["health", "--url", f"http://127.0.0.1:{port}"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_path_in_front_is_kept(port: int) -> None:
    assert cli.run(["health", "--url", f"http://127.0.0.1:{port}/kv/"]) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_without_flags_the_settings_of_the_service_say_where(
    port: int, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("KEYRACK_HOST", host)
    monkeypatch.setenv("KEYRACK_PORT", str(port))
    assert cli.run(["health"]) == 0


def test_the_settings_may_be_in_the_file(
    port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keyrack.toml").write_text(f"port = {port}\n")
    monkeypatch.setenv("KEYRACK_CONFIG", str(tmp_path / "keyrack.toml"))
    assert cli.run(["health"]) == 0


def test_a_flag_goes_before_the_url_of_the_environment_and_that_before_settings(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYRACK_PORT", "1")
    monkeypatch.setenv("KEYRACK_URL", f"http://127.0.0.1:{port}")
    assert cli.run(["health"]) == 0
    assert cli.run(["health", "--url", "http://127.0.0.1:1"]) == 1


def test_a_unix_socket_can_be_named_by_flag_or_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    for _ in serving(UnixServer(path, StandIn)):
        assert cli.run(["health", "--uds", path]) == 0
        monkeypatch.setenv("KEYRACK_UDS", path)
        assert cli.run(["health"]) == 0


def test_a_port_that_kubernetes_made_a_variable_of_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("KEYRACK_PORT", "tcp://10.0.0.1:9000")
    monkeypatch.setenv("KEYRACK_HOST", "127.0.0.2")
    assert cli.run(["health"]) == 1
    assert "http://127.0.0.2:8088" in capsys.readouterr().err


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -subj /CN=example.org"
    try:
        subprocess.run(words.split(), cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return tmp_path


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for _ in serving(server):
        yield server.server_port


def test_the_service_s_own_certificate_may_be_for_another_name(
    tls_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYRACK_PORT", str(tls_port))
    monkeypatch.setenv("KEYRACK_TLS_CERT", str(certificate / "cert"))
    monkeypatch.setenv("KEYRACK_TLS_KEY", str(certificate / "key"))
    assert cli.run(["health"]) == 0


def test_the_certificate_of_a_url_is_verified(tls_port: int, capsys: Capture) -> None:
    assert cli.run(["health", "--url", f"https://127.0.0.1:{tls_port}"]) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


# What is not alive


def said(capsys: Capture) -> str:
    """Return the one line that was printed."""
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("keyrack: ")
    return err


def test_nobody_there_is_exit_code_1_and_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert cli.run(["health", "--url", url]) == 1
    assert said(capsys) == f"keyrack: No service answers at {url} (Connection refused).\n"
    assert cli.run(["health", "--uds", str(tmp_path / "none")]) == 1
    assert "No such file or directory" in said(capsys)


def test_another_status_is_not_alive(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(StandIn, "status", 503)
    assert cli.run(["health", "--url", f"http://127.0.0.1:{port}"]) == 1
    assert "answered 503 instead of 200" in said(capsys)


def test_what_is_not_http_is_not_alive(capsys: Capture) -> None:
    class Gibberish(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"SSH-2.0-x\r\n")

    server = socketserver.TCPServer(("127.0.0.1", 0), Gibberish)
    for _ in serving(server):
        assert cli.run(["health", "--url", f"http://127.0.0.1:{server.server_address[1]}"]) == 1
    assert "No service answers" in said(capsys)


@pytest.mark.time_limits
@pytest.mark.parametrize("trickles", [False, True])
def test_the_time_limit_is_for_the_whole_however_bytes_trickle_in(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, trickles: bool
) -> None:
    over = threading.Event()

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while not over.wait(0.05):
                if trickles:
                    self.request.sendall(b"HTTP/1.1 200 OK\r\n"[:1])

    monkeypatch.setattr(health, "_SECONDS", 0.5)
    server = socketserver.TCPServer(("127.0.0.1", 0), Slow)
    for _ in serving(server):
        began = time.monotonic()
        assert cli.run(["health", "--url", f"http://127.0.0.1:{server.server_address[1]}"]) == 1
        took = time.monotonic() - began
        over.set()
    assert 0.4 < took < 2
    assert "did not answer within 0.5 seconds" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--url", "127.0.0.1:8088"], {}, "is not a URL like http://127.0.0.1:8088."),
        (["--url", "http://h:x"], {}, "is not a URL like http://127.0.0.1:8088."),
        ([], {"KEYRACK_PORT": "x"}, "is not a whole number from 0 to 65535."),
        ([], {"KEYRACK_PORT": "0"}, "name it with --url."),
    ],
)
def test_where_nobody_can_ask_is_exit_code_1_and_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["health", *arguments]) == 1
    assert said(capsys).endswith(f"{sentence}\n")


def test_asking_imports_nothing_of_the_server() -> None:
    code = (
        "import sys; from keyrack import cli; cli.run(['health', '--url', 'http://127.0.0.1:1']);"
        "print({'uvicorn', 'starlette', 'lmdb', 'asyncio', 'msgspec', 'uvloop',"
        " 'keyrack.server', 'keyrack.settings'} & set(sys.modules))"
    )
    path = os.path.dirname(os.path.dirname(keyrack.__file__))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        timeout=10,
    )
    assert done.stdout == b"set()\n"
