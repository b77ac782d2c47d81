"""`keyrack doctor`, `slow`, `hot`, `big` and `clients`, against a running service."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from keyrack_server import request

if TYPE_CHECKING:
    from cli_support import Keyrack
    from keyrack_server import Server


def test_the_doctor_says_what_stands_out(keyrack: Keyrack) -> None:
    ended = keyrack("doctor", "--seconds", "0.1")
    assert ended.code in (0, 1), ended
    assert b"There is no access control" in ended.out
    assert b"Nothing is kept on a disk" in ended.out


def test_the_doctor_is_given_an_address_by_its_place(keyrack: Keyrack) -> None:
    found = json.loads(keyrack("doctor", keyrack.url, "--seconds", "0.1", "-o", "json").out)
    assert {one["level"] for one in found["findings"]} <= {"bad", "look"}
    assert keyrack("doctor", "http://127.0.0.1:1").code == 3


def test_what_was_slow_is_shown_and_forgotten(keyrack: Keyrack, server: Server) -> None:
    server.put("large", b"x" * (1 << 20))
    assert server.ask("GET", "/get/large").status == 200
    shown = keyrack.out("slow")
    assert "OPERATION" in shown
    assert "large" in shown
    entries = json.loads(keyrack.out("slow", "-o", "json"))
    assert any(one.get("key") == "large" for one in entries)
    assert keyrack.out("slow", "--clear") == ""
    entries = json.loads(keyrack.out("slow", "-o", "json"))
    assert not any(one.get("key") == "large" for one in entries)


def test_hot_keys_are_shown(keyrack: Keyrack, server: Server) -> None:
    done = threading.Event()

    def work() -> None:
        with server.connect() as wire:
            while not done.is_set():
                wire.ask(request("GET", "/get/hot"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert keyrack.out("hot", "--seconds", "1", "-o", "raw") == "hot\n"
    finally:
        done.set()
        thread.join()


def test_what_fills_the_memory_is_shown_with_the_total(keyrack: Keyrack, server: Server) -> None:
    server.put("a/one", b"x" * 5000)
    server.put("a/two", b"x" * 100)
    ended = keyrack("big", "-o", "jsonl", "--prefix", "a/", "--delimiter", "o")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("key", "a/one"), ("key", "a/two"), ("folder", "a/o"), ("folder", "a/two"),
    ]  # fmt: skip
    assert "2 keys" in ended.err


def test_clients_are_shown_and_ended(keyrack: Keyrack, server: Server) -> None:
    with server.connect() as wire:
        wire.ask(request("GET", "/get/a", User_Agent="ended/1.0"))
        found = json.loads(keyrack.out("clients", "-o", "json"))
        (mine,) = [one for one in found if one["agent"] == "ended/1.0"]
        assert keyrack.out("clients", "--end", mine["id"]) == ""
        assert wire.rest() == b""
    ended = keyrack("clients", "--end", mine["id"])
    assert (ended.code, ended.err.startswith("keyrack: There is no connection")) == (1, True)
