"""Keyrack with its store in a Redis: both on the server's core, both counted."""

from __future__ import annotations

from bench import packages, wire
from bench.load import fill
from bench.peers.base import Peer
from bench.peers.keyrack import program
from bench.peers.redis import server_command
from bench.process import free_port


class KeyrackValkey(Peer):
    """One worker and a Redis of its own, over loopback. Webdis does the same with its own API."""

    name = "keyrack-valkey"
    title = "Keyrack on Redis"
    packages = ("redis-server",)

    def start(self) -> None:
        home = self.bench.scratch / self.label
        home.mkdir()
        redis = free_port()
        self.launch(server_command(redis, home), redis)
        engine = f"valkey://{wire.HOST}:{redis}"
        options = {"host": wire.HOST, "port": self.port, "workers": 1, "engine": engine}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.launch([program(), "serve", *words], self.port)

    def preload(self) -> None:
        """Through its own API, as clients would: Redis holds Keyrack's records and its index."""
        fill(self.port, self.keys, self.client_cores[-1])

    def version(self) -> str:
        return f"redis-server {packages.version('redis-server')}"
