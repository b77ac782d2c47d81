"""The usual troubles of docs/operating.md, each provoked: what log, metrics and doctor say."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded
from cli_support import Keyrack
from keyrack_server import Server, request

from keyrack.access import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(120)

SLOW_SYNC_SECONDS = 0.03
SLOW_DISK = f"""
import time
from keyrack.engines.embedded.durability.files import Files
whole = Files.sync
def sync(self, descriptor):
    time.sleep({SLOW_SYNC_SECONDS})
    whole(self, descriptor)
Files.sync = sync
"""
"""What Python runs first in a service: each sync of its disk takes as long as that."""


class Troubled(Server):
    """A service that something is done to: its complaints are what a test asks for."""

    def complaints(self) -> list[dict[str, Any]]:
        """Return nothing: each test looks at the log itself."""
        return []


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("KEYRACK_")]:
        if not name.startswith("KEYRACK_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def eventually(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def logged(server: Server, event: str) -> dict[str, Any]:
    """Wait for a line of the log and return it."""

    def find() -> dict[str, Any] | None:
        return next((one for one in server.log_lines() if one.get("event") == event), None)

    found: dict[str, Any] = eventually(find, f"{event} is logged: {server.log()}")
    return found


def figure(server: Server, name: str, **fields: str) -> float:
    """Return a sample of the metrics; 0 where there is none."""
    text = server.ask("GET", "/metrics", **fields).body.decode()
    lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def doctor(server: Server, *flags: str) -> str:
    """Return what the doctor says."""
    ended = Keyrack("")("doctor", f"http://127.0.0.1:{server.port}", "--seconds", "0.5", *flags)
    assert ended.code in (0, 1), ended
    return ended.out.decode()


@contextlib.contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Do something over and over meanwhile."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_worker_that_was_killed() -> None:
    with Troubled(workers=2) as server:
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        line = logged(server, "worker_ended")
        assert "was killed by SIGKILL; it is replaced" in line["message"]
        assert "memory" in line["hint"]
        eventually(lambda: figure(server, "keyrack_workers") == 2, "it is replaced")
        assert figure(server, 'keyrack_worker_deaths_total{reason="killed"}') == 1
        assert "workers have ended since the start: killed" in doctor(server)


def test_a_store_that_is_full() -> None:
    with Troubled(memory="8m") as server:
        numbers = itertools.count()

        def write() -> int:
            return server.ask("PUT", f"/v1/keys/a/{next(numbers)}", b"v" * 100_000).status

        eventually(lambda: write() == 507, "it is full")
        assert "Raise --memory, delete keys" in logged(server, "store_full")["message"]
        assert figure(server, 'keyrack_http_requests_total{code="507",operation="key_put"}') > 0
        with busy(write):
            eventually(
                lambda: "The store is full: writes are refused with 507" in doctor(server),
                "it stands out",
            )
        found = Keyrack("")("big", "--url", f"http://127.0.0.1:{server.port}", "-o", "raw").out
        assert b"a/\n" in found


def test_a_quota_that_is_used_up() -> None:
    with Troubled(memory="64m") as server:
        quota = b'{"prefix":"a/","max_keys":1}'
        server.ask("PUT", "/v1/quotas/a", quota, Content_Type="application/json")
        numbers = itertools.count()

        def write() -> int:
            return server.ask("PUT", f"/v1/keys/a/{next(numbers)}", b"v").status

        assert (write(), write()) == (201, 507)
        assert "GET /v1/quotas" in logged(server, "quota_full")["message"]
        assert figure(server, 'keyrack_quota_keys{quota="a"}') == 1
        assert figure(server, 'keyrack_quota_max_keys{quota="a"}') == 1
        with busy(write):
            eventually(lambda: "A quota is used up" in doctor(server), "it stands out")
        assert "The store is full" not in doctor(server)


def test_a_store_that_evicts() -> None:
    with Troubled("--when-full", "evict", memory="8m") as server:
        numbers = itertools.count()

        def write() -> int:
            return server.ask("PUT", f"/v1/keys/{next(numbers)}", b"v" * 100_000).status

        for _ in range(150):
            assert write() == 201
        assert "were evicted" in logged(server, "store_evicts")["message"]
        assert figure(server, "keyrack_keys_evicted_total") > 0
        with busy(write):
            eventually(
                lambda: "keys a second are evicted, because the store is full" in doctor(server),
                "it stands out",
            )


def test_a_disk_that_is_slow(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[1])))
    if "PYTHONPATH" in os.environ:
        paths += os.pathsep + os.environ["PYTHONPATH"]
    flags = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    with Troubled(*flags, environ={"PYTHONPATH": paths}) as server:
        for number in range(5):
            server.put(f"{number}", b"x")
        count = figure(server, "keyrack_sync_seconds_count")
        mean = figure(server, "keyrack_sync_seconds_sum") / count
        assert (count >= 5, mean >= SLOW_SYNC_SECONDS) == (True, True)
        entries = server.ask("GET", "/v1/slow").json["entries"]
        written = [one for one in entries if one["operation"] == "set"]
        assert written
        assert all(one["disk_ms"] >= 1000 * SLOW_SYNC_SECONDS for one in written)
        assert "The disk is slow: a sync takes" in doctor(server)


def test_a_watcher_that_is_stuck() -> None:
    with Troubled() as server, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(request("GET", "/v1/watch?values=true"))
        stuck.recv(100)

        def is_seen() -> bool:
            server.put("changes", b"x" * 500_000)
            first = server.ask("GET", "/v1/clients?limit=1").json["clients"][0]
            return bool(first["state"] == "reading" and first["owed"] > 100_000)

        eventually(is_seen, "it is owed more and more")
        eventually(lambda: figure(server, "keyrack_watchers") == 1, "it is counted")

        def is_told() -> bool:
            return "clients do not take their answers" in doctor(server)

        eventually(is_told, "after some seconds it stands out")
        found = json.loads(Keyrack(url := f"http://127.0.0.1:{server.port}")(
            "clients", "--url", url, "-o", "json").out)  # fmt: skip
        assert (found[0]["request"], found[0]["state"]) == ("GET /v1/watch", "reading")
        assert Keyrack(url)("clients", "--url", url, "--end", found[0]["id"]).code == 0
        eventually(lambda: figure(server, "keyrack_watchers") == 0, "it was ended")


def test_a_worker_that_is_stopped() -> None:
    with Troubled("--worker-timeout", "2", workers=2) as server:
        os.kill(server.worker_pids()[0], signal.SIGSTOP)
        line = logged(server, "worker_stuck")
        assert "given no sign of life" in line["message"]
        assert "it was stopped by a signal" in line["message"]
        logged(server, "worker_ended")
        eventually(lambda: figure(server, "keyrack_workers") == 2, "it is replaced")
        assert figure(server, 'keyrack_worker_deaths_total{reason="stuck"}') == 1
        assert "workers have ended since the start: stuck" in doctor(server)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_certificate_that_is_bad(tmp_path: Path) -> None:
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "3", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(certificate.read_text())

    class Secure(Troubled):
        def _answering(self, urls: list[str]) -> int:
            return int(urls[0].rpartition(":")[2])

    with Secure("--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        url = f"https://127.0.0.1:{server.port}"
        ended = Keyrack(url)("doctor", url, "--ca", str(trusted), "--seconds", "0.1")
        assert b"The certificate ends in" in ended.out, ended
        certificate.write_text("no certificate")
        server.process.send_signal(signal.SIGHUP)
        assert "The earlier one stays in use" in logged(server, "certificate_refused")["message"]
        assert Keyrack(url)("doctor", url, "--ca", str(trusted), "--seconds", "0.1").code in (0, 1)


def test_a_storm_of_wrong_tokens() -> None:
    guarded = Guarded()
    with guarded:
        server = guarded.server
        wrong = {"Authorization": f"Bearer {tokens.new().text}"}
        admin = guarded.admin.field
        before = figure(server, 'keyrack_auth_failures_total{reason="unknown"}', **admin)
        began = time.monotonic()
        with busy(lambda: server.ask("GET", "/v1/keys/secret", **wrong)):
            eventually(
                lambda: (
                    "log-ins a second fail (unknown)"
                    in doctor(server, "--token", guarded.admin.text)
                ),
                "it stands out",
            )
        seconds = time.monotonic() - began
        after = figure(server, 'keyrack_auth_failures_total{reason="unknown"}', **admin)
        assert after > before
        audit = [line for line in server.log_lines() if line.get("event") == "audit"]
        assert any(line["outcome"] == 401 and line["peer"] for line in audit)
        # Whatever the storm: of one sender each second has ten lines, and one that tells of more.
        assert len([line for line in audit if line["outcome"] == 401]) <= 11 * (seconds + 2)


@pytest.mark.skipif(shutil.which("valkey-server") is None, reason="needs valkey-server")
def test_valkey_that_is_away() -> None:
    from valkey_support.servers import Alone

    servers = Alone()
    try:
        url = servers.url
        with Troubled("--engine", url, "--engine-timeout", "0.2", memory=None) as server:
            server.put("a", b"x")
            servers.server.kill()
            answer = eventually(
                lambda: (found := server.ask("GET", "/v1/keys/a")).status == 503 and found,
                "reads are refused",
            )
            assert "Valkey" in answer.json["detail"]
            assert server.ask("GET", "/readyz").status == 503
            assert figure(server, "keyrack_workers") == 1
            assert any("is lost" in line["message"] for line in server.log_lines())
            assert "The service is not ready" in doctor(server)
    finally:
        servers.server.remove()


def test_a_clock_that_is_set(tmp_path: Path) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("faketime is not installed: apt-get install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environ = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Troubled(environ=environ) as server:
        server.ask("PUT", "/v1/keys/a?ttl=600", b"x")
        new = tmp_path / "new"
        new.write_text("+7200\n")
        new.replace(clock)
        line = logged(server, "clock_set")
        assert line["message"].startswith("the machine's clock was set forward by 7200")
        assert figure(server, "keyrack_clock_steps_total") == 1
        assert server.ask("GET", "/v1/keys/a").status == 200
        assert "The machine's clock was set" in doctor(server)
