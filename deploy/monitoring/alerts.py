"""The alerts, one row each. What each means is in docs/alerts.md, under its name."""

from __future__ import annotations

from typing import Final, NamedTuple

_RUNBOOK: Final = "docs/alerts.md"
CRITICAL: Final = "critical"
WARNING: Final = "warning"
INFO: Final = "info"


class Alert(NamedTuple):
    """A rule: when `expr` has held for as long as `lasts`, `summary` is told."""

    name: str
    severity: str
    lasts: str
    expr: str
    summary: str


_ERRORS: Final = (
    'sum by (job, instance) (rate(keyrack_http_requests_total{code=~"5..", code!~"503|507"}[5m]))'
)
_ALL: Final = "sum by (job, instance) (rate(keyrack_http_requests_total[5m]))"

ALERTS: Final = (
    Alert(
        "KeyrackDown", CRITICAL, "1m",
        "up == 0 and on (job, instance) max_over_time(keyrack_workers_wanted[1d]) > 0",
        "Prometheus cannot ask this service.",
    ),
    Alert(
        "KeyrackNotReady", CRITICAL, "2m",
        "keyrack_workers < keyrack_workers_wanted",
        "{{ $value }} workers answer, which is less than there should be.",
    ),
    Alert(
        "KeyrackWorkersDie", WARNING, "0m",
        'sum by (job, instance) (increase(keyrack_worker_deaths_total{reason!="ended"}[10m])) > 3',
        "{{ $value | humanize }} workers have died in ten minutes.",
    ),
    Alert(
        "KeyrackEventLoopsStall", WARNING, "10m",
        "rate(keyrack_timer_lateness_seconds_sum[5m]) / "
        "(rate(keyrack_timer_lateness_seconds_count[5m]) > 0) > 0.1",
        "Timers are {{ $value | humanizeDuration }} late on average.",
    ),
    Alert(
        "KeyrackStoreNearlyFull", WARNING, "5m",
        "keyrack_store_used_bytes / keyrack_store_limit_bytes > 0.9 and keyrack_store_evicts == 0",
        "The store is {{ $value | humanizePercentage }} full.",
    ),
    Alert(
        "KeyrackStoreFull", CRITICAL, "1m",
        'sum by (job, instance) (rate(keyrack_http_requests_total{code="507"}[5m])) > 0 '
        "unless on (job, instance) (count by (job, instance) (keyrack_quota_keys) and "
        "on (job, instance) keyrack_store_used_bytes / keyrack_store_limit_bytes < 0.9)",
        "Writes are refused with 507, {{ $value | humanize }} a second.",
    ),
    Alert(
        "KeyrackQuotaUsedUp", WARNING, "5m",
        "keyrack_quota_keys / keyrack_quota_max_keys > 0.95 or "
        "keyrack_quota_bytes / keyrack_quota_max_bytes > 0.95",
        "The quota {{ $labels.quota }} is used by {{ $value | humanizePercentage }}.",
    ),
    Alert(
        "KeyrackEvicts", INFO, "15m",
        "rate(keyrack_keys_evicted_total[5m]) > 0",
        "{{ $value | humanize }} keys a second are evicted.",
    ),
    Alert(
        "KeyrackClientMemoryNearlyFull", WARNING, "2m",
        "keyrack_client_memory_used_bytes / keyrack_client_memory_limit_bytes > 0.9",
        "What is held for clients is {{ $value | humanizePercentage }} of what may be.",
    ),
    Alert(
        "KeyrackErrors", CRITICAL, "5m",
        f"{_ERRORS} / ({_ALL} > 0) > 0.01",
        "{{ $value | humanizePercentage }} of the requests fail.",
    ),
    Alert(
        "KeyrackUnavailable", CRITICAL, "2m",
        'sum by (job, instance) (rate(keyrack_http_requests_total{code="503"}[5m])) / '
        f"({_ALL} > 0) > 0.01",
        "{{ $value | humanizePercentage }} of the requests are answered 503.",
    ),
    Alert(
        "KeyrackSlow", WARNING, "10m",
        "histogram_quantile(0.99, sum by (job, instance, le) "
        '(rate(keyrack_http_request_duration_seconds_bucket{lane=~"read|write"}[5m]))) > 0.05',
        "One request in a hundred takes more than {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "KeyrackWriteLockWaits", WARNING, "10m",
        "rate(keyrack_write_lock_wait_seconds_sum[5m]) / "
        "(rate(keyrack_write_lock_wait_seconds_count[5m]) > 0) > 0.05",
        "A commit waits {{ $value | humanizeDuration }} for the others on average.",
    ),
    Alert(
        "KeyrackSnapshotOld", WARNING, "5m",
        "time() - keyrack_snapshot_last_success_timestamp_seconds > "
        "3 * keyrack_snapshot_interval_seconds and increase(keyrack_key_writes_total[5m]) > 0",
        "The last snapshot is {{ $value | humanizeDuration }} old.",
    ),
    Alert(
        "KeyrackSnapshotFailed", WARNING, "0m",
        "increase(keyrack_snapshots_failed_total[15m]) > 0",
        "Snapshots could not be taken.",
    ),
    Alert(
        "KeyrackDiskFailed", CRITICAL, "0m",
        "keyrack_disk_failed == 1",
        "The disk did not take what was written; writes are refused.",
    ),
    Alert(
        "KeyrackDiskSlow", WARNING, "10m",
        "rate(keyrack_sync_seconds_sum[5m]) / (rate(keyrack_sync_seconds_count[5m]) > 0) > 0.05",
        "A sync of the disk takes {{ $value | humanizeDuration }} on average.",
    ),
    Alert(
        "KeyrackWatchersFallBehind", WARNING, "5m",
        "increase(keyrack_watch_resets_total[10m]) > 3",
        "{{ $value | humanize }} watches were ended because they fell behind.",
    ),
    Alert(
        "KeyrackConnectionsRefused", WARNING, "1m",
        "rate(keyrack_connections_refused_total[5m]) > 0",
        "{{ $value | humanize }} connections a second are refused.",
    ),
    Alert(
        "KeyrackFilesNearlyUsedUp", WARNING, "5m",
        "process_open_fds / process_max_fds > 0.8 and on (job, instance) keyrack_workers",
        "{{ $value | humanizePercentage }} of the files that may be open are.",
    ),
    Alert(
        "KeyrackAuthFileUnusable", WARNING, "1m",
        "keyrack_auth_reload_failed == 1",
        "The operator's file cannot be used; what it said before counts.",
    ),
    Alert(
        "KeyrackManyFailedLogins", WARNING, "5m",
        "sum by (job, instance) (rate(keyrack_auth_failures_total[5m])) > 1",
        "{{ $value | humanize }} log-ins a second fail.",
    ),
    Alert(
        "KeyrackManyDenied", WARNING, "10m",
        "sum by (job, instance) (rate(keyrack_auth_denied_total[5m])) > 1",
        "{{ $value | humanize }} requests a second are not allowed to their senders.",
    ),
    Alert(
        "KeyrackCertificateEnds", WARNING, "1h",
        "keyrack_tls_certificate_expiry_timestamp_seconds - time() < 14 * 86400",
        "The certificate ends in {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "KeyrackClockSet", INFO, "0m",
        "increase(keyrack_clock_steps_total[10m]) > 0",
        "The machine's clock was set.",
    ),
    Alert(
        "KeyrackLogLinesDropped", INFO, "0m",
        "increase(keyrack_log_lines_dropped_total[10m]) > 0",
        "{{ $value | humanize }} lines of the log were dropped.",
    ),
)  # fmt: skip


def rules() -> str:
    """Return the rules as Prometheus reads them, and as the `spec` of a PrometheusRule."""
    lines = [
        "# Made by `python -m deploy.monitoring` from deploy/monitoring/alerts.py.",
        "groups:",
        "  - name: keyrack",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_quoted(alert.expr)}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {_quoted(alert.summary)}",
            f"          runbook_url: {_RUNBOOK}#{alert.name.lower()}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
