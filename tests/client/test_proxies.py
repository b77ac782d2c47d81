"""A proxy in between, as most services on a network have one: nginx, where it is installed."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest
from client_support import KINDS, asked
from keyrack_server import Server
from keyrack_server.nginx import NEEDS_NGINX, nginx

import keyrack
from keyrack import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = """
    client_max_body_size 64m;
    upstream store {{ server 127.0.0.1:{upstream}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 7;
        location / {{
            proxy_pass http://store;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_read_timeout 60s;
        }}
    }}
"""

pytestmark = [pytest.mark.timeout(90), NEEDS_NGINX]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of nginx before a service. It closes each connection after seven requests."""
    home = tmp_path_factory.mktemp("nginx")
    with (
        Server(workers=2) as server,
        nginx(home, lambda port: INSIDE.format(upstream=server.port, port=port)) as port,
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "key", ["plain", "a/b/c", "a//b", "a/../b", ".", "ü ?#%", "%2F", "a+b", "x;y=z", "a\nb", "a/"]
)
def test_a_key_comes_through_as_it_is(kind: str, key: str, proxied: str) -> None:
    with asked(kind, proxied, prefix=f"{kind}/") as client:
        etag = client.set(key, "v", ttl=60)
        value = client.get_value(key)
        assert (value.data, value.etag) == (b"v", etag)
        assert client.get_value(key, if_none_match=etag) is keyrack.UNCHANGED
        with pytest.raises(keyrack.Conflict):
            client.set(key, "w", if_match='"1"')
        assert client.delete(key)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_else_comes_through(kind: str, proxied: str) -> None:
    with asked(kind, proxied, prefix=f"all-{kind}/") as client:
        client.set_many({f"k{number}": number for number in range(50)})
        assert len(client.get_many([f"k{number}" for number in range(60)])) == 50
        assert client.incr("n") == 1
        assert len(list(client.scan(page=7))) == 51
        large = os.urandom(1_000_000)
        client.set("large", large, ttl=60)
        assert client.get("large") == large
        assert client.count() == 52


def test_a_watch_is_told_at_once(proxied: str) -> None:
    with Client(proxied) as client, client.watch("w/", values=True) as watch:
        # Only what comes after the watch has begun is told: it is written until it is.
        stop = threading.Event()

        def write() -> None:
            while not stop.wait(0.05):
                client.set("w/k", "v")

        thread = threading.Thread(target=write)
        thread.start()
        try:
            event = next(watch)
        finally:
            stop.set()
            thread.join()
    assert isinstance(event, keyrack.WatchEvent)
    assert (event.key, event.value) == ("w/k", "v")


def test_of_many_calls_over_connections_that_the_proxy_ends_none_is_crossed(proxied: str) -> None:
    async def work(client: AsyncClient, number: int) -> None:
        for turn in range(100):
            key = f"many-{number}-{turn % 5}"
            await client.set(key, key)
            assert await client.get(key) == key

    async def main() -> None:
        async with AsyncClient(proxied, max_connections=8) as client:
            await asyncio.gather(*(work(client, number) for number in range(16)))

    asyncio.run(main())
