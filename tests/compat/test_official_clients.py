"""Upstash's own clients, as they are published, against a service."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from access_support.service import Guarded
from upstash_redis import Redis
from upstash_redis.asyncio import Redis as AsyncRedis
from upstash_redis.errors import UpstashError

if TYPE_CHECKING:
    from collections.abc import Iterator

JAVASCRIPT = Path(__file__).parent / "javascript"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with Guarded("", "--compat", "upstash", workers=2) as guarded:
        yield guarded


@pytest.fixture
def where(guarded: Guarded) -> tuple[str, str]:
    url = f"http://127.0.0.1:{guarded.server.port}/upstash"
    with Redis(url, guarded.admin.text) as redis:
        redis.flushdb()
    return url, guarded.admin.text


@pytest.fixture
def redis(where: tuple[str, str]) -> Iterator[Redis]:
    with Redis(*where) as redis:
        yield redis


def test_python_stores_strings_with_the_options_of_set(redis: Redis) -> None:
    assert redis.set("k", "v\u00fc", ex=100) is True
    assert redis.get("k") == "v\u00fc"
    assert 0 < redis.ttl("k") <= 100
    assert redis.set("k", "w", nx=True) is False
    assert redis.set("k", {"a": [1, None]}, xx=True, keepttl=True) is True
    assert redis.get("k") == '{"a": [1, null]}'
    assert redis.set("k", "x", get=True) == '{"a": [1, null]}'
    assert redis.get("missing") is None
    assert redis.set("k", "1", exat=int(time.time()) + 500) is True
    assert redis.setex("e", 100, "v") is True
    assert redis.psetex("p", 100_000, "v") is True
    assert redis.setnx("e", "w") is False
    assert redis.getset("e", "OK") == "v"
    assert redis.getdel("e") == "OK"
    assert redis.getex("p", persist=True) == "v"
    assert redis.ttl("p") == -1


def test_python_changes_strings_and_counts(redis: Redis) -> None:
    assert redis.append("s", "hello") == 5
    assert redis.getrange("s", 1, -2) == "ell"
    assert redis.setrange("s", 5, "!") == 6
    assert redis.strlen("s") == 6
    assert (redis.incr("n"), redis.incrby("n", 9), redis.decr("n"), redis.decrby("n", 4)) == (
        1, 10, 9, 5,
    )  # fmt: skip
    assert redis.incrbyfloat("n", 0.25) == 5.25
    with pytest.raises(UpstashError, match="ERR value is not an integer"):
        redis.incr("s")


def test_python_handles_many_keys_and_their_ends(redis: Redis) -> None:
    assert redis.mset({"a": 1, "b": "2"}) is True
    assert redis.mget("a", "b", "c") == ["1", "2", None]
    assert redis.msetnx({"b": "x", "c": "y"}) is False
    assert redis.exists("a", "b", "c") == 2
    assert redis.expire("a", 100) is True
    assert redis.pexpire("a", 200_000, nx=True) is False
    assert redis.expireat("a", int(time.time()) + 1000) is True
    assert redis.pttl("a") > 500_000
    assert redis.persist("a") is True
    assert redis.type("a") == "string"
    assert redis.rename("a", "d") is True
    assert redis.renamenx("b", "d") is False
    assert redis.copy("b", "d", replace=True) is True
    assert redis.touch("b", "d") == 2
    assert redis.delete("b") == 1
    assert redis.unlink("d", "e") == 1
    assert redis.randomkey() is None
    assert redis.dbsize() == 0


def test_python_goes_through_all_keys_with_a_cursor_that_is_a_number(redis: Redis) -> None:
    pipeline = redis.pipeline()
    for number in range(60):
        pipeline.set(f"user:{number}", number)
    assert pipeline.exec() == [True] * 60
    cursor, found = 0, []
    while True:
        cursor, some = redis.scan(cursor, match="user:*", count=25)
        assert isinstance(cursor, int)
        found += some
        if cursor == 0:
            break
    assert sorted(found) == sorted(f"user:{number}" for number in range(60))
    assert len(redis.keys("user:1?")) == 10


def test_python_sends_pipelines_and_transactions(redis: Redis) -> None:
    assert redis.pipeline().set("a", "1").incr("a").get("a").exec() == [True, 2, "2"]
    assert redis.multi().set("a", "5").incrby("a", 5).mget("a", "b").exec() == [
        True, 10, ["10", None],
    ]  # fmt: skip
    with pytest.raises(UpstashError, match="there are no hashes"):
        redis.pipeline().get("a").hget("h", "f").exec()
    assert (redis.ping(), redis.echo("h\u00fc")) == ("PONG", "h\u00fc")
    assert abs(redis.time()[0] - time.time()) < 300


def test_python_without_base64_and_with_a_wrong_token(where: tuple[str, str]) -> None:
    url, token = where
    with Redis(url, token, rest_encoding=None, allow_telemetry=False) as redis:
        redis.set("k", "\u00fc")
        assert redis.get("k") == "\u00fc"
    with Redis(url, "krk_wrong") as redis, pytest.raises(UpstashError, match="WRONGPASS"):
        redis.get("k")


def test_python_names_what_there_is_instead_of_a_script(redis: Redis) -> None:
    with pytest.raises(UpstashError, match="no @upstash/ratelimit"):
        redis.eval("return 1")
    with pytest.raises(UpstashError, match=r"there are no lists.*INCR"):
        redis.lpush("l", "v")


def test_many_at_once_lose_no_count_no_piece_and_no_transaction(where: tuple[str, str]) -> None:
    async def client(number: int) -> None:
        async with AsyncRedis(*where) as redis:
            for _ in range(15):
                await redis.incr("n")
                await redis.append("s", "x")
                await redis.multi().incr("m").append("t", "yz").decrby("m", 3).exec()

    async def all_of_them() -> list[str | None]:
        await asyncio.gather(*map(client, range(8)))
        async with AsyncRedis(*where) as redis:
            return await redis.mget("n", "s", "m", "t")

    assert asyncio.run(all_of_them()) == ["120", "x" * 120, "-240", "yz" * 120]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with the packages of `javascript/package.json`; fetched in CI, which may."""
    installed = os.environ.get("KEYRACK_UPSTASH_JS")
    if not shutil.which("node") or not (installed or shutil.which("npm")):
        pytest.skip("Debian has nodejs and npm")
    if installed:
        return installed
    if not os.environ.get("CI"):
        pytest.skip("run npm ci in a copy of tests/compat/javascript, KEYRACK_UPSTASH_JS=COPY")
    home = tmp_path_factory.mktemp("javascript")
    for path in JAVASCRIPT.glob("package*.json"):
        shutil.copy(path, home)
    fetched = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip(f"npm could not fetch the client: {fetched.stderr[-300:]}")
    return str(home)


def test_javascript_does_all_that_the_client_offers_of_it(
    where: tuple[str, str], modules: str
) -> None:
    url, token = where
    done = subprocess.run(
        ["node", "--test", str(JAVASCRIPT / "cases.mjs")],
        env={
            **os.environ,
            "KEYRACK_URL": url,
            "KEYRACK_TOKEN": token,
            "KEYRACK_UPSTASH_JS": modules,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"pass (\d+)", done.stdout)
    assert int(passed) >= 15
