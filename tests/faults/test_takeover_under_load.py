"""New versions take over while clients go on: not one request fails, and no watcher misses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from consistency.storm import ROUNDS, store
from consistency.stream import END, Watcher

from faults.generation import Address, Generations
from faults.load import mixed

if TYPE_CHECKING:
    from pathlib import Path

TAKEOVERS = 2 * ROUNDS


@pytest.mark.timeout(60 + 20 * TAKEOVERS)
@pytest.mark.parametrize(
    ("kind", "durability"),
    [("tcp", "none"), ("uds", "none"), ("tls", "none"), ("tcp", "commit"), ("tcp", "snapshot")],
)
def test_not_one_request_fails_while_new_services_take_over(
    kind: str, durability: str, tmp_path: Path
) -> None:
    address = Address(kind, tmp_path)
    if durability != "none":
        address.flags += ("--durability", durability, "--data-dir", str(tmp_path / "data"))
    with store() as directory, Generations(address, directory) as generations:
        running = generations.start()
        since = int(address.ask("GET", "/v1/info").json["revision"])
        watcher = Watcher(address, ("load/",), since, 0.0, 0)
        watching = threading.Thread(target=watcher.run)
        watching.start()
        with mixed(address) as load:
            for number in range(TAKEOVERS):
                # More workers than before, fewer, and as many.
                following = generations.start(workers=(3, 1, 2)[number % 3])
                running.wait_for_its_end()
                running = following
        address.ask("PUT", "/v1/keys/the%20end%20of%20the%20watch", b"")
        watching.join(20)
        answers = {
            key: address.ask("GET", f"/v1/keys/{key}").body.decode()
            for client in load.clients
            for key in client.written
        }
        running.stop()
    written = {key: value for client in load.clients for key, value in client.written.items()}
    print(
        f"{kind}, durability {durability}: {TAKEOVERS} takeovers, {load.requests} requests, ",
        end="",
    )
    print(f"{load.connections} connections, {len(load.failures)} failed")
    assert load.failures == []
    assert answers == written
    assert not watching.is_alive()
    assert len(watcher.told) == load.requests // 2 + 1
    assert watcher.told[-1].key == END
