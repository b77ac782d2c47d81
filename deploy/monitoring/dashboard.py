"""The dashboard: a table of rows and panels, and how they become what Grafana imports.

It imports by hand and by provisioning: the data source is a variable, there are no `__inputs`, and
the `uid` is always the same. Nothing but Keyrack's own metrics is assumed.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

UID: Final = "keyrack"
_SCHEMA: Final = 39
_WIDTH: Final = 24
_HEIGHT: Final = 8
_ONE: Final = '{job=~"$job", instance=~"$instance"}'
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """A query, in which `$s` stands for the choice of services, and what its lines are called."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """A chart, or a number where `kind` is `stat`."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False


def _quantiles(name: str, more: str = "") -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by (le) (rate({name}_bucket$s{more}[$__rate_interval])))",
            f"p{round(q * 100, 1):g}",
        )
        for q in (0.5, 0.99, 0.999)
    )


def _sum(name: str, legend: str) -> Query:
    return Query(f"sum(rate({name}$s[$__rate_interval]))", legend)


def _rate(name: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) (rate({name}$s[$__rate_interval]))", legend)


ROWS: Final = (
    ("At a glance", (
        Panel("Services", "short", (Query("count(keyrack_build_info$s)", "services"),), width=4,
              kind="stat"),
        Panel("Workers", "short", (Query("sum(keyrack_workers$s)", "answer"),), width=4,
              kind="stat"),
        Panel("Requests", "reqps", (_sum("keyrack_http_requests_total", "all"),), width=4,
              kind="stat"),
        Panel("Hit ratio", "percentunit", (Query(
            "sum(rate(keyrack_key_hits_total$s[$__rate_interval])) / "
            "(sum(rate(keyrack_key_hits_total$s[$__rate_interval])) + "
            "sum(rate(keyrack_key_misses_total$s[$__rate_interval])))", "hits"),), width=4,
              kind="stat"),
        Panel("Store used", "percentunit", (Query(
            "max(keyrack_store_used_bytes$s / keyrack_store_limit_bytes$s)", "of the fullest"),),
              width=4, kind="stat"),
        Panel("Up since", "dateTimeAsIso", (Query(
            "1000 * max(process_start_time_seconds$s)", "start"),), width=4, kind="stat"),
    )),
    ("Traffic", (
        Panel("Requests by operation", "reqps",
              (_rate("keyrack_http_requests_total", "operation", "{{operation}}"),), stacked=True),
        Panel("Answers that are no success", "reqps", (Query(
            'sum by (code) (rate(keyrack_http_requests_total{job=~"$job", '
            'instance=~"$instance", code!~"2..|304"}[$__rate_interval]))', "{{code}}"),)),
        Panel("Bytes", "Bps", (
            _sum("keyrack_received_bytes_total", "in"),
            _sum("keyrack_sent_bytes_total", "out"))),
        Panel("Hits and misses", "ops", (
            _sum("keyrack_key_hits_total", "hits"),
            _sum("keyrack_key_misses_total", "misses"),
            _sum("keyrack_key_writes_total", "writes"))),
        Panel("Connections", "short", (
            Query("sum(keyrack_connections$s)", "open"),
            _sum("keyrack_connections_accepted_total", "new a second"),
            _sum("keyrack_connections_refused_total", "refused a second"))),
        Panel("Sizes of values that are set", "bytes", _quantiles("keyrack_value_bytes")),
    )),
    ("Latency", (
        Panel("p99 by what is asked for", "s", (Query(
            "histogram_quantile(0.99, sum by (le, lane) "
            "(rate(keyrack_http_request_duration_seconds_bucket$s[$__rate_interval])))",
            "{{lane}}"),),
              "From a request's turn of the event loop until its answer was written."),
        Panel("Turns of the event loop", "s", _quantiles("keyrack_turn_seconds")),
        Panel("Timers that were late", "s", _quantiles("keyrack_timer_lateness_seconds"),
              "Stalls of the event loop, whatever their reason."),
        Panel("Commits", "s", _quantiles("keyrack_commit_seconds")),
        Panel("Waits for the write lock", "s", _quantiles("keyrack_write_lock_wait_seconds")),
        Panel("Slow requests", "reqps",
              (_rate("keyrack_slow_requests_total", "instance", "{{instance}}"),),
              "GET /v1/slow has their names."),
    )),
    ("Store", (
        Panel("Memory", "bytes", (
            Query("sum(keyrack_store_used_bytes$s)", "used"),
            Query("sum(keyrack_store_limit_bytes$s)", "limit"),
            Query("sum(keyrack_store_reserved_bytes$s)", "claimed"))),
        Panel("Keys", "short", (
            Query("sum(keyrack_keys$s)", "keys"),
            Query("sum(keyrack_keys_with_ttl$s)", "with a TTL"))),
        Panel("Keys that go", "ops", (
            _sum("keyrack_keys_expired_total", "ended"),
            _sum("keyrack_keys_evicted_total", "evicted"))),
    )),
    ("Watchers and locks", (
        Panel("Who waits", "short", (
            Query("sum(keyrack_watchers$s)", "watch"),
            Query("sum(keyrack_waiting_requests$s)", "wait for a key or a lock"),
            Query("sum(keyrack_locks$s)", "locks held"))),
        Panel("Watches that fell behind", "ops", (_sum("keyrack_watch_resets_total", "ended"),)),
        Panel("Held for clients", "bytes", (
            Query("sum(keyrack_client_memory_used_bytes$s)", "held"),
            Query("sum(keyrack_client_memory_limit_bytes$s)", "limit"))),
    )),
    ("Processes", (
        Panel("CPU by worker", "short", (_rate(
            "keyrack_worker_cpu_seconds_total", "instance, worker", "{{instance}} {{worker}}"),)),
        Panel("Memory of processes", "bytes", (
            Query("sum(process_resident_memory_bytes$s)", "with the store"),
            Query("sum(keyrack_worker_memory_bytes$s)", "workers' own"))),
        Panel("Workers that died", "short", (Query(
            "sum by (reason) (increase(keyrack_worker_deaths_total$s[$__rate_interval]))",
            "{{reason}}"),)),
        Panel("Open files", "short", (
            Query("sum(process_open_fds$s)", "open"), Query("sum(process_max_fds$s)", "most"))),
        Panel("Lines of the log that were dropped", "short", (Query(
            "sum(increase(keyrack_log_lines_dropped_total$s[$__rate_interval]))", "dropped"),)),
        Panel("Steps of the clock", "short", (Query(
            "sum(increase(keyrack_clock_steps_total$s[$__rate_interval]))", "steps"),)),
    )),
    ("Durability", (
        Panel("Syncs of the disk", "s", _quantiles("keyrack_sync_seconds")),
        Panel("Age of the last snapshot", "s", (Query(
            "time() - keyrack_snapshot_last_success_timestamp_seconds$s", "{{instance}}"),)),
        Panel("Write-ahead log", "bytes", (Query("keyrack_journal_bytes$s", "{{instance}}"),)),
    )),
    ("Access", (
        Panel("Log-ins that fail", "ops",
              (_rate("keyrack_auth_failures_total", "reason", "{{reason}}"),)),
        Panel("Requests that are not allowed", "reqps",
              (_rate("keyrack_auth_denied_total", "operation", "{{operation}}"),)),
        Panel("The certificate ends in", "s", (Query(
            "keyrack_tls_certificate_expiry_timestamp_seconds$s - time()", "{{instance}}"),)),
    )),
)  # fmt: skip


def dashboard() -> str:
    """Return the dashboard's JSON."""
    return json.dumps(document(), indent=1) + "\n"


def document() -> dict[str, Any]:
    """Return the dashboard as Grafana has it."""
    return {
        "uid": UID,
        "title": "Keyrack",
        "description": "Made by `python -m deploy.monitoring` from deploy/monitoring/dashboard.py.",
        "tags": ["keyrack"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [],
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
        "regex": "",
    }
    return [source, _labels("job", ""), _labels("instance", '{job=~"$job"}')]


def _labels(name: str, more: str) -> dict[str, Any]:
    query = f"label_values(keyrack_build_info{more}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "regex": "",
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = 0
        height = 4 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, place))
            x += panel.width
        y += height
    return panels


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query.expr.replace("$s", _ONE).replace("}{", ", "),
            "legendFormat": query.legend,
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {},
        "targets": targets,
    }
