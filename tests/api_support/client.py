"""A client that keeps its connection, and says which worker serves it."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from keyrack_server import Server, Wire, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Answer


class Client:
    """Sends requests over one connection, made anew where the server has closed it."""

    def __init__(self, server: Server, timeout: float = 20.0) -> None:
        self._server = server
        self._timeout = timeout
        self.wire = server.connect(timeout)

    def close(self) -> None:
        """Close."""
        self.wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def another(self) -> Wire:
        """Return another connection to the same service."""
        return self._server.connect(self._timeout)

    def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send a request and return its answer."""
        answer = self.wire.ask(request(method, target, body, **fields))
        if answer.closes or answer.status in (413, 414):
            self.wire.close()
            self.wire = self._server.connect(self._timeout)
        return answer

    def get(self, target: str, **fields: str) -> Answer:
        """Send a GET."""
        return self.ask("GET", target, **fields)

    def delete(self, target: str, **fields: str) -> Answer:
        """Send a DELETE."""
        return self.ask("DELETE", target, **fields)

    def post(self, target: str, body: Any, **fields: str) -> Answer:
        """Send JSON; bytes go as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", target, data, **{"Content_Type": "application/json", **fields})

    def put(self, key: str, value: bytes = b"value", query: str = "", **fields: str) -> str:
        """Store a value; return its revision."""
        answer = self.ask("PUT", f"/v1/keys/{quoted(key)}{query}", value, **fields)
        assert answer.status in (201, 204), answer
        return answer["ETag"].strip('"')

    def batch(self, *operations: dict[str, Any], **fields: str) -> Answer:
        """Send a batch."""
        return self.post("/v1/batch", {"operations": operations}, **fields)

    def patch(self, key: str, patch: Any, **fields: str) -> Answer:
        """Send a merge patch."""
        data = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
        kind = {"Content_Type": "application/merge-patch+json", **fields}
        return self.ask("PATCH", f"/v1/keys/{quoted(key)}", data, **kind)

    def shown(self, key: str) -> Any:
        """Return what `GET /get/<key>` shows as the value, None for a missing key."""
        answer = self.get(f"/get/{quoted(key)}")
        return answer.json["value"] if answer.status == 200 else None

    def clear(self) -> None:
        """Remove every key."""
        assert self.delete("/v1/keys?all=true").status == 200


def quoted(key: str | bytes) -> str:
    """Return a key as a path names it."""
    return quote(key, safe="")


def dechunked(data: bytes) -> tuple[bytes, bytes]:
    """Return head and body of a chunked answer, which must be whole."""
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower(), head
    body = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n", "a chunk ends with a line break"
        if not length:
            assert rest == b"\r\n", rest
            return head, b"".join(body)
        body.append(rest[:length])
        rest = rest[length + 2 :]


def worker_of(server: Server, wire: Wire) -> int:
    """Return the process id of the worker that has accepted a connection."""
    mine = wire.socket.getsockname()[1]
    pattern = f":{server.port:04X} 0100007F:{mine:04X} "
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        rows = [row for row in Path("/proc/net/tcp").read_text().splitlines() if pattern in row]
        inode = rows[0].split()[9] if rows else "0"
        for pid in server.worker_pids():
            if inode != "0" and _holds(pid, f"socket:[{inode}]"):
                return pid
        time.sleep(0.01)
    raise AssertionError("no worker has this connection")


def _holds(pid: int, link: str) -> bool:
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") == link:
                    return True
    return False


@contextmanager
def spread(server: Server) -> Iterator[list[Client]]:
    """Open connections until every worker has one; give one client for each worker."""
    with ExitStack() as stack:
        found: dict[int, Client] = {}
        for _ in range(200):
            client = stack.enter_context(Client(server))
            assert client.get("/healthz").status == 200
            found.setdefault(worker_of(server, client.wire), client)
            if len(found) == len(server.worker_pids()):
                yield list(found.values())
                return
        raise AssertionError("not every worker accepts connections")
