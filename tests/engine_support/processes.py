"""Start the programs of `children` and talk with them in lines."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from typing import Any


class Child:
    """Another process, killed at the end of a `with` block if it still lives."""

    def __init__(self, verb: str, *arguments: object) -> None:
        # The same packages as here, in the same order: also a copy of the source that is tested.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine_support.children", verb, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # A line that a dead process did not read any more is lost with it.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def hear(self) -> str:
        """Return the next line, empty when the process has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def hear_all(self) -> list[str]:
        """Return all lines until the process has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.read().decode().splitlines()

    def tell(self, line: str = "") -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def call(self, *words: object) -> Any:
        """Have a `serve` do something, and return its answer."""
        self.tell(repr(words))
        answer = self.hear()
        assert answer, f"the process died with {self._process.wait()} at {words[0]}"
        return ast.literal_eval(answer)

    def kill(self) -> None:
        """Kill the process at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Let the process end and return its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(timeout=30)
