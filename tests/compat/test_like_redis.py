"""The same commands on a real server and on an engine: they answer alike."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from compat_support.direct import DirectStore, do, do_together
from engine_support.world import EmbeddedWorld, memory_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libvalkey import Reader, ReplyError
from valkey_support.servers import HOST, Server

from keyrack.compat.commands import COMMANDS
from keyrack.engines.valkey.resp import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLACK_SECONDS = 100
"""Ends are far away from each other: as long as a command may take on a busy machine."""
ENDS = {b"TTL": 1, b"EXPIRETIME": 1, b"PTTL": 1000, b"PEXPIRETIME": 1000}
"""Commands that answer with an end, and how many of its units a second has."""


class Peer:
    """A connection to a real server."""

    def __init__(self) -> None:
        self._server = Server()
        self._connection = socket.create_connection((HOST, self._server.port), timeout=30)
        self._reader = Reader()

    def ask(self, *words: bytes) -> Any:
        """Send a command; return the reply, errors as text with a minus before it."""
        self._connection.sendall(encode(words))
        while (reply := self._reader.gets()) is False:
            data = self._connection.recv(1 << 16)
            assert data, "the server has closed the connection"
            self._reader.feed(data)
        return _plain(reply)

    def ask_together(self, *many: Sequence[bytes]) -> Any:
        """Send commands as a transaction; return what each replied."""
        self.ask(b"MULTI")
        for words in many:
            self.ask(*words)
        return self.ask(b"EXEC")

    def close(self) -> None:
        self._connection.close()
        self._server.remove()


def _plain(reply: Any) -> Any:
    if isinstance(reply, ReplyError):
        return f"-{reply}"
    if isinstance(reply, list):
        return [_plain(one) for one in reply]
    return reply


def shown(reply: Any) -> Any:
    """Return a reply without the difference of simple strings and bulk strings."""
    if isinstance(reply, str) and not reply.startswith("-"):
        return reply.encode()
    if isinstance(reply, list):
        return [shown(one) for one in reply]
    return reply


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@contextlib.contextmanager
def direct() -> Iterator[DirectStore]:
    with memory_directory() as directory:
        world = EmbeddedWorld(directory)
        yield DirectStore(world)
        assert world.engine.check() == []
        world.close()


# What is said

KEYS = st.sampled_from((b"a", b"b", b"c", "\u00fc".encode()))
NUMBERS = st.sampled_from(
    (b"0", b"1", b"-1", b"5", b"-7", b"007", b"+3", b" 4", b"-0", b"x", b"",
     b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808")
)  # fmt: skip
FLOATS = st.sampled_from(
    (b"0.1", b"0.2", b"-1.5", b"3", b"1e2", b"2.5e-1", b".5", b"x", b"", b"1 ")
)
OF_FRACTIONS = st.just(b"f")
"""A key that holds short numbers only: the last digits of long ones are noise on a real server."""
VALUES = st.one_of(st.binary(max_size=6), NUMBERS, FLOATS)
PLACES = st.integers(-8, 8).map(lambda number: b"%d" % number)
SECONDS = st.sampled_from((b"1000", b"2000", b"3000", b"0", b"-1", b"x", b"99999999999999999999"))
MS = st.sampled_from((b"1000000", b"2000000", b"3000000", b"0", b"-5", b"y"))


def _now(seconds: int) -> bytes:
    return b"%d" % (time.time() + seconds)


AT = st.sampled_from((1000, 2000, 3000, -1000)).map(_now) | st.sampled_from((b"0", b"-1", b"z"))
AT_MS = st.sampled_from((1000, 2000, -1000)).map(lambda seconds: _now(seconds) + b"000")
END = st.one_of(
    st.tuples(st.sampled_from((b"EX", b"ex")), SECONDS),
    st.tuples(st.just(b"PX"), MS),
    st.tuples(st.just(b"EXAT"), AT),
    st.tuples(st.just(b"PXAT"), AT_MS),
    st.just((b"KEEPTTL",)),
    st.just((b"PERSIST",)),
    st.just((b"EX",)),
)
WORDS = st.sampled_from(((b"NX",), (b"XX",), (b"GET",), (b"get",), (b"what",)))
OPTIONS = st.lists(st.one_of(END, WORDS), max_size=3).map(lambda some: sum(some, ()))
EXPIRE_OPTIONS = st.lists(st.sampled_from((b"NX", b"XX", b"GT", b"lt", b"no")), max_size=2)
PATTERNS = st.lists(
    st.sampled_from((b"a", b"b", b"*", b"?", b"[ab]", b"[^a]", b"[", b"]", b"\\", b"[b-a]", b"-")),
    max_size=6,
).map(b"".join)


TRIED: set[str] = set()
"""Names of the commands that are said below."""


def fixed(*scripts: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    TRIED.update(words[0].decode() for words in scripts)
    return st.sampled_from(scripts)


def said(name: bytes, *arguments: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    TRIED.add(name.decode())
    return st.tuples(*arguments).map(lambda given: [name, *given])


def with_options(
    name: bytes, *arguments: st.SearchStrategy[bytes], options: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[bytes]]:
    TRIED.add(name.decode())
    return st.tuples(st.tuples(*arguments), options).map(lambda both: [name, *both[0], *both[1]])


def of_many(name: bytes, *arguments: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    TRIED.add(name.decode())
    each = st.lists(st.tuples(*arguments), min_size=1, max_size=3)
    return each.map(lambda some: [name, *sum(some, ())])


ONE_KEY = (b"GET", b"GETDEL", b"STRLEN", b"INCR", b"DECR", b"TYPE", b"TTL", b"PTTL",
           b"EXPIRETIME", b"PEXPIRETIME", b"PERSIST")  # fmt: skip
IN_TRANSACTIONS = st.one_of(
    *(said(name, KEYS) for name in ONE_KEY),
    said(b"SET", KEYS, VALUES),
    with_options(b"SET", KEYS, VALUES, options=OPTIONS),
    with_options(b"GETEX", KEYS, options=OPTIONS),
    said(b"SETEX", KEYS, SECONDS, VALUES),
    said(b"PSETEX", KEYS, MS, VALUES),
    said(b"SETNX", KEYS, VALUES),
    said(b"GETSET", KEYS, VALUES),
    of_many(b"MGET", KEYS),
    of_many(b"DEL", KEYS),
    of_many(b"UNLINK", KEYS),
    of_many(b"EXISTS", KEYS),
    of_many(b"TOUCH", KEYS),
    of_many(b"MSET", KEYS, VALUES),
    of_many(b"MSETNX", KEYS, VALUES),
    said(b"GETRANGE", KEYS, PLACES, PLACES),
    said(b"APPEND", KEYS, VALUES),
    said(b"SETRANGE", KEYS, PLACES, VALUES),
    said(b"INCRBY", KEYS, NUMBERS),
    said(b"DECRBY", KEYS, NUMBERS),
    said(b"INCRBYFLOAT", OF_FRACTIONS, FLOATS),
    said(b"SET", OF_FRACTIONS, FLOATS),
    said(b"GET", OF_FRACTIONS),
    with_options(b"EXPIRE", KEYS, SECONDS, options=EXPIRE_OPTIONS),
    with_options(b"PEXPIRE", KEYS, MS, options=EXPIRE_OPTIONS),
    with_options(b"EXPIREAT", KEYS, AT, options=EXPIRE_OPTIONS),
    with_options(b"PEXPIREAT", KEYS, AT_MS, options=EXPIRE_OPTIONS),
    said(b"RENAME", KEYS, KEYS),
    said(b"RENAMENX", KEYS, KEYS),
    with_options(b"COPY", KEYS, KEYS, options=st.sampled_from(((), (b"REPLACE",), (b"DB", b"0")))),
    fixed([b"PING"], [b"PING", b"x"], [b"ECHO", b"\xff"]),
)
ALONE = st.one_of(
    IN_TRANSACTIONS,
    said(b"KEYS", PATTERNS),
    fixed([b"DBSIZE"], [b"FLUSHDB"], [b"FLUSHALL", b"ASYNC"], [b"FLUSHDB", b"x"]),
    fixed(
        [b"GET"], [b"GET", b"a", b"b"], [b"PING", b"x", b"y"], [b"MSET", b"a"], [b"SET", b"a"],
        [b"DEL"], [b"MSET", b"a", b"1", b"b"], [b"SCAN", b"x"], [b"SCAN", b"0", b"COUNT", b"0"],
        [b"SCAN", b"0", b"COUNT", b"q"], [b"SCAN", b"0", b"MATCH"], [b"COPY", b"a", b"a"],
        [b"COPY", b"a", b"b", b"DB", b"x"],
    ),
)  # fmt: skip


def alike(words: Sequence[bytes], ours: Any, theirs: Any) -> bool:
    """Tell whether two replies to a command mean the same."""
    ours, theirs = shown(ours), shown(theirs)
    name = words[0].upper()
    if name in ENDS and isinstance(ours, int) and isinstance(theirs, int) and min(ours, theirs) > 0:
        return abs(ours - theirs) <= SLACK_SECONDS * ENDS[name]
    if name == b"KEYS":
        return sorted(ours) == sorted(theirs)
    if isinstance(ours, str) and "at most ten years" in ours:
        ours = ours.partition(": at most")[0]
    return bool(ours == theirs)


CASES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@CASES
@given(st.lists(ALONE, max_size=25))
def test_commands_answer_as_those_of_a_real_server(peer: Peer, script: list[list[bytes]]) -> None:
    peer.ask(b"FLUSHALL")
    with direct() as store:
        for words in script:
            ours, theirs = do(store, *words), peer.ask(*words)
            assert alike(words, ours, theirs), (words, ours, theirs)


@CASES
@given(st.lists(ALONE, max_size=6), st.lists(IN_TRANSACTIONS, min_size=1, max_size=12))
def test_transactions_answer_and_leave_what_those_of_a_real_server_do(
    peer: Peer, before: list[list[bytes]], together: list[list[bytes]]
) -> None:
    peer.ask(b"FLUSHALL")
    with direct() as store:
        for words in before:
            do(store, *words)
            peer.ask(*words)
        ours, theirs = do_together(store, *together), peer.ask_together(*together)
        if isinstance(theirs, str):
            assert theirs.startswith("-EXECABORT")
            assert isinstance(ours, str)
        else:
            for words, one, other in zip(together, ours, theirs, strict=True):
                assert alike(words, one, other), (words, one, other)
        for key in peer.ask(b"KEYS", b"*"):
            for name in (b"GET", b"TTL"):
                words = [name, key]
                assert alike(words, do(store, *words), peer.ask(*words)), words
        assert do(store, b"DBSIZE") == peer.ask(b"DBSIZE")


@CASES
@given(st.sets(st.text("ab-[]\\^", min_size=1, max_size=5), max_size=20), PATTERNS)
def test_patterns_match_what_they_match_on_a_real_server(
    peer: Peer, names: set[str], pattern: bytes
) -> None:
    peer.ask(b"FLUSHALL")
    with direct() as store:
        for name in names:
            for ask in (peer.ask, lambda *words: do(store, *words)):
                ask(b"SET", name.encode(), b"")
        assert sorted(do(store, b"KEYS", pattern)) == sorted(peer.ask(b"KEYS", pattern))


def test_every_command_is_tried_or_answers_as_nobody_knows_before() -> None:
    assert {one.name for one in COMMANDS.values()} - {"RANDOMKEY", "TIME"} == TRIED
