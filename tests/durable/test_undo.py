"""What was deleted and can be undone is kept as keys are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable.kept_service import KeptService

if TYPE_CHECKING:
    from keyrack_server import Server

LONG = b"0123456789" * 5000


def undo(server: Server, number: str) -> dict[str, int]:
    answer = server.ask("POST", f"/v1/undo/{number}", b"")
    assert answer.status == 200, answer
    found: dict[str, int] = answer.json
    return found


def test_what_was_deleted_comes_back_after_everything_was_killed(disk: str) -> None:
    server = KeptService("commit", disk)
    for number in range(20):
        server.put(f"a/{number}", b"%d" % number)
    server.put("a/long", LONG)
    server.put("one", b"1")
    some = server.ask("DELETE", "/v1/keys?prefix=a/&undo=600").json
    one = server.ask("DELETE", "/v1/keys/one?undo=600").json
    server.kill_all()
    server = KeptService("commit", disk)
    assert server.ask("GET", "/v1/keys/one").status == 404
    assert undo(server, one["undo"])["restored"] == 1
    # A second kill, with one undone and the other not.
    server.kill_all()
    with KeptService("commit", disk) as server:
        assert server.ask("GET", "/v1/keys/one").body == b"1"
        assert undo(server, one["undo"])["restored"] == 1
        assert undo(server, some["undo"])["restored"] == 21
        assert server.ask("GET", "/v1/keys/a/long").body == LONG
        assert server.ask("GET", "/v1/keys/a/7").body == b"7"


def test_what_was_deleted_is_in_a_snapshot(disk: str) -> None:
    with KeptService("snapshot", disk) as server:
        server.put("a/long", LONG)
        number = server.ask("DELETE", "/v1/keys?prefix=a/&undo=600").json["undo"]
    with KeptService("snapshot", disk) as server:
        assert undo(server, number)["restored"] == 1
        assert server.ask("GET", "/v1/keys/a/long").body == LONG
