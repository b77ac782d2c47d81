"""What `bench.client` runs in a process of its own: `client_load.py WHO PORT OPERATION COUNT`.

Prints the CPU time of one operation in microseconds, user and system.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

KEY = "user:000000000017"
VALUE = "v" * 32
CONCURRENT = 32


def _sync(client: Any, operation: str, count: int) -> float:
    began = time.process_time()
    if operation == "get":
        get = client.get
        for _ in range(count):
            get(KEY)
    else:
        store = client.set
        for _ in range(count):
            store(KEY, VALUE)
    return time.process_time() - began


async def _concurrent(client: Any, operation: str, count: int) -> float:
    async def work() -> None:
        for _ in range(count // CONCURRENT):
            if operation == "get":
                await client.get(KEY)
            else:
                await client.set(KEY, VALUE)

    await client.set(KEY, VALUE)
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return time.process_time() - began


def keyrack_sync(port: int, operation: str, count: int) -> float:
    """`keyrack.Client`."""
    import keyrack

    with keyrack.Client(f"http://127.0.0.1:{port}") as client:
        client.set(KEY, VALUE)
        _sync(client, operation, count // 10)
        return _sync(client, operation, count)


def redis_sync(port: int, operation: str, count: int) -> float:
    """redis-py as it comes, without hiredis."""
    import redis  # type: ignore[import-not-found]  # in the bench's own venv

    with redis.Redis(port=port, decode_responses=True) as client:
        client.set(KEY, VALUE)
        _sync(client, operation, count // 10)
        return _sync(client, operation, count)


def keyrack_async(port: int, operation: str, count: int) -> float:
    """`keyrack.AsyncClient` on uvloop."""
    import uvloop

    import keyrack

    async def main() -> float:
        async with keyrack.AsyncClient(f"http://127.0.0.1:{port}") as client:
            return await _concurrent(client, operation, count)

    return uvloop.run(main())


def redis_async(port: int, operation: str, count: int) -> float:
    """redis-py's asyncio on uvloop."""
    import redis.asyncio  # type: ignore[import-not-found]  # in the bench's own venv
    import uvloop

    async def main() -> float:
        async with redis.asyncio.Redis(port=port, decode_responses=True) as client:
            return await _concurrent(client, operation, count)

    return uvloop.run(main())


CLIENTS = {
    "keyrack": keyrack_sync,
    "redis-py": redis_sync,
    "keyrack-async": keyrack_async,
    "redis-py-async": redis_async,
}

if __name__ == "__main__":
    who, port, operation, count = sys.argv[1:]
    print(CLIENTS[who](int(port), operation, int(count)) / int(count) * 1e6)
