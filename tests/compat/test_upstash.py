"""Upstash's REST API on the wire."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from access_support.service import Guarded
from keyrack_server import Server
from keyrack_server.server import ON_VALKEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from access_support.service import Who
    from keyrack_server.wire import Answer

BASE64 = {"Upstash-Encoding": "base64"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--compat", "upstash", workers=2) as server:
        yield server


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        assert post(request.getfixturevalue("server"), ["FLUSHALL"]).json == {"result": "OK"}


def post(server: Server, body: Any, path: str = "/upstash/", **fields: str) -> Answer:
    return server.ask("POST", path, json.dumps(body).encode(), **fields)


def result(server: Server, *words: Any, **fields: str) -> Any:
    answer = post(server, list(words), **fields)
    assert answer.status == 200, answer
    assert answer["Content-Type"] == "application/json"
    return answer.json["result"]


def error(answer: Answer, status: int = 400) -> str:
    assert answer.status == status, answer
    assert list(answer.json) == ["error"]
    text: str = answer.json["error"]
    return text


# Commands


def test_a_command_is_a_json_array_with_and_without_a_slash_behind_the_address(
    server: Server,
) -> None:
    assert post(server, ["SET", "k", "v"], "/upstash").json == {"result": "OK"}
    assert post(server, ["get", "k"], "/upstash/").json == {"result": "v"}
    assert result(server, "GET", "none") is None
    assert result(server, "STRLEN", "k") == 1
    assert result(server, "MGET", "k", "none") == ["v", None]


def test_numbers_and_words_are_stored_as_they_were_written(server: Server) -> None:
    body = b'["MSET","a",1.50,"b",9007199254740993,"c",true,"d",null,"e",-1e2]'
    assert server.ask("POST", "/upstash/", body).json == {"result": "OK"}
    values = ["1.50", "9007199254740993", "true", "null", "-1e2"]
    assert result(server, "MGET", *"abcde") == values


def test_a_command_may_stand_in_the_path_with_its_options_in_the_query(server: Server) -> None:
    def got(method: str, target: str, body: bytes | None = None) -> Any:
        answer = server.ask(method, f"/upstash/{target}", body)
        assert answer.status == 200, answer
        return answer.json["result"]

    assert got("GET", "set/foo/b%2Far/EX/100") == "OK"
    assert got("GET", "get/foo") == "b/ar"
    assert got("POST", "set/foo?EX=200&NX", b"new") is None
    assert got("POST", "set/foo?EX=200&XX", b"a \xc3\xbc body") == "OK"
    assert got("GET", "get/foo") == "a \u00fc body"
    assert 100 < got("GET", "ttl/foo") <= 200
    assert got("PUT", "append/foo", b"!") == 10
    assert got("GET", "mget/foo/none") == ["a \u00fc body!", None]
    assert server.ask("HEAD", "/upstash/get/foo").body == b""


def test_any_bytes_are_answered_in_base64_and_without_it_as_text(server: Server) -> None:
    value = bytes(range(256))
    server.put("bytes", value)
    assert base64.b64decode(result(server, "GET", "bytes", **BASE64)) == value
    assert result(server, "GET", "bytes") == value.decode("utf-8", "replace")
    assert result(server, "MGET", "bytes", "none", **BASE64)[1] is None
    assert server.ask("POST", "/upstash/set/sent", value).json == {"result": "OK"}
    assert server.ask("GET", "/v1/keys/sent").body == value


def test_in_base64_only_ok_is_written_as_it_is(server: Server) -> None:
    assert result(server, "SET", "k", "OK", **BASE64) == "OK"
    assert result(server, "GET", "k", **BASE64) == "T0s="
    assert result(server, "PING", **BASE64) == base64.b64encode(b"PONG").decode()
    assert result(server, "PING") == "PONG"
    assert result(server, "INCR", "n", **BASE64) == 1


def test_values_are_ordinary_keys(server: Server) -> None:
    result(server, "SET", "text", "w\u00f6rd", "EX", 1000)
    answer = server.ask("GET", "/v1/keys/text")
    assert answer.body.decode() == "w\u00f6rd"
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert 800 < float(answer["Keyrack-TTL"]) <= 1000
    server.ask("POST", "/upstash/set/binary", b"\xff\x00")
    assert server.ask("GET", "/v1/keys/binary")["Content-Type"] == "application/octet-stream"
    server.put("page", b"<p>", **{"Content-Type": "text/html"})
    assert result(server, "GET", "page") == "<p>"
    assert result(server, "APPEND", "page", "hi") == 5
    assert server.ask("GET", "/v1/keys/page")["Content-Type"] == "text/html"


def test_scan_goes_through_all_keys_in_numbered_steps(server: Server) -> None:
    names = [f"k{i:03}" for i in range(250)]
    result(server, "MSET", *(part for name in names for part in (name, "v")), "other", "v")
    found: list[str] = []
    cursor = "0"
    while True:
        cursor, some = result(server, "SCAN", cursor, "MATCH", "k[0-9]*", "COUNT", 60)
        found += some
        assert cursor.isdigit()
        if cursor == "0":
            break
    assert found == names
    assert result(server, "DBSIZE") == 251
    assert result(server, "RANDOMKEY") in [*names, "other"]
    assert result(server, "KEYS", "*1?9") == [f"k1{i}9" for i in range(10)]


# Failures


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "ERR failed to parse command"),
        (b"{}", "ERR failed to parse command"),
        (b"[", "ERR failed to parse command"),
        (b"[]", "ERR empty command"),
        (b'["SET","k",{"a":1}]', "ERR failed to parse command: an argument is a string"),
        (b'["GET","\\ud800"]', "ERR failed to parse command"),
        (b'["GET","\xff"]', "ERR failed to parse command"),
        (b'["GET"]', "ERR wrong number of arguments for 'get' command"),
        (b'["SET","k","v","EX","0"]', "ERR invalid expire time in 'set' command"),
        (b'["KEYS","' + b"a" * 1025 + b'"]', "ERR a pattern has at most 1024 bytes here, not 1025"),
        (b'["SCAN","0","MATCH","' + b"[" * 9999 + b'"]', "ERR a pattern has at most 1024 bytes"),
        (b'["GET",""]', "ERR a key has 1 to 511 bytes here, and this has 0"),
        (b'["NOSUCH"]', "ERR unknown command 'NOSUCH'. There are APPEND,"),
        (b'["HSET","h","f","v"]', "ERR 'HSET' is not available: there are no hashes"),
        (b'["lpush","l","v"]', "ERR 'lpush' is not available: there are no lists"),
        (b'["ZADD","z",1,"v"]', "ERR 'ZADD' is not available: there are no sorted sets"),
        (b'["EVALSHA","x",0]', "no @upstash/ratelimit"),
        (b'["MULTI"]', "a transaction is one request to /multi-exec"),
        (b'["SUBSCRIBE","c"]', "GET /v1/watch tells of changes instead"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    server: Server, body: bytes, said: str
) -> None:
    assert said in error(server.ask("POST", "/upstash/", body))


def test_a_value_of_another_kind_is_a_number_for_no_counter(server: Server) -> None:
    result(server, "SET", "k", "word")
    told = error(post(server, ["INCR", "k"]))
    assert told == "ERR value is not an integer or out of range"


def test_other_methods_and_formats_are_refused(server: Server) -> None:
    answer = server.ask("DELETE", "/upstash/get/k")
    assert "DELETE is not possible here" in error(answer, 405)
    assert answer["Allow"] == "GET, HEAD, POST, PUT, OPTIONS"
    fields = {"Upstash-Response-Format": "resp2"}
    assert "Answers are JSON" in error(post(server, ["PING"], **fields))
    assert error(server.ask("GET", "/upstash/")) == (
        "ERR post a command as a JSON array, or name it in the path"
    )
    assert "begins a byte" in error(server.ask("GET", "/upstash/get/a%zz"))


def test_a_token_in_the_address_is_refused(server: Server) -> None:
    answer = server.ask("GET", "/upstash/get/k?_token=secret")
    assert "Authorization" in error(answer)


def test_what_is_too_large_is_told_in_the_same_form(server: Server) -> None:
    longest = server.ask("GET", "/v1/limits").json["value_bytes"]
    told = error(server.ask("POST", "/upstash/set/k", b"x" * (longest + 1)))
    assert "--max-value" in told
    result(server, "SET", "k", "x" * (longest - 10))
    assert "--max-value" in error(post(server, ["APPEND", "k", "y" * 20]))
    assert "--max-value" in error(post(server, ["SETRANGE", "k", longest, "y"]))
    head = {"Content-Length": str(1 << 30)}
    answer = server.raw(
        b"POST /upstash/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n"
    )
    assert b" 413 " in answer, head
    assert b'{"error":"ERR ' in answer


def test_a_page_of_another_site_may_not_write_by_a_link(server: Server) -> None:
    fields = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    answer = server.ask("GET", "/upstash/set/k/v", **fields)
    assert answer.status == 403
    assert result(server, "GET", "k") is None


@pytest.mark.skipif(ON_VALKEY, reason="a server of Valkey has the limit, which others share")
def test_a_full_store_is_told_as_redis_tells_of_it() -> None:
    with Server("--compat", "upstash", memory="32m") as server:
        told = ""
        for number in range(60):
            answer = server.ask("POST", f"/upstash/set/k{number}", b"x" * (1 << 20))
            if answer.status != 200:
                told = error(answer, 507)
                break
        assert told.startswith("OOM ")
        (one,) = post(server, [["SET", "more", "x" * (1 << 20)]], "/upstash/pipeline").json
        assert one["error"].startswith("OOM ")
        assert result(server, "DEL", "k0") == 1


# Many commands


def test_a_pipeline_answers_each_command_and_goes_on_behind_a_failure(server: Server) -> None:
    many = [["SET", "a", "1"], ["INCR", "a"], ["HGET", "h", "f"], ["GET"], ["GET", "a"]]
    answer = post(server, many, "/upstash/pipeline", **BASE64)
    assert answer.status == 200
    one, two, three, four, five = answer.json
    assert (one, two, five) == ({"result": "OK"}, {"result": 2}, {"result": "Mg=="})
    assert "there are no hashes" in three["error"]
    assert four == {"error": "ERR wrong number of arguments for 'get' command"}


def test_a_pipeline_is_done_in_its_order_however_it_is_cut(server: Server) -> None:
    many: list[list[Any]] = []
    expected: list[Any] = []
    for number in range(150):
        many += [["SET", "k", number], ["INCR", "k"], ["INCRBY", "k", 5], ["MSET", "k", 7]]
        expected += ["OK", number + 1, number + 6, "OK"]
        if number % 7 == 0:
            many += [["GET", "k"], ["SET", "k", "x", "NX"], ["APPEND", "k", 1], ["DEL", "k", "l"]]
            expected += ["7", None, 2, 1]
        if number % 50 == 0:
            many.append(["INCR", "k", "too", "many"])
            expected.append(None)
    answers = post(server, many, "/upstash/pipeline").json
    assert [one.get("result") for one in answers] == expected
    assert result(server, "GET", "k") == "7"


@pytest.mark.parametrize("body", [[], {}, ["GET", "a"], "x", [[{}]]])
def test_what_is_no_pipeline_is_refused(server: Server, body: object) -> None:
    for path in ("/upstash/pipeline", "/upstash/multi-exec"):
        assert error(post(server, body, path)).startswith("ERR ")


def test_a_pipeline_answers_no_more_than_a_body_may_hold(server: Server) -> None:
    limits = server.ask("GET", "/v1/limits").json
    result(server, "SET", "k", "x" * (limits["value_bytes"] - 100))
    times = limits["body_bytes"] // limits["value_bytes"] + 3
    many = [*([["GET", "k"]] * times), ["SET", "behind", "v"]]
    answers = post(server, many, "/upstash/pipeline").json
    assert "--max-body" in answers[-1]["error"]
    assert result(server, "GET", "behind") is None
    assert "--max-body" in error(post(server, many, "/upstash/multi-exec"))
    assert "--max-body" in error(post(server, ["MGET", *(["k"] * times)]))


def test_what_many_failures_are_told_is_bounded_too(server: Server) -> None:
    most = server.ask("GET", "/v1/limits").json["body_bytes"]
    answer = post(server, [["x"]] * (most // 10), "/upstash/pipeline")
    assert "unknown command" in answer.json[0]["error"]
    # Each that is not done is told so in a hundred bytes.
    assert len(answer.body) < 100 * (most // 10) + 2 * most


def test_a_transaction_is_one_commit(server: Server) -> None:
    many = [["SET", "a", "1"], ["INCRBY", "a", "5"], ["APPEND", "b", "xy"], ["INCR", "b"],
            ["MGET", "a", "b"]]  # fmt: skip
    answer = post(server, many, "/upstash/multi-exec")
    assert answer.status == 200
    assert [one.get("result") for one in answer.json] == ["OK", 6, 2, None, ["6", "xy"]]
    assert answer.json[3] == {"error": "ERR value is not an integer or out of range"}


def test_a_transaction_with_a_command_that_there_is_not_does_nothing(server: Server) -> None:
    told = error(post(server, [["SET", "a", "1"], ["LPUSH", "l", "x"]], "/upstash/multi-exec"))
    assert told.startswith("EXECABORT Transaction discarded because of command 2: ERR 'LPUSH'")
    told = error(post(server, [["SET", "a", "1"], ["SCAN", "0"]], "/upstash/multi-exec"))
    assert "SCAN is not possible in a transaction" in told
    told = error(post(server, [["PING"]] * 1001, "/upstash/multi-exec"))
    assert "at most 1000 commands" in told
    assert result(server, "GET", "a") is None


# Headers


def test_a_client_that_wants_to_read_its_writes_is_given_a_token(server: Server) -> None:
    answer = post(server, ["SET", "a", "1"], **{"Upstash-Sync-Token": ""})
    written = answer["Upstash-Sync-Token"]
    assert written == server.ask("GET", "/v1/keys/a")["ETag"].strip('"')
    answer = post(server, ["GET", "a"], **{"Upstash-Sync-Token": written})
    assert answer["Upstash-Sync-Token"] == written
    assert post(server, ["GET", "a"]).get("Upstash-Sync-Token") is None


def test_telemetry_is_passed_over(server: Server) -> None:
    fields = {"Upstash-Telemetry-Sdk": "x", "x-upstash-other": "y", "Upstash-Telemetry-Retry": "1"}
    assert result(server, "PING", **fields) == "PONG"


def test_what_is_deleted_can_be_undone_where_that_is_so_by_default() -> None:
    with Server("--compat", "upstash", "--undo-default", "1h") as server:
        result(server, "MSET", "a", "1", "b", "2", "c", "3")
        assert result(server, "DEL", "a", "b", "none") == 2
        assert result(server, "GETDEL", "c") == "3"
        undos = server.ask("GET", "/v1/undo").json["undos"]
        assert sorted(one["deleted"] for one in undos) == [1, 2]
        for one in undos:
            assert server.ask("POST", f"/v1/undo/{one['undo']}").status == 200
        assert result(server, "MGET", "a", "b", "c") == ["1", "2", "3"]
        assert result(server, "FLUSHALL") == "OK"
        assert result(server, "DBSIZE") == 0
        (one,) = [one for one in server.ask("GET", "/v1/undo").json["undos"] if one["deleted"] == 3]
        assert server.ask("POST", f"/v1/undo/{one['undo']}").json["restored"] == 3


def test_a_fenced_key_needs_its_lock_here_too(server: Server) -> None:
    fields = {"Content-Type": "application/json"}
    fence = json.dumps({"keys": "jobs/*", "lock": "jobs"}).encode()
    assert server.ask("PUT", "/v1/fences/upstash", fence, **fields).status < 300
    try:
        assert "jobs" in error(post(server, ["SET", "jobs/1", "v"]), 428)
        assert "jobs" in error(post(server, ["FLUSHALL"]), 428)
        (one, two) = post(server, [["INCR", "jobs/2"], ["SET", "k", "v"]], "/upstash/pipeline").json
        assert one["error"].startswith("ERR ")
        assert two == {"result": "OK"}
        many = [["SET", "k", "w"], ["FLUSHDB"], ["GET", "k"]]
        (_, one, two) = post(server, many, "/upstash/pipeline").json
        assert "jobs" in one["error"]
        assert two == {"result": "w"}
        held = server.ask("POST", "/v1/locks/jobs", b'{"owner":"me","ttl":60}', **fields).json
        named = {"Keyrack-Lock": f'"jobs"; token={held["token"]}'}
        assert result(server, "SET", "jobs/1", "v", **named) == "OK"
        assert result(server, "INCR", "jobs/2", **named) == 1
        stale = {"Keyrack-Lock": f'"jobs"; token={int(held["token"]) - 1}'}
        assert "not held" in error(post(server, ["SET", "jobs/1", "w"], **stale), 412)
        many = [["GET", "jobs/1"], ["APPEND", "jobs/1", "w"], ["GET", "jobs/1"]]
        (_, one, two) = post(server, many, "/upstash/pipeline", **stale).json
        assert "not held" in one["error"]
        assert two == {"result": "v"}
    finally:
        assert server.ask("DELETE", "/v1/fences/upstash").status < 300


@pytest.mark.parametrize(
    "field", [{"If-Match": '"1"'}, {"Idempotency-Key": "one"}, {"Keyrack-Recompute": '"1"'}]
)
def test_what_would_be_passed_over_is_refused(server: Server, field: dict[str, str]) -> None:
    assert "cannot be honoured" in error(post(server, ["SET", "k", "v"], **field))
    assert result(server, "GET", "k") is None


def test_pages_of_listed_origins_may_use_it() -> None:
    origin = {"Origin": "https://app.example"}
    with Server("--compat", "upstash", "--cors-origins", "https://app.example") as server:
        asked = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, upstash-encoding",
        }
        answer = server.ask("OPTIONS", "/upstash/pipeline", **asked)
        assert answer.status == 204
        assert answer["Access-Control-Allow-Headers"] == "authorization, upstash-encoding"
        answer = post(server, ["SET", "k", "v"], **origin)
        assert (answer.status, answer["Access-Control-Allow-Origin"]) == (200, origin["Origin"])
        elsewhere = {"Origin": "https://evil.example"}
        assert "cors-origins" in error(post(server, ["GET", "k"], **elsewhere), 403)


# Counting


def test_requests_are_counted_by_what_they_were_answered_with(server: Server) -> None:
    def counted(code: int) -> float:
        sample = f'keyrack_http_requests_total{{code="{code}",operation="upstash"}} '
        text = server.ask("GET", "/metrics").body.decode()
        return sum(float(line[len(sample) :]) for line in text.splitlines() if sample in line)

    before = counted(400)
    error(post(server, ["NOSUCH"]))
    eventually(lambda: counted(400) > before)
    assert counted(200) > 0


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds: what is counted and logged is so behind the answer."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Off


def test_without_the_setting_nothing_is_there_and_nothing_is_loaded() -> None:
    with Server() as server:
        for method, path in (("POST", "/upstash/"), ("GET", "/upstash/get/k"), ("PUT", "/upstash")):
            here = server.ask(method, path, b"[]" if method != "GET" else None)
            elsewhere = server.ask(method, "/nowhere", b"[]" if method != "GET" else None)
            assert (
                (here.status, here.body) == (elsewhere.status, elsewhere.body) == (404, here.body)
            )
            assert here["Content-Type"] == "application/problem+json"
    program = "import keyrack.server.worker, sys; print('keyrack.compat' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False\n"


# Rights


class Known(NamedTuple):
    """A service, and those whom it knows."""

    server: Server
    admin: Who
    of_app: Who
    reader: Who
    writer: Who


@pytest.fixture(scope="module")
def known() -> Iterator[Known]:
    guarded = Guarded("", "--compat", "upstash", "--audit", "writes")
    of_app = guarded.add("read,list,set keys:app/*")
    reader = guarded.add(policies=("read-only",))
    writer = guarded.add("set keys:*")
    with guarded:
        yield Known(guarded.server, guarded.admin, of_app, reader, writer)


def test_nothing_is_done_for_those_who_are_not_known(known: Known) -> None:
    for fields in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer nonsense"}):
        answer = post(known.server, ["PING"], **fields)
        assert error(answer, 401).startswith("WRONGPASS ")
        answer = post(known.server, [["PING"]], "/upstash/pipeline", **fields)
        assert error(answer, 401).startswith("WRONGPASS ")


def test_each_command_needs_the_right_that_its_keys_need(known: Known) -> None:
    server, admin = known.server, known.admin.field
    result(server, "MSET", "app/a", "1", "other", "2", **admin)
    who = known.of_app.field
    assert result(server, "GET", "app/a", **who) == "1"
    assert result(server, "INCR", "app/a", **who) == 2
    assert result(server, "PING", **who) == "PONG"
    for words in (
        ["GET", "other"],
        ["MGET", "app/a", "other"],
        ["SET", "other", "x"],
        ["DEL", "app/a"],
        ["GETDEL", "app/a"],
        ["RENAME", "app/a", "app/b"],
        ["COPY", "other", "app/b"],
        ["KEYS", "oth*"],
        ["DBSIZE"],
        ["FLUSHALL"],
    ):
        told = error(post(server, words, **who), 403)
        assert told.startswith("NOPERM "), words
    assert result(server, "KEYS", "*", **who) == ["app/a"]
    assert result(server, "SCAN", "0", **who) == ["0", ["app/a"]]
    assert result(server, "RANDOMKEY", **who) == "app/a"
    assert result(server, "COPY", "app/a", "app/b", **who) == 1


def test_a_token_that_may_only_read_reads(known: Known) -> None:
    server = known.server
    who = known.reader.field
    result(server, "SET", "k", "v", **known.admin.field)
    many = [["GET", "k"], ["SET", "k", "x"], ["TTL", "k"], ["GETEX", "k"],
            ["GETEX", "k", "PERSIST"], ["SET", "k", "v", "GET"]]  # fmt: skip
    answers = post(server, many, "/upstash/pipeline", **who).json
    assert [one.get("result") for one in answers] == ["v", None, -1, "v", None, None]
    assert answers[1]["error"].startswith("NOPERM ")
    told = error(post(server, many, "/upstash/multi-exec", **who), 403)
    assert told.startswith("NOPERM ")
    who = known.writer.field
    assert result(server, "SET", "k", "w", **who) == "OK"
    assert error(post(server, ["SET", "k", "w", "GET"], **who), 403)


def test_the_audit_log_names_the_keys_that_were_written_and_who_was_refused(
    known: Known,
) -> None:
    server, admin = known.server, known.admin
    post(server, [["SET", "audited", "1"], ["GET", "audited"], ["DEL", "audited"]],
         "/upstash/pipeline", **admin.field)  # fmt: skip
    who = known.writer
    post(server, [["GET", "denied"]], "/upstash/pipeline", **who.field)

    def audited() -> list[tuple[object, ...]]:
        lines = [line for line in server.log_lines() if line.get("event") == "audit"]
        return [
            (line["operation"], line["outcome"], line["token"], tuple(line.get("keys", ())))
            for line in lines
        ]

    eventually(lambda: ("upstash", 403, who.id, ()) in audited())
    assert ("upstash", 200, admin.id, ("audited", "audited")) in audited()
