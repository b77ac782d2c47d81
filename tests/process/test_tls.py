"""HTTPS: which certificate is shown, and what becomes of one that changes or cannot be used."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from keyrack_server import Server, parse, request
from keyrack_server.server import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is missing"),
]


class Pair(NamedTuple):
    """A certificate and its key, as texts."""

    certificate: str
    key: str


def make_pair(directory: Path, name: str, days: int = 2) -> Pair:
    certificate, key = directory / "made.pem", directory / "made.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", str(days), "-subj", f"/CN={name}", "-keyout", str(key),
         "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return Pair(certificate.read_text(), key.read_text())


class Files:
    """The files that a service reads its certificate from."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "tls.crt"
        self.key = directory / "tls.key"
        self.flags = ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))

    def hold(self, certificate: str, key: str) -> None:
        self.certificate.write_text(certificate)
        self.key.write_text(key)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    directory = tmp_path_factory.mktemp("pairs")
    return [make_pair(directory, f"pair-{number}") for number in range(2)]


@pytest.fixture
def files(tmp_path: Path, pairs: list[Pair]) -> Files:
    made = Files(tmp_path)
    made.hold(*pairs[0])
    return made


class TlsServer(Server):
    """A service that is asked with HTTPS."""

    def _answering(self, urls: list[str]) -> int:
        port = int(urls[0].rpartition(":")[2])
        assert urls[0].startswith("https://")
        assert shown(port)
        return port


@pytest.fixture
def server(files: Files) -> Iterator[TlsServer]:
    server = TlsServer(*files.flags, workers=2)
    yield server
    server.tell_to_end()
    assert server.process.wait(15) == 0
    assert "Traceback" not in server.log()


def connected(port: int, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    context = context or any_certificate()
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    return context.wrap_socket(plain, server_hostname="localhost")


def any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown(port: int) -> str:
    """Return the certificate that one connection is shown, after a request over it."""
    with connected(port) as client:
        client.sendall(request("GET", "/healthz"))
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        der = client.getpeercert(binary_form=True)
        assert der is not None
        return ssl.DER_cert_to_PEM_cert(der)


def shows_only(server: Server, pair: Pair, seconds: float = 8.0) -> None:
    """Wait until every one of many connections is shown a pair's certificate."""
    wanted = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pair.certificate))
    deadline = time.monotonic() + seconds
    while {shown(server.port) for _ in range(16)} != {wanted}:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def says(server: Server, event: str, seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not any(line.get("event") == event for line in server.log_lines()):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)


def test_a_certificate_that_has_changed_is_shown_without_a_restart(
    server: TlsServer, files: Files, pairs: list[Pair]
) -> None:
    workers = server.worker_pids()
    files.hold(*pairs[1])
    shows_only(server, pairs[1])
    assert server.worker_pids() == workers


def test_the_metrics_tell_when_the_certificate_ends(
    server: TlsServer, files: Files, tmp_path: Path
) -> None:
    before = metric_of_end(server)
    assert before - time.time() == pytest.approx(2 * 86400, abs=600)
    files.hold(*make_pair(tmp_path, "longer", days=9))
    deadline = time.monotonic() + 30
    while metric_of_end(server) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert metric_of_end(server) - time.time() == pytest.approx(9 * 86400, abs=600)


def metric_of_end(server: Server) -> float:
    with connected(server.port) as client:
        client.sendall(request("GET", "/metrics", Connection="close"))
        text = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
    name = "keyrack_tls_certificate_expiry_timestamp_seconds "
    (line,) = [one for one in text.splitlines() if one.startswith(name)]
    return float(line.split()[1])


def test_a_hang_up_has_the_certificate_read_again(
    server: TlsServer, files: Files, pairs: list[Pair]
) -> None:
    files.hold(*pairs[1])
    server.process.send_signal(signal.SIGHUP)
    shows_only(server, pairs[1], 1.0)


def test_an_open_connection_goes_on_with_the_certificate_that_it_knows(
    server: TlsServer, files: Files, pairs: list[Pair]
) -> None:
    with connected(server.port) as client:
        files.hold(*pairs[1])
        shows_only(server, pairs[1])
        client.sendall(request("GET", "/healthz"))
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("damage", ["another key", "no certificate", "gone"])
def test_a_pair_that_cannot_be_used_leaves_the_last_good_one_in_use(
    server: TlsServer, files: Files, pairs: list[Pair], damage: str
) -> None:
    if damage == "another key":
        files.hold(pairs[0].certificate, pairs[1].key)
    elif damage == "no certificate":
        files.hold("nonsense\n", pairs[0].key)
    else:
        files.key.unlink()
    says(server, "certificate_refused")
    (refused,) = [one for one in server.log_lines() if one.get("event") == "certificate_refused"]
    assert refused["level"] == "error"
    assert str(files.key) in refused["message"]
    assert "The earlier one stays in use" in refused["message"]
    shows_only(server, pairs[0], 2.0)
    # A worker that is replaced now shows what the others show.
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    says(server, "worker_ended")
    shows_only(server, pairs[0])
    files.hold(*pairs[1])
    shows_only(server, pairs[1])


