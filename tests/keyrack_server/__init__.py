"""A real server for tests: `python -m keyrack serve` on a free port, and sockets to talk to it."""

from keyrack_server.server import ENGINE, ON_VALKEY, Server, refused_start
from keyrack_server.wire import Answer, Wire, chunked, parse, request

__all__ = [
    "ENGINE",
    "ON_VALKEY",
    "Answer",
    "Server",
    "Wire",
    "chunked",
    "parse",
    "refused_start",
    "request",
]
