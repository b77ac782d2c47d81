"""A server takes over that lacks the last changes: whoever was told of them begins anew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from api_support.streams import Watch
from keyrack_server import Server as KeyrackServer
from keyrack_server import request
from valkey_support.engines import done, opened, run
from valkey_support.servers import HOST, Alone, OneVoice, cluster, fork, wipe

from keyrack.engines.contract import Set, Touch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from valkey_support.servers import Server

    from keyrack.engines.valkey.engine import ValkeyEngine

pytestmark = pytest.mark.timeout(90)


class Service(KeyrackServer):
    """A service; what it says about what the test has done to Valkey is no complaint."""

    def complaints(self) -> list[dict[str, object]]:
        expected = ("is lost", "watchers begin anew")
        found = super().complaints()
        return [line for line in found if not str(line["message"]).endswith(expected)]


@pytest.fixture
def first() -> Iterator[Server]:
    servers = Alone()
    yield servers.server
    servers.server.remove()


async def reaches(engine: ValkeyEngine, position: int) -> bool:
    """Tell whether watching can go on from a position."""
    oldest, newest = await engine.history(position)
    return oldest <= position <= newest


async def set_some(engine: ValkeyEngine, name: bytes, number: int) -> list[int]:
    keys = [b"%b%d" % (name, count) for count in range(number)]
    return [(await done(engine, Set(key, b"v")))[0].revision for key in keys]


def test_only_positions_of_the_own_history_are_reached(first: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://{HOST}:{first.port}") as one:
            common = await set_some(one, b"common", 5)
            other_server = fork(first)
            try:
                async with opened(f"valkey://{HOST}:{other_server.port}") as other:
                    lost = await set_some(one, b"lost", 5)
                    await done(other, *(Set(b"together%d" % n, b"v") for n in range(3)))
                    kept = await set_some(other, b"kept", 5)
                    lost += await set_some(one, b"lost", 5)
                    kept += await set_some(other, b"kept", 5)
                    await done(other, Touch(b"kept1", 9000))
                    known = [event.revision for event in await other.events_after(0, 100)]
                    assert set(known) > {*common, *kept}
                    assert all([await reaches(other, revision) for revision in known])
                    assert not any([await reaches(other, revision) for revision in lost])
                    assert all([await reaches(one, revision) for revision in lost])
                    page = await other.scan(limit=1)
                    assert await reaches(other, page.revision)
            finally:
                other_server.remove()

    run(look())


def test_a_position_stays_reached_as_long_as_the_history_does(first: Server) -> None:
    async def look() -> None:
        async with opened(f"valkey://{HOST}:{first.port}", events=5) as engine:
            revisions = await set_some(engine, b"k", 20)
            await engine.trim(100)
            oldest, _ = await engine.history()
            for revision in revisions:
                assert await reaches(engine, revision) == (revision >= oldest)
            assert await reaches(engine, oldest)

    run(look())


def test_a_position_that_nobody_was_told_of_is_not_logged_as_a_loss(
    first: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def look() -> None:
        async with opened(f"valkey://{HOST}:{first.port}") as engine:
            newest = (await set_some(engine, b"k", 3))[-1]
            assert not await reaches(engine, newest + 1_000_000)

    run(look())
    assert caplog.records == []


def test_a_takeover_that_lost_nothing_goes_unnoticed(first: Server) -> None:
    async def look() -> None:
        sentinel = OneVoice(first)
        async with opened(sentinel.url) as engine:
            revisions = await set_some(engine, b"k", 5)
            other_server = fork(first)
            try:
                sentinel.primary = other_server
                first.kill()
                while not await still(engine, revisions[-1]):
                    await asyncio.sleep(0.05)
                (result,) = await done(engine, Set(b"k", b"after"))
                assert [e.revision for e in await engine.events_after(revisions[-1], 9)] == [
                    result.revision
                ]
            finally:
                other_server.remove()
                sentinel.close()

    run(look())


async def still(engine: ValkeyEngine, position: int) -> bool:
    """Tell whether a position is reached; while there is no server, nobody knows."""
    from keyrack.engines.contract import StoreAway

    try:
        return await reaches(engine, position)
    except StoreAway:
        return False


def test_a_shard_that_went_back_has_the_whole_history_of_a_cluster_begin_anew() -> None:
    servers = cluster()
    wipe(servers.primaries())

    async def look() -> None:
        async with opened(servers.url) as engine, opened(servers.url) as another:
            await set_some(engine, b"{t}common", 5)
            shard = engine.layout.shard_of(b"{t}")
            base, slot = engine.layout.bases[shard], str(engine.layout.slots[shard])
            holder = next(
                s for s in servers.primaries() if s.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
            )
            copies = [(base + part, holder.ask("DUMP", base + part)) for part in (b"s", b"e")]
            lost = await set_some(engine, b"{t}lost", 5)
            told = await engine.events_after(0, 100)
            assert lost[-1] == told[-1].revision
            assert await reaches(engine, lost[-1])
            # The server goes back, and on from there.
            for name, copy in copies:
                holder.ask("RESTORE", name, "0", copy, "REPLACE")
            kept = await set_some(another, b"{t}kept", 3)
            assert await reaches(another, lost[-1])  # it was told of none of the lost ones
            await engine.events_after(lost[-1], 100)
            assert not await reaches(engine, lost[-1])
            assert not await reaches(another, lost[-1])
            assert await reaches(another, (await another.history())[1])
            assert not await reaches(another, kept[0])
            (after,) = await done(another, Set(b"{t}after", b"v"))
            now = (await engine.history())[0]
            assert [e.revision for e in await engine.events_after(now, 9)] == [after.revision]
            await engine.events_after(after.revision, 100)
            assert await reaches(engine, after.revision)

    run(look())
    wipe(servers.primaries())


# Watchers of a service


def test_watchers_begin_anew_and_skip_nothing_when_told_changes_are_lost(first: Server) -> None:
    """A primary is cut off, and its successor has other changes of the same time."""
    sentinel = OneVoice(first)
    with Service("--engine", sentinel.url, memory=None) as service, service.connect() as waiting:
        # Somebody waits all the time, so that the service never stops to read what has happened.
        etag = service.ask("PUT", "/v1/keys/waited", b"v")["etag"]
        fields = {"If_None_Match": etag, "Prefer": "wait=60"}
        waiting.send(request("GET", "/v1/keys/waited", **fields))
        with Watch(service) as synced, Watch(service, "?prefix=other") as idle:
            synced.synced()
            idle.synced()
            common = int(service.ask("PUT", "/v1/keys/common", b"w")["etag"].strip('"'))
            assert synced.changes(1)[0].id == common
            other = fork(first)
            try:
                kept = set_at(other, b"kept", 3)
                for number in range(5):
                    service.ask("PUT", f"/v1/keys/lost{number}", b"v")
                lost = synced.changes(5)[-1].id
                kept += set_at(other, b"kept", 3)
                for number in range(5, 9):
                    service.ask("PUT", f"/v1/keys/lost{number}", b"v")
                lost = synced.changes(4)[-1].id
                assert kept[0] < lost
                sentinel.primary = other
                for watch in (synced, idle):
                    watch.until(lambda message: message.event == "reset")
                assert "Valkey lost changes that were told" in service.log()
                # A position of the lost history is not gone on from, one of both is.
                refused = service.ask("GET", f"/v1/watch?since={lost}")
                assert refused.status == 410
                with Watch(service) as fresh, Watch(service, f"?since={common}") as again:
                    fresh.synced()
                    assert [message.id for message in again.synced()] == kept
                    assert fresh.silent(1.0)
                    service.ask("PUT", "/v1/keys/after", b"w")
                    for watch in (fresh, again):
                        assert watch.changes(1)[0].data["key"] == "after"
            finally:
                other.remove()
                sentinel.close()


def set_at(server: Server, name: bytes, number: int) -> list[int]:
    """Set some keys at a server without the service, and return their revisions."""

    async def work() -> list[int]:
        async with opened(f"valkey://{HOST}:{server.port}") as engine:
            return await set_some(engine, name, number)

    return run(work())
