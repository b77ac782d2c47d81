"""A service whose file changes, and one that is started without a word on access."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from access_support import Guarded, Who
from api_support import Client, Watch
from keyrack_server import Server
from keyrack_server.server import clean_environment

from keyrack.access import tokens, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from api_support.streams import Message

_PATIENCE = 10.0


def soon(what: Callable[[], bool], seconds: float = _PATIENCE) -> float:
    """Wait until something is so; return how many seconds it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it did not come"
        time.sleep(0.02)
    return time.monotonic() - began


def next_change(watch: Watch) -> Message:
    while (message := watch.next()).event == "bookmark":
        pass
    return message


@pytest.fixture
def service() -> Iterator[Guarded]:
    with Guarded(workers=2) as running:
        yield running


def status(service: Guarded, who: Who, target: str = "/v1/limits") -> int:
    with Client(service.server) as client:
        return client.get(target, **who.field).status


def test_a_token_that_is_added_counts_within_two_seconds(service: Guarded) -> None:
    who = service.add("read keys:*")
    assert soon(lambda: status(service, who) == 200) < 3


def test_a_token_that_is_removed_ends_within_two_seconds_and_its_streams_with_it(
    service: Guarded,
) -> None:
    who = service.add("read,watch keys:*")
    soon(lambda: status(service, who) == 200)
    with Watch(service.server, "?prefix=a", **who.field) as watch, Client(service.server) as client:
        assert watch.next().event == "synced"
        for _ in range(3):  # by now the header section is recognised
            assert client.get("/get/a", **who.field).status == 404
        writing.remove(str(service.path), who.id)
        message = watch.next()
        assert message.event == "reset"
        assert message.data["reason"] == "revoked"
        assert client.get("/get/a", **who.field).status == 401


def test_a_request_that_waits_is_answered_when_its_token_is_revoked(service: Guarded) -> None:
    who = service.add("read keys:*", "lock locks:*")
    soon(lambda: status(service, who) == 200)
    answers: list[Any] = []

    def wait_for_key() -> None:
        with Client(service.server) as client:
            waiting = {"If_None_Match": "*", "Prefer": "wait=20", **who.field}
            answers.append(client.get("/v1/keys/awaited", **waiting))

    def wait_for_lock() -> None:
        with Client(service.server) as client:
            body = {"owner": "o", "ttl": 20}
            answers.append(client.post("/v1/locks/l", body, Prefer="wait=20", **who.field))

    with Client(service.server) as client:
        client.post("/v1/locks/l", {"owner": "other", "ttl": 30}, **service.admin.field)
        threads = [threading.Thread(target=one) for one in (wait_for_key, wait_for_lock)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        writing.remove(str(service.path), who.id)
        for thread in threads:
            thread.join(_PATIENCE)
    assert [answer.status for answer in answers] == [401, 401]


def test_rights_that_are_narrowed_end_what_they_no_longer_allow(service: Guarded) -> None:
    who = service.add("watch keys:a*", "watch keys:b*")
    soon(lambda: status(service, who) == 200)
    with (
        Watch(service.server, "?prefix=a", **who.field) as goes_on,
        Watch(service.server, "?prefix=b", **who.field) as ends,
        Watch(service.server, **who.field) as all_of_it,
    ):
        for watch in (goes_on, ends, all_of_it):
            assert watch.next().event == "synced"
        text = service.path.read_text().replace(', "watch keys:b*"', "")
        service.path.write_text(text)
        assert ends.next().event == "reset"
        assert all_of_it.next().event == "reset"
        with Client(service.server) as client:
            client.put("a1", **service.admin.field)
        assert next_change(goes_on).data["key"] == "a1"


def test_an_expired_token_ends_with_its_streams(service: Guarded) -> None:
    who = service.add("watch,read keys:*", expires=time.time() // 1 + 6)
    soon(lambda: status(service, who) == 200)
    with Watch(service.server, "?prefix=a", **who.field) as watch, Client(service.server) as client:
        assert watch.next().event == "synced"
        for _ in range(3):
            assert client.get("/get/a", **who.field).status == 404
        assert watch.next().event == "reset"
        soon(lambda: client.get("/get/a", **who.field).status == 401, 3)


def test_a_mistake_in_the_file_changes_nothing(service: Guarded) -> None:
    good = service.path.read_text()
    service.path.write_text("version = 1\n")
    soon(lambda: status(service, service.admin) == 401)
    service.path.write_text(good)
    soon(lambda: status(service, service.admin) == 200)
    service.path.write_text(good + "[[tokens]]\nid = 7\n")
    soon(lambda: "what counted before still counts" in service.server.log().lower())
    assert status(service, service.admin) == 200
    assert f"{service.path}, line" in service.server.log()


def test_at_sighup_the_file_is_read_at_once(service: Guarded) -> None:
    who = service.add("read keys:*")
    os.kill(service.server.process.pid, signal.SIGHUP)
    assert soon(lambda: status(service, who) == 200) < 1


def test_a_worker_that_is_replaced_knows_who_is_let_in(service: Guarded) -> None:
    who = service.add("read keys:*")
    soon(lambda: status(service, who) == 200)
    writing.remove(str(service.path), who.id)
    soon(lambda: status(service, who) == 401)
    for pid in service.server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        assert status(service, who) == 401
        assert status(service, service.admin) == 200


# Starting


def refused_start(*flags: str, **environ: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "keyrack", "serve", "--workers", "1", "--port", "0", *flags]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**clean_environment(), **environ},
    )
    return done.returncode, done.stderr


