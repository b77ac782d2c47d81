"""Whatever is sent below /upstash is answered as its clients expect, and never by a defect."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from api_support.inside import Inside
from compat_support.layer import upstash_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyrack.access.grant import OPEN
from keyrack.compat.commands import COMMANDS
from keyrack.http.protocol.guard import Guard
from keyrack.http.protocol.head import read
from keyrack.http.protocol.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack.compat.upstash import Upstash
    from keyrack.http.answer import Answer

NAMES = st.sampled_from([one.name for one in COMMANDS.values()])
WORDS = st.one_of(
    st.text(max_size=8),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.sampled_from(
        ["EX", "PX", "NX", "MATCH", "COUNT", "*", "[", "\\", "k", "0", "-1", "1e400", "9" * 400]
    ),
)
COMMAND = st.tuples(NAMES, st.lists(WORDS, max_size=6)).map(lambda both: [both[0], *both[1]])
ODD: st.SearchStrategy[Any] = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
BODIES = st.one_of(
    COMMAND.map(json.dumps).map(str.encode),
    st.lists(COMMAND, max_size=8).map(json.dumps).map(str.encode),
    ODD.map(json.dumps).map(str.encode),
    st.binary(max_size=40),
)
PATHS = st.one_of(
    st.sampled_from([b"", b"/", b"/pipeline", b"/multi-exec", b"//", b"/%", b"/get/%ff"]),
    st.lists(
        st.sampled_from([b"get", b"set", b"scan", b"k", b"", b"%00", b"%2F", b"EX", b"1"])
    ).map(lambda parts: b"/" + b"/".join(parts)),
)
QUERIES = st.sampled_from([b"", b"?EX=10", b"?EX=10&NX", b"?=&&=x", b"?%zz", b"?MATCH=*&COUNT=2"])


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    directory: Path = tmp_path_factory.mktemp("inside")
    inside = Inside(directory / "store")
    yield inside
    inside.close()


@pytest.fixture(scope="module")
def api(inside: Inside) -> Upstash:
    return upstash_of(inside)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"DELETE"]), PATHS, QUERIES, BODIES,
       st.booleans())  # fmt: skip
def test_any_request_is_answered_with_results_or_an_error(
    inside: Inside, api: Upstash, method: bytes, path: bytes, query: bytes, body: bytes, coded: bool
) -> None:
    fields = [(b"host", b"localhost")]
    if coded:
        fields.append((b"upstash-encoding", b"base64"))
    head = read(fields, False, Guard())
    request = Request(method, b"/upstash" + path + query, head, body, OPEN, keep_alive=True)
    answer: Answer = inside.run(api.serve(request))
    assert answer.status in (200, 400, 405, 413, 507), answer
    told = json.loads(answer.body)
    if answer.status != 200:
        assert list(told) == ["error"]
        assert told["error"].partition(" ")[0].isupper()
        return
    for one in told if isinstance(told, list) else [told]:
        assert len(one) == 1
        assert one.keys() <= {"result", "error"}
        if coded and isinstance(one.get("result"), str) and one["result"] != "OK":
            base64.b64decode(one["result"], validate=True)
