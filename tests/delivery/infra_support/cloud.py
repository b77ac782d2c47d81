"""A cloud on loopback: moto's server, and the one service that it lacks."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """Run moto's server on a free port; give its address."""
    server = Path(__file__).with_name("server.py")
    command = [sys.executable, str(server), "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield _address(process, log)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            urllib.request.urlopen(found[1] + "/moto-api/data.json", timeout=30).close()
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"moto's server did not start: {log.read_text()}")


class Snapshots(ThreadingHTTPServer):
    """Data Lifecycle Manager, as far as a policy is made, read, changed and deleted.

    Shapes: the service's API reference, 2018-01-12. It keeps what it was sent and judges nothing.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Snapshots)
        self.policies: dict[str, dict[str, Any]] = {}
        self.made = 0


class _Snapshots(BaseHTTPRequestHandler):
    server: Snapshots

    def do_POST(self) -> None:
        self.server.made += 1
        name = f"policy-{self.server.made:017x}"
        arn = f"arn:aws:dlm:eu-central-1:123456789012:policy/{name}"
        self.server.policies[name] = self._body() | {"PolicyId": name, "PolicyArn": arn}
        self._answer(200, {"PolicyId": name})

    def do_GET(self) -> None:
        self._on_policy(lambda policy: {"Policy": policy})

    def do_PATCH(self) -> None:
        self._on_policy(lambda policy: policy.update(self._body()) or {})

    def do_DELETE(self) -> None:
        self._on_policy(lambda policy: self.server.policies.pop(policy["PolicyId"]) and {})

    def _on_policy(self, act: Any) -> None:
        policy = self.server.policies.get(self.path.strip("/").rpartition("/")[2])
        if policy is None:
            self._answer(404, {"Code": "ResourceNotFoundException", "Message": "no such policy"})
        else:
            self._answer(200, act(policy))

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 404:
            self.send_header("x-amzn-ErrorType", "ResourceNotFoundException")
        text = json.dumps(body).encode()
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest shows what the tests find."""


@contextmanager
def snapshots() -> Iterator[Snapshots]:
    """Run the stand-in for Data Lifecycle Manager."""
    with Snapshots() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
