"""A package index on loopback, with a certificate of its own: as behind a company's mirror.

It serves the locked wheels with the caching headers of the public index, and counts downloads. The
wheels come from wherever this machine's pip gets them.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Index:
    """Serves until `close`. `downloads` counts the wheels that were asked for, by name."""

    def __init__(self, directory: Path, lists: list[Path], python_version: str) -> None:
        self.downloads: Counter[str] = Counter()
        self.certificate = directory / "cert.pem"
        self._fetch(directory / "wheels", lists, python_version)
        self._arrange(directory / "wheels", directory / "root")
        self._make_certificate(directory)
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(_Handler, self.downloads, directory=str(directory / "root"))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, directory / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def pip_conf(self) -> str:
        """The settings of pip inside of a build."""
        port = self._server.server_port
        return (
            f"[global]\nindex-url = https://127.0.0.1:{port}/simple/\ncert = /run/secrets/ca.pem\n"
        )

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @staticmethod
    def _fetch(wheels: Path, lists: list[Path], python_version: str) -> None:
        words = [word for path in lists for word in ("--requirement", str(path))]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"),
                *("download", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
                *("--python-version", python_version, "--dest", str(wheels), *words),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _arrange(wheels: Path, root: Path) -> None:
        """Lay the wheels out as a simple index (PEP 503): a directory for each project."""
        for wheel in wheels.iterdir():
            project = root / "simple" / wheel.name.partition("-")[0].lower().replace("_", "-")
            project.mkdir(parents=True, exist_ok=True)
            wheel.rename(project / wheel.name)

    @staticmethod
    def _make_certificate(directory: Path) -> None:
        words = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=index -keyout key.pem -out "
        subprocess.run(
            [*words.split(), "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=directory,
            check=True,
            capture_output=True,
        )


class _Handler(SimpleHTTPRequestHandler):
    """A directory's listing is what pip wants: a page of links."""

    def __init__(self, downloads: Counter[str], *words: object, directory: str) -> None:
        self._downloads = downloads
        super().__init__(*words, directory=directory)  # type: ignore[arg-type]  # the server's words

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self._downloads[self.path.rpartition("/")[2]] += 1
        super().do_GET()

    def end_headers(self) -> None:
        if self.path.endswith(".whl"):
            self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass
