"""A Docker engine of its own: own data, socket and bridge. Nothing of the machine's is touched.

No image can be pulled in these tests, and nothing is routed: containers are reached through ports
that Docker's proxy publishes on loopback, and only builds use the host's network, for pip.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

DOCKER = "/usr/bin/docker"  # Debian's: other clients on the path may have no BuildKit
_START_SECONDS = 60
_STOP_SECONDS = 30


class Engine:
    """Started when made; `close` ends it and removes all it had."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="keyrack-image-", dir="/tmp"))
        self._use_memory()
        self.bridge = f"kr{os.getpid()}"
        self.environment = os.environ | {
            "DOCKER_HOST": f"unix://{self.root}/socket",
            "DOCKER_CONFIG": str(self.root / "client"),
            "DOCKER_BUILDKIT": "1",
            "DOCKER": DOCKER,
        }
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "IMAGE", "TAG", "BASE", "COMMIT"):
            self.environment.pop(name, None)  # `make image-test TAG=...` is not about these builds
        (self.root / "daemon.json").write_text("{}")  # the machine's own settings are not read
        self._add_bridge()
        with (self.root / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _use_memory(self) -> None:
        """Keep images in memory where there is plenty: many small files are slow to remove."""
        if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 8 << 30:
            return
        mount = ["mount", "-t", "tmpfs", "-o", "size=4g,mode=0711", "tmpfs", str(self.root)]
        subprocess.run(mount, check=True)

    def _add_bridge(self) -> None:
        # A range of its own for each run, out of those that nobody routes.
        address = f"172.31.{os.getpid() % 250}.1/24"
        for words in (
            ("link", "add", self.bridge, "type", "bridge"),
            ("addr", "add", address, "dev", self.bridge),
            ("link", "set", self.bridge, "up"),
        ):
            subprocess.run(["ip", *words], check=True)

    def _command(self) -> list[str]:
        return [
            # It ends with the tests, however these end.
            *("setpriv", "--pdeathsig", "TERM", "dockerd"),
            *("--config-file", f"{self.root}/daemon.json"),
            *("--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/run"),
            *("--pidfile", f"{self.root}/pid", "--host", f"unix://{self.root}/socket"),
            *("--bridge", self.bridge, "--iptables=false", "--ip6tables=false"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--default-ulimit", "nofile=20000:20000"),
        ]

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self.try_docker("version").returncode != 0:
            assert self._daemon.poll() is None, self._log()
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.1)

    def _log(self) -> str:
        return "dockerd: " + (self.root / "log").read_text(errors="replace")[-3000:]

    def try_docker(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        """Run a docker command that may fail."""
        return self.run(DOCKER, *words, **more)

    def docker(self, *words: str) -> str:
        """Run a docker command and return what it prints."""
        done = self.try_docker(*words)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def run(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        """Run any command with this engine as Docker's."""
        environment = self.environment | dict(more.pop("env", {}))  # type: ignore[call-overload]  # kept simple
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, **more
        )

    def close(self) -> None:
        """End the engine's processes, and these only; remove its directory and bridge."""
        if self._daemon.poll() is None:
            with contextlib.suppress(Exception):
                if left := self.docker("ps", "--all", "--quiet").split():
                    self.docker("rm", "--force", "--volumes", *left)
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._daemon.pid, signal.SIGKILL)  # with its containerd
                self._daemon.wait()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            point = line.split(" ")[1]
            if point == str(self.root) or point.startswith(f"{self.root}/"):
                subprocess.run(["umount", "--lazy", point], check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False)
        shutil.rmtree(self.root, ignore_errors=True)
