"""Who is known by the connection: processes on the Unix socket, and client certificates."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from access_support import Guarded
from access_support.service import Quiet
from keyrack_server import request
from keyrack_server.wire import parse

if TYPE_CHECKING:
    from pathlib import Path

    from keyrack_server import Answer


def ask_unix(path: str, *fields: str) -> list[int]:
    """Return the statuses of a read, a read again, and a write."""
    statuses = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        head = {"Authorization": fields[0]} if fields else {}
        for method, body in (("GET", None), ("GET", None), ("PUT", b"v")):
            client.sendall(request(method, "/v1/keys/a", body, **head))
            data = b""
            while (found := parse(data)) is None:
                data += client.recv(65536)
            statuses.append(found[0].status)
    return statuses


@pytest.mark.parametrize(
    ("peer", "statuses"),
    [
        (f"uid = {os.geteuid()}\npolicies = ['read-only']", [404, 404, 403]),
        (f"gid = {os.getegid()}\nrules = ['all keys:*']", [404, 404, 201]),
        (f"uid = {os.geteuid() + 1}\npolicies = ['admin']", [401, 401, 401]),
    ],
)
def test_a_process_on_the_unix_socket_is_known_by_its_user(
    peer: str, statuses: list[int], tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    service = Guarded(f"[[peers]]\n{peer}\n")
    with Quiet("--auth", str(service.path), "--uds", path):
        assert ask_unix(path) == statuses
        # What is sent counts more than the connection.
        assert ask_unix(path, service.admin.field["Authorization"])[:2] in ([404, 404], [200, 200])
        assert ask_unix(path, "Bearer wrong") == [401, 401, 401]


class Authority:
    """Makes certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._run(
            "req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -keyout ca.key -out ca.pem"
        )

    def _run(self, words: str, *more: str) -> None:
        subprocess.run(
            ["openssl", *words.split(), *more], cwd=self.directory, check=True, capture_output=True
        )

    def issue(self, name: str, alternative: str) -> tuple[str, str]:
        """Return the files of a certificate and its key."""
        (self.directory / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        self._run(
            f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        )
        self._run(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 "
            f"-out {name}.pem -extfile {name}.ext"
        )
        return str(self.directory / f"{name}.pem"), str(self.directory / f"{name}.key")


def ask_tls(port: int, authority: Authority, pair: tuple[str, str] | None, method: str) -> Answer:
    context = ssl.create_default_context(cafile=str(authority.directory / "ca.pem"))
    context.check_hostname = False
    if pair is not None:
        context.load_cert_chain(*pair)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as client,
    ):
        body = b"v" if method == "PUT" else None
        client.sendall(request(method, "/v1/keys/a", body))
        data = b""
        while (found := parse(data)) is None:
            piece = client.recv(65536)
            if not piece:
                raise ConnectionResetError
            data += piece
        return found[0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is missing")
def test_a_client_certificate_stands_for_whom_the_file_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    reader = authority.issue("cart", "URI:spiffe://prod/ns/shop/sa/cart")
    other = authority.issue("other", "DNS:other.example")
    head = (
        "[[certificates]]\nsan = 'spiffe://prod/ns/shop/sa/cart'\npolicies = ['read-only']\n"
        "[[certificates]]\nsan = 'cart'\nrules = ['set keys:a']\n"
    )
    service = Guarded(head)
    flags = ("--auth", str(service.path), "--tls-cert", certificate, "--tls-key", key)
    client_ca = ("--tls-client-ca", str(tmp_path / "ca.pem"))
    with Quiet(*flags, *client_ca, tls=True) as server:
        assert ask_tls(server.port, authority, reader, "GET").status == 404
        assert ask_tls(server.port, authority, reader, "PUT").status == 201
        assert ask_tls(server.port, authority, reader, "DELETE").status == 403
        assert ask_tls(server.port, authority, other, "GET").status == 401
        assert ask_tls(server.port, authority, None, "GET").status == 401
    with Quiet(*flags, *client_ca, "--tls-client-required", tls=True) as server:
        assert ask_tls(server.port, authority, reader, "GET").status == 404
        with pytest.raises(OSError):  # noqa: PT011 - whichever way the handshake fails
            ask_tls(server.port, authority, None, "GET")
