"""A new service takes over from the running one, or leaves it alone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from consistency.storm import store, until
from faults.generation import Address, Generations
from keyrack_server import ON_VALKEY, Server, refused_start, request

from keyrack import __version__
from keyrack.engines.embedded.database import FORMAT
from keyrack.server.takeover import Ask, Declined, Offer, Ready, Settled, SupervisorLink, _connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.generation import Generation

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey needs no taking over"),
]

ADDRESS = {"host": "127.0.0.1", "port": "0", "uds": "None"}


@pytest.fixture
def directory() -> Iterator[str]:
    with store() as made:
        yield made


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address("tcp", tmp_path)


@pytest.fixture
def generations(address: Address, directory: str) -> Iterator[Generations]:
    with Generations(address, directory) as made:
        yield made


def ask(
    directory: str,
    protocol: int = 1,
    store_format: str = FORMAT.decode(),
    address: dict[str, str] = ADDRESS,
) -> tuple[SupervisorLink, Any]:
    """Ask as a new service would; return the link and the answer."""
    link = _connect(directory)
    assert link is not None
    link.send(Ask(protocol, __version__, os.getpid(), store_format, address))
    answer, _ = link.expect()
    left = answer.descriptors if isinstance(answer, Offer) else 0
    while left:
        for descriptor in link.expect()[1]:
            os.close(descriptor)
            left -= 1
    return link, answer


def refused(*flags: str) -> str:
    """Return what a service says that cannot take over."""
    return refused_start("--takeover", *flags)


def complaints(service: Generation) -> list[str]:
    return [line["message"] for line in service.complaints()]


# All goes well


def test_data_revisions_and_locks_are_there_after_a_takeover(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    etag = address.ask("PUT", "/v1/keys/k", b"v")["ETag"]
    lock = address.ask(
        "POST", "/v1/locks/l", b'{"owner":"me","ttl":60}', Content_Type="application/json"
    )
    new = generations.start()
    old.wait_for_its_end()
    answer = address.ask("GET", "/v1/keys/k")
    assert (answer.body, answer["ETag"]) == (b"v", etag)
    assert address.ask("GET", "/v1/locks/l").json["owner"] == "me"
    assert address.ask("DELETE", f"/v1/locks/l?token={lock.json['token']}").status == 204
    assert int(address.ask("PUT", "/v1/keys/k", b"w")["ETag"].strip('"')) > int(etag.strip('"'))
    new.stop()


def test_what_was_deleted_at_the_old_service_is_undone_at_the_new_one(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    address.ask("PUT", "/v1/keys/k", b"v" * 50_000)
    number = address.ask("DELETE", "/v1/keys/k?undo=600").json["undo"]
    new = generations.start()
    old.wait_for_its_end()
    assert address.ask("POST", f"/v1/undo/{number}", b"").json["restored"] == 1
    assert address.ask("GET", "/v1/keys/k").body == b"v" * 50_000
    new.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_store_without_a_name_is_found_by_its_address_and_removed_by_the_last(
    tmp_path: Path,
) -> None:
    port = str(free_port())
    with Server("--port", port) as other_one, Server("--port", str(free_port())) as unconcerned:
        (found,) = {line["store"] for line in other_one.log_lines() if "store" in line}
        other_one.put("k", b"v")
        with Server("--port", port, "--takeover") as new:
            assert other_one.process.wait(20) == 0
            assert new.ask("GET", "/v1/keys/k").body == b"v"
            assert Path(found).is_dir()
        assert not Path(found).exists()
        assert len(unconcerned.log_lines()) == 1


@pytest.mark.parametrize("told", [True, False], ids=["of this version", "of an earlier version"])
def test_a_service_at_another_address_that_does_not_answer_is_passed_over(told: bool) -> None:
    """Wherever it stands in the order in which stores without a name are found."""
    port = str(free_port())
    others = [Server("--port", str(free_port()), memory="16m") for _ in range(2)]
    with Server("--port", port, memory="16m") as old:
        try:
            for other in others:
                os.kill(other.process.pid, signal.SIGSTOP)
                (store,) = {line["store"] for line in other.log_lines() if "store" in line}
                if not told:
                    Path(store, "address").unlink()
            with Server("--port", port, "--takeover", memory="16m") as new:
                assert old.process.wait(20) == 0
                assert any(line.get("event") == "taking_over" for line in new.log_lines())
        finally:
            for other in others:
                os.kill(other.process.pid, signal.SIGCONT)
                other.stop()


def test_without_a_running_service_it_starts_as_usual(generations: Generations) -> None:
    only = generations.start()
    assert "there is no running service" in only.log()
    only.stop()


def test_an_idle_connection_is_answered_once_more_and_told_to_go(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    with address.connect() as idle, address.connect() as wide:
        assert not idle.ask(request()).closes
        assert not wide.ask(request("GET", "/readyz")).closes
        new = generations.start()
        until(lambda: old.says("leaving"), 30, "the old service leaves")
        time.sleep(1)
        assert idle.ask(request("PUT", "/v1/keys/k", b"v")).closes
        assert idle.rest() == b""
        answer = wide.ask(request("GET", "/readyz"))
        assert (answer.status, answer.closes) == (200, True)
        assert wide.rest() == b""
    old.wait_for_its_end()
    assert address.ask("GET", "/v1/keys/k").body == b"v"
    new.stop()


@pytest.mark.time_limits
def test_connections_that_stay_idle_are_closed_in_the_end(
    generations: Generations, address: Address
) -> None:
    old = generations.start("--takeover-timeout", "1")
    with address.connect() as idle:
        idle.ask(request())
        generations.start()
        began = time.monotonic()
        assert idle.rest() == b""
        assert 0.7 < time.monotonic() - began < 9
    old.wait_for_its_end()


@pytest.mark.time_limits
def test_whoever_waits_at_the_old_service_is_told_by_the_new_one(
    generations: Generations, address: Address
) -> None:
    old = generations.start(workers=1)
    token = address.ask(
        "POST", "/v1/locks/l", b'{"owner":"a","ttl":60}', Content_Type="application/json"
    ).json["token"]
    with address.connect() as reader, address.connect() as locker:
        reader.send(request("GET", "/v1/keys/k", If_None_Match='"0"', Prefer="wait=20"))
        body = b'{"owner":"b","ttl":60}'
        fields = {"Content_Type": "application/json", "Prefer": "wait=20"}
        locker.send(request("POST", "/v1/locks/l", body, **fields))
        assert reader.nothing_comes()
        new = generations.start()
        until(lambda: old.says("leaving"), 30, "the old service leaves")
        began = time.monotonic()
        address.ask("PUT", "/v1/keys/k", b"v")
        answer = reader.answer()
        assert (answer.body, answer.closes) == (b"v", True)
        address.ask("DELETE", f"/v1/locks/l?token={token}")
        answer = locker.answer("POST")
        assert (answer.status, answer.closes) == (201, True)
        assert time.monotonic() - began < 10
    old.wait_for_its_end()
    new.stop()


def test_a_watch_that_reaches_the_old_service_late_is_sent_elsewhere_at_once(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    with address.connect() as early, address.connect() as late:
        early.ask(request())
        early.send(request("GET", "/v1/watch"))
        late.ask(request())
        new = generations.start()
        until(lambda: old.says("leaving"), 30, "the old service leaves")
        assert early.rest().endswith(b"0\r\n\r\n")
        late.send(request("GET", "/v1/watch"))
        assert late.rest().endswith(b"0\r\n\r\n")
        old.wait_for_its_end()
    new.stop()


def test_a_third_service_takes_over_while_the_first_still_leaves(
    generations: Generations, address: Address
) -> None:
    first = generations.start()
    with address.connect() as idle:
        idle.ask(request())
        second = generations.start()
        until(lambda: first.says("leaving"), 30, "the first leaves")
        third = generations.start()
        until(lambda: second.says("leaving"), 30, "the second leaves")
        time.sleep(1)
        assert [one.process.poll() for one in (first, second)] == [None, None]
        assert idle.ask(request()).closes
    first.wait_for_its_end()
    second.wait_for_its_end()
    assert address.ask("GET", "/healthz").status == 200
    third.stop()


def test_the_first_does_not_come_back_when_the_second_is_killed_after_the_third_took_over(
    generations: Generations, address: Address
) -> None:
    first = generations.start()
    with address.connect() as idle:
        idle.ask(request())
        second = generations.start()
        until(lambda: first.says("leaving"), 30, "the first leaves")
        third = generations.start()
        until(lambda: second.says("leaving"), 30, "the second leaves")
        os.kill(second.process.pid, signal.SIGKILL)
        second.process.wait()
        time.sleep(1)
        assert "goes on" not in first.log()
    first.wait_for_its_end()
    assert address.ask("GET", "/healthz").status == 200
    third.stop()


def test_killing_the_old_supervisor_while_it_leaves_harms_nobody(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    with address.connect() as idle:
        idle.ask(request())
        new = generations.start()
        until(lambda: old.says("leaving"), 30, "the old service leaves")
        os.kill(old.process.pid, signal.SIGKILL)
        old.process.wait()
        until(lambda: new.says("taken_over"), 30, "the new one notices")
    assert address.ask("PUT", "/v1/keys/k", b"v").status == 201
    new.stop()


def test_the_new_service_goes_on_alone_when_the_old_one_is_killed_meanwhile(
    generations: Generations, address: Address
) -> None:
    old = generations.start()
    address.ask("PUT", "/v1/keys/k", b"v")

    def kill() -> None:
        until(lambda: old.says("takeover_asked"), 10, "it is asked")
        os.kill(old.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    new = generations.start(workers=6)
    killer.join()
    old.process.wait()
    assert address.ask("GET", "/v1/keys/k").body == b"v"
    until(lambda: new.says("taken_over"), 30, "it notices")
    # What it has now it can hand over itself.
    generations.start()
    assert new.process.wait(20) == 0


# It cannot be


def test_other_settings_of_the_store_or_the_address_are_refused(
    generations: Generations, address: Address, directory: str
) -> None:
    running = generations.start()
    where = ("--store", directory)
    assert "--memory 32m would change that" in refused(*where, "--port", "0", "--memory", "32m")
    assert "has --port 0, and this one 1" in refused(*where, "--port", "1")
    assert "has --uds None" in refused(*where, "--port", "0", "--uds", "/nowhere")
    assert address.ask("GET", "/healthz").status == 200
    until(lambda: "given up" in running.log(), 30, "the running one says so")
    assert all("given up; this service goes on" in message for message in complaints(running))


def test_another_format_of_the_store_is_refused(generations: Generations, directory: str) -> None:
    generations.start().says("ready")
    link, answer = ask(directory, store_format="keyrack 9")
    assert isinstance(answer, Declined)
    assert "'keyrack 9'" in answer.why
    link.close()


def test_an_unknown_way_to_hand_over_is_refused(generations: Generations, directory: str) -> None:
    generations.start()
    link, answer = ask(directory, protocol=2)
    assert isinstance(answer, Declined)
    link.close()


def test_one_who_asks_and_goes_changes_nothing(
    generations: Generations, address: Address, directory: str
) -> None:
    running = generations.start()
    workers = running.worker_pids()
    link, answer = ask(directory)
    assert isinstance(answer, Offer)
    assert answer.memory == 64 << 20
    other, refusal = ask(directory)
    assert isinstance(refusal, Declined)
    assert "another service is just taking over" in refusal.why
    other.close()
    link.close()
    until(lambda: "has given up; this service goes on" in running.log(), 30, "it is noticed")
    assert running.worker_pids() == workers
    # And then another one may ask.
    generations.start()
    assert running.process.wait(20) == 0
    assert address.ask("GET", "/healthz").status == 200


def test_the_old_service_comes_back_when_the_new_one_dies_young(
    generations: Generations, address: Address, directory: str
) -> None:
    running = generations.start()
    address.ask("PUT", "/v1/keys/k", b"v")
    link, _ = ask(directory)
    link.send(Ready())
    until(lambda: running.says("leaving"), 30, "it leaves")
    link.close()
    until(lambda: "has ended already; this service goes on" in running.log(), 30, "it is noticed")
    assert address.ask("GET", "/v1/keys/k").body == b"v"
    # It is as it was before: another one can take over.
    generations.start()
    assert running.process.wait(20) == 0


def test_the_old_service_ends_though_the_new_one_dies_once_that_has_settled(
    generations: Generations, directory: str
) -> None:
    running = generations.start()
    link, _ = ask(directory)
    link.send(Ready())
    link.send(Settled())
    until(lambda: running.says("leaving"), 30, "it leaves")
    link.close()
    running.wait_for_its_end()


def test_a_new_service_of_which_a_worker_never_gets_ready_gives_up(
    generations: Generations, address: Address, directory: str, tmp_path: Path
) -> None:
    running = generations.start()
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\n"
        "from keyrack.server import logs, supervisor, worker\n"
        "from keyrack.server.processes import Patience\n"
        "from keyrack.server.signals import Signals\n"
        "from keyrack.settings import Settings\n"
        "def entry(spec):\n"
        "    spec.slot == 1 and sys.exit(3)\n"
        "    worker.run(spec)\n"
        "logs.configure('info', terminal=False)\n"
        f"settings = Settings(port=0, workers=2, store={directory!r}, takeover=True)\n"
        "sys.exit(supervisor.run(settings, Signals(), entry, Patience(startup=2.0)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "not all workers got ready, so nothing is taken over" in done.stderr
    until(lambda: "has given up; this service goes on" in running.log(), 30, "it is noticed")
    for number in range(20):
        assert address.ask("PUT", f"/v1/keys/{number}", b"v").status == 201


def test_process_1_of_a_container_does_not_hand_over(directory: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("the program unshare is not installed")
    flags = ["--port", "0", "--workers", "1", "--memory", "64m", "--store", directory]
    command = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-m", "keyrack", "serve"]
    service = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    try:
        assert service.stderr is not None
        first = service.stderr.readline()
        if "unshare" in first:
            pytest.skip(f"unshare is not allowed: {first}")
        while '"event":"ready"' not in first:
            first = service.stderr.readline()
        assert "process 1 of its container" in refused("--port", "0", "--store", directory)
    finally:
        outside = service.pid
        for child in Path(f"/proc/{outside}/task/{outside}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        service.communicate(timeout=20)


def test_a_control_socket_that_nobody_answers_is_no_running_service(
    generations: Generations, directory: str
) -> None:
    killed = generations.start()
    for pid in (killed.process.pid, *killed.worker_pids()):
        os.kill(pid, signal.SIGKILL)
    killed.process.wait()
    generations.start().stop()


def test_the_store_s_name_may_be_longer_than_that_of_a_unix_socket(
    address: Address, directory: str
) -> None:
    deep = Path(directory, "d" * 100, "e" * 100)
    deep.parent.mkdir()
    with Generations(address, str(deep)) as generations:
        old = generations.start()
        generations.start()
        old.wait_for_its_end()
