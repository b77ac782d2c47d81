"""What tests of the wider API share: a client, a reader of streams, and an engine in-process."""

from api_support.client import Client, dechunked, quoted, spread, worker_of
from api_support.streams import Message, Watch
from api_support.timing import cpu_seconds, eventually, steps_of, until

__all__ = [
    "Client",
    "Message",
    "Watch",
    "cpu_seconds",
    "dechunked",
    "eventually",
    "quoted",
    "spread",
    "steps_of",
    "until",
    "worker_of",
]
