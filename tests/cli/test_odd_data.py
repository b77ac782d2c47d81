"""Keys and values that are anything: they come out of every verb as they went in."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack
    from keyrack_server import Server

KEYS = [
    "plain",
    "a/b//c/",
    "/",
    "..",
    "a/../b",
    "-dash",
    "--flag",
    "sp ace+plus%25",
    "new\nline",
    "nul\x00esc\x1b[31m",
    "ü\u202e語",
    "?#&=",
    "k" * 511,
]
VALUES = [
    b"",
    b"\x00\xff\xfe",
    b"line\r\n\x1b[31m",
    "ü".encode(),
    bytes(range(256)),
    b"@file",
    b"-",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_goes_through_every_verb_about_one(keyrack: Keyrack, key: str) -> None:
    assert keyrack("set", "--", key, "1").code == 0
    assert keyrack.out("get", "--", key) == "1"
    for verb in ("head", "history", "get"):
        assert keyrack(verb, "-o", "json", "--", key).code == 0, verb
    assert json.loads(keyrack.out("head", "-o", "json", "--", key))["key"] == key
    assert keyrack.out("incr", "--", key, "2") == "3\n"
    assert keyrack("touch", "--ttl", "1h", "--", key).code == 0
    assert keyrack("wait", "--", key).code == 0
    assert keyrack.out("ls", "-r", "-0") == f"{key}\x00"
    assert json.loads(keyrack.out("ls", "-r", "-o", "json"))[0]["key"] == key
    assert keyrack.out("find", "-0") == f"{key}\x00"
    assert json.loads(keyrack.out("replay", "-o", "json"))[-1]["key"] == key
    lock = keyrack.out("lock", "--", key, "--").strip()
    assert keyrack.out("locks", "-o", "json") != "[]\n"
    assert keyrack("unlock", "--token", lock, "--", key).code == 0
    assert keyrack("set", "--type", "application/json", "--", key, "{}").code == 0
    assert keyrack("patch", "--", key, '{"a":1.50}').code == 0
    assert keyrack.out("get", "--", key) == '{"a":1.50}'
    assert keyrack("del", "--", key).code == 0
    assert keyrack("get", "--", key).code == 1


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_byte_for_byte(keyrack: Keyrack, home: Path, value: bytes) -> None:
    assert keyrack("set", "v", stdin=value).code == 0
    assert keyrack("get", "v").out == value
    (home / "file").write_bytes(value)
    assert keyrack("set", "f", "@file").code == 0
    assert keyrack("get", "f").out == value
    shown = json.loads(keyrack.out("get", "v", "-o", "json"))
    if "encoding" in shown:
        assert base64.b64decode(shown["value"]) == value
    else:
        assert shown["value"].encode() == value
    if b"\0" not in value:
        assert keyrack("set", "w", os.fsdecode(value), "--literal").code == 0
        assert keyrack("get", "w").out == value


def test_everything_is_exported_imported_copied_and_compared(keyrack: Keyrack, home: Path) -> None:
    for number, key in enumerate(KEYS):
        keyrack("set", "--", key, stdin=VALUES[number % len(VALUES)])
    keyrack("set", "json", '{"n": 1.50}', "--type", "application/json")
    keyrack("set", "string", '"text"', "--type", "application/json")
    keyrack("set", "lines", "[1,\n2]", "--type", "application/json")
    keyrack.out("export", "all.ndjson")
    keyrack.out("del", "--all", "--yes")
    keyrack.out("import", "all.ndjson")
    assert keyrack.out("diff", "all.ndjson", ".") == ""
    keyrack.out("copy", ".", "copy.ndjson")
    assert (home / "copy.ndjson").read_bytes() == (home / "all.ndjson").read_bytes()
    assert keyrack.out("get", "json") == '{"n": 1.50}'


def test_an_export_goes_on_behind_its_last_whole_line(keyrack: Keyrack, home: Path) -> None:
    """From the pages of the list, which must give the very lines that the export gives."""
    for number, key in enumerate(KEYS):
        keyrack("set", "--", key, stdin=VALUES[number % len(VALUES)])
    keyrack("set", "json", '{"n": 1.50}', "--type", "application/json")
    keyrack("set", "string", '"text"', "--type", "application/json")
    keyrack("set", "lines", "[1,\n2]", "--type", "application/json")
    keyrack.out("export", "all.ndjson")
    whole = (home / "all.ndjson").read_bytes()
    for cut in (0, 1, whole.index(b"\n") + 1, whole.index(b"\n") + 5, len(whole) - 1, len(whole)):
        (home / "again.part").write_bytes(whole[:cut])
        keyrack.out("export", "again", "--resume")
        assert (home / "again").read_bytes() == whole, cut


def test_an_import_goes_on_where_it_was(keyrack: Keyrack, home: Path) -> None:
    lines = [b'{"key":"k%d","value":"v"}\n' % number for number in range(5)]
    (home / "lines").write_bytes(b"".join(lines))
    (home / "lines.done").write_text(str(len(lines[0]) * 2))
    found = json.loads(keyrack.out("import", "lines", "--resume", "-o", "json"))
    assert found["imported"] == 3
    assert keyrack.out("ls") == "k2\nk3\nk4\n"
    assert not (home / "lines.done").exists()


def test_a_line_that_fails_is_told_by_its_number_in_the_file(keyrack: Keyrack, home: Path) -> None:
    (home / "lines").write_bytes(b'{"key":"a","value":"1"}\n\nnone\n')
    ended = keyrack("import", "lines")
    assert ended.code == 5
    assert "Line 3: " in ended.err


def test_the_environment_of_a_program_comes_from_keys(keyrack: Keyrack, home: Path) -> None:
    keyrack.out("set", "app/db-host.name", "h\u00e9")
    keyrack.out("set", "app/9", "\udcff")
    keyrack.out("set", "app/", "nameless")
    program = 'printf \'%s|%s\' "$DB_HOST_NAME" "$_9" > out'
    assert keyrack("run", "app/", "--once", "--", "sh", "-c", program).code == 0
    assert (home / "out").read_bytes() == "hé|".encode() + b"\xff"


def test_a_template_may_hold_any_bytes(keyrack: Keyrack, home: Path) -> None:
    keyrack.out("set", "odd key/ü", "\udcff$")
    (home / "in").write_bytes(b"\xfe ${odd key/\xc3\xbc} $$ $x ${")
    assert keyrack("render", "in:out").code == 0
    assert (home / "out").read_bytes() == b"\xfe \xff$ $ $x ${"


def test_a_value_is_stored_for_caches_to_keep(keyrack: Keyrack, server: Server) -> None:
    assert keyrack("set", "k", "v", "--max-age", "5m", "--swr", "60", "--public").code == 0
    answer = server.ask("GET", "/v1/keys/k")
    assert answer["cache-control"] == "public, max-age=300, stale-while-revalidate=60"
    assert keyrack("set", "k", "v", "--max-age", "0").code == 0
    assert server.ask("GET", "/v1/keys/k")["cache-control"] == "private, max-age=0"
    for wrong in (("--swr", "5"), ("--public",), ("--max-age", "0.5")):
        assert keyrack("set", "k", "v", *wrong).code == 2
