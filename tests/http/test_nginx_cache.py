"""nginx with a cache in front of the service, configured as docs/http-caching.md says."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from api_support import until
from keyrack_server import Server, Wire, parse, request
from keyrack_server.nginx import NEEDS_NGINX, nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack_server import Answer

PAGE = Path(__file__).parents[2] / "docs/http-caching.md"

pytestmark = [pytest.mark.timeout(90), NEEDS_NGINX]


class Cached:
    """The service, and nginx in front of it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send a request through nginx, and return its answer."""
        with Wire(self.port) as wire:
            wire.send(request(method, target, body, Connection="close", **fields))
            found = parse(wire.rest(), method)
        assert found is not None
        return found[0]

    def read(self, key: str) -> tuple[str, bytes]:
        """Return what nginx says of its cache, and the value."""
        answer = self.ask("GET", f"/v1/keys/{key}")
        assert answer.status == 200, answer
        return answer["x-cache"], answer.body

    def put(self, key: str, query: str, body: bytes = b"value") -> None:
        """Store a value, past the cache."""
        assert self.server.ask("PUT", f"/v1/keys/{key}{query}", body).status in (201, 204)


def configuration(home: Path, upstream: int, port: int) -> str:
    """Return what the page says, with other paths and ports."""
    (said,) = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for one, other in (
        ("127.0.0.1:8088", f"127.0.0.1:{upstream}"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("/var/cache/nginx/keyrack", f"{home}/cache"),
    ):
        assert said.count(one) == 1
        said = said.replace(one, other)
    return said


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    home = tmp_path_factory.mktemp("nginx-cache")
    with (
        Server(workers=1) as server,
        nginx(home, lambda port: configuration(home, server.port, port)) as port,
    ):
        yield Cached(server, port)
    assert "[error]" not in (home / "error.log").read_text()


def test_what_is_public_is_kept_and_nothing_else(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=300&public=true")
    assert [cached.read(key) for _ in range(3)] == [
        ("MISS", b"value"), ("HIT", b"value"), ("HIT", b"value"),
    ]  # fmt: skip
    head = cached.ask("HEAD", f"/v1/keys/{key}")
    assert (head["x-cache"], head.body) == ("HIT", b"")
    part = cached.ask("GET", f"/v1/keys/{key}", Range="bytes=1-2")
    assert (part.status, part["x-cache"], part.body) == (206, "HIT", b"al")
    for query in ("", "?max_age=300", "?max_age=0&public=true", "?ttl=60"):
        cached.put(f"{key}/other", query)
        assert [cached.read(f"{key}/other")[0] for _ in range(2)] == ["MISS", "MISS"], query
    assert cached.ask("GET", f"/v1/keys/{key}/missing").status == 404
    cached.put(f"{key}/missing", "")
    assert cached.read(f"{key}/missing") == ("MISS", b"value")


def test_a_write_is_seen_when_max_age_is_over(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=300&public=true", b"long")
    assert cached.read(key) == ("MISS", b"long")
    cached.put(f"{key}/brief", "?max_age=1&public=true", b"first")
    assert cached.read(f"{key}/brief") == ("MISS", b"first")
    for one in (key, f"{key}/brief"):
        cached.put(one, "", b"second")
    assert until(lambda: cached.read(f"{key}/brief") == ("EXPIRED", b"second"))
    assert cached.read(key) == ("HIT", b"long")


def test_what_is_the_same_is_not_sent_again(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=1&public=true", b"x" * 100_000)
    assert cached.read(key)[0] == "MISS"
    assert until(lambda: cached.read(key)[0] == "REVALIDATED")
    assert cached.read(key)[1] == b"x" * 100_000
    cached.put(key, "?max_age=1&public=true", b"y")
    assert until(lambda: cached.read(key) == ("EXPIRED", b"y"))


def test_a_key_that_has_ended_is_not_served(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=300&public=true&ttl=6")
    assert cached.read(key) == ("MISS", b"value")
    kept = cached.ask("GET", f"/v1/keys/{key}")
    if kept.status == 200:  # a busy machine may be late
        assert int(kept["cache-control"].removeprefix("public, max-age=")) <= 6
    assert until(lambda: cached.ask("GET", f"/v1/keys/{key}").status == 404)


def test_the_old_value_is_served_while_the_new_one_is_asked_for(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=1&swr=300&public=true", b"old")
    assert cached.read(key) == ("MISS", b"old")
    cached.put(key, "?max_age=300&public=true", b"new")
    seen = [cached.read(key)]

    def is_new() -> bool:
        seen.append(cached.read(key))
        return seen[-1] == ("HIT", b"new")

    assert until(is_new)
    assert ("STALE", b"old") in seen
    assert {one for one in seen if one[1] == b"new"} == {("HIT", b"new")}


def test_a_read_that_waits_goes_past_the_cache(cached: Cached, key: str) -> None:
    cached.put(key, "?max_age=300&public=true", b"old")
    tag = cached.ask("GET", f"/v1/keys/{key}")["etag"]
    writer = threading.Timer(0.2, cached.put, (key, "?max_age=300&public=true", b"new"))
    writer.start()
    answer = cached.ask("GET", f"/v1/keys/{key}", If_None_Match=tag, Prefer="wait=20")
    writer.join()
    assert (answer.status, answer.body, answer.get("x-cache")) == (200, b"new", None)
    assert cached.read(key) == ("HIT", b"old")


def test_writes_and_their_conditions_go_through(cached: Cached, key: str) -> None:
    path = f"/v1/keys/{key}"
    first = cached.ask("PUT", f"{path}?max_age=300&public=true", b"first")
    assert first.status == 201
    assert cached.ask("PUT", path, b"other", If_Match='"1"').status == 412
    assert cached.ask("PUT", path, b"other", If_None_Match="*").status == 412
    assert cached.ask("DELETE", path, If_Match=first["etag"]).status == 204
