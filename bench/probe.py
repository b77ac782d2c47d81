"""How fast the machine is just now: a fixed piece of work, timed before every round.

Shared machines change their speed by the minute. The probe does not correct any figure; it tells
the reader of a report whether two runs (or two rounds) were made on the same machine, so to say.
"""

from __future__ import annotations

import socket
import time

EXCHANGES = 3000


def probe_us() -> float:
    """Microseconds to send one byte through a loopback TCP connection and to receive it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        for _ in range(EXCHANGES):
            near.send(b"x")
            far.recv(1)
        return (time.perf_counter() - start) / EXCHANGES * 1e6
