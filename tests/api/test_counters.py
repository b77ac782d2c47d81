"""`POST /v1/counters/{key}`: numbers of 64 bits, added to atomically."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client, quoted

if TYPE_CHECKING:
    from keyrack_server import Server

MOST = 9223372036854775807
LEAST = -9223372036854775808


def add(client: Client, key: str, **members: Any) -> Any:
    answer = client.post(f"/v1/counters/{quoted(key)}", members)
    assert answer.status == 200, answer
    return answer.json["value"]


def test_a_counter_begins_at_zero(client: Client, key: str) -> None:
    assert [add(client, key) for _ in range(3)] == ["1", "2", "3"]


def test_an_empty_body_adds_one(client: Client, key: str) -> None:
    for _ in range(2):
        answer = client.ask("POST", f"/v1/counters/{key}")
    assert answer.json["value"] == "2"
    assert client.ask("POST", f"/v1/counters/{key}", b"").json["value"] == "3"


def test_the_answer_names_key_value_and_revision(client: Client) -> None:
    answer = client.post("/v1/counters/a%2Fb%20c", {"delta": "5"})
    assert answer.json["key"] == "a/b c"
    assert answer["ETag"] == f'"{answer.json["revision"]}"'
    assert client.get("/v1/keys/a/b%20c")["ETag"] == answer["ETag"]


@pytest.mark.parametrize(
    ("delta", "sum_"),
    [
        ("0", "10"),
        ("-10", "0"),
        ("-11", "-1"),
        (5, "15"),
        (-5, "5"),
        (str(MOST - 10), str(MOST)),
        (MOST - 10, str(MOST)),
        (str(LEAST), str(LEAST + 10)),
        ("-0", "10"),
        ("007", "17"),
    ],
)
def test_numbers_are_strings_or_integers(
    client: Client, key: str, delta: str | int, sum_: str
) -> None:
    client.put(key, b"10")
    assert add(client, key, delta=delta) == sum_
    assert client.shown(key) == sum_


def test_a_counter_is_an_ordinary_text_value(client: Client, key: str) -> None:
    client.put(key, b"41", Content_Type="text/plain")
    add(client, key)
    answer = client.get(f"/v1/keys/{key}")
    assert (answer.body, answer["Content-Type"]) == (b"42", "text/plain")
    assert client.get(f"/get/{key}").body == b'{"key":"%b","value":"42"}' % key.encode()


def test_a_counter_can_be_a_json_number(client: Client, key: str) -> None:
    client.post("/set", {"key": key, "value": 41})
    add(client, key)
    assert client.get(f"/get/{key}").body == b'{"key":"%b","value":42}' % key.encode()


@pytest.mark.parametrize(
    ("value", "delta"), [(MOST, "1"), (LEAST, "-1"), (1, str(MOST)), (-1, str(LEAST))]
)
def test_an_overflow_changes_nothing(client: Client, key: str, value: int, delta: str) -> None:
    client.put(key, str(value).encode())
    answer = client.post(f"/v1/counters/{key}", {"delta": delta})
    assert (answer.status, answer.json["type"]) == (409, "/docs/problems/overflow")
    assert client.shown(key) == str(value)


def test_an_overflow_of_initial_and_delta_makes_no_counter(client: Client, key: str) -> None:
    answer = client.post(f"/v1/counters/{key}", {"initial": str(MOST), "delta": "1"})
    assert answer.status == 409
    assert client.shown(key) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text",
        b"1.0",
        b"1e3",
        b"+1",
        b" 1",
        b"1 ",
        b"1\n",
        b"01",
        b"-0",
        b"0x10",
        b"1_000",
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1" * 30,
        "\u0665".encode(),
        b"\xff",
        b"NaN",
    ],
)
def test_what_is_no_number_is_not_added_to(client: Client, key: str, value: bytes) -> None:
    client.put(key, value)
    answer = client.post(f"/v1/counters/{key}", {"delta": "1"})
    assert (answer.status, answer.json["type"]) == (409, "/docs/problems/not-a-number")
    assert client.get(f"/v1/keys/{key}").body == value


def test_initial_is_where_a_missing_counter_begins(client: Client, key: str) -> None:
    assert add(client, key, delta="1", initial="100") == "101"
    assert add(client, key, delta="1", initial="100") == "102"


def test_a_ttl_is_given_or_kept(client: Client, key: str) -> None:
    add(client, key)
    assert client.get(f"/v1/keys/{key}").get("Keyrack-TTL") is None
    add(client, key, ttl=50)
    add(client, key)
    assert 40 < float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) <= 50
    add(client, key, ttl=500)
    assert float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) > 400
    add(client, key, ttl=None)
    assert float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) > 400


def test_a_counter_whose_time_is_over_begins_anew(client: Client, key: str) -> None:
    add(client, key, delta="5", ttl=0.02)
    add(client, key)
    time.sleep(0.03)
    assert add(client, key) == "1"


def test_conditions_hold_for_counters(client: Client, key: str) -> None:
    missing = client.post(f"/v1/counters/{key}", {}, If_Match="*")
    assert missing.status == 412
    made = client.post(f"/v1/counters/{key}", {}, If_None_Match="*")
    assert made.status == 200
    again = client.post(f"/v1/counters/{key}", {}, If_None_Match="*")
    assert (again.status, again["ETag"]) == (412, made["ETag"])
    assert client.post(f"/v1/counters/{key}", {}, If_Match=made["ETag"]).json["value"] == "2"
    assert client.post(f"/v1/counters/{key}", {}, If_Match=made["ETag"]).status == 412
    assert client.shown(key) == "2"


def test_an_addition_is_an_event(client: Client, key: str) -> None:
    answer = client.post(f"/v1/counters/{key}", {})
    (event,) = client.get(f"/v1/events/{key}").json["events"]
    assert (event["event"], event["revision"]) == ("set", answer.json["revision"])


@pytest.mark.parametrize("body", [b"[]", b"5", b'{"delta":"1","by":2}', b'{"delta":null}', b"{"])
def test_a_body_that_is_not_understood_is_refused(client: Client, key: str, body: bytes) -> None:
    assert client.post(f"/v1/counters/{key}", body).status == 400
    assert client.shown(key) is None


def test_a_counter_without_a_key_is_refused(client: Client) -> None:
    assert client.post("/v1/counters/", {}).status == 400
    assert client.get("/v1/counters/a").status == 405


def test_no_addition_is_lost_between_workers(pair: Server, key: str) -> None:
    def work() -> None:
        with Client(pair) as client:
            for _ in range(50):
                add(client, key, delta="2")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(pair) as client:
        assert client.shown(key) == "600"


def test_a_counter_gets_its_end_when_it_is_made(client: Client, key: str) -> None:
    target = f"/v1/counters/{key}"
    assert client.post(target, {"ttl_if_new": 100}).status == 200
    left = float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"])
    assert 90 < left <= 100
    assert client.post(target, {"ttl_if_new": 1000}).status == 200
    assert float(client.get(f"/v1/keys/{key}")["Keyrack-TTL"]) <= left
    assert client.post(target, {"ttl": 5, "ttl_if_new": 5}).status == 400
    added = client.batch({"op": "add", "key": f"{key}b", "ttl_if_new": 100})
    assert added.status == 200
    assert 90 < float(client.get(f"/v1/keys/{key}b")["Keyrack-TTL"]) <= 100
