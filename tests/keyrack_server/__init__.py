"""A real server for tests: `python -m keyrack serve` on a free port, and sockets to talk to it."""

from keyrack_server.server import Server
from keyrack_server.wire import Answer, Wire, chunked, parse, request

__all__ = ["Answer", "Server", "Wire", "chunked", "parse", "request"]
