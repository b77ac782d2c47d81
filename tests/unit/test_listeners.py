"""Listening sockets: who gets which, what is refused, what happens to the file of a Unix socket."""

from __future__ import annotations

import os
import socket
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from keyrack.server.listeners import ListenError, Listeners, open_listeners
from keyrack.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def opened(**settings: Any) -> Listeners:
    return open_listeners(Settings(**{"port": 0, "workers": 1} | settings), patience=0)


def refusal(**settings: Any) -> str:
    with pytest.raises(ListenError) as caught:
        opened(**settings).close()
    return str(caught.value)


def port_of(listeners: Listeners) -> int:
    return int(listeners.of(0)[0].getsockname()[1])


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def needs_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")


# TCP


def test_each_worker_has_a_socket_of_its_own_on_one_port() -> None:
    with closing(opened(workers=3)) as listeners:
        sockets = [listeners.of(worker) for worker in range(3)]
        assert len({made.fileno() for (made,) in sockets}) == 3
        assert {made.getsockname() for (made,) in sockets} == {("127.0.0.1", port_of(listeners))}


def test_the_sockets_are_not_passed_on_to_other_programs() -> None:
    with closing(opened()) as listeners:
        assert not listeners.of(0)[0].get_inheritable()


def test_the_url_names_the_port_that_was_found() -> None:
    with closing(opened()) as listeners:
        assert listeners.urls == [f"http://127.0.0.1:{port_of(listeners)}"]


def test_the_kernel_spreads_connections_over_the_workers() -> None:
    with closing(opened(workers=2)) as listeners:
        clients = [socket.create_connection(("127.0.0.1", port_of(listeners))) for _ in range(64)]
        for worker in range(2):
            (mine,) = listeners.of(worker)
            mine.settimeout(2)
            mine.accept()[0].close()
        for client in clients:
            client.close()


@pytest.mark.parametrize("shared", [False, True])
def test_an_address_in_use_is_refused_even_if_its_user_would_share_it(shared: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refusal(port=port)
    assert said.startswith(f"127.0.0.1 port {port} is in use by another program.")
    assert "--port" in said


def test_an_address_can_be_had_again_right_after_connections_were_closed() -> None:
    with closing(opened()) as listeners:
        port = port_of(listeners)
        with socket.create_connection(("127.0.0.1", port)):
            listeners.of(0)[0].accept()[0].close()
    opened(port=port).close()


def test_an_address_that_is_let_go_in_time_is_had() -> None:
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    timer = threading.Timer(0.1, other.close)
    timer.start()
    open_listeners(Settings(port=port, workers=1), patience=5).close()
    timer.join()


def test_an_address_of_another_machine_is_refused() -> None:
    assert "192.0.2.1 is no address of this machine" in refusal(host="192.0.2.1")
    assert "192.0.2.1 is no address of this machine" in refusal(host="192.0.2.1", port=8088)


def test_a_name_that_does_not_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert "'nowhere' is not known here" in refusal(host="nowhere")


def test_all_addresses_of_a_name_are_listened_on_at_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs_ipv6()
    resolve_to(monkeypatch, (socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    with closing(opened(host="both", workers=2)) as listeners:
        monkeypatch.undo()
        port = port_of(listeners)
        assert listeners.urls == [f"http://[::1]:{port}", f"http://127.0.0.1:{port}"]
        assert [len(listeners.of(worker)) for worker in range(2)] == [2, 2]
        assert can_connect("::1", port)
        assert can_connect("127.0.0.1", port)


def test_an_address_of_a_name_that_this_machine_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, (socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    with closing(opened(host="some")) as listeners:
        assert listeners.urls == [f"http://127.0.0.1:{port_of(listeners)}"]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, tuple[Any, ...]]) -> None:
    answer = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)


def test_all_of_ipv6_takes_ipv4_as_well() -> None:
    needs_ipv6()
    with closing(opened(host="::")) as listeners:
        assert can_connect("::1", port_of(listeners))
        assert can_connect("127.0.0.1", port_of(listeners))


def test_a_worker_keeps_only_its_own() -> None:
    with closing(opened(workers=3)) as listeners:
        listeners.keep_only(1)
        assert [listeners.of(worker)[0].fileno() >= 0 for worker in range(3)] == [
            False,
            True,
            False,
        ]


# Unix sockets


def test_all_workers_share_one_unix_socket_and_there_is_no_tcp(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with closing(opened(uds=path, workers=2)) as listeners:
        assert listeners.of(0) == listeners.of(1)
        assert listeners.urls == [f"unix:{path}"]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        listeners.keep_only(1)
        connect(path)


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_the_file_of_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    opened(uds=str(tmp_path / "socket")).close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_a_killed_service_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with closing(opened(uds=path)):
        connect(path)


def test_a_socket_that_is_answered_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with closing(opened(uds=path)):
        assert "Another service listens on" in refusal(uds=path)
        connect(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "exists and is no socket" in refusal(uds=str(path))
    assert path.read_text() == "data"


def test_the_socket_of_a_later_service_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    earlier = opened(uds=str(path))
    path.rename(tmp_path / "moved")
    with closing(opened(uds=str(path))):
        earlier.close()
        connect(str(path))


def test_a_path_that_is_too_long_or_nowhere_is_refused(tmp_path: Path) -> None:
    assert "too long for a Unix socket" in refusal(uds="/" + "x" * 107)
    assert f"{tmp_path / 'none'} does not exist" in refusal(uds=str(tmp_path / "none" / "socket"))
