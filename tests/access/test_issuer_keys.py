"""Keys of issuers that are fetched from a URL."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from access.test_connections import Authority

from keyrack.access.model import Issuer
from keyrack.server.issuer_fetch import fetch
from keyrack.server.issuer_keys import IssuerKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")


class Handler(BaseHTTPRequestHandler):
    """Serves keys to whoever has the token."""

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
            return
        good = self.headers.get("Authorization") == "Bearer cluster"
        body = json.dumps({"keys": []}).encode() if good else b"{}"
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    (tmp_path / "token").write_text("cluster\n")
    yield Issuer(
        "https://issuer",
        "keyrack",
        f"https://127.0.0.1:{server.server_port}/keys",
        ("RS256",),
        ca=str(tmp_path / "ca.pem"),
        bearer_token_file=str(tmp_path / "token"),
    )
    server.shutdown()
    server.server_close()
    thread.join()


def test_keys_are_fetched_with_the_token_of_the_cluster(issuer: Issuer) -> None:
    assert json.loads(fetch(issuer)) == {"keys": []}


@pytest.mark.parametrize("change", ["no token", "another authority", "a redirect"])
def test_what_is_not_as_it_was_said_is_refused(issuer: Issuer, change: str) -> None:
    import msgspec

    wrong = {
        "no token": {"bearer_token_file": None},
        "another authority": {"ca": None},
        "a redirect": {"jwks": issuer.jwks.replace("/keys", "/elsewhere")},
    }[change]
    with pytest.raises(OSError):  # noqa: PT011 - each in its own way
        fetch(msgspec.structs.replace(issuer, **wrong))


def children() -> set[int]:
    """Return the processes that this one has started; other tests may have some that go on."""
    threads = Path("/proc/self/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}


@pytest.mark.timing
def test_a_child_fetches_and_nothing_waits_for_it(issuer: Issuer) -> None:
    keys = IssuerKeys()
    before = children()
    began = time.monotonic()
    keys.look([issuer], False, lambda: None)
    assert time.monotonic() - began < 5
    assert keys.known(issuer.jwks) == ""
    (child,) = children() - before
    pid, status = os.waitpid(child, 0)
    assert keys.ended(pid, status)
    assert json.loads(keys.known(issuer.jwks)) == {"keys": []}
    keys.look([issuer], True, lambda: None)  # not so soon again
    assert children() == before
