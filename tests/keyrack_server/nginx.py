"""nginx in front of a service, where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_NGINX = shutil.which("nginx", path=_PATH)
_AROUND = """
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
{inside}
}}
"""

NEEDS_NGINX = pytest.mark.skipif(_NGINX is None, reason="nginx is not installed")


@contextlib.contextmanager
def nginx(home: Path, inside: Callable[[int], str]) -> Iterator[int]:
    """Run nginx, and yield its port. `inside` returns what stands in its block `http`.

    What it writes is below `home`, the log of errors in `error.log`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = home / "nginx.conf"
    config.write_text(_AROUND.format(home=home, inside=inside(port)))
    assert _NGINX is not None
    command = [_NGINX, "-c", str(config), "-p", str(home), "-e", str(home / "error.log")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            _wait_for(port, home)
            yield port
        finally:
            running.terminate()


def _wait_for(port: int, home: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail((home / "error.log").read_text())
            time.sleep(0.05)
        else:
            return