def test_a_service_for_everybody_on_a_network_has_to_be_wanted() -> None:
    code, told = refused_start("--host", "0.0.0.0")
    assert code == 2
    assert told.count("\n") == 1
    for way_out in ("--auth FILE", "KEYRACK_TOKEN", "--auth none"):
        assert way_out in told


def test_a_service_for_everybody_that_is_wanted_says_so_in_its_log() -> None:
    with Server("--host", "0.0.0.0", "--auth", "none") as server, Client(server) as client:
        assert client.get("/v1/info").json["auth"] == "none"
        assert "may read and write everything" in server.log()


def test_a_file_with_a_mistake_ends_the_start(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text('version = 1\nanonymous = ["nobody"]\n')
    code, told = refused_start("--auth", str(path))
    assert code == 2
    assert f"{path}, line 2: there is no policy 'nobody'" in told
    assert refused_start("--auth", str(tmp_path / "missing.toml"))[0] == 2


@pytest.mark.parametrize("said", [(), ("--auth", "none")])
def test_one_token_is_enough_to_close_a_service(said: tuple[str, ...]) -> None:
    made = tokens.new()
    flags = ("--host", "0.0.0.0", *said)
    with (
        Server(*flags, environ={"KEYRACK_TOKEN": made.text}) as server,
        Client(server) as client,
    ):
        assert client.get("/v1/keys").status == 401
        assert client.get("/v1/keys", Authorization=f"Bearer {made.text}").status == 200
        assert made.text[8:45] not in server.log()


def test_anonymous_visitors_have_the_policies_that_the_file_gives_them() -> None:
    head = 'anonymous = ["public"]\n[policies]\npublic = ["all keys:public/*"]\n'
    with Guarded(head) as service, Client(service.server) as client:
        client.put("public/x", b"v")
        body = b'{"key":"public/y","value":"v"}'
        for _ in range(3):
            assert client.post("/set", body).status == 200
            assert client.get("/get/public/y").status == 200
            assert client.get("/get/other").status == 401
            assert client.get("/v1/keys/other").json["type"] == "/docs/problems/unauthenticated"
        # Who shows something that does not count is not taken for nobody.
        wrong = {"Authorization": f"Bearer {tokens.new().text}"}
        assert client.get("/get/public/y", **wrong).status == 401


def test_where_there_is_no_access_control_credentials_mean_nothing(tmp_path: Path) -> None:
    with Server() as server, Client(server) as client:
        for _ in range(3):
            assert client.get("/get/a", Authorization="Bearer whatever").status == 404
