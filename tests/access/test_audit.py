"""The audit trail: what is told of whom, at each level."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded
from api_support import Client
from keyrack_server.server import clean_environment

from keyrack.server.audit_log import AuditFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def lines(service: Guarded) -> list[dict[str, Any]]:
    found = [one for one in service.server.log_lines() if one.get("event") == "audit"]
    return [one for one in found if one["operation"] != "healthz"]  # how the service is waited for


def told(level: str) -> tuple[Guarded, list[dict[str, Any]]]:
    """Return what is logged of a read, a write, a refusal, a stranger and an administrator."""
    service = Guarded("", "--audit", level)
    who = service.add("all keys:app/*")
    with service, Client(service.server) as client:
        for _ in range(3):
            assert client.get("/get/app/a", **who.field).status == 404
        assert client.put("app/a", b"a secret value", **who.field)
        body = b'{"key":"app/b","value":"another secret"}'
        for _ in range(2):
            assert client.post("/set", body, **who.field).status == 200
        assert client.get("/get/other?", X_Request_Id="r-1", **who.field).status == 403
        assert client.ask("PUT", "/v1/keys/other", b"v", **who.field).status == 403
        assert client.get("/get/app/a").status == 401
        made = client.post("/v1/auth/tokens", {"name": "x"}, **service.admin.field).json
        client.delete(f"/v1/auth/tokens/{made['id']}", **service.admin.field)
        found = lines(service)
        made_lines = [line for line in found if line["operation"] == "auth_token_create"]
        assert all(line["made"] == made["id"] for line in made_lines)
        log = service.server.log()
    for secret in (who.text[12:45], made["token"][12:45], "secret value", "another secret"):
        assert secret not in log
    return service, found


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("none", []),
        ("admin", ["auth_token_create", "auth_token_revoke"]),
        ("denied", ["get", "key_put", "get", "auth_token_create", "auth_token_revoke"]),
        (
            "writes",
            ["key_put", "set", "set", "get", "key_put", "get", "auth_token_create",
             "auth_token_revoke"],
        ),
        (
            "all",
            ["get", "get", "get", "key_put", "set", "set", "get", "key_put", "get",
             "auth_token_create", "auth_token_revoke"],
        ),
    ],
)  # fmt: skip
def test_each_level_tells_what_it_says(level: str, expected: list[str]) -> None:
    _, found = told(level)
    assert [line["operation"] for line in found] == expected


def test_a_refusal_says_who_and_by_which_rule() -> None:
    service = Guarded()
    who = service.add("all keys:app/*", "deny read keys:app/secret/*", name="shop")
    with service, Client(service.server) as client:
        client.get("/get/app/secret/x", X_Request_Id="r-1", **who.field)
        (line,) = lines(service)
    assert line["logger"] == "keyrack.audit"
    assert (line["token"], line["identity"]) == (who.id, "file shop")
    assert (line["outcome"], line["path"]) == (403, "/get/app/secret/x")
    assert (line["rule"], line["request"]) == ("deny read keys:app/secret/*", "r-1")
    assert line["peer"].startswith("127.0.0.1:")


def test_a_token_that_was_revoked_is_told_of_by_its_id() -> None:
    with Guarded() as service, Client(service.server) as client:
        made = client.post("/v1/auth/tokens", {"name": "x"}, **service.admin.field).json
        client.delete(f"/v1/auth/tokens/{made['id']}", **service.admin.field)
        refused = client.get("/v1/keys/a", Authorization=f"Bearer {made['token']}")
        assert (refused.status, refused.json["token"]) == (401, made["id"])
        line = lines(service)[-1]
    assert (line["outcome"], line["token"]) == (401, made["id"])
    assert line["detail"] == "The token is not known, or was revoked."


def test_refusals_of_one_sender_are_bounded_and_what_is_left_out_is_counted() -> None:
    service = Guarded()
    who = service.add("all keys:app/*")
    with service, Client(service.server) as client:
        began = int(time.monotonic())
        for _ in range(100):
            client.get("/get/other", **who.field)
        seconds = int(time.monotonic()) - began + 1
        time.sleep(1.1)
        client.get("/get/other", **who.field)
        found = lines(service)
    assert len(found) <= 31 * seconds + 1
    assert len(found) - 1 + sum(line.get("suppressed", 0) for line in found) == 100


def test_lines_of_writes_name_their_keys_and_revisions() -> None:
    with Guarded("", "--audit", "writes") as service, Client(service.server) as client:
        field = service.admin.field
        revision = client.put("a", b"v", **field)
        client.post("/set", b'{"key":"b\\n","value":"x"}', **field)
        operations = [
            {"op": "set", "key": "c", "value": "x"},
            {"op": "delete", "key": "b\n"},
            {"op": "get", "key": "a"},
        ]
        batch = client.batch(*operations, **field).json["results"]
        client.ask("PUT", "/v1/keys/a", b"v", If_Match='"1"', **field)
        deleted = client.delete("/v1/keys?prefix=c", **field).json
        eventually(lambda: len(lines(service)), 5)
        put, seed, several, refused, prefix = lines(service)
    assert (put["path"], put["revision"]) == ("/v1/keys/a", revision)
    assert (seed["keys"], int(seed["revision"]) > int(revision)) == (["b\n"], True)
    assert (several["keys"], several["revision"]) == (["c", "b\n"], batch[1]["revision"])
    assert (refused["outcome"], "revision" in refused) == (412, False)
    assert (prefix["query"], prefix["revision"]) == ("prefix=c", deleted["revision"])


def test_the_token_of_a_lock_is_its_holder_s_alone() -> None:
    with Guarded("", "--audit", "all") as service, Client(service.server) as client:
        field = service.admin.field
        taken = client.post("/v1/locks/a", {"owner": "me", "ttl": 60}, **field)
        assert taken.status == 201
        token = taken.json["token"]
        checked = {"op": "check", "lock": "a", "token": token}
        done = client.batch(checked, {"op": "set", "key": "k", "value": "v"}, **field)
        assert done.status == 200
        assert client.patch("k", {"a": 1}, **field).status == 409  # no JSON
        eventually(lambda: len(lines(service)), 3)
        found = lines(service)
    assert [line["operation"] for line in found] == ["lock_acquire", "batch", "key_patch"]
    assert token not in json.dumps(found)
    assert ["revision" in line for line in found] == [False, True, False]


# A file of its own


def eventually(read: Callable[[], Any], expected: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 20
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found == expected


def in_file(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["path"] for line in text.splitlines()]


def test_the_trail_goes_to_a_file_instead_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    service = Guarded("", "--audit-log", str(path), workers=2)
    with service, Client(service.server) as client:
        assert client.get("/get/a").status == 401
        (line,) = [json.loads(text) for text in path.read_text().splitlines()]
        assert lines(service) == []
    assert (line["event"], line["path"], line["outcome"]) == ("audit", "/get/a", 401)
    assert line["time"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_renamed_is_begun_anew_and_nothing_is_lost(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    service = Guarded("", "--audit", "all", "--audit-log", str(path), workers=2)
    asked = 0
    with service, Client(service.server) as client:
        path.rename(old)
        deadline = time.monotonic() + 20
        while not path.exists() or len(in_file(path)) < 20:
            client.get(f"/get/{asked}", **service.admin.field)
            asked += 1
            assert time.monotonic() < deadline
        os.kill(service.server.process.pid, signal.SIGHUP)
        client.get(f"/get/{asked}", **service.admin.field)
    seen = [one for one in in_file(old) + in_file(path) if one.startswith("/get/")]
    assert seen == [f"/get/{number}" for number in range(asked + 1)]


def test_a_file_that_takes_no_line_holds_nobody_up(tmp_path: Path) -> None:
    """Whoever reads a named pipe may stand still; lines are dropped, counted and told of."""
    path = tmp_path / "audit.pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    service = Guarded("", "--audit", "all", "--audit-log", str(path))
    with service, Client(service.server) as client:
        for _ in range(1500):
            assert client.get("/get/a", **service.admin.field).status == 404

        def dropped() -> bool:
            metrics = client.get("/metrics", **service.admin.field).body.decode()
            (line,) = [
                x for x in metrics.splitlines() if x.startswith("keyrack_audit_lines_dropped")
            ]
            return float(line.split()[1]) > 0

        eventually(dropped, True)
        read = b""
        deadline = time.monotonic() + 20
        while b"audit log could not be written" not in read and time.monotonic() < deadline:
            try:
                read += os.read(reader, 1 << 20)
            except BlockingIOError:
                client.get("/get/a", **service.admin.field)
        assert b"lines were dropped because the audit log could not be written" in read
    os.close(reader)


def test_a_full_disk_is_told_once_and_lines_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = AuditFile("/dev/full")
    assert [file.write(memoryview(b"line\n")) for _ in range(3)] == [0, 0, 0]
    (record,) = caplog.records
    assert record.getMessage().startswith("the audit log /dev/full cannot be written: No space")
    file.close()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--audit-log", "/no/such/directory/audit"), "cannot be written: No such file"),
        (("--auth", "none", "--audit-log", "audit"), "--audit-log is of no use"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start(flags: tuple[str, ...], told: str) -> None:
    service = Guarded()
    auth = () if "--auth" in flags else ("--auth", str(service.path))
    done = subprocess.run(
        [sys.executable, "-m", "keyrack", "serve", "--port", "0", *auth, *flags],
        capture_output=True, text=True, timeout=30, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
