"""Bytes on loopback sockets: one HTTP exchange, and long pipelines of any protocol."""

from __future__ import annotations

import http.client
import itertools
import socket
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

HOST = "127.0.0.1"


def key(number: int) -> str:
    """A key of 16 bytes, spelled as redis-benchmark spells its random keys."""
    return f"key:{number:012d}"


def value(number: int) -> str:
    """A value of 32 bytes."""
    return f"value:{number:026d}"


def exchange(
    port: int, method: str, path: str, body: str = "", media_type: str = ""
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    headers = {"Content-Type": media_type} if media_type else {}
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def http_request(method: str, path: str, body: str = "", media_type: str = "") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n"
    if body:
        head += f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()


def resp_command(*words: str) -> bytes:
    """The bytes of a Redis command."""
    parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
    return "".join(parts).encode()


def pipeline(port: int, requests: Iterable[bytes], success: bytes, depth: int = 200) -> None:
    """Send requests on one connection, `depth` at a time, and await the answers.

    `success` is what every good answer, and nothing else, contains once. A request that is not
    answered so within 20 seconds raises: a server that was loaded half would be measured wrong.
    """
    source = iter(requests)
    with socket.create_connection((HOST, port), timeout=20) as connection:
        while batch := list(itertools.islice(source, depth)):
            connection.sendall(b"".join(batch))
            _await_answers(connection, success, len(batch))


def _await_answers(connection: socket.socket, success: bytes, count: int) -> None:
    seen = b""
    while count > 0:
        try:
            received = connection.recv(1 << 18)
        except TimeoutError:
            received = b""
        if not received:
            raise BenchError(f"a preload request failed; last answer: {seen[-200:]!r}")
        # What may be the beginning of an answer is looked at again with the next bytes.
        rest = seen[1 - len(success) :]
        seen = rest + received
        count -= seen.count(success)
