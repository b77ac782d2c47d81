"""Run the pods of a rendered chart as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from delivery.chart_support.charts import (
    ROOT,
    Object,
    all_environment,
    only,
    pod,
    server,
    store_volume,
)

KEYRACK = os.environ.get("KEYRACK", str(ROOT / ".venv" / "bin" / "keyrack"))


class Node:
    """A stand-in for the kubelet: runs the rendered containers as processes of this machine.

    As root, the store's volume is a tmpfs of the rendered size, in a mount namespace of its own;
    otherwise it is a directory. `claimed` is the directory of the volume that outlives the pod.
    """

    def __init__(self, found: list[Object], directory: Path, claimed: Path | None = None) -> None:
        self.found = found
        self.volume = directory / "volume"
        self.volume.mkdir()
        self._places = {"store": self.volume} | ({"data": claimed} if claimed else {})
        self._places["auth"] = directory / "auth"
        self._places["auth"].mkdir()
        secrets = [one["stringData"] for one in found if one["kind"] == "Secret"]
        self.secrets: dict[str, str] = next((one for one in secrets if "auth.toml" in one), {})
        for name in ("auth.toml",):  # what the volume's items name
            file = self._places["auth"] / name
            file.write_text(self.secrets.get(name, ""))
            file.chmod(0o440)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = (directory / "log").open("w+")
        self._holder: subprocess.Popen[str] | None = None
        self._enter: list[str] = []
        if os.geteuid() == 0 and any(one["name"] == "store" for one in pod(found)["volumes"]):
            size = store_volume(found)["emptyDir"]["sizeLimit"].replace("Mi", "m")
            script = f"mount -t tmpfs -o size={size} tmpfs '{self.volume}' && echo ok && exec cat"
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ok\n"
            self._enter = ["nsenter", "--mount", "--target", str(self._holder.pid), "--"]

    def start(self) -> subprocess.Popen[bytes]:
        container = server(self.found)
        environ = all_environment(self.found) | {
            "KEYRACK_PORT": str(self.port),
            "PATH": os.environ["PATH"],
        }
        for mount in container.get("volumeMounts", []):
            here = str(self._places[mount["name"]])
            for name, value in environ.items():
                if value.startswith(mount["mountPath"] + "/"):
                    environ[name] = value.replace(mount["mountPath"], here, 1)
        assert container["command"] == ["keyrack"]
        command = [*self._enter, KEYRACK, *container["args"]]
        return subprocess.Popen(command, env=environ, stderr=self._log)

    @staticmethod
    def kill(running: subprocess.Popen[bytes]) -> None:
        """Kill a container: with its process 1 the kernel kills all others."""
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        running.kill()
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        running.wait(10)

    def run_test_pod(self) -> subprocess.CompletedProcess[str]:
        (container,) = only(self.found, "Pod")["spec"]["containers"]
        assert container["command"] == ["keyrack"]
        here = f"http://127.0.0.1:{self.port}"
        arguments = [here if one == "http://kr-keyrack:8088" else one for one in container["args"]]
        assert here in arguments
        wanted = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]}
        environ = {name: self.secrets[key] for name, key in wanted.items()}
        return subprocess.run(
            [KEYRACK, *arguments], capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | environ,
        )  # fmt: skip

    @property
    def token(self) -> dict[str, str]:
        """The field that lets a request in."""
        return {"Authorization": f"Bearer {self.secrets['token']}"}

    def cli(self, *arguments: str) -> str:
        command = [KEYRACK, *arguments, "--url", f"http://127.0.0.1:{self.port}"]
        environ = os.environ | {"KEYRACK_TOKEN": self.secrets["token"]}
        return subprocess.check_output(command, text=True, timeout=30, env=environ)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self._log.close()
        if self._holder is not None:
            self._holder.communicate(timeout=10)
