"""A small world for the pipeline's scripts: stubs in PATH, a webhook, services to verify."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from delivery.pipeline_support.builds import COMMIT, HERE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = "registry.example:5000/team/keyrack"


class World:
    """Runs make targets with docker, helm and kubectl replaced by stubs."""

    def __init__(self, directory: Path) -> None:
        self.stubs = directory / "stubs"
        self.bin = directory / "bin"
        self.temporary = directory / "tmp"
        for made in (self.stubs, self.bin, self.temporary):
            made.mkdir()
        self.rules: list[tuple[str, dict[str, Any]]] = []
        for tool in ("docker", "helm", "kubectl"):
            self.put(tool, f"#!{sys.executable}\n{(HERE / 'stub.py').read_text()}")
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text("{}")
        self.variables = {
            "IMAGE": IMAGE,
            "TAG": COMMIT,
            "ENVIRONMENT": "staging",
            "KUBECONFIG": str(self.kubeconfig),
            "REGISTRY_USER": "robot",
            "REGISTRY_PASSWORD": "the password",
        }

    def put(self, tool: str, text: str) -> None:
        """Put a program into PATH, before all others."""
        path = self.bin / tool
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, pattern: str, **answer: Any) -> None:
        """Let the calls that have the pattern be answered so; later rules come first."""
        self.rules.insert(0, (pattern, answer))

    def prepared(self) -> Path:
        """Write the rules down and forget the calls; return the directory that STUBS names."""
        (self.stubs / "rules.json").write_text(json.dumps(self.rules))
        (self.stubs / "calls.jsonl").write_text("")
        return self.stubs

    def make(self, target: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run a target, with variables of the environment changed or (None) taken away."""
        self.prepared()
        environment = os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STUBS": str(self.stubs),
            "TMPDIR": str(self.temporary),
        }
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS"):
            environment.pop(name, None)
        for name, value in (self.variables | variables).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        return subprocess.run(
            ["make", "--silent", target],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def notes(self) -> list[dict[str, str]]:
        """The calls of the last target, with what surrounded them."""
        return [json.loads(line) for line in (self.stubs / "calls.jsonl").read_text().splitlines()]

    @property
    def calls(self) -> list[str]:
        """The calls of the last target."""
        return [note["call"] for note in self.notes]

    def changes(self) -> list[str]:
        """Those of the calls that change something outside this machine."""
        changing = ("docker push", "helm upgrade", "helm rollback", "helm uninstall")
        return [call for call in self.calls if call.startswith(changing)]


class Webhook:
    """An HTTP server on loopback that keeps what is posted to it."""

    def __init__(self, status: int = 200) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.messages.append((self.path, json.loads(body)))
                self._answer(status, b"")

            def do_GET(self) -> None:
                # To whoever verifies it as a store: it is ready, and nothing more.
                self._answer(200 if self.path == "/readyz" else 404, b"not a store\n")

            def _answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> Webhook:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class TlsController:
    """Answers an agent as Jenkins would, by HTTPS with the key and certificate in a directory."""

    def __init__(self, directory: Path) -> None:
        self.passwords: set[str] = set()
        """The users and passwords that were sent."""
        controller = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = self.headers.get("Authorization", "").removeprefix("Basic ")
                if sent:
                    controller.passwords.add(base64.b64decode(sent).decode())
                body = f"<argument>{'0a' * 32}</argument>".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "own.pem", directory / "own.key")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> TlsController:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def keyrack_running() -> Iterator[int]:
    """Run a real Keyrack on loopback, and give its port."""
    port = free_port()
    command = [ROOT / os.environ.get("VENV", ".venv") / "bin" / "keyrack", "serve"]
    arguments = ["--port", str(port), "--workers", "1", "--memory", "8m", "--log-level", "warning"]
    process = subprocess.Popen([*command, *arguments])
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break
            assert process.poll() is None, "keyrack serve ended"
            assert time.monotonic() < deadline, "keyrack serve does not get ready"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(15)


def free_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def real_helm(major: int) -> Path:
    """The real Helm that the chart's tests bring (deploy/chart.mk)."""
    helm = ROOT / ".delivery" / "chart" / "bin" / f"helm{major}"
    assert helm.exists(), f"{helm} is missing: make pipeline-test brings it"
    return helm


def copy_real_helm(world: World, major: int) -> None:
    """Let a world use a real Helm."""
    (world.bin / "helm").unlink()
    shutil.copy(real_helm(major), world.bin / "helm")
