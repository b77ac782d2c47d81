"""`keyrack serve --auth FILE`, with a file of its own and tokens that a test makes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keyrack_server import Server

from keyrack.access import tokens, writing
from keyrack.access.model import Token

if TYPE_CHECKING:
    from types import TracebackType


class Who(NamedTuple):
    """Somebody with a token."""

    id: str
    text: str

    @property
    def field(self) -> dict[str, str]:
        """Return the field that says so."""
        return {"Authorization": f"Bearer {self.text}"}


class _Service(Server):
    """A service with files that have mistakes, and workers that are killed."""

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was logged above `info`, but for what these tests do."""
        meant = ("What counted before still counts", "was killed by SIGKILL")
        return [
            line
            for line in super().complaints()
            if not any(one in line["message"] for one in meant)
        ]


class Guarded:
    """A service that lets in whom its file names. `head` is what its file begins with."""

    def __init__(
        self, head: str = "", *flags: str, workers: int = 1, memory: str | None = "64m", **more: str
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="keyrack-test-auth-"))
        self.path = self.directory / "auth.toml"
        self.path.write_text("version = 1\n" + head)
        self.path.chmod(0o600)
        self.admin = self.add(policies=("admin",), name="admin")
        for name, text in more.items():
            (self.directory / name).write_text(text)
        self._flags = flags
        self._workers = workers
        self._memory = memory
        self.server: Server

    def add(self, *rules: str, policies: tuple[str, ...] = (), **more: object) -> Who:
        """Add a token to the file."""
        made = tokens.new()
        fields = {"name": "test", **more}
        token = Token(made.id, made.hash, policies=policies, rules=rules, **fields)  # type: ignore[arg-type]  # its fields
        writing.add(str(self.path), token)
        return Who(made.id, made.text)

    def expired(self) -> Who:
        """Add a token whose time is over."""
        return self.add(policies=("admin",), expires=float(int(time.time()) - 10))

    def __enter__(self) -> Guarded:
        self.server = _Service(
            "--auth", str(self.path), *self._flags, workers=self._workers, memory=self._memory
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.__exit__(kind, error, trace)


class Quiet(Server):
    """A service on a Unix socket, or with TLS: nobody asks it until a test does."""

    def __init__(self, *flags: str, tls: bool = False) -> None:
        self._tls = tls
        super().__init__(*flags, memory="64m")

    def _answering(self, urls: list[str]) -> int:
        return int(urls[0].rpartition(":")[2]) if self._tls else 0
