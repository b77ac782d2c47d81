"""What `keyrack doctor` says: each sentence for its cause, and none for a service at rest."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.cli.diagnosis import BAD, LOOK, Facts, Finding, findings
from keyrack.cli.exposition import Look

NOW = 1_800_000_000.0
HEALTHY = """
# TYPE keyrack_workers gauge
keyrack_workers 2.0
keyrack_workers_wanted 2.0
keyrack_auth_enabled 1.0
keyrack_store_used_bytes 10.0
keyrack_store_limit_bytes 1000.0
keyrack_snapshot_interval_seconds 60.0
keyrack_snapshot_last_success_timestamp_seconds 1.79999999e+09
keyrack_http_requests_total{code="200",operation="get"} 1000.0
process_open_fds 20.0
process_max_fds 1000.0
"""


def facts(now: str = "", before: str = "", **more: Any) -> Facts:
    """Return facts of a healthy service with some figures added, or in the place of others."""
    given: dict[str, Any] = {
        "ready": "",
        "info": {"engine": {"engine": "embedded"}},
        "slow": {"entries": []},
        "clients": {"clients": [], "missing_workers": []},
        **more,
    }
    return Facts(
        before=Look(_with(before), 0.0), now=Look(_with(now), 2.0), seconds=2.0, time=NOW, **given
    )


def _with(lines: str) -> str:
    new = [line for line in lines.split("\n") if line]
    names = {line.split(" ")[0] for line in new}
    kept = [line for line in HEALTHY.split("\n") if line and line.split(" ")[0] not in names]
    return "\n".join((*kept, *new)) + "\n"


def only(found: list[Finding]) -> Finding:
    (one,) = found
    assert one.advice.endswith((".", ")"))
    return one


def test_nothing_stands_out_in_a_healthy_service() -> None:
    assert findings(facts()) == []


@pytest.mark.parametrize(
    ("figures", "level", "said"),
    [
        ("keyrack_workers 1.0", BAD, "1 of 2 workers answer"),
        ('keyrack_worker_deaths_total{reason="killed"} 3.0', LOOK, "3 workers have ended"),
        ('keyrack_worker_deaths_total{reason="stuck"} 1.0', LOOK, "stuck"),
        ("keyrack_store_used_bytes 950.0", LOOK, "nearly full"),
        ("keyrack_client_memory_used_bytes 95\nkeyrack_client_memory_limit_bytes 100", BAD,
         "held for clients"),
        ("keyrack_disk_failed 1.0", BAD, "did not take the last writes"),
        ("keyrack_snapshots_failed_total 2.0", LOOK, "2 snapshots have failed"),
        ("keyrack_snapshot_last_success_timestamp_seconds 1.79999e+09\n"
         "keyrack_journal_bytes 900000.0", LOOK, "The last snapshot is 167 minutes old"),
        ("keyrack_snapshot_interval_seconds 0.0", LOOK, "Nothing is kept on a disk"),
        ("keyrack_auth_enabled 0.0", LOOK, "no access control"),
        ("keyrack_auth_reload_failed 1.0", BAD, "cannot be read"),
        ("process_open_fds 900.0", LOOK, "900 of 1000 files"),
        ("keyrack_tls_certificate_expiry_timestamp_seconds 1.80043e+09", LOOK, "ends in 5 days"),
        ("keyrack_tls_certificate_expiry_timestamp_seconds 1.7e+09", BAD, "certificate ended"),
        ("keyrack_log_lines_dropped_total 7.0", LOOK, "7 lines of the log"),
        ("keyrack_clock_steps_total 1.0", LOOK, "clock was set"),
        ("keyrack_sync_seconds_count 10\nkeyrack_sync_seconds_sum 1", LOOK, "a sync takes 100 ms"),
        ("keyrack_write_lock_wait_seconds_count 9\nkeyrack_write_lock_wait_seconds_sum 1", LOOK,
         "wait 111 ms"),
        ("keyrack_timer_lateness_seconds_count 9\nkeyrack_timer_lateness_seconds_sum 1", LOOK,
         "111 ms late"),
    ],
)  # fmt: skip
def test_a_figure_stands_out(figures: str, level: str, said: str) -> None:
    # The same before: what counts is what is, not what has changed.
    found = only(findings(facts(figures, figures)))
    assert found.level == level
    assert said in found.text


@pytest.mark.parametrize(
    ("figures", "level", "said"),
    [
        ('keyrack_http_requests_total{code="507",operation="set"} 10', BAD, "refused with 507"),
        ('keyrack_http_requests_total{code="507",operation="set"} 10\n'
         'keyrack_quota_keys{quota="a"} 5', LOOK, "A quota is used up"),
        ('keyrack_http_requests_total{code="503",operation="set"} 10', BAD, "100% of the requests"),
        ("keyrack_keys_evicted_total 200\nkeyrack_store_evicts 1", LOOK, "100 keys a second"),
        ("keyrack_watch_resets_total 4", LOOK, "Watches end"),
        ("keyrack_connections_refused_total 4", BAD, "refused: there are too many"),
        ('keyrack_auth_failures_total{reason="unknown"} 60', LOOK, "30 log-ins a second fail"),
    ],
)  # fmt: skip
def test_a_figure_that_grows_stands_out(figures: str, level: str, said: str) -> None:
    found = only(findings(facts(figures)))
    assert (found.level, said in found.text) == (level, True), found
    assert findings(facts(figures, figures)) == []


def test_a_store_that_evicts_may_be_full() -> None:
    assert findings(facts("keyrack_store_used_bytes 950.0\nkeyrack_store_evicts 1.0")) == []


def test_a_service_that_is_not_ready_says_why() -> None:
    found = only(findings(facts(ready="The store cannot be reached.")))
    assert (found.level, found.text) == (
        BAD, "The service is not ready: The store cannot be reached.",
    )  # fmt: skip


def test_a_worker_that_does_not_react_is_named() -> None:
    found = only(findings(facts(clients={"clients": [], "missing_workers": [1]})))
    assert (found.level, "Worker 1 does not react" in found.text) == (BAD, True)


def test_a_client_that_takes_nothing_is_named() -> None:
    stuck = {
        "id": "0-7", "address": "192.0.2.1:5", "owed": 3 << 20, "idle": 30.0, "age": 60.0,
        "request": "GET /v1/watch",
    }  # fmt: skip
    found = only(findings(facts(clients={"clients": [stuck], "missing_workers": []})))
    assert "192.0.2.1:5 is owed 3.0 MiB (GET /v1/watch)" in found.text
    assert "keyrack clients --end 0-7" in found.advice


def test_what_took_the_time_is_told_and_not_who_waited_for_it() -> None:
    entries = [
        {"operation": "set", "key": "a", "ms": 40.0, "lock_ms": 39.0, "disk_ms": 0.0},
        {"operation": "set", "key": "b", "ms": 35.0, "lock_ms": 34.0, "disk_ms": 0.0},
        {"operation": "batch", "key": "report/0", "ms": 30.0, "lock_ms": 0.0, "disk_ms": 5.0},
        {"operation": "turn", "key": None, "ms": 200.0},
    ]
    found = only(findings(facts(slow={"entries": entries})))
    assert "by itself is batch 'report/0': once, 25 ms at most." in found.text
    assert "2 waited for the lock, 39 ms at most." in found.text
    assert "1 waited for the disk, 5 ms at most." in found.text


def test_turns_are_named_where_there_is_nothing_else() -> None:
    entries = [{"operation": "turn", "ms": 20.0}]
    assert "is turn: once" in only(findings(facts(slow={"entries": entries}))).text


def test_the_gravest_comes_first() -> None:
    found = findings(facts("keyrack_auth_enabled 0.0\nkeyrack_disk_failed 1.0"))
    assert [one.level for one in found] == [BAD, LOOK]


def test_a_service_in_valkey_keeps_nothing_here() -> None:
    elsewhere = facts(
        "keyrack_snapshot_interval_seconds 0.0", info={"engine": {"engine": "valkey"}}
    )
    assert findings(elsewhere) == []
