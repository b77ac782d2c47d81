"""Somebody sets the wall clock, on by a year or back by an hour: nothing ends early or late."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from consistency.storm import audit, store
from keyrack_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

YEAR = 365 * 86400


class Warned(Server):
    """A service that says that its machine's clock was set, and complains of nothing else."""

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was logged above `info` besides that."""
        return [line for line in super().complaints() if line.get("event") != "clock_set"]


class WallClock:
    """What a service takes for the wall clock, by way of libfaketime; steady clocks are real."""

    def __init__(self, file: Path) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not libraries:
            pytest.skip("faketime is not installed: apt-get install faketime")
        self._file = file
        self.set(0)
        self.environ = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Have it so many seconds ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "clock")


@pytest.fixture
def directory() -> Iterator[str]:
    with store() as made:
        yield made


def year_shown(server: Server) -> int:
    """Return the year in the Date field: it proves that the clock was set."""
    return int(server.ask("GET", "/healthz")["Date"].split()[3])


def left(server: Server, key: str) -> float:
    return float(server.ask("GET", f"/v1/keys/{key}")["Keyrack-TTL"])


def wait_for_year(server: Server, year: int) -> None:
    deadline = time.monotonic() + 30
    while year_shown(server) != year:
        assert time.monotonic() < deadline, "the clock was not set"
        time.sleep(0.1)


@pytest.mark.parametrize("step", [YEAR, -3600])
def test_setting_the_clock_moves_no_ttl(clock: WallClock, directory: str, step: int) -> None:
    with Warned("--store", directory, environ=clock.environ) as server:
        began = time.monotonic()
        server.ask("PUT", "/v1/keys/long?ttl=1000", b"v")
        server.ask("PUT", "/v1/keys/short?ttl=3", b"v")
        first = server.put("revision", b"")
        told_before = server.ask("GET", "/v1/info").json["time_ms"]
        clock.set(step)
        time.sleep(1.2)  # the Date field is made twice a second
        if step == YEAR:
            wait_for_year(server, time.gmtime(time.time() + YEAR).tm_year)
        assert server.ask("GET", "/v1/keys/short").status == 200
        passed = time.monotonic() - began
        assert abs(left(server, "long") - (1000 - passed)) < 0.5
        told = server.ask("GET", "/v1/info").json["time_ms"] - told_before
        assert abs(told / 1000 - passed) < 0.5
        assert server.put("revision", b"") != first
        time.sleep(max(0.0, began + 3.1 - time.monotonic()))
        assert server.ask("GET", "/v1/keys/short").status == 404


@pytest.mark.parametrize("step", [YEAR, -3600])
def test_setting_the_clock_between_two_lives_moves_no_ttl_and_no_revision_back(
    clock: WallClock, directory: str, step: int
) -> None:
    revisions = []
    with Warned("--store", directory, environ=clock.environ) as server:
        began = time.monotonic()
        server.ask("PUT", "/v1/keys/long?ttl=1000", b"v")
        revisions.append(int(server.put("revision", b"").strip('"')))
    for ahead in (step, 0):
        clock.set(ahead)
        with Warned("--store", directory, environ=clock.environ) as server:
            assert abs(left(server, "long") - (1000 - (time.monotonic() - began))) < 0.5
            revisions.append(int(server.put("revision", b"").strip('"')))
    assert revisions == sorted(set(revisions))
    assert audit(directory) == []
