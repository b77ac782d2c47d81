"""What reaches a service in real life: fields that differ, large values, short connections.

Keyrack beside what sends files over HTTP (nginx) and what takes values (Redis), in turn, round by
round, each on the server's core. Few keys are enough: it is the way in and out that is measured.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from bench import measure
from bench.peers import Keyrack, NginxStatic, Redis
from bench.scenarios import LIKE, LOADS, SIZES

if TYPE_CHECKING:
    from bench.measure import Sample
    from bench.peers import Bench, Peer

KEYS: Final = 30_000
ALONE: Final = ("get", "set", "v1-get", "v1-put", *LIKE, "put-ttl")
"""Loads of which it is asked how much dearer they are than others of Keyrack's own."""
BESIDE: Final = ("get-close", *(name for name in LOADS if name.endswith(tuple(SIZES))))
"""Loads that a peer has as well."""


def traffic_samples(bench: Bench) -> list[Sample]:
    """Start and fill the three servers, then give each its turn."""
    samples = []
    with ExitStack() as running:
        peers: list[Peer] = [Keyrack(bench, label="traffic"), NginxStatic(bench)]
        peers.append(Redis(bench, label="redis-values"))
        for peer in peers:
            running.callback(peer.stop)
            peer.keys = KEYS
            peer.start()
            peer.check()
            peer.preload()
            if isinstance(peer, Keyrack):
                peer.store_large()
        for number in range(bench.settings.rounds):
            for load in (*ALONE, *BESIDE):
                for peer in peers if load in BESIDE else peers[:1]:
                    if load in peer.loads:
                        samples.append(measure.sample(peer, load, number))
                        print(measure.line(samples[-1]), flush=True)
    return samples
