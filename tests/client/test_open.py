"""`keyrack.open`: a store of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from keyrack_server.server import clean_environment

import keyrack

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)


def test_a_store_of_ones_own_is_there_until_it_is_closed() -> None:
    with keyrack.open() as store:
        store.set("a", {"n": 1}, ttl=60)
        assert store.get("a") == {"n": 1}
        assert store.incr("n") == 1
        with store.lock("job"), store.watch("w", since=int(store.info()["revision"])) as watch:
            store.set("w", "v")
            event = next(watch)
        assert isinstance(event, keyrack.WatchEvent)
        assert event.key == "w"
        home = store._home
        assert os.stat(home).st_mode & 0o077 == 0
    assert not os.path.exists(home)
    with pytest.raises(keyrack.Unreachable):
        store.get("a")


def test_a_store_with_a_path_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with keyrack.open(path) as store:
        store.set("kept", "v")
        with pytest.raises(keyrack.OpenFailed, match="use"):
            keyrack.open(path)
    with keyrack.open(path, durability="snapshot") as store:
        assert store.get("kept") == "v"


def test_what_cannot_be_opened_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goes with"):
        keyrack.open(tmp_path, durability="none")
    with pytest.raises(keyrack.OpenFailed, match="memory"):
        keyrack.open(memory="much")


def test_the_service_ends_with_its_program_even_if_that_is_killed() -> None:
    code = (
        "import keyrack, time; store = keyrack.open(); store.set('a', 'v');"
        "print(store._home, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as program:
        assert program.stdout is not None
        path = os.path.join(program.stdout.readline().decode().strip(), "socket")
        with keyrack.Client(uds=path, retries=0) as client:
            assert client.get("a") == "v"
            program.send_signal(signal.SIGKILL)
            program.wait()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    client.get("a")
                except keyrack.KeyrackError:
                    return
                time.sleep(0.05)
    raise AssertionError("the service outlived its program")
