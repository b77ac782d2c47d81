"""`keyrack top` and `bench`: numbers that are never the same, and what holds of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from keyrack.cli.exposition import Between, Look

if TYPE_CHECKING:
    from cli_support import Keyrack

BEFORE = """\
# HELP a_total Something.
a_total{op="get",code="200"} 10.0
a_total{op="set",code="201"} 1.0
t_bucket{lane="read",le="0.001"} 5.0
t_bucket{lane="read",le="+Inf"} 5.0
odd{name="a\\"b,c"} 1
"""
AFTER = """\
a_total{op="get",code="200"} 30.0
a_total{op="set",code="201"} 1.0
t_bucket{lane="read",le="0.001"} 95.0
t_bucket{lane="read",le="+Inf"} 105.0
"""


def test_rates_and_quantiles_are_of_what_happened_between_two_looks() -> None:
    between = Between(Look(BEFORE, 100.0), Look(AFTER, 110.0))
    assert between.rates("a_total", "op") == {"get": 2.0}
    assert between.rate("a_total", code="201") == 0.0
    assert between.quantile(0.5, "t", lane="read") == 0.001
    assert between.quantile(0.99, "t", lane="read") == float("inf")
    assert between.quantile(0.5, "t", lane="write") is None


def test_labels_may_hold_quotes_and_commas() -> None:
    assert Look(BEFORE, 0.0).by("odd", "name") == {'a\\"b,c': 1.0}


def test_a_bench_tells_what_it_measured_and_leaves_nothing(keyrack: Keyrack) -> None:
    keyrack.out("set", "mine", "x")
    flags = ("--seconds", "200ms", "--connections", "2", "--pipeline", "4", "--keys", "10")
    found = json.loads(keyrack.out("bench", *flags, "-o", "json"))
    assert found["requests"] > 0
    assert found["requests"] % 4 == 0
    assert found["errors"] == 0
    assert 0 < found["p50"] <= found["p99"] <= found["p99.9"] <= found["longest"]
    assert found["server_cpu"] >= 0
    assert keyrack.out("ls", "-r") == "mine\n"


def test_a_bench_of_another_machine_has_to_be_meant(keyrack: Keyrack) -> None:
    ended = keyrack("bench", "--url", "http://192.0.2.1:8088", "--seconds", "1")
    assert (ended.code, ended.err) == (
        2,
        "keyrack: 192.0.2.1 is not this machine: say --i-know if you mean it.\n",
    )


def test_a_value_that_the_service_does_not_take_is_told_before_any_load(keyrack: Keyrack) -> None:
    ended = keyrack("bench", "--seconds", "1", "--size", "2m", "--keys", "1")
    assert ended.code == 2
    assert "the limit is 1048576 bytes" in ended.err


def test_top_prints_a_line_for_each_look(keyrack: Keyrack) -> None:
    lines = keyrack.out("top", "-b", "-n", "2", "-d", "50ms").splitlines()
    assert lines[0].split()[:2] == ["REQ/S", "ERR/S"]
    assert len(lines) == 3
    found = [json.loads(line) for line in keyrack.out(
        "top", "-n", "2", "-d", "50ms", "-o", "jsonl").splitlines()]  # fmt: skip
    assert [one["workers"] for one in found] == [1, 1]
    assert found[0]["limit"] >= found[0]["used"] > 0
    assert all(one["requests"] > 0 for one in found), "its own look at the metrics is a request"
