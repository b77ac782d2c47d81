"""Replace the one pod of the embedded store under traffic, and see how long its clients wait.

    python -m delivery.chart_support.replacement [VALUE=... [KEYS]]

The pods are processes. What Kubernetes needs comes on top of what is measured: it has to notice
that the pod is gone, place the next one, start its sandbox and make it known.
"""

from __future__ import annotations

import dataclasses
import http.client
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from delivery.chart_support.charts import objects, pod, server
from delivery.chart_support.nodes import Node

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

CLIENTS = 4


@dataclasses.dataclass
class Endpoint:
    """Where a Service sends its clients: to the pod's port, while the pod is said to be ready."""

    port: int = 0
    known: bool = False


class Client(threading.Thread):
    """Writes on kept connections to wherever the Service leads; tries again until answered."""

    def __init__(self, endpoint: Endpoint, token: dict[str, str], stop: threading.Event) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._token = token
        self._stop_asked = stop
        self._connection: http.client.HTTPConnection | None = None
        self.answered = 0
        self.refused = 0
        self.broken: list[str] = []
        """Failures after a request was sent, whose writer cannot know whether it was done."""
        self.longest = 0.0

    def run(self) -> None:
        last = time.monotonic()
        while not self._stop_asked.is_set():
            if self._write():
                now = time.monotonic()
                self.longest = max(self.longest, now - last)
                last = now
                self.answered += 1
        if self._connection is not None:
            self._connection.close()

    def _write(self) -> bool:
        connection = self._connected()
        if connection is None:
            self.refused += 1
            time.sleep(0.02)
            return False
        try:
            connection.request("PUT", f"/v1/keys/{self.name}", b"x" * 100, self._token)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.broken.append(repr(error))
            connection.close()
            self._connection = None
            return False
        assert answer.status in (200, 201, 204), answer.status
        if answer.will_close:
            connection.close()
            self._connection = None
        return True

    def _connected(self) -> http.client.HTTPConnection | None:
        if self._connection is None and self._endpoint.known:
            made = http.client.HTTPConnection("127.0.0.1", self._endpoint.port, timeout=20)
            try:
                made.connect()
            except OSError:
                return None
            self._connection = made
        return self._connection


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What the clients of a pod saw while it was replaced (seconds)."""

    longest: float
    ending: float
    starting: float
    answered: int
    refused: int
    broken: list[str]


def _until_ready(node: Node, running: subprocess.Popen[bytes]) -> None:
    """Ask as often as the start-up probe does, from the first moment, until it succeeds."""
    probe = server(node.found)["startupProbe"]
    for _ in range(probe["failureThreshold"]):
        with_probe = http.client.HTTPConnection("127.0.0.1", node.port, timeout=3)
        try:
            with_probe.request("GET", probe["httpGet"]["path"])
            if with_probe.getresponse().status == 200:
                return
        except OSError:
            assert running.poll() is None, node.log()
        finally:
            with_probe.close()
        time.sleep(probe["periodSeconds"])
    raise AssertionError("the start-up probe never succeeded: " + node.log())


def _fill(node: Node, keys: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    lines = b"".join(
        b'{"key":"filled/%d","value":"%s"}\n' % (number, b"v" * 100) for number in range(keys)
    )
    fields = node.token | {"Content-Type": "application/x-ndjson"}
    for start in _pieces(lines):
        connection.request("POST", "/v1/import", start, fields)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
    connection.close()


def _pieces(lines: bytes) -> Iterator[bytes]:
    each = lines.splitlines(keepends=True)
    for at in range(0, len(each), 20_000):
        yield b"".join(each[at : at + 20_000])


def replace(*flags: str, directory: Path, keys: int = 0) -> Replacement:
    """Start a pod with these values, write to it, replace it as a StatefulSet does, write on."""
    claimed = directory / "claimed"
    claimed.mkdir()
    found = objects(*flags)
    claims = claimed if "volumeClaimTemplates" in _spec(found) else None
    nodes = []
    for life in "12":
        (directory / life).mkdir()
        nodes.append(Node(found, directory / life, claims))
    endpoint, stop = Endpoint(), threading.Event()
    clients = [Client(endpoint, nodes[0].token, stop) for _ in range(CLIENTS)]
    first = nodes[0].start()
    second: subprocess.Popen[bytes] | None = None
    try:
        _until_ready(nodes[0], first)
        _fill(nodes[0], keys)
        endpoint.port, endpoint.known = nodes[0].port, True
        for client in clients:
            client.start()
        time.sleep(1)
        began = time.monotonic()
        # Where there is no other pod, one that ends is used for as long as it takes connections.
        first.terminate()
        assert first.wait(pod(found)["terminationGracePeriodSeconds"]) == 0, nodes[0].log()
        ended = time.monotonic()
        endpoint.known = False
        second = nodes[1].start()
        _until_ready(nodes[1], second)
        ready = time.monotonic()
        endpoint.port, endpoint.known = nodes[1].port, True
        before = sum(client.answered for client in clients)
        while sum(client.answered for client in clients) < before + 100 * CLIENTS:
            time.sleep(0.01)
    finally:
        stop.set()
        for client in clients:
            if client.is_alive():
                client.join(30)
        for process in (first, second):
            if process is not None:
                process.terminate()
                process.wait(60)
        for node in nodes:
            node.close()
    return Replacement(
        longest=max(client.longest for client in clients),
        ending=ended - began,
        starting=ready - ended,
        answered=sum(client.answered for client in clients),
        refused=sum(client.refused for client in clients),
        broken=[error for client in clients for error in client.broken],
    )


def _spec(found: list[dict[str, object]]) -> dict[str, object]:
    (one,) = [one["spec"] for one in found if one["kind"] == "StatefulSet"]
    assert isinstance(one, dict)
    return one


def main() -> None:
    """Print what was measured with the values that are given."""
    flags = ("--set", sys.argv[1]) if len(sys.argv) > 1 else ()
    with tempfile.TemporaryDirectory() as directory:
        print(replace(*flags, directory=Path(directory), keys=int([*sys.argv, "0", "0"][2])))


if __name__ == "__main__":
    main()
