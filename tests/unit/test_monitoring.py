"""Alerts and dashboard: they are what their tables say, ask for what is there, and fire in time."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from keyrack_server import Server

from keyrack.access import tokens

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
if not MONITORING.is_dir():
    pytest.skip("the rules are in the source tree only", allow_module_level=True)
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool of prometheus"
)


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"monitoring_{name}", MONITORING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


alerts, dashboard = _load("alerts"), _load("dashboard")
DOCUMENT = dashboard.document()
PANELS = [panel for panel in DOCUMENT["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# The files


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("monitoring/dashboard.json", dashboard.dashboard),
        ("monitoring/rules.yaml", alerts.rules),
        ("chart/files/rules.yaml", alerts.rules),
    ],
)
def test_a_file_is_what_its_table_says(path: str, made: Any) -> None:
    """`python -m deploy.monitoring` writes them anew."""
    assert (ROOT / "deploy" / path).read_text(encoding="utf-8") == made()


def test_every_alert_has_its_page() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [alert.name for alert in alerts.ALERTS]
    for name, section in sections.items():
        parts = re.findall(r"^- \*\*(.*?):\*\* \S", section, re.MULTILINE)
        assert parts == ["Means", "Look at", "Do"], name


def test_every_trouble_that_is_described_is_provoked_and_the_other_way_round() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    tests = (ROOT / "tests" / "process" / "test_troubles.py").read_text(encoding="utf-8")
    described = re.findall(r"^### (.*)$", text, re.MULTILINE)
    provoked = re.findall(r"^def test_(\w+)\(", tests, re.MULTILINE)
    assert len(described) == len(provoked) == 11
    for title, name in zip(described, provoked, strict=True):
        common = set(title.lower().split()) & set(name.split("_"))
        assert common - {"a", "the", "is", "was", "of", "that"}, (title, name)


def test_the_figures_that_the_pages_name_are_there(tmp_path: Path) -> None:
    pages = [ROOT / "docs" / name for name in ("operating.md", "alerts.md")]
    named = {
        name for page in pages for name in re.findall(r"\bkeyrack_\w+", page.read_text("utf-8"))
    }
    source = (ROOT / "src" / "keyrack" / "http" / "metrics.py").read_text(encoding="utf-8")
    for name in named:
        stem = re.sub(r"^keyrack_|_total$|_seconds$", "", name)
        assert stem in source, name


def test_rules_and_dashboard_ask_for_what_a_service_tells(tmp_path: Path) -> None:
    token = tokens.new().text
    flags = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    with Server(*flags, environ={"KEYRACK_TOKEN": token}) as server:
        fields = {"Authorization": f"Bearer {token}"}
        server.put("a", b"x", **fields)
        quota = b'{"prefix":"a","max_keys":9,"max_bytes":99}'
        server.ask("PUT", "/v1/quotas/a", quota, Content_Type="application/json", **fields)
        text = server.ask("GET", "/metrics", **fields).body.decode()
    told = {"up", "keyrack_tls_certificate_expiry_timestamp_seconds"}
    told |= {"keyrack_snapshot_last_success_timestamp_seconds", "keyrack_snapshots_failed_total"}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        told |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")}
        told |= set() if kind == "histogram" else {name}
    asked = " ".join((*EXPRESSIONS, *(alert.expr for alert in alerts.ALERTS)))
    names = set(re.findall(r"\b(?:keyrack|process)_\w+", asked))
    assert names - told == set()
    assert len(names) > 50


# The rules

CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "KeyrackDown": (
        {"up": "0x60", "keyrack_workers_wanted": "2x30 _x30"},
        {"up": "1x60", "keyrack_workers_wanted": "2x60"},
    ),
    "KeyrackNotReady": (
        {"keyrack_workers": "1x60", "keyrack_workers_wanted": "2x60"},
        {"keyrack_workers": "2x60", "keyrack_workers_wanted": "2x60"},
    ),
    "KeyrackWorkersDie": (
        {'keyrack_worker_deaths_total{reason="killed"}': "0+1x60"},
        {'keyrack_worker_deaths_total{reason="ended"}': "0+1x60"},
    ),
    "KeyrackEventLoopsStall": (
        {"keyrack_timer_lateness_seconds_sum": "0+30x60",
         "keyrack_timer_lateness_seconds_count": "0+120x60"},
        {"keyrack_timer_lateness_seconds_sum": "0+1x60",
         "keyrack_timer_lateness_seconds_count": "0+120x60"},
    ),
    "KeyrackStoreNearlyFull": (
        {"keyrack_store_used_bytes": "95x60", "keyrack_store_limit_bytes": "100x60",
         "keyrack_store_evicts": "0x60"},
        {"keyrack_store_used_bytes": "95x60", "keyrack_store_limit_bytes": "100x60",
         "keyrack_store_evicts": "1x60"},
    ),
    "KeyrackStoreFull": (
        {'keyrack_http_requests_total{code="507"}': "0+10x60"},
        {'keyrack_http_requests_total{code="507"}': "0+10x60",
         'keyrack_quota_keys{quota="a"}': "9x60", "keyrack_store_used_bytes": "50x60",
         "keyrack_store_limit_bytes": "100x60"},
    ),
    "KeyrackQuotaUsedUp": (
        {'keyrack_quota_bytes{quota="a"}': "96x60", 'keyrack_quota_max_bytes{quota="a"}': "100x60",
         'keyrack_quota_keys{quota="a"}': "1x60"},
        {'keyrack_quota_keys{quota="a"}': "50x60", 'keyrack_quota_max_keys{quota="a"}': "100x60"},
    ),
    "KeyrackEvicts": (
        {"keyrack_keys_evicted_total": "0+10x60"}, {"keyrack_keys_evicted_total": "10x60"},
    ),
    "KeyrackClientMemoryNearlyFull": (
        {"keyrack_client_memory_used_bytes": "95x60",
         "keyrack_client_memory_limit_bytes": "100x60"},
        {"keyrack_client_memory_used_bytes": "50x60",
         "keyrack_client_memory_limit_bytes": "100x60"},
    ),
    "KeyrackErrors": (
        {'keyrack_http_requests_total{code="500"}': "0+10x60",
         'keyrack_http_requests_total{code="200"}': "0+100x60"},
        {'keyrack_http_requests_total{code="507"}': "0+10x60",
         'keyrack_http_requests_total{code="200"}': "0+100x60"},
    ),
    "KeyrackUnavailable": (
        {'keyrack_http_requests_total{code="503"}': "0+10x60",
         'keyrack_http_requests_total{code="200"}': "0+100x60"},
        {'keyrack_http_requests_total{code="200"}': "0+100x60"},
    ),
    "KeyrackSlow": (
        {'keyrack_http_request_duration_seconds_bucket{lane="read",le="0.032768"}': "0+90x60",
         'keyrack_http_request_duration_seconds_bucket{lane="read",le="0.131072"}': "0+100x60",
         'keyrack_http_request_duration_seconds_bucket{lane="read",le="+Inf"}': "0+100x60"},
        {'keyrack_http_request_duration_seconds_bucket{lane="bulk",le="0.032768"}': "0+90x60",
         'keyrack_http_request_duration_seconds_bucket{lane="bulk",le="+Inf"}': "0+100x60"},
    ),
    "KeyrackWriteLockWaits": (
        {"keyrack_write_lock_wait_seconds_sum": "0+10x60",
         "keyrack_write_lock_wait_seconds_count": "0+100x60"},
        {"keyrack_write_lock_wait_seconds_sum": "0+1x60",
         "keyrack_write_lock_wait_seconds_count": "0+100x60"},
    ),
    "KeyrackSnapshotOld": (
        {"keyrack_snapshot_last_success_timestamp_seconds": "60x60",
         "keyrack_snapshot_interval_seconds": "60x60", "keyrack_key_writes_total": "0+1x60"},
        {"keyrack_snapshot_last_success_timestamp_seconds": "60x60",
         "keyrack_snapshot_interval_seconds": "60x60", "keyrack_key_writes_total": "5x60"},
    ),
    "KeyrackSnapshotFailed": (
        {"keyrack_snapshots_failed_total": "0x50 1x9"}, {"keyrack_snapshots_failed_total": "1x60"},
    ),
    "KeyrackDiskFailed": ({"keyrack_disk_failed": "1x60"}, {"keyrack_disk_failed": "0x60"}),
    "KeyrackDiskSlow": (
        {"keyrack_sync_seconds_sum": "0+10x60", "keyrack_sync_seconds_count": "0+100x60"},
        {"keyrack_sync_seconds_sum": "0+1x60", "keyrack_sync_seconds_count": "0+100x60"},
    ),
    "KeyrackWatchersFallBehind": (
        {"keyrack_watch_resets_total": "0+1x60"}, {"keyrack_watch_resets_total": "9x60"},
    ),
    "KeyrackConnectionsRefused": (
        {"keyrack_connections_refused_total": "0+5x60"},
        {"keyrack_connections_refused_total": "5x60"},
    ),
    "KeyrackFilesNearlyUsedUp": (
        {"process_open_fds": "90x60", "process_max_fds": "100x60", "keyrack_workers": "2x60"},
        {"process_open_fds": "90x60", "process_max_fds": "100x60"},
    ),
    "KeyrackAuthFileUnusable": (
        {"keyrack_auth_reload_failed": "1x60"}, {"keyrack_auth_reload_failed": "0x60"},
    ),
    "KeyrackManyFailedLogins": (
        {'keyrack_auth_failures_total{reason="unknown"}': "0+120x60"},
        {'keyrack_auth_failures_total{reason="unknown"}': "0+10x60"},
    ),
    "KeyrackManyDenied": (
        {'keyrack_auth_denied_total{operation="get"}': "0+120x60"},
        {'keyrack_auth_denied_total{operation="get"}': "0+10x60"},
    ),
    "KeyrackCertificateEnds": (
        {"keyrack_tls_certificate_expiry_timestamp_seconds": "864000x90"},
        {"keyrack_tls_certificate_expiry_timestamp_seconds": "8640000x90"},
    ),
    "KeyrackClockSet": (
        {"keyrack_clock_steps_total": "0x55 1x5"}, {"keyrack_clock_steps_total": "1x60"},
    ),
    "KeyrackLogLinesDropped": (
        {"keyrack_log_lines_dropped_total": "0x55 9x5"},
        {"keyrack_log_lines_dropped_total": "9x60"},
    ),
}  # fmt: skip
"""For each alert the figures, one a minute, that it fires for, and some that it must not."""


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {alert.name for alert in alerts.ALERTS}


@NEEDS_PROMTOOL
def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", str(MONITORING / "rules.yaml"))


def _series(name: str) -> str:
    labels = 'job="k",instance="i"'
    return f"{name[:-1]},{labels}}}" if name.endswith("}") else f"{name}{{{labels}}}"


def _fires(name: str, figures: dict[str, str], expected: bool, at: str) -> dict[str, Any]:
    found = next(alert for alert in alerts.ALERTS if alert.name == name)
    told: list[dict[str, Any]] = []
    if expected:
        labels = {"severity": found.severity, "job": "k", "instance": "i"}
        if "{{ $labels.quota }}" in found.summary:
            labels["quota"] = "a"
        told = [{"exp_labels": labels}]
    return {
        "interval": "1m",
        "input_series": [
            {"series": _series(series), "values": values} for series, values in figures.items()
        ],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": told}],
    }


@NEEDS_PROMTOOL
def test_every_alert_fires_when_it_is_due_and_only_then(tmp_path: Path) -> None:
    cases = []
    for name, (fires, rests) in CASES.items():
        at = "80m" if name == "KeyrackCertificateEnds" else "59m"
        cases += [_fires(name, fires, True, at), _fires(name, rests, False, at)]
    # Only whether they fire is of interest here, not their sentences.
    rules = re.sub(r"\n        annotations:\n.*\n.*", "", alerts.rules())
    (tmp_path / "rules.yaml").write_text(rules)
    written = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "tests.yaml").write_text(json.dumps(written))
    promtool("test", "rules", str(tmp_path / "tests.yaml"))


# The dashboard


def test_the_dashboard_imports_by_hand_and_by_provisioning() -> None:
    assert "__inputs" not in DOCUMENT
    assert (DOCUMENT["uid"], DOCUMENT.get("id")) == ("keyrack", None)
    variables = {one["name"]: one for one in DOCUMENT["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert list(variables) == ["datasource", "job", "instance"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == source for panel in PANELS)
    assert all(target["datasource"] == source for panel in PANELS for target in panel["targets"])


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in DOCUMENT["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DOCUMENT["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_query_asks_for_the_chosen_services_alone() -> None:
    for expression in EXPRESSIONS:
        metrics = re.findall(r"(?:keyrack|process)_\w+(\{[^}]*\})?", expression)
        assert metrics, expression
        for labels in metrics:
            assert 'job=~"$job"' in labels, expression
            assert 'instance=~"$instance"' in labels, expression


@NEEDS_PROMTOOL
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = []
    for number, expression in enumerate(EXPRESSIONS):
        expr = expression.replace("$__rate_interval", "5m").replace("$job", ".*")
        rules.append({"record": f"panel:{number}", "expr": expr.replace("$instance", ".*")})
    path = tmp_path / "queries.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))
