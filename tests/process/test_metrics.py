"""What `/metrics` says of the service as a whole: its processes, its clients, and its waits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from keyrack_server import Server, request

from keyrack.access import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def pair() -> Iterator[Server]:
    """A service of two workers."""
    with Server(workers=2) as running:
        yield running


class Mortal(Server):
    """A service whose workers are meant to die."""

    def complaints(self) -> list[dict[str, Any]]:
        """Return what was logged above `info`, but for that."""
        meant = ("worker_ended", "worker_stuck")
        return [line for line in super().complaints() if line.get("event") not in meant]


def samples(server: Server, **fields: str) -> dict[str, float]:
    """Return all samples, by their names and labels as they are written."""
    answer = server.ask("GET", "/metrics", **fields)
    assert answer.status == 200
    lines = answer.body.decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def eventually(server: Server, holds: Callable[[dict[str, float]], bool], **fields: str) -> None:
    """Ask for the metrics until something holds; figures are published twice a second."""
    deadline = time.monotonic() + 20
    while not holds(found := samples(server, **fields)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool of prometheus")
def test_promtool_finds_nothing_wrong_with_names_and_units(tmp_path: Path) -> None:
    flags = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    token = tokens.new().text
    with Server(*flags, environ={"KEYRACK_TOKEN": token}) as server:
        fields = {"Authorization": f"Bearer {token}"}
        server.put("a", b"x", **fields)
        answer = server.ask("GET", "/metrics", **fields)
        assert b"keyrack_auth_tokens" in answer.body
        assert b"keyrack_journal_bytes" in answer.body
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_processes_are_told_of_together(pair: Server) -> None:
    found = samples(pair)
    assert abs(found["process_start_time_seconds"] - time.time()) < 600
    eventually(pair, lambda found: found["process_cpu_seconds_total"] > 0)
    assert found["process_resident_memory_bytes"] > 10 << 20
    assert found["process_virtual_memory_bytes"] > found["process_resident_memory_bytes"]
    # Three processes, each with its standard streams at the least.
    assert 9 < found["process_open_fds"] < found["process_max_fds"]
    for worker in "01":
        assert found[f'keyrack_worker_memory_bytes{{worker="{worker}"}}'] > 1 << 20
        assert found[f'keyrack_worker_cpu_seconds_total{{worker="{worker}"}}'] >= 0


def test_processor_time_of_a_worker_that_died_is_not_lost() -> None:
    with Mortal(workers=2) as server:
        before = samples(server)["process_cpu_seconds_total"]
        victim = server.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)

        def is_replaced(found: dict[str, float]) -> bool:
            return found["keyrack_worker_starts_total"] == 3 and found["keyrack_workers"] == 2

        eventually(server, is_replaced)
        after = samples(server)
        assert after["process_cpu_seconds_total"] >= before
        assert after['keyrack_worker_deaths_total{reason="killed"}'] == 1
        assert after['keyrack_worker_deaths_total{reason="stuck"}'] == 0


def test_a_worker_that_is_stuck_dies_for_that_reason() -> None:
    with Mortal("--worker-timeout", "2", workers=2) as server:
        os.kill(server.worker_pids()[0], signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while not any(line.get("event") == "worker_ended" for line in server.log_lines()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        eventually(server, lambda found: found["keyrack_workers"] == 2)
        assert samples(server)['keyrack_worker_deaths_total{reason="stuck"}'] == 1


def test_watchers_and_waiting_requests_are_counted(pair: Server) -> None:
    tag = pair.put("waited-for", b"x")
    with pair.connect() as watcher, pair.connect() as waiting:
        watcher.send(request("GET", "/v1/watch"))
        waiting.send(request("GET", "/v1/keys/waited-for", If_None_Match=tag, Prefer="wait=60"))
        eventually(pair, lambda found: found["keyrack_watchers"] == 1)
        eventually(pair, lambda found: found["keyrack_waiting_requests"] == 1)
    eventually(pair, lambda found: found["keyrack_watchers"] == 0)


def test_locks_are_counted_while_they_are_held(pair: Server) -> None:
    body = b'{"owner":"me","ttl":60}'
    answer = pair.ask("POST", "/v1/locks/metrics", body, Content_Type="application/json")
    assert answer.status == 201, answer
    assert samples(pair)["keyrack_locks"] == 1


def test_bytes_are_counted_both_ways(pair: Server) -> None:
    before = samples(pair)
    pair.put("large", b"x" * 300_000)
    assert len(pair.ask("GET", "/v1/keys/large").body) == 300_000

    def are_counted(found: dict[str, float]) -> bool:
        return all(
            found[name] - before[name] >= 300_000
            for name in ("keyrack_received_bytes_total", "keyrack_sent_bytes_total")
        )

    eventually(pair, are_counted)


def test_turns_commits_and_waits_for_the_lock_are_measured(pair: Server) -> None:
    before = samples(pair)
    with pair.connect() as wire:
        for number in range(200):
            assert wire.ask(request("PUT", f"/v1/keys/{number}", b"x" * 100)).status < 300
    after = samples(pair)
    for name in ("turn", "commit"):
        count = f"keyrack_{name}_seconds_count"
        assert after[count] - before[count] >= 200, name
        assert after[f"keyrack_{name}_seconds_sum"] > before[f"keyrack_{name}_seconds_sum"]
    sizes = 'keyrack_value_bytes_bucket{le="128.0"}'
    assert after[sizes] - before[sizes] >= 20
    waits = "keyrack_write_lock_wait_seconds_count"
    eventually(pair, lambda found: found[waits] - before[waits] >= 200)
    eventually(pair, lambda found: found["keyrack_timer_lateness_seconds_count"] > 0)


def test_latency_is_told_apart_by_what_is_asked_for(pair: Server) -> None:
    def count(found: dict[str, float], lane: str) -> float:
        return found[f'keyrack_http_request_duration_seconds_count{{lane="{lane}"}}']

    before = samples(pair)
    assert pair.ask("GET", "/v1/keys").status == 200
    assert pair.ask("GET", "/v1/keys?count_only=true").status == 200
    assert b"200 OK" in pair.raw(request("GET", "/v1/export"))
    after = samples(pair)
    assert count(after, "list") - count(before, "list") == 2
    assert count(after, "bulk") - count(before, "bulk") == 1
    assert count(after, "wide") - count(before, "wide") == 1


def test_syncs_of_the_disk_and_the_journal_are_measured(tmp_path: Path) -> None:
    flags = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    with Server(*flags) as server:
        before = samples(server)
        server.put("a", b"x" * 1000)
        after = samples(server)
        assert after["keyrack_sync_seconds_count"] > before["keyrack_sync_seconds_count"]
        assert after["keyrack_journal_bytes"] >= before["keyrack_journal_bytes"] + 1000


def test_refusals_are_counted_by_reason_and_operation() -> None:
    token = tokens.new().text
    with Server(environ={"KEYRACK_TOKEN": token}) as server:
        good = {"Authorization": f"Bearer {token}"}
        bad = {"Authorization": f"Bearer {tokens.new().text}"}
        assert server.ask("GET", "/v1/keys/a").status == 401
        assert server.ask("GET", "/v1/keys/a", **bad).status == 401
        assert server.ask("PUT", "/v1/keys/a", b"x").status == 401
        found = samples(server, **good)
        assert found["keyrack_auth_enabled"] == 1
        assert found['keyrack_auth_tokens{source="file"}'] == 1
        assert found['keyrack_auth_denied_total{operation="key_get"}'] == 2
        assert found['keyrack_auth_denied_total{operation="key_put"}'] == 1
        assert found['keyrack_auth_failures_total{reason="unknown"}'] == 1
        assert not any("krk_" in name or token in name for name in found)
