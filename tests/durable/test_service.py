"""A service that is kept on a disk loses what its mode allows, and nothing else."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from api_support.streams import Watch
from keyrack_server import Server

from durable.kept_service import KeptService, until, written_until
from keyrack.engines.embedded.durability import snapshot

ROUNDS = int(os.environ.get("KEYRACK_TEST_ROUNDS", "6"))


# Mode commit


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_nothing_that_was_answered_is_lost_when_everything_is_killed(disk: str) -> None:
    chance = random.Random(1)
    answered: set[str] = set()
    for life in range(ROUNDS):
        server = KeptService("commit", disk, "--snapshot-interval", "1")
        found = server.stored()
        assert answered - found.keys() == set()
        assert all(key == value for key, value in found.items())

        def kill(server: KeptService = server) -> None:
            time.sleep(chance.uniform(0.2, 1.5))
            server.kill_all()

        answered |= written_until(server, str(life), kill)
    with KeptService("commit", disk) as server:
        assert answered - server.stored().keys() == set()
        assert server.ask("GET", "/v1/info").json["engine"]["durable"] is True
    assert len(answered) > 100 * ROUNDS


def test_a_revision_of_an_earlier_life_is_never_given_again(disk: str) -> None:
    newest = 0
    for _ in range(3):
        server = KeptService("commit", disk)
        revision = int(server.put("k", b"v").strip('"'))
        assert revision > newest
        newest = revision
        server.kill_all()


def test_watching_goes_on_over_a_kill_where_the_events_are_kept(disk: str) -> None:
    server = KeptService("commit", disk)
    first = server.put("a", b"1").strip('"')
    second = server.put("b", b"2").strip('"')
    server.kill_all()
    with KeptService("commit", disk) as server:
        with Watch(server, f"?prefix=&since={first}") as watch:
            assert [(message.id, message.event) for message in watch.synced()] == [
                (int(second), "set")
            ]
        gone = server.ask("GET", f"/v1/watch?prefix=&since={int(first) - 1000}")
        assert gone.status == 410


def test_an_answer_that_was_remembered_is_given_again_after_a_kill(disk: str) -> None:
    ask = ("POST", "/v1/counters/n", b'{"delta":"1"}')
    fields = {"Content-Type": "application/json", "Idempotency-Key": "once"}
    server = KeptService("commit", disk)
    first = server.ask(*ask, **fields)
    server.kill_all()
    with KeptService("commit", disk) as server:
        again = server.ask(*ask, **fields)
        assert again.json == first.json
        assert server.ask("GET", "/v1/keys/n").body == b"1"


def test_a_lock_is_still_held_after_a_kill(disk: str) -> None:
    ask = ("POST", "/v1/locks/job", b'{"owner":"me","ttl":60}')
    fields = {"Content-Type": "application/json"}
    server = KeptService("commit", disk)
    token = server.ask(*ask, **fields).json["token"]
    server.kill_all()
    with KeptService("commit", disk) as server:
        other = server.ask("POST", "/v1/locks/job", b'{"owner":"you","ttl":60}', **fields)
        assert other.status == 409
        assert other.json["owner"] == "me"
        assert server.ask("DELETE", f"/v1/locks/job?token={token}").status == 204


def test_a_fence_is_there_after_a_kill_and_so_is_its_lock(disk: str) -> None:
    fields = {"Content-Type": "application/json"}
    server = KeptService("commit", disk)
    body = b'{"keys":"jobs/*","lock":"jobs"}'
    assert server.ask("PUT", "/v1/fences/jobs", body, **fields).status == 201
    token = server.ask("POST", "/v1/locks/jobs", b'{"owner":"me","ttl":60}', **fields).json["token"]
    server.kill_all()
    with KeptService("commit", disk) as server:
        assert server.ask("PUT", "/v1/keys/jobs/1", b"v").status == 428
        held = {"Keyrack_Lock": f'"jobs"; token={token}'}
        assert server.ask("PUT", "/v1/keys/jobs/1", b"v", **held).status == 201


def test_a_quota_is_there_after_a_kill_and_counts_what_there_is(disk: str) -> None:
    fields = {"Content-Type": "application/json"}
    server = KeptService("commit", disk)
    server.put("team/1", b"v")
    body = b'{"prefix":"team/","max_keys":3}'
    assert server.ask("PUT", "/v1/quotas/team", body, **fields).status == 201
    server.put("team/2", b"12345")
    server.kill_all()
    with KeptService("commit", disk) as server:
        shown = server.ask("GET", "/v1/quotas/team").json
        assert (shown["keys"], shown["bytes"], shown["counted"]) == (2, 18, True)
        assert server.ask("PUT", "/v1/keys/team/3", b"v").status == 201
        assert server.ask("PUT", "/v1/keys/team/4", b"v").status == 507


def test_a_service_that_takes_over_keeps_every_write_and_takes_the_snapshots(disk: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = ("--port", str(free.getsockname()[1]))
    first = KeptService("commit", disk, *address)
    first.put("before", b"v")
    second: list[KeptService] = []

    def take_over() -> None:
        time.sleep(0.3)
        second.append(KeptService("commit", disk, *address, "--takeover"))
        time.sleep(0.5)
        for server in (second[0], first):
            server.kill_all()

    answered = written_until(first, "life", take_over)
    with KeptService("commit", disk) as server:
        assert {*answered, "before"} - server.stored().keys() == set()
    first = KeptService("commit", disk, *address)
    with KeptService("commit", disk, *address, "--takeover") as server:
        first.process.wait(20)
        first._log.close()
        server.put("after", b"v")
        assert server.ask("GET", "/v1/snapshot").status == 200
        assert len(server.said("snapshot")) == 1


# Mode snapshot


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_a_kill_loses_only_what_came_after_the_last_snapshot(disk: str) -> None:
    chance = random.Random(2)
    saved: set[str] = set()
    answered: set[str] = set()
    for life in range(ROUNDS):
        server = KeptService("snapshot", disk, "--snapshot-interval", "3600")
        found = server.stored()
        assert saved - found.keys() == set()
        assert all(key == value for key, value in found.items())

        def kill(server: KeptService = server) -> None:
            time.sleep(chance.uniform(0.1, 0.5))
            # Everything that was answered before a snapshot was asked for is in it.
            before = server.stored().keys()
            assert server.ask("GET", "/v1/snapshot").status == 200
            saved.update(before)
            time.sleep(chance.uniform(0.0, 0.2))
            server.kill_all()

        answered |= written_until(server, str(life), kill)
    assert len(saved) > 10 * ROUNDS
    assert saved < answered


def test_a_snapshot_is_taken_at_the_end_and_loaded_at_the_start(disk: str) -> None:
    with KeptService("snapshot", disk) as server:
        server.put("k?ttl=100", b"v")
        assert os.listdir(disk) != []
    with KeptService("snapshot", disk) as server:
        answer = server.ask("GET", "/v1/keys/k")
        assert answer.body == b"v"
        assert 90 < float(answer["Keyrack-TTL"]) <= 100
        assert "was loaded: 1 keys" in server.messages()


def test_snapshots_are_taken_at_intervals_and_only_when_something_has_changed(disk: str) -> None:
    with KeptService("snapshot", disk, "--snapshot-interval", "1") as server:
        server.put("k", b"v")
        until(lambda: len(server.said("snapshot")) > 0, 10, "the first snapshot")
        time.sleep(2.5)  # on a busy machine the value may have come after the first one
        taken = len(server.said("snapshot"))
        time.sleep(2.5)
        assert len(server.said("snapshot")) == taken
        (stamp,) = re.findall(
            r"^keyrack_snapshot_last_success_timestamp_seconds (\S+)$",
            server.ask("GET", "/metrics").body.decode(),
            re.MULTILINE,
        )
        assert 0 <= time.time() - float(stamp) < 60
        server.put("k", b"w")
        until(lambda: len(server.said("snapshot")) > taken, 10, "another snapshot")


def test_a_damaged_snapshot_is_told_in_the_log_and_the_one_before_it_is_used(disk: str) -> None:
    with KeptService("snapshot", disk) as server:
        server.put("k", b"older")
        server.ask("GET", "/v1/snapshot")
        server.put("k", b"newer")
    newest = sorted(name for name in os.listdir(disk) if name.startswith("snapshot"))[-1]
    with open(f"{disk}/{newest}", "r+b") as file:
        file.truncate(100)
    server = KeptService("snapshot", disk)
    assert server.ask("GET", "/v1/keys/k").body == b"older"
    damaged, renamed = server.complaints()
    assert damaged["level"] == renamed["level"] == "error"
    assert "is cut off, or damaged." in damaged["message"]
    assert f"{newest} was not used. It is now " in renamed["message"]
    server._end()


def test_a_named_store_that_outlived_a_kill_has_more_than_its_last_snapshot(
    disk: str, tmp_path: Path
) -> None:
    store = ("--store", str(tmp_path / "store"))
    server = KeptService("snapshot", disk, *store)
    server.put("k", b"v")
    server.kill_all()
    server = KeptService("snapshot", disk, *store)
    assert server.ask("GET", "/v1/keys/k").body == b"v"
    server._end()


# What is damaged


def flip_a_bit(path: str, at: float) -> None:
    with open(path, "r+b") as file:
        offset = int(os.path.getsize(path) * at)
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ 32,)))


def files_of(disk: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(disk).iterdir() if path.name != "lock"}


@pytest.mark.parametrize(
    ("mode", "what"), [("commit", "snapshot"), ("commit", "journal"), ("snapshot", "snapshot")]
)
def test_a_refused_start_is_refused_again_and_again_and_destroys_nothing(
    disk: str, mode: str, what: str
) -> None:
    server = KeptService(mode, disk, "--snapshot-keep", "1")
    for number in range(50):
        server.put(f"k{number}", b"v")
    assert server.ask("GET", "/v1/snapshot").status == 200
    for number in range(50):
        server.put(f"k{number}", b"newer")
    if mode == "snapshot":
        assert server.ask("GET", "/v1/snapshot").status == 200
    server.kill_all()
    damaged = max(name for name in os.listdir(disk) if name.startswith(what))
    flip_a_bit(f"{disk}/{damaged}", 0.6)
    before = files_of(disk)
    for _ in range(3):
        with pytest.raises(AssertionError, match=f"{damaged}.*keyrack data salvage"):
            KeptService(mode, disk)
        assert files_of(disk) == before
    flip_a_bit(f"{disk}/{damaged}", 0.6)
    with KeptService(mode, disk) as server:
        assert server.stored() == {f"k{number}": "newer" for number in range(50)}


def test_what_can_be_read_of_a_damaged_journal_is_gone_on_with_when_somebody_says_so(
    disk: str,
) -> None:
    server = KeptService("commit", disk)
    for number in range(50):
        server.put(f"k{number}", b"v")
    server.kill_all()
    flip_a_bit(f"{disk}/journal-{1:016d}", 0.5)
    with pytest.raises(AssertionError, match="keyrack data salvage"):
        KeptService("commit", disk)
    salvage = [sys.executable, "-m", "keyrack", "data", "salvage", "--data-dir", disk]
    done = subprocess.run(salvage, capture_output=True, text=True, check=True)
    lost = re.search(r"(\d+) transactions are lost", done.stdout)
    assert lost is not None, done.stdout
    expected = {f"k{number}": "v" for number in range(50 - int(lost[1]))}
    for _ in range(3):
        server = KeptService("commit", disk)
        assert server.stored() == expected
        server.put("more", b"v")
        expected["more"] = "v"
        server.kill_all()


@pytest.mark.parametrize("mode", ["commit", "snapshot"])
def test_a_damaged_snapshot_is_replaced_while_the_store_is_still_in_memory(
    disk: str, tmp_path: Path, mode: str
) -> None:
    store = ("--store", str(tmp_path / "store"))
    server = KeptService(mode, disk, *store, "--snapshot-keep", "1")
    for number in range(50):
        server.put(f"k{number}", b"v")
    assert server.ask("GET", "/v1/snapshot").status == 200
    server.kill_all()
    (newest,) = (name for name in os.listdir(disk) if name.startswith("snapshot"))
    flip_a_bit(f"{disk}/{newest}", 0.5)
    server = KeptService(mode, disk, *store, "--snapshot-keep", "1")
    aside = f"{disk}/{newest}.set-aside"
    until(lambda: os.path.exists(aside), 10, "the damaged snapshot is set aside")
    server.kill_all()
    shutil.rmtree(tmp_path / "store")
    server = KeptService(mode, disk, *store)
    assert len(server.stored()) == 50
    server.kill_all()


def test_a_journal_that_is_removed_under_a_service_is_made_up_for(disk: str) -> None:
    server = KeptService("commit", disk)
    server.put("before", b"v")
    (journal,) = (name for name in os.listdir(disk) if name.startswith("journal"))
    os.unlink(f"{disk}/{journal}")
    until(lambda: len(server.said("snapshot")) == 1, 10, "a snapshot")
    until(lambda: server.ask("PUT", "/v1/keys/after", b"v").status < 300, 10, "a write")
    assert f"{journal} is missing" in server.messages()
    for _ in range(3):
        server.kill_all()
        server = KeptService("commit", disk)
        assert server.stored() == {"before": "v", "after": "v"}
    server.kill_all()


# Asking for one


def test_a_snapshot_that_is_fetched_is_whole_and_has_what_was_answered(
    disk: str, tmp_path: Path
) -> None:
    with KeptService("commit", disk) as server:
        for number in range(50):
            server.put(f"key/{number}", b"%d" % number * 1000)
        answer = server.ask("GET", "/v1/snapshot")
        assert answer.status == 200
        assert answer["Content-Type"] == "application/octet-stream"
        path = tmp_path / "fetched"
        path.write_bytes(answer.body)
        assert snapshot.verify(str(path))[1].keys == 50
        newest = max(name for name in os.listdir(disk) if name.startswith("snapshot"))
        assert (tmp_path / "data" / newest).read_bytes() == answer.body
        again = server.ask("GET", "/v1/snapshot")
        assert again.body == answer.body, "nothing has changed, so it is the same one"


def test_a_service_that_keeps_nothing_says_how_to_get_snapshots() -> None:
    with Server() as server:
        answer = server.ask("GET", "/v1/snapshot")
        assert answer.status == 409
        assert answer.json["type"] == "/docs/problems/no-snapshots"
        assert "--durability snapshot" in answer.json["detail"]


# What cannot be


def test_a_data_directory_is_not_shared_by_two_services(disk: str) -> None:
    with KeptService("commit", disk), pytest.raises(AssertionError, match="is in use by another"):
        KeptService("commit", disk)
