"""A server that does with each connection what a test says, to the byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

Script: TypeAlias = Callable[[socket.socket], None]


class Scripted:
    """Runs the next script for each connection, and the last one for all that follow.

    `connections` counts those that were accepted.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(5)
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            self._open.append(connection)
            thread = threading.Thread(target=self._run, args=(script, connection))
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _run(script: Script, connection: socket.socket) -> None:
        connection.settimeout(10)
        with suppress(OSError):
            script(connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    """Return the next request as it came, nothing when the client has hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(
    body: bytes = b"v",
    status: str = "200 OK",
    kind: str = "text/plain; charset=utf-8",
    etag: str = '"7"',
    more: str = "",
) -> bytes:
    """Return an answer as Keyrack gives it."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nETag: {etag}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
