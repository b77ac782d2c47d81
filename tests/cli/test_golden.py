"""What every verb prints in every format, held against files in tests/cli/golden.

KEYRACK_TEST_GOLDEN=write writes the files anew; look at what changed before you commit it.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cli_support import Keyrack
from engine_support.kept import KeptStore
from engine_support.world import memory_directory, put
from keyrack_server import Server

from keyrack.access import tokens
from keyrack.cli import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli_support import Ended

GOLDEN = Path(__file__).parent / "golden"
TOKEN = tokens.new().text
ODD = "odd\x00\x1b[31m\n\u202ekey"
"""A key that would drive a terminal, break a line, and turn what is behind it around."""
LINES = '{"key":"a","value":"1"}\nno line\n'
AUTH = (
    'version = 1\n[[tokens]]\nid = "AAAAAAAA"\nname = "ci"\nrules = ["read keys:app/*"]\n'
    'hash = "sha256:' + "0" * 64 + '"\n'
)
OTHER_FORMATS = {"serve": "it logs, as JSON where nobody sits at a terminal"}
ELSEWHERE = {"doctor", "slow", "hot", "big", "clients", "top", "bench", "undo"}
"""Verbs that print another thing each time: test_observing.py, test_load.py, test_undo.py."""


class Case(NamedTuple):
    """What is done before, and the words of the verb itself. `stdin` is for the verb."""

    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    stdin: bytes = b""


SOME = (
    ("set", "app/name", "Keyrack"),
    ("set", "app/port", "8088", "--type", "application/json"),
    ("set", "app/icon", "@icon"),
    ("set", "app/ü", "ü"),
    ("set", "--", ODD, "x"),
)
DATA = ("--data-dir", "data")
CASES: dict[str, tuple[Case, ...]] = {
    "get": (
        Case(("app/name",), SOME),
        Case(("app/port", "--meta"), SOME),
        Case(("app/icon",), SOME),
        Case((ODD,), SOME),
        Case(("gone",)),
    ),
    "head": (Case(("app/icon",), SOME), Case((ODD,), SOME), Case(("gone",))),
    "set": (
        Case(("a", "b")),
        Case(("a", "b", "-v")),
        Case(("a", "b", "--add"), (("set", "a", "b"),)),
        Case(("a", "b", "--replace")),
        Case(("a", "b", "--if-match", "1"), (("set", "a", "b"),)),
    ),
    "del": (
        Case(("app/name", "gone"), SOME),
        Case(("app/name",), SOME),
        Case(("--prefix", "app/", "--dry-run"), SOME),
        Case(("--prefix", "app/", "--yes"), SOME),
        Case(("--all", "--yes"), SOME),
        Case(("--prefix", "app/"), SOME),
        Case(("--prefix", "")),
    ),
    "touch": (
        Case(("a", "--persist"), (("set", "a", "b"),)),
        Case(("a", "--ttl", "1h"), (("set", "a", "b"),)),
        Case(("gone", "--persist")),
    ),
    "patch": (
        Case(("j", '{"b":2.50}'), (("set", "j", '{"a":1}', "--type", "application/json"),)),
        Case(("j", "{}", "-v"), (("set", "j", "{}", "--type", "application/json"),)),
        Case(("gone", "{}")),
    ),
    "incr": (
        Case(("n", "5")),
        Case(("n", "-9223372036854775808")),
        Case(("t",), (("set", "t", "x"),)),
    ),
    "wait": (
        Case(("a",), (("set", "a", "b"),)),
        Case(("a", "--gone")),
        Case(("gone", "--timeout", "10ms")),
    ),
    "history": (
        Case(("seen",), (("set", "seen", "x"), ("del", "seen"))),
        Case(("never\x1b",)),
    ),
    "ls": (
        Case((), SOME),
        Case(("app/", "-l"), SOME),
        Case(("-r", "-0"), SOME),
        Case(("--count",), SOME),
        Case(("app/", "--limit", "1", "--reverse"), SOME),
        Case(("none/",)),
    ),
    "tree": (Case((), SOME), Case(("--depth", "0"), SOME)),
    "find": (Case(("--type", "application/"), SOME), Case(("app/", "--larger", "5", "-l"), SOME)),
    "batch": (
        Case(("ops.json",), (("set", "a", "b"),)),
        Case((), (), b'[{"op":"check","key":"gone","if_match":"*"}]'),
        Case((), (), b"no JSON"),
    ),
    "export": (
        Case((), SOME),
        Case(("out.ndjson", "--prefix", "app/"), SOME),
        Case(("no/such/directory",)),
    ),
    "import": (
        Case(("lines",)),
        Case(("lines", "--on-error", "stop")),
        Case(("lines", "--dry-run")),
        Case(("none",)),
    ),
    "copy": (
        Case((".", "out.ndjson", "--prefix", "app/"), SOME),
        Case(("lines", ".")),
        Case((".", ".")),
    ),
    "diff": (
        Case(("before.ndjson", "."), (*SOME, ("export", "before.ndjson"), ("del", "app/name"))),
        Case(("before.ndjson",), (*SOME, ("export", "before.ndjson"))),
    ),
    "watch": (Case(("odd", "--values", "--limit", "1", "--since", "{revision}"), SOME),),
    "replay": (Case(("odd", "--from", "{revision}", "--values"), SOME),),
    "run": (Case(("app/", "--once", "--", "true"), SOME), Case(("app/",))),
    "render": (
        Case(("template",), SOME),
        Case(("template:out",), SOME),
        Case(("template",)),
    ),
    "lock": (
        Case(("l", "--owner", "me")),
        Case(("l", "--owner", "me", "--", "true")),
        Case(("l", "--wait", "0", "--", "true"), (("lock", "l", "--owner", "you"),)),
        Case(("l", "--", "no-such-program")),
    ),
    "unlock": (
        Case(("l", "--force"), (("lock", "l", "--owner", "you"),)),
        Case(("l", "--token", "1"), (("lock", "l", "--owner", "you"),)),
    ),
    "locks": (Case((), (("lock", "l\x1b", "--owner", "you"),)),),
    "health": (Case(("--url", "{url}")), Case(("--url", "http://127.0.0.1:1"))),
    "verify": (Case(()), Case(("--url", "http://127.0.0.1:1", "--wait", "0"))),
    "info": (Case(()),),
    "limits": (Case(()),),
    "open": (Case(("--print",)),),
    "snapshot save": (Case(("saved",)),),
    "snapshot list": (Case(DATA), Case(("--data-dir", "none"))),
    "snapshot verify": (Case(("data/snapshot-0000000000000001", "icon")),),
    "snapshot restore": (Case(("data/snapshot-0000000000000001", "--data-dir", "new")),),
    "data check": (Case(DATA), Case(("--data-dir", "damaged"))),
    "data salvage": (Case(DATA), Case(("--data-dir", "damaged"))),
    "context list": (Case((), (("context", "add", "here", "--url", "http://h:1"),)), Case(())),
    "context show": (
        Case((), (("context", "add", "here", "--url", "http://h:1", "--prefix", "p/"),)),
        Case(()),
        Case(("gone",)),
    ),
    "context add": (Case(("here", "--uds", "/run/k.sock", "--red")), Case(("here",))),
    "context use": (
        Case(("here",), (("context", "add", "here", "--url", "http://h:1"),)),
        Case(("gone",)),
    ),
    "context remove": (
        Case(("here",), (("context", "add", "here", "--url", "http://h:1"),)),
        Case(("gone",)),
    ),
    "token new": (Case(("--hash",)),),
    "token create": (Case(("--admin", "--name", "ops")), Case(())),
    "token list": (Case(("--file", "auth.toml")),),
    "token show": (Case(("AAAAAAAA", "--file", "auth.toml")), Case(("gone",))),
    "token revoke": (Case(("AAAAAAAA", "--file", "auth.toml")), Case(("gone",))),
    "token rotate": (Case(("AAAAAAAA", "--file", "auth.toml")), Case(("tickets",))),
    "token check": (
        Case(("read", "app/x", "--file", "auth.toml", "--id", "AAAAAAAA")),
        Case(("set", "app/x")),
        Case(("mend", "x")),
    ),
    "token ticket": (Case(("--rule", "read keys:app/*")), Case(("--rule", "mend keys:a"))),
    "completion": (),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that wants a token, and keeps snapshots."""
    directory = tmp_path_factory.mktemp("served")
    flags = ("--durability", "snapshot", "--data-dir", str(directory / "data"))
    with Server(*flags, environ={"KEYRACK_TOKEN": TOKEN}) as served:
        yield served


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one snapshot."""
    directory = tmp_path_factory.mktemp("data")
    with memory_directory() as memory:
        store = KeptStore(memory, directory)
        put(store.engine, b"k", b"v")
        store.take()
        store.close()
    return directory / "data"


@pytest.fixture
def keyrack(
    url: str, server: Server, home: Path, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Keyrack:
    monkeypatch.setenv("KEYRACK_URL", url)
    monkeypatch.setenv("KEYRACK_TOKEN", TOKEN)
    shutil.copytree(data_directory, home / "data")
    shutil.copytree(data_directory, home / "damaged")
    os.truncate(home / "damaged" / "keyrack", 3)
    (home / "icon").write_bytes(b"\x89PNG\x00\xff")
    (home / "lines").write_text(LINES)
    (home / "auth.toml").write_text(AUTH)
    (home / "ops.json").write_text('[{"op":"get","key":"a"},{"op":"delete","key":"a"}]')
    (home / "template").write_text("name=${app/name} $$5 \\n\n")
    return Keyrack(url)


def cleaned(keyrack: Keyrack) -> int:
    """Remove all keys and locks, and return the revision then."""
    keyrack.out("del", "--all", "--yes")
    for name in keyrack.out("locks", "-o", "raw").split("\n"):
        if name:
            keyrack.out("unlock", name, "--force")
    keyrack.out("set", "mark", "x")
    etag = keyrack.out("set", "mark", "x", "-v").strip().strip('"')
    keyrack.out("del", "mark")
    return int(etag)


def shown(words: tuple[str, ...], ended: Ended, keyrack: Keyrack, home: Path) -> str:
    text = f"$ keyrack {' '.join(map(repr, words))}\n"
    out = ended.out.decode("utf-8", "backslashreplace")
    text += out + ("" if out.endswith("\n") or not out else "\n(no line break)\n")
    text += "".join(f"2: {line}\n" for line in ended.err.splitlines())
    text += f"exit code {ended.code}\n\n"
    return normal(text.replace(keyrack.url, "http://127.0.0.1:8088"), home)


def normal(text: str, home: Path) -> str:
    """Replace what is another one in each run by something of the same length."""
    text = text.replace(str(home), "HOME")
    text = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", "2026-01-02T03:04:05", text)
    text = re.sub(r"(2026-01-02T03:04:05\.)\d{3}", r"\g<1>678", text)
    text = re.sub(r"\b1[78]\d{14}\b", "1" * 16, text)
    text = re.sub(r'("started": )[\d.]+', r"\g<1>0", text)
    text = re.sub(r"\b(krk|krt)_[\w.~-]+", r"\1_TEXT", text)
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:HASH", text)
    text = re.sub(r'("(?:id|token)": ")[A-Za-z0-9]{8}"', r'\1IDENTITY"', text)
    text = re.sub(r"(?<=made )[A-Za-z0-9]{8}(?=;)|(?<=id = \")[A-Za-z0-9]{8}", "IDENTITY", text)
    text = re.sub(r"file:[A-Za-z0-9]{8}", "file:IDENTITY", text)
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    text = re.sub(r"for \d+ s at most", "for 30 s at most", text)
    text = re.sub(r"another [\d.]+ s", "another 30 s", text)
    text = re.sub(r'("ttl": )[\d.]+', r"\g<1>TTL", text)
    text = re.sub(r"(OWNER|you) +(TTL|[\d.]+)$", r"\1  TTL", text, flags=re.MULTILINE)
    text = re.sub(r'\d+ bytes|(?<="bytes": )\d+', "SIZE", text)
    return re.sub(r"[\w.-]+:\d+:\d+:\d+-[0-9a-f]{8}", "OWNER", text)


def sections(verb: str, keyrack: Keyrack, home: Path) -> str:
    text = ""
    for case in CASES[verb]:
        for form in (None, *table.load(verb).formats):
            revision = cleaned(keyrack)
            for before in case.before:
                assert keyrack(*before).code == 0, before
            places = {"revision": str(revision), "url": keyrack.url}
            words = tuple(
                word.format(**places) if word in ("{revision}", "{url}") else word
                for word in case.words
            )
            chosen = () if form is None else ("-o", form)
            line = (*verb.split(), *chosen, *words)
            text += shown(line, keyrack(*line, stdin=case.stdin), keyrack, home)
    # What a machine has and holds is told in numbers.
    return re.sub(r"\d+\.?\d*", "N", text) if verb in ("info", "limits") else text


def test_every_verb_is_here() -> None:
    assert CASES.keys() | OTHER_FORMATS.keys() | ELSEWHERE == set(table.VERBS)


@pytest.mark.parametrize("verb", table.VERBS)
def test_every_verb_has_json(verb: str) -> None:
    """All but those that say why not."""
    assert ("json" in table.load(verb).formats) != (verb in OTHER_FORMATS)


@pytest.mark.parametrize("verb", [verb for verb, cases in CASES.items() if cases])
def test_a_verb_prints_in_each_format_what_it_is_known_to_print(
    keyrack: Keyrack, home: Path, verb: str
) -> None:
    found = sections(verb, keyrack, home)
    file = GOLDEN / f"{verb.replace(' ', '-')}.txt"
    if os.environ.get("KEYRACK_TEST_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    expected = file.read_text(encoding="utf-8")
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "known", "printed")
    assert found == expected, "\n".join(lines)
