"""nginx sending files: what it costs at least to send bytes over HTTP."""

from __future__ import annotations

import pwd
from os import geteuid
from typing import TYPE_CHECKING, ClassVar

from bench import packages, wire
from bench.errors import BenchError
from bench.load import Load, Request, reads
from bench.peers.base import Peer
from bench.scenarios import CLOSE, LARGE_KEYS, SIZES

if TYPE_CHECKING:
    from collections.abc import Mapping

_SMALL = 32
_CONFIGURATION = """\
daemon off;
worker_processes 1;
user {user};
pid {home}/nginx.pid;
error_log stderr error;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        root {home}/files;
    }}
}}
"""


def _read(size: int, fields: str = "") -> Load:
    request = Request("GET", f"/{size}/$k", fields=fields)
    return reads(request, requests=LARGE_KEYS, keys=LARGE_KEYS)


class NginxStatic(Peer):
    """One nginx worker and files in memory, sent by `sendfile`."""

    name = "nginx-static"
    title = "nginx, files"
    packages = ("nginx",)
    loads: ClassVar[Mapping[str, Load]] = {
        "get-close": _read(_SMALL, CLOSE),
        **{f"get-{name}": _read(size) for name, size in SIZES.items()},
    }

    def start(self) -> None:
        home = self.bench.scratch / self.label
        home.mkdir()
        for size in (_SMALL, *SIZES.values()):
            folder = home / "files" / str(size)
            folder.mkdir(parents=True)
            for number in range(LARGE_KEYS):
                (folder / wire.key(number)).write_bytes(b"x" * size)
        file = home / "nginx.conf"
        user = pwd.getpwuid(geteuid()).pw_name
        file.write_text(_CONFIGURATION.format(user=user, home=home, port=self.port))
        self.launch([packages.program("nginx"), "-p", home, "-c", file, "-e", "stderr"], self.port)

    def preload(self) -> None:
        """Nothing to do: the files were made before the start."""

    def check(self) -> None:
        """Ask for a file."""
        status, answer = wire.exchange(self.port, "GET", f"/{_SMALL}/{wire.key(0)}")
        if (status, answer) != (200, b"x" * _SMALL):
            raise BenchError(f"{self.name} answered {status}: {answer[:200]!r}")

    def version(self) -> str:
        return f"nginx {packages.version('nginx')}"
