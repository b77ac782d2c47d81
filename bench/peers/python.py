"""What most Python services would start from: the seed API over a dict, in two frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench import packages, wire
from bench.errors import BenchError
from bench.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Sequence

APPS = Path(__file__).parent.parent / "apps"


class PythonApp(Peer):
    """An application of bench/apps in the bench's own environment."""

    distributions: ClassVar[tuple[str, ...]]

    def command(self) -> Sequence[str | Path]:
        """The server's command line."""
        raise NotImplementedError

    def start(self) -> None:
        self.launch(self.command(), self.port, {"PYTHONPATH": str(APPS)})

    def preload(self) -> None:
        """Inside the application, by a route made for the bench: these servers would need minutes.

        The dict holds what a client's writes would have left: new strings of the same lengths.
        """
        status, answer = wire.exchange(self.port, "POST", f"/fill/{self.keys}")
        if status != 200:
            raise BenchError(f"{self.name} was not filled: {status} {answer[:200]!r}")

    def version(self) -> str:
        return packages.python_versions(*self.distributions)


class Flask(PythonApp):
    """Flask under one gunicorn worker of the default, sync, class: it closes after each answer."""

    name = "flask"
    title = "Flask + gunicorn (1 sync worker)"
    distributions = ("flask", "gunicorn")

    def command(self) -> Sequence[str | Path]:
        bind = f"{wire.HOST}:{self.port}"
        return [packages.environment() / "gunicorn", "--workers", "1", "--worker-class", "sync",
                "--bind", bind, "--log-level", "warning", "flask_app:app"]  # fmt: skip


class FastApi(PythonApp):
    """FastAPI under one uvicorn worker with uvloop and httptools, access log off."""

    name = "fastapi"
    title = "FastAPI + uvicorn (1 worker)"
    distributions = ("fastapi", "uvicorn", "uvloop", "httptools")

    def command(self) -> Sequence[str | Path]:
        return [packages.environment() / "uvicorn", "--host", wire.HOST, "--port", str(self.port),
                "--loop", "uvloop", "--http", "httptools", "--no-access-log",
                "--log-level", "warning", "fastapi_app:app"]  # fmt: skip