def test_files_that_are_swapped_behind_a_link_count_as_changed(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    """As Kubernetes does with a mounted secret: a link to a directory is replaced."""
    for number, pair in enumerate(pairs):
        (tmp_path / f"data{number}").mkdir()
        Files(tmp_path / f"data{number}").hold(*pair)
    (tmp_path / "data").symlink_to("data0")
    files = Files(tmp_path / "data")
    with TlsServer(*files.flags, workers=1) as server:
        (tmp_path / "new").symlink_to("data1")
        os.replace(tmp_path / "new", tmp_path / "data")
        shows_only(server, pairs[1])


@pytest.mark.parametrize("damage", ["another key", "no certificate", "encrypted"])
def test_a_start_with_a_pair_that_cannot_be_used_is_refused(
    files: Files, pairs: list[Pair], damage: str
) -> None:
    if damage == "another key":
        files.hold(pairs[0].certificate, pairs[1].key)
    elif damage == "no certificate":
        files.hold("nonsense\n", pairs[0].key)
    else:
        command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", str(files.key)]
        key = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        files.hold(pairs[0].certificate, key)
    done = subprocess.run(
        [sys.executable, "-m", "keyrack", "serve", "--port", "0", "--memory", "16m", *files.flags],
        env=clean_environment(), capture_output=True, text=True, timeout=20, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(files.certificate) in done.stderr
    assert "are not a certificate and its unencrypted private key" in done.stderr


# What is spoken


def handshake(port: int, **versions: ssl.TLSVersion) -> ssl.SSLSocket:
    context = any_certificate()
    context.minimum_version = versions.get("minimum", ssl.TLSVersion.TLSv1_2)
    context.maximum_version = versions.get("maximum", ssl.TLSVersion.TLSv1_3)
    return connected(port, context)


def test_tls_1_2_is_spoken_unless_1_3_is_the_least(files: Files, server: TlsServer) -> None:
    with handshake(server.port, maximum=ssl.TLSVersion.TLSv1_2) as client:
        assert client.version() == "TLSv1.2"
    with (
        TlsServer(*files.flags, "--tls-min", "1.3") as strict,
        handshake(strict.port) as client,
    ):
        assert client.version() == "TLSv1.3"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(strict.port, maximum=ssl.TLSVersion.TLSv1_2)


def test_ciphers_without_authentication_of_their_own_are_not_spoken(server: TlsServer) -> None:
    for ciphers in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-SHA"):
        context = any_certificate()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connected(server.port, context)


def test_http_1_1_is_agreed_on(server: TlsServer) -> None:
    context = any_certificate()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(server.port, context) as client:
        assert client.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_plain_http_is_told_to_use_https(server: TlsServer, method: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(request(method, "/v1/keys/k"))
        found = parse(client.recv(1 << 16), method)
    assert found is not None
    answer, _ = found
    assert answer.status == 400
    assert answer["Connection"] == "close"
    assert b"https://" in answer.body


# A worker that cannot serve


def test_a_worker_that_cannot_serve_takes_no_connections(tmp_path: Path) -> None:
    """The kernel spreads connections over all sockets; nobody would ever accept those."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from keyrack.server import worker\n"
        "serves = worker.run\n"
        "def run(spec):\n"
        f"    import os; os.path.exists({str(tmp_path / 'ill')!r}) and spec.slot and sys.exit(3)\n"
        "    serves(spec)\n"
        "worker.run = run\n"
    )
    environ = {"PYTHONPATH": f"{tmp_path}:{clean_environment()['PYTHONPATH']}"}
    server = Server(workers=2, environ=environ)
    (tmp_path / "ill").touch()
    os.kill(server.worker_pids()[1], signal.SIGKILL)
    says(server, "worker_taken_out")
    for _ in range(40):
        assert server.ask("GET", "/healthz").status == 200
    (tmp_path / "ill").unlink()
    says(server, "worker_back", 15.0)
    before = accepted(server)
    for _ in range(60):
        assert server.ask("GET", "/healthz").status == 200
    assert accepted(server) - before >= 60
    assert len(server.worker_pids()) == 2
    server.tell_to_end()
    assert server.process.wait(15) == 0


def accepted(server: Server) -> int:
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    (line,) = [one for one in lines if one.startswith("keyrack_connections_accepted_total ")]
    return int(float(line.split()[1]))
