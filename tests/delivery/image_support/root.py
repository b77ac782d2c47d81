"""A throw-away Debian to install things in: files in memory, and processes of its own.

There is no init in it: `systemctl` is a stand-in that writes down how it was called, and
`policy-rc.d` keeps packages from starting services. Packages come from Debian for real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Root:
    """Made of an archive of a Debian; `close` removes it."""

    def __init__(self, archive: Path, repository: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="keyrack-root-", dir="/tmp"))
        self._machine: subprocess.Popen[bytes] | None = None
        mount = ["mount", "-t", "tmpfs", "-o", "size=4g,mode=0755", "tmpfs", str(self.path)]
        subprocess.run(mount, check=True)
        subprocess.run(["tar", "-xf", str(archive), "-C", str(self.path)], check=True)
        shutil.copy("/etc/resolv.conf", self.path / "etc/resolv.conf")
        self.script("usr/sbin/policy-rc.d", "exit 101")
        self.script("usr/local/bin/systemctl", 'echo "$@" >>/systemctl.log')
        (self.path / "run/systemd/system").mkdir(parents=True)
        for name in ("scripts", "deploy/jenkins"):
            shutil.copytree(repository / name, self.path / "repository" / name)

    def script(self, name: str, body: str, interpreter: str = "/bin/sh") -> None:
        """Write a program into it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{interpreter}\n{body}\n")
        path.chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        """Write a file into it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def systemctl_calls(self) -> list[str]:
        """Return how systemctl was called since the last time."""
        log = self.path / "systemctl.log"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return calls

    def run(
        self, *words: str, user: str = "0", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it: on the machine, once that was started, else with our network."""
        if self._machine is None:
            proc = f"--mount-proc={self.path}/proc"
            inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", proc]
        else:
            inside = ["nsenter", "--target", str(self._init()), "--mount", "--pid", "--net"]
        given = [f"{name}={value}" for name, value in environment.items() if name != "PATH"]
        path = environment.get("PATH", _PATH)
        return subprocess.run(
            [
                *(*inside, "chroot", f"--userspec={user}:{user}", str(self.path)),
                *("env", "-i", f"PATH={path}", "LANG=C.UTF-8", "HOME=/root", *given, *words),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def start_machine(self) -> None:
        """Start its Docker in a network of its own, which has loopback and nothing else."""
        mounts = "; ".join(f"mount --rbind {name} {self.path}{name}" for name in ("/dev", "/sys"))
        with (self.path / "dockerd.log").open("wb") as log:
            self._machine = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"),
                    *("sh", "-ec"),
                    f"{mounts}; mount -t proc proc {self.path}/proc; ip link set lo up; "
                    f"exec chroot {self.path} env PATH={_PATH} dockerd --iptables=false "
                    "--ip6tables=false --exec-opt native.cgroupdriver=cgroupfs "
                    "--default-ulimit nofile=20000:20000",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while self.run("docker", "version").returncode != 0:
            assert self._machine.poll() is None, (self.path / "dockerd.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.path / "dockerd.log").read_text()[-2000:]
            time.sleep(0.2)

    def _init(self) -> int:
        """Return the process that holds the machine's namespaces, 0 while there is none."""
        assert self._machine is not None
        path = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children")
        return int((path.read_text().split() or ["0"])[0])

    def close(self) -> None:
        """End the machine with all that runs on it, and remove the files."""
        if self._machine is not None and self._machine.poll() is None:
            self.run("sh", "-c", "docker rm --force $(docker ps --all --quiet)")
            os.kill(self._init(), signal.SIGTERM)
            try:
                self._machine.wait(20)
            except subprocess.TimeoutExpired:
                self._machine.kill()
                self._machine.wait()
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)
        shutil.rmtree(self.path, ignore_errors=True)
