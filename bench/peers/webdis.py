"""Webdis, an HTTP front of Redis: both on the server's core, both counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from bench import packages, wire
from bench.load import Request, reads, writes
from bench.peers.base import Peer
from bench.peers.redis import preload, server_command
from bench.process import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.load import Load


class Webdis(Peer):
    """One Webdis thread and a Redis of its own, joined by a Unix socket."""

    name = "webdis"
    title = "Webdis + Redis"
    packages = ("webdis", "redis-server")
    loads: ClassVar[Mapping[str, Load]] = {
        "get": reads(Request("GET", "/GET/$k")),
        "set": writes(Request("GET", "/SET/$k/$v")),
    }

    def start(self) -> None:
        home = self.bench.scratch / "webdis"
        home.mkdir()
        self._redis_port = free_port()
        redis_socket = str(home / "redis.sock")
        redis = server_command(self._redis_port, home, "--unixsocket", redis_socket)
        self.launch(redis, self._redis_port)
        file = home / "webdis.json"
        file.write_text(json.dumps(self._configuration(str(home), redis_socket)))
        self.launch(["webdis", file], self.port)

    def _configuration(self, home: str, redis_socket: str) -> dict[str, object]:
        return {
            "redis_host": redis_socket,
            "http_host": wire.HOST,
            "http_port": self.port,
            "threads": 1,
            "pool_size": 20,
            "daemonize": False,
            "verbosity": 0,
            "logfile": f"{home}/webdis.log",
            "pidfile": f"{home}/webdis.pid",
        }

    def preload(self) -> None:
        """Straight into the Redis behind it."""
        preload(self._redis_port, self.keys)

    def version(self) -> str:
        return ", ".join(f"{name} {packages.version(name)}" for name in self.packages)
