"""The servers that are measured, one file each; this one chooses."""

from bench.peers.base import Bench, Peer
from bench.peers.keyrack import Keyrack
from bench.peers.keyrack_valkey import KeyrackValkey
from bench.peers.nginx import Nginx
from bench.peers.python import FastApi, Flask
from bench.peers.redis import Redis
from bench.peers.static import NginxStatic
from bench.peers.webdis import Webdis

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Keyrack, Nginx, Redis, Webdis, KeyrackValkey, Flask, FastApi)
}

__all__ = ["PEERS", "Bench", "Keyrack", "NginxStatic", "Peer", "Redis"]
