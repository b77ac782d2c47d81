"""The store's directory is removed behind the service: it says so and ends, and nobody hangs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keyrack_server import ON_VALKEY, Server

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(ON_VALKEY, reason="that store is in no directory"),
]


def removed(store: Path) -> None:
    """As systemd's logind does when the user's last session ends (RemoveIPC)."""
    shutil.rmtree(store)


def moved(store: Path) -> None:
    store.rename(store.with_name(store.name + "-moved"))


def emptied(store: Path) -> None:
    (store / "data.mdb").unlink()


def replaced(store: Path) -> None:
    moved(store)
    store.mkdir()
    for name in ("lock", "data.mdb"):
        (store / name).touch()


def directory_of(server: Server) -> Path:
    return Path(next(one["store"] for one in server.log_lines() if one.get("event") == "ready"))


@pytest.mark.parametrize("dies", [False, True], ids=["all live", "a worker dies"])
@pytest.mark.parametrize("what", [removed, moved, emptied, replaced], ids=lambda it: it.__name__)
def test_a_service_whose_store_is_gone_says_so_and_ends(
    what: Callable[[Path], None], dies: bool
) -> None:
    server = Server(workers=2, memory="16m")
    store = directory_of(server)
    what(store)
    try:
        if dies:
            os.kill(server.worker_pids()[0], signal.SIGKILL)
        assert server.process.wait(10) == 1
    finally:
        server.process.kill()
        for left in (store, store.with_name(store.name + "-moved")):
            shutil.rmtree(left, ignore_errors=True)
    lines = server.log_lines()
    (lost,) = [line for line in lines if line.get("event") == "store_lost"]
    assert lost["level"] == "error"
    assert str(store) in lost["message"]
    assert lines[-1]["message"] == "the service has ended"
    assert "Traceback" not in server.log()
    assert sum(line.get("event") == "worker_ended" for line in lines) <= 1


def test_a_store_with_a_name_is_watched_as_well() -> None:
    parent = Path(tempfile.mkdtemp(prefix="test-lost-", dir="/dev/shm"))
    flags = ("--store", str(parent / "store"))
    try:
        server = Server(*flags, workers=1, memory="16m")
        server.put("k", b"v")
        removed(parent / "store")
        assert server.process.wait(10) == 1
        assert "Traceback" not in server.log()
        with Server(*flags, workers=1, memory="16m") as following:
            assert following.ask("GET", "/v1/info").json["keys"] == 0
    finally:
        shutil.rmtree(parent)
