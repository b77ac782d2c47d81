"""nginx with a Lua shared dictionary: the seed API in the fastest idiomatic way it can be had."""

from __future__ import annotations

import pwd
import re
import subprocess
from os import geteuid
from pathlib import Path

from bench import packages
from bench.load import fill
from bench.peers.base import Peer

CONFIGURATION = Path(__file__).parent.parent / "apps" / "nginx.conf"


class Nginx(Peer):
    """One nginx worker; values in a `lua_shared_dict`, JSON by lua-cjson."""

    name = "nginx"
    title = "nginx + Lua shared dict"
    packages = ("nginx", "libnginx-mod-http-lua", "lua-cjson")

    def start(self) -> None:
        home = self.bench.scratch / "nginx"
        home.mkdir()
        file = home / "nginx.conf"
        file.write_text(self._configuration(home))
        self.launch([packages.program("nginx"), "-p", home, "-c", file, "-e", "stderr"], self.port)

    def preload(self) -> None:
        """Through its API, as Keyrack's."""
        fill(self.port, self.keys, self.client_cores[-1])

    def version(self) -> str:
        return ", ".join(f"{name} {packages.version(name)}" for name in self.packages)

    def _configuration(self, home: Path) -> str:
        values = {
            "HOME": str(home),
            "MODULES": _modules_folder(),
            "PORT": str(self.port),
            "USER": pwd.getpwuid(geteuid()).pw_name,
        }
        return re.sub("@([A-Z]+)@", lambda found: values[found[1]], CONFIGURATION.read_text())


def _modules_folder() -> str:
    built = subprocess.run([packages.program("nginx"), "-V"], capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", built)
    return found[1] if found else "modules"
