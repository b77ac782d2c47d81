"""The service as a process."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyrack_server.wire import Answer, Wire, parse, request

if TYPE_CHECKING:
    from types import TracebackType

ENGINES: dict[str, tuple[str, ...]] = {
    "embedded": ("keyrack", "serve"),
    "commit": ("keyrack", "serve"),
    "late-writes": ("keyrack_server.stand_ins", "writes", "serve"),
    "remote": ("keyrack_server.stand_ins", "remote", "serve"),
}
"""The engines that the tests over HTTP can be run with, and the program that serves each. Another
one is a row here; KEYRACK_TEST_ENGINE names the one of a run. `commit` is the embedded one with
every write kept on a disk. `valkey`, `valkey-sentinel` and
`valkey-cluster` are served by the first of them, each service with a store of its own in servers
that `valkey_support` starts."""
ENGINE = os.environ.get("KEYRACK_TEST_ENGINE", "embedded")
ON_VALKEY = ENGINE.startswith("valkey")


def _store_flags(*flags: str) -> tuple[str, ...]:
    if ENGINE == "commit" and "--durability" not in flags:
        return *flags, "--durability", "commit", "--data-dir", _new_data_directory()
    if not ON_VALKEY:
        return flags
    from valkey_support.store import translated  # not for tests that do without

    return translated(ENGINE, flags)


def _new_data_directory() -> str:
    path = tempfile.mkdtemp(prefix="keyrack-test-data-")
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, owner: int) -> None:
    """Remove a directory, unless this is a copy of the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


_START_SECONDS = 20.0
_END_SECONDS = 15.0


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of the service."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("KEYRACK_")
    }
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def refused_start(*flags: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a service that cannot start; return the one line in which it says why."""
    command = [*prefix, sys.executable, "-m", "keyrack", "serve", "--workers", "1", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=clean_environment()
    )
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


class Server:
    """`keyrack serve` with the given flags, on a port of its own; ends with `stop`.

    `prefix` is a command that runs it; `environ` is added to its environment.

    Stopping asserts that the service ended in order and that its log holds no traceback.
    """

    def __init__(
        self,
        *flags: str,
        workers: int = 1,
        memory: str | None = "128m",
        prefix: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self._told = False
        self._log = tempfile.NamedTemporaryFile(prefix="keyrack-test-", suffix=".log")  # noqa: SIM115 - closed in stop
        program = ENGINES["embedded" if ON_VALKEY else ENGINE]
        command = [*prefix, sys.executable, "-m", *program, "--port", "0"]
        limit = () if memory is None else ("--memory", memory)
        command += ["--workers", str(workers), *_store_flags(*flags, *limit)]
        environment = clean_environment() | (environ or {})
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment
        )
        try:
            self.port = self._wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service did not start:\n{self.log()}"
            for line in self.log_lines():
                if line.get("event") == "ready":
                    with contextlib.suppress(OSError):
                        return self._answering(line["urls"])
            time.sleep(0.02)
        raise AssertionError(f"not ready after {_START_SECONDS} s: {self._doing()}\n{self.log()}")

    def _doing(self) -> str:
        """Return what the service's first process has done and waits for: a machine can be busy."""
        process = Path(f"/proc/{self.process.pid}")
        words = (process / "stat").read_text().rpartition(")")[2].split()
        seconds = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        waits = (process / "wchan").read_text()
        return f"state {words[0]} ({waits}), {seconds} s of processor time, {os.getloadavg()}"

    def _answering(self, urls: list[str]) -> int:
        port = int(urls[0].rpartition(":")[2])
        with Wire(port) as wire:
            assert wire.ask(request()).status == 200
        return port

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._end()
            self._log.close()

    # Its log

    def log(self) -> str:
        """Return what the service has logged."""
        return Path(self._log.name).read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the whole lines of the log that are JSON, as they must all be."""
        lines = self.log().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was logged above `info`, and every traceback.

        That everybody is let in is no complaint: a test on a network says that it wants it. Nor is
        a store that is full: some tests are about that.
        """
        return [
            line
            for line in self.log_lines()
            if line["level"] not in ("debug", "info") or "Traceback" in str(line)
            if line.get("event") not in ("open_to_everybody", "store_full")
        ]

    # Its processes

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def worker_memory(self) -> int:
        """Return the bytes that the workers hold, without the store that they share."""
        total = 0
        for pid in self.worker_pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
        return total

    # Talking to it

    def connect(self, timeout: float = 10.0) -> Wire:
        """Open a connection."""
        return Wire(self.port, timeout)

    def raw(self, data: bytes, timeout: float = 10.0) -> bytes:
        """Send bytes and nothing after them; return all that comes back."""
        with self.connect(timeout) as wire:
            with contextlib.suppress(OSError):
                wire.send(data).half_close()
            return wire.rest()

    def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send one request on a connection of its own and return its answer."""
        data = request(method, target, body, **fields)
        found = parse(self.raw(data), method)
        assert found is not None, f"no answer to {data!r}"
        answer, rest = found
        assert rest == b"", f"something follows the answer to {data!r}: {rest!r}"
        return answer

    def put(self, key: str, value: bytes, **fields: str) -> str:
        """Store a value and return its ETag."""
        answer = self.ask("PUT", f"/v1/keys/{key}", value, **fields)
        assert answer.status in (201, 204), answer
        return answer["ETag"]

    def has(self, key: str) -> bool:
        """Tell whether a key is there; remove it, so that the next who asks is not misled."""
        return self.ask("DELETE", f"/v1/keys/{key}").status == 204

    # Its end

    def tell_to_end(self) -> None:
        """Send SIGTERM, once: a second one would mean not to wait for requests under way."""
        if self.process.poll() is None and not self._told:
            self._told = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the service as an operator does, and assert that it ended in order."""
        code = self._end()
        complaints = self.complaints()
        log = self.log()
        self._log.close()
        assert code == 0, f"the service ended with {code}:\n{log}"
        assert "Traceback" not in log, log
        assert complaints == [], complaints

    def _end(self) -> int:
        self.tell_to_end()
        try:
            return self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
