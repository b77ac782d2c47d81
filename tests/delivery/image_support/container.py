"""A container of Keyrack's image, and what a test wants to know of it."""

from __future__ import annotations

import functools
import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from delivery.image_support.engine import Engine

_PATIENCE_SECONDS = 30

HARDENED = (
    *("--read-only", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges:true"),
)


def wait_for(what: str, condition: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> None:
    """Fail when the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(0.05)


class Container:
    """Runs in the background until `remove`."""

    def __init__(self, engine: Engine, image: str, *flags: str, command: tuple[str, ...] = ()):
        self.engine = engine
        self.id = engine.docker(
            "run", "--detach", "--publish", "127.0.0.1::8088", *flags, image, *command
        )

    @functools.cached_property
    def url(self) -> str:
        """Where it answers, on loopback."""
        return "http://" + self.engine.docker("port", self.id, "8088/tcp").splitlines()[0]

    def records(self) -> list[dict[str, Any]]:
        """Return its log."""
        done = self.engine.try_docker("logs", self.id)
        return [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]

    def ready(self) -> dict[str, Any]:
        """Wait until it is ready, and return what the log says of it."""

        def said() -> bool:
            assert self.state("Running") == "true", self.records()
            return any(record.get("event") == "ready" for record in self.records())

        wait_for("ready", said)
        return next(record for record in self.records() if record.get("event") == "ready")

    def state(self, name: str) -> str:
        """Return a part of the container's state."""
        return self.engine.docker("inspect", "--format", f"{{{{json .State.{name}}}}}", self.id)

    def health(self) -> str:
        """Return what Docker thinks of its health."""
        return str(json.loads(self.state("Health"))["Status"])

    def last_check(self) -> str:
        """Return what the last health check printed."""
        return str(json.loads(self.state("Health"))["Log"][-1]["Output"])

    def wait_for_health(self, status: str) -> None:
        """Wait for Docker to think so."""
        wait_for(f"health {status!r}", lambda: self.health() == status)

    def inside(self, *words: str) -> str:
        """Run a command in it and return what it prints."""
        return self.engine.docker("exec", self.id, *words)

    def request(self, method: str, path: str, body: bytes | None = None) -> int:
        """Send a request and return the status of the answer."""
        made = urllib.request.Request(self.url + path, body, method=method)
        try:
            with urllib.request.urlopen(made, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def remove(self) -> None:
        """End it at once."""
        self.engine.try_docker("rm", "--force", "--volumes", self.id)
