"""The Helm chart, with real Helm 3 and 4: what it makes, what it refuses, and that it runs.

`make chart-test` brings what is needed and runs this. No cluster is needed.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from delivery.chart_support.charts import (
    CHART,
    GOLDEN,
    HELMS,
    NEWEST,
    OLDEST,
    ROOT,
    VALUE_SETS,
    Object,
    all_environment,
    environment,
    helm,
    mebibytes,
    objects,
    of_set,
    only,
    pod,
    refusal,
    rendered,
    server,
    store_volume,
    workload,
)
from delivery.chart_support.cluster import Cluster
from delivery.chart_support.nodes import Node
from delivery.chart_support.replacement import replace
from valkey_support.servers import Server

import keyrack
from keyrack.settings import ROWS, Settings, SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
CHART_SUPPORT = Path(__file__).parent / "chart_support"
CUSTOM = ("ServiceMonitor", "PrometheusRule", "HTTPRoute")
"""Kinds that others bring into a cluster."""
VALKEY = ("--set", "valkey.url=valkey://valkey:6379")


# What it makes


def test_there_are_six_value_sets() -> None:
    assert len(VALUE_SETS) == 6


@pytest.mark.parametrize("values", VALUE_SETS)
@pytest.mark.parametrize("name", HELMS)
def test_lint_finds_nothing(name: str, values: str) -> None:
    file = GOLDEN / f"{values}.values.yaml"
    done = helm(name, "lint", "--strict", CHART, "--values", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout + done.stderr


def steady(text: str) -> str:
    """Return a render with the same in place of tokens that each render makes anew."""
    for token in set(re.findall(r"krk_[0-9A-Za-z]{47}", text)):
        text = text.replace(token, "krk_" + "x" * 47).replace(token[4:12], "x" * 8)
        text = text.replace(hashlib.sha256(token.encode()).hexdigest(), "0" * 64)
    # Helm 3 cannot show the log of a test pod that it has removed.
    return text.replace("before-hook-creation\n", "before-hook-creation,hook-succeeded\n")


@pytest.mark.parametrize("values", VALUE_SETS)
@pytest.mark.parametrize("name", HELMS)
def test_the_render_is_the_golden_one(name: str, values: str) -> None:
    file = GOLDEN / f"{values}.yaml"
    text = steady(rendered("--values", GOLDEN / f"{values}.values.yaml", name=name))
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(text)
    assert file.read_text() == text, "if that is meant: make chart-golden, and read the diff"


@pytest.mark.parametrize("kube", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", VALUE_SETS)
def test_each_object_is_what_kubernetes_expects(values: str, kube: str, tmp_path: Path) -> None:
    found = of_set(values, kube=kube)
    # Not Kubernetes' own kinds; other tests read them instead.
    own = [one for one in found if one["kind"] not in CUSTOM]
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(own))
    command = [sys.executable, "-m", "kubernetes_validate", "-k", kube, "--strict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    # It only warns about an API version that is gone.
    assert [line for line in said if not re.search(r"^INFO .* passed for resource ", line)] == []
    assert len(said) == len(own)


@pytest.mark.parametrize("name", ["namespace", "storage-class", "entrance"])
def test_what_an_administrator_applies_fits_the_schemas_of_kubernetes(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / "objects.yaml"
    text = (ROOT / f"deploy/cluster/{name}.yaml").read_text()
    file.write_text(re.sub("NAMESPACE|GROUP", "keyrack", text).replace("HOSTS", "[a.example.org]"))
    command = [sys.executable, "-m", "kubernetes_validate", "-k", NEWEST, "--strict", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    assert len(said) == len(list(yaml.safe_load_all(file.read_text())))


@pytest.mark.parametrize("values", VALUE_SETS)
def test_one_template_makes_one_object(values: str) -> None:
    text = rendered("--values", GOLDEN / f"{values}.values.yaml")
    sources = re.findall(r"^# Source: (.*)$", text, re.MULTILINE)
    assert len(sources) == len(set(sources)) == len(of_set(values))


def test_checkov_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    for values in VALUE_SETS:
        (tmp_path / f"{values}.yaml").write_text((GOLDEN / f"{values}.yaml").read_text())
    config = CHART / ".checkov.yaml"
    command = ["checkov", "--config-file", str(config), "--skip-download", "-o", "json", "-d", "."]
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    failed = [
        (one["check_id"], one["check_name"], one["resource"])
        for one in report["results"]["failed_checks"]
    ]
    assert failed == []
    assert report["summary"]["passed"] > 400
    before = ""
    for line in config.read_text().splitlines():
        if line.lstrip().startswith("- CKV"):
            assert before.lstrip().startswith(("#", "- CKV")), f"{line}: say why"
        before = line


@pytest.mark.parametrize("values", VALUE_SETS)
def test_names_ports_and_selectors_lead_to_what_they_mean(values: str) -> None:
    found = of_set(values)
    labels = workload(found)["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in server(found)["ports"]}
    selectors = [workload(found)["spec"]["selector"]["matchLabels"]]
    for one in found:
        if one["kind"] == "Service":
            selectors.append(one["spec"]["selector"])
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
        if one["kind"] == "PodDisruptionBudget":
            selectors.append(one["spec"]["selector"]["matchLabels"])
        if one["kind"] == "NetworkPolicy":
            selectors.append(one["spec"]["podSelector"]["matchLabels"])
    selectors += [
        spread["labelSelector"]["matchLabels"]
        for spread in pod(found).get("topologySpreadConstraints", [])
    ]
    test_pod = only(found, "Pod")["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_pod.items()
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    assert [server(found)[probe]["httpGet"]["port"] for probe in probes] == ["http"] * 3


@pytest.mark.parametrize("values", VALUE_SETS)
def test_what_an_object_names_exists(values: str) -> None:
    found = of_set(values)
    names = {(one["kind"], one["metadata"]["name"]) for one in found}
    spec = pod(found)
    assert ("ServiceAccount", spec["serviceAccountName"]) in names
    mounted = {mount["name"] for mount in server(found).get("volumeMounts", [])}
    claims = workload(found)["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in spec.get("volumes", [])}
    assert mounted == volumes | {claim["metadata"]["name"] for claim in claims}
    if workload(found)["kind"] == "StatefulSet":
        headless = only(found, "Service", workload(found)["spec"]["serviceName"])
        assert headless["spec"]["clusterIP"] == "None"
    for one in found:
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
        if one["kind"] == "Ingress":
            for rule in one["spec"]["rules"]:
                service = rule["http"]["paths"][0]["backend"]["service"]
                assert ("Service", service["name"]) in names
                assert service["port"] == {"name": "http"}
        assert one["metadata"]["namespace"] == "team"


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_pods_meet_the_restricted_level(values: str) -> None:
    found = of_set(values)
    for spec in (pod(found), only(found, "Pod")["spec"]):
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for volume in spec.get("volumes", []):
            assert volume.keys() <= {"name", "emptyDir", "secret"}
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
    assert only(found, "ServiceAccount")["automountServiceAccountToken"] is False


def test_a_valkey_url_makes_many_pods_of_the_one() -> None:
    kinds = {one["kind"] for one in objects()}
    with_valkey = {one["kind"] for one in objects(*VALKEY)}
    assert kinds - with_valkey == {"StatefulSet"}
    added = {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert with_valkey - kinds == added
    found = objects(*VALKEY)
    assert "replicas" not in workload(found)["spec"]
    assert workload(found)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert len(pod(found)["topologySpreadConstraints"]) == 2
    assert all_environment(found)["KEYRACK_ENGINE"] == "valkey://valkey:6379"
    assert not {"KEYRACK_STORE", "KEYRACK_MEMORY"} & environment(found).keys()
    assert [one["metadata"]["name"] for one in found if one["kind"] == "Service"] == ["kr-keyrack"]


def test_the_password_of_the_url_is_in_the_secret_alone() -> None:
    found = of_set("valkey")
    holders = [one["kind"] for one in found if "keyrack:secret@" in yaml.safe_dump(one)]
    assert holders == ["Secret"]
    url = next(one for one in server(found)["env"] if one["name"] == "KEYRACK_ENGINE")
    reference = url["valueFrom"]["secretKeyRef"]
    secret = only(found, "Secret", "-valkey")
    assert (reference["name"], reference["key"]) == (secret["metadata"]["name"], "url")
    assert secret["stringData"].keys() == {"url"}


def test_another_valkey_url_replaces_the_pods() -> None:
    one, other = (workload(objects("--set", f"valkey.url=valkey://{name}")) for name in "ab")
    assert one["spec"]["template"] != other["spec"]["template"]


def test_the_valkey_of_somebody_else_is_used_with_secrets_of_ones_own() -> None:
    found = of_set("valkey-fixed")
    assert not [one for one in found if one["kind"] == "Secret"]
    secrets = {
        ("valkey-url", "address"): "valkeys-sentinel://s1,s2/?master=m",
        ("valkey-users", "default"): "secret",
    }
    environ = all_environment(found, secrets)
    assert environ["KEYRACK_ENGINE"] == "valkeys-sentinel://s1,s2/?master=m"
    assert environ["KEYRACK_ENGINE_PASSWORD"] == "secret"
    assert environ["KEYRACK_VALKEY_WAIT"] == "1"
    assert environ["KEYRACK_VALKEY_MAY_EVICT"] == "true"


@pytest.mark.parametrize("client", [False, True])
def test_the_certificates_for_valkey_are_where_the_program_looks(client: bool) -> None:
    found = objects(
        *("--set", "valkey.url=valkeys://valkey,valkey.tls.existingSecret=certificates"),
        *("--set", f"valkey.tls.clientCertificate={str(client).lower()}"),
    )
    volume, mount = (
        next(one for one in listed if one["name"] == "valkey-tls")
        for listed in (pod(found)["volumes"], server(found)["volumeMounts"])
    )
    assert mount == {"name": volume["name"], "mountPath": "/etc/keyrack/valkey", "readOnly": True}
    # Readable to the pod's group (fsGroup), and to nobody else.
    assert (volume["secret"]["secretName"], volume["secret"]["defaultMode"]) == (
        "certificates",
        0o440,
    )
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    environ = environment(found)
    names = ["CA", "CERT", "KEY"] if client else ["CA"]
    assert {environ.get(f"KEYRACK_ENGINE_{name}") for name in ("CA", "CERT", "KEY")} - {None} == {
        environ[f"KEYRACK_ENGINE_{name}"] for name in names
    }
    assert files == {environ[f"KEYRACK_ENGINE_{name}"] for name in names}


URLS = {
    "valkey://valkey": True,
    "valkey://user:pass%20word@valkey.example.org:6380/team": True,
    "valkeys://[::1]:6379": True,
    "valkey-cluster://a:1,b:2,c/prefix?shards=16": True,
    "valkeys-cluster://a": True,
    "valkey-sentinel://a,b/?master=m": True,
    "valkeys-sentinel://a:1/p?master=m": True,
    "redis://valkey": False,
    "valkey-clusters://a": False,
    "valkey://": False,
    "valkey:valkey": False,
    "valkey://a b": False,
    "valkey://a#b": False,
}


@pytest.mark.parametrize("url", URLS)
def test_the_chart_takes_the_addresses_that_the_program_takes(url: str, tmp_path: Path) -> None:
    try:
        load({"engine": url}, {})
        taken = True
    except SettingsError:
        taken = False
    assert taken is URLS[url]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"valkey": {"url": url}, "networkPolicy": {"enabled": False}}))
    if taken:
        assert all_environment(objects("--values", file))["KEYRACK_ENGINE"] == url
    else:
        assert "values don't meet the specifications of the schema" in refusal("--values", file)


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("valkey://a", [6379]),
        ("valkey://user:9@a:6380/7", [6380]),
        ("valkey://[::1]", [6379]),
        ("valkey-cluster://a:7001,b:7002,c", [7001, 7002, 6379]),
        ("valkeys-sentinel://a,b:26380/?master=m", [26379, 26380]),
    ],
)
def test_the_network_policy_lets_through_what_the_address_names(
    url: str, ports: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"valkey": {"url": url, "ports": ports}}))
    assert objects("--values", file)
    for port in ports:
        others = [one for one in ports if one != port] or [1]
        file.write_text(yaml.safe_dump({"valkey": {"url": url, "ports": others}}))
        said = refusal("--values", file)
        assert f"valkey.url names port {port}, which the network policy does not let" in said


def test_the_memory_volume_holds_the_store_and_is_part_of_the_container() -> None:
    found = objects("--set", "memory=1Gi", "--set", "resources.limits.memory=2Gi")
    volume = store_volume(found)
    assert volume["emptyDir"]["medium"] == "Memory"
    size = mebibytes(volume["emptyDir"]["sizeLimit"])
    assert environment(found)["KEYRACK_MEMORY"] == "1024m"
    assert 1024 < size < mebibytes(server(found)["resources"]["limits"]["memory"])
    mount = next(one for one in server(found)["volumeMounts"] if one["name"] == "store")
    assert Path(environment(found)["KEYRACK_STORE"]).parent == Path(mount["mountPath"])


def test_a_claim_has_no_label_that_changes() -> None:
    (claim,) = workload(of_set("persistent"))["spec"]["volumeClaimTemplates"]
    later = objects(
        "--values", GOLDEN / "persistent.values.yaml", "--set-string", "image.tag=other"
    )
    assert workload(later)["spec"]["volumeClaimTemplates"] == [claim]


@pytest.mark.parametrize("mode", ["snapshot", "commit"])
def test_a_store_that_is_kept_stays_in_memory_and_has_its_directory_on_the_volume(
    mode: str,
) -> None:
    found = objects("--set", f"persistence.enabled=true,persistence.durability={mode}")
    (claim,) = workload(found)["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in server(found)["volumeMounts"]}
    environ = environment(found)
    assert environ["KEYRACK_DURABILITY"] == mode
    # Not the top of the volume: that is root's, and may hold a lost+found.
    assert Path(environ["KEYRACK_DATA_DIR"]).parent == mounts[claim["metadata"]["name"]]
    volume = store_volume(found)
    assert volume["emptyDir"]["medium"] == "Memory"
    assert Path(environ["KEYRACK_STORE"]).parent == mounts[volume["name"]]


def test_a_store_that_is_kept_has_time_to_be_saved_and_loaded() -> None:
    def times(*flags: str) -> tuple[int, int]:
        found = objects(*flags)
        probe = server(found)["startupProbe"]
        allowed = probe["failureThreshold"] * probe["periodSeconds"]
        return pod(found)["terminationGracePeriodSeconds"], allowed

    large = ("--set", "memory=10Gi,resources.limits.memory=12Gi,persistence.size=60Gi")
    ends, starts = times(*large)
    assert (ends, starts) == times()
    kept_ends, kept_starts = times(*large, "--set", "persistence.enabled=true")
    # At 16 MiB a second, and at 2.
    assert kept_ends - ends == 640
    assert kept_starts - starts == 5120


def test_the_default_volume_is_large_enough_for_both_modes() -> None:
    for mode in ("snapshot", "commit"):
        assert objects("--set", f"persistence.enabled=true,persistence.durability={mode}")


def test_another_version_of_the_chart_alone_does_not_restart_the_pod(tmp_path: Path) -> None:
    done = helm("helm4", "package", CHART, "--version", "9.9.9", "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    later = objects(chart=tmp_path / "keyrack-9.9.9.tgz")
    assert workload(later)["metadata"]["labels"]["helm.sh/chart"] == "keyrack-9.9.9"
    assert workload(later)["spec"]["template"] == workload(objects())["spec"]["template"]


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ((), "1"),
        (VALKEY, "5"),
        (("--set", "drainSeconds=7"), "7"),
        (("--set", "drainSeconds=0"), "0"),
    ],
)
def test_a_pod_that_is_told_to_end_drains_by_itself(flags: tuple[str, ...], seconds: str) -> None:
    found = objects(*flags)
    assert environment(found)["KEYRACK_DRAIN_DELAY"] == seconds
    # A hook that sleeps would keep the signal from the server, which then cuts kept connections.
    assert "lifecycle" not in server(found)


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_grace_period_is_longer_than_drain_and_shutdown(values: str) -> None:
    found = of_set(values)
    drain = float(environment(found)["KEYRACK_DRAIN_DELAY"])
    shutdown = float(environment(found)["KEYRACK_SHUTDOWN_TIMEOUT"])
    supervisor = 2 * 1.5  # its Patience.grace: for the workers, and once more when they are killed
    assert pod(found)["terminationGracePeriodSeconds"] > drain + shutdown + supervisor


def test_a_rollback_can_replace_a_pod_that_never_got_ready() -> None:
    assert workload(objects())["spec"]["podManagementPolicy"] == "Parallel"


def test_prometheus_gets_the_alerts() -> None:
    rule = only(of_set("everything"), "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rules = yaml.safe_load((CHART.parent / "monitoring" / "rules.yaml").read_text())
    assert rule["spec"] == rules
    assert not [one for one in of_set("default") if one["kind"] == "PrometheusRule"]


def test_prometheus_finds_the_pods_once() -> None:
    found = of_set("ingress")
    monitor = only(found, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [
        one
        for one in found
        if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()
    ]
    assert [one["metadata"]["name"] for one in services] == ["kr-keyrack"]
    assert monitor["metadata"]["labels"]["release"] == "monitoring"
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["team"]}


def test_the_test_pod_may_connect_whoever_else_may_not() -> None:
    found = of_set("ingress")
    labels = only(found, "Pod")["metadata"]["labels"].items()
    (rule,) = only(found, "NetworkPolicy")["spec"]["ingress"]
    peers = [
        one["podSelector"]["matchLabels"]
        for one in rule["from"]
        if len(one) == 1 and "podSelector" in one
    ]
    assert any(peer.items() <= labels for peer in peers)
    assert len(rule["from"]) == 4


@pytest.mark.parametrize(
    ("values", "ports"), [("default", set()), ("valkey-fixed", {53, 6379, 26379})]
)
def test_the_pods_may_call_nobody_but_valkey(values: str, ports: set[int]) -> None:
    egress = only(of_set(values), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == ports


def test_browsers_may_use_the_names_of_the_ingress() -> None:
    names = environment(of_set("ingress"))["KEYRACK_ALLOWED_HOSTS"]
    given = "keyrack.internal,keyrack.example.org,.keys.example.org"
    assert names.startswith(given)


def test_pods_may_use_the_names_of_the_services_as_soon_as_names_are_given() -> None:
    names = environment(of_set("ingress"))["KEYRACK_ALLOWED_HOSTS"].split(",")
    name = only(of_set("ingress"), "Ingress")["metadata"]["name"]
    space = only(of_set("ingress"), "Ingress")["metadata"].get("namespace", "default")
    for service in (name, f"{name}-headless"):
        for host in (service, f"{service}.{space}", f"{service}.{space}.svc.cluster.local"):
            assert host in names, host
    assert "KEYRACK_ALLOWED_HOSTS" not in environment(of_set("default"))


# Names


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("keyrack", "keyrack"),
        ("my-keyrack", "my-keyrack"),
        ("v1.2", "v1-2-keyrack"),
        ("a" * 53, "a" * 50),
    ],
)
def test_names_fit_where_kubernetes_puts_them(release: str, name: str) -> None:
    found = objects(release=release)
    assert workload(found)["metadata"]["name"] == name
    for one in found:
        # A StatefulSet's pods carry its name and eleven characters as a label.
        assert len(one["metadata"]["name"]) <= 63
        for label in one["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", label)
    assert len(workload(found)["metadata"]["name"]) + 11 <= 63


def test_a_name_that_no_service_may_have_is_refused() -> None:
    assert '"1st-keyrack" cannot be the name of a Service' in refusal(release="1st")
    assert "Set fullnameOverride." in refusal(release="1st")


def test_a_digest_counts_instead_of_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    found = objects("--set-string", "image.tag=t", "--set", f"image.digest={digest}")
    assert server(found)["image"] == f"docker.io/keyrack/keyrack@{digest}"


def test_the_image_is_that_of_the_program_unless_said_otherwise() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == keyrack.__version__
    assert server(objects())["image"] == f"docker.io/keyrack/keyrack:{keyrack.__version__}"


def test_it_can_be_part_of_another_chart(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "keyrack").symlink_to(CHART)
    found = objects("--set", "keyrack.workers=3", "--set", "global.team=storage", chart=tmp_path)
    assert environment(found)["KEYRACK_WORKERS"] == "3"


def test_the_package_holds_the_chart_and_not_what_makes_it(tmp_path: Path) -> None:
    done = helm("helm4", "package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        names = set(package.getnames())
    assert {"keyrack/README.md", "keyrack/values.schema.json"} <= names
    assert not {"keyrack/readme.py", "keyrack/.checkov.yaml"} & names


@pytest.mark.parametrize(
    "values",
    sorted((ROOT / "deploy" / "jenkins").glob("*ing.yaml"))
    + sorted((ROOT / "deploy" / "jenkins").glob("production.yaml")),
    ids=lambda path: path.name,
)
def test_the_values_that_the_pipeline_deploys_with_are_accepted(values: Path) -> None:
    tag = "0123456789" * 4
    found = objects("--values", values, "--set-string", f"image.tag={tag}")
    assert server(found)["image"].endswith(":" + tag)


# What it refuses

REFUSALS = {
    "two pods without valkey": (
        {"replicaCount": 2},
        "replicaCount: 2 is not possible with the embedded store: it lives in the memory of one "
        "pod, and each further pod would be a store of its own. For more pods set valkey.url to a "
        "Valkey server; otherwise leave replicaCount at 1 and give that pod more workers.",
    ),
    "a store larger than the container": (
        {"memory": "2Gi"},
        "resources.limits.memory: 512Mi is too little for a store of 2Gi and 2 workers: set it to "
        "at least 2195Mi, or lower memory or workers.",
    ),
    "too many workers with valkey": (
        {"workers": 16, "valkey": {"url": "valkey://v"}},
        "resources.limits.memory: 512Mi is too little for 16 workers: set it to at least 915Mi, "
        "or lower workers.",
    ),
    "no memory limit": (
        {"resources": {"limits": {"memory": None}}},
        "resources.limits.memory is not set: a store in memory needs a limit. Set it to at least "
        "403Mi.",
    ),
    "a request above the limit": (
        {"resources": {"requests": {"memory": "1Gi"}}},
        "resources.requests.memory: 1Gi is more than resources.limits.memory: 512Mi: set both to "
        "the same.",
    ),
    "too little for clients": (
        {"settings": {"clientMemory": "4096k"}},
        "settings.clientMemory: 4096k is too little: set it to at least 8m, or leave it empty.",
    ),
    "a tiny store": ({"memory": "4Mi"}, "memory: 4Mi is too little: a store needs at least 8Mi."),
    "a volume that is too small for snapshots": (
        {"persistence": {"enabled": True, "durability": "snapshot", "size": "1023Mi"}},
        "persistence.size: 1023Mi is too little for what snapshot keeps of a store of 256Mi with "
        "settings.snapshotKeep: 2: set it to at least 1024Mi, or lower memory or snapshotKeep.",
    ),
    "use of valkey without an address": (
        {"valkey": {"wait": 1}},
        "valkey.auth, valkey.tls, valkey.wait and valkey.mayEvict say how to use Valkey, and "
        "nothing says where it is: set valkey.url or valkey.existingSecret.",
    ),
    "eviction with valkey": (
        {"settings": {"whenFull": "evict"}, "valkey": {"url": "valkey://v"}},
        "settings.whenFull: evict has no meaning with Valkey, which removes keys itself where its "
        "maxmemory-policy says so: set it to reject, and see valkey.mayEvict.",
    ),
    "a client's certificate from nowhere": (
        {"valkey": {"url": "valkeys://v", "tls": {"clientCertificate": True}}},
        "valkey.tls.clientCertificate is true and no Secret holds the certificate: set "
        "valkey.tls.existingSecret to one with tls.crt, tls.key and ca.crt.",
    ),
    "certificates without tls": (
        {"valkey": {"url": "valkey://v", "tls": {"existingSecret": "s"}}},
        "valkey.tls.existingSecret is set and valkey.url has no TLS: begin it with valkeys instead "
        "of valkey, or empty valkey.tls.existingSecret.",
    ),
    "two passwords": (
        {"valkey": {"url": "valkey://:p@v", "auth": {"existingSecret": "s"}}},
        "valkey.url holds a password and valkey.auth.existingSecret names another: keep one of "
        "them.",
    ),
    "a port that is closed": (
        {"valkey": {"url": "valkey-sentinel://a,b/?master=m"}},
        "valkey.url names port 26379, which the network policy does not let through: add it to "
        "valkey.ports.",
    ),
    "every origin with access control": (
        {"settings": {"corsOrigins": ["https://a.example", "*"]}},
        "settings.corsOrigins holds `*`, which lets in the pages of every site and does not go "
        "together with access control: name the origins, like https://app.example.org, or set "
        "auth.enabled to false.",
    ),
    "a volume with valkey": (
        {"persistence": {"enabled": True}, "valkey": {"url": "valkey://v"}},
        "persistence.enabled has no meaning with Valkey, which keeps the data itself: set "
        "persistence.enabled to false, or empty valkey.url and valkey.existingSecret.",
    ),
    "two sources of the url": (
        {"valkey": {"url": "valkey://v", "existingSecret": "s"}},
        "valkey.url and valkey.existingSecret are both set: keep the one that holds the URL and "
        "empty the other.",
    ),
    "a number of pods and an autoscaler": (
        {"replicaCount": 3, "valkey": {"url": "valkey://v"}},
        "replicaCount: 3 and valkey.autoscaling.enabled contradict each other: set "
        "valkey.autoscaling.minReplicas instead, or valkey.autoscaling.enabled to false.",
    ),
    "more pods at least than at most": (
        {"valkey": {"url": "valkey://v", "autoscaling": {"minReplicas": 9}}},
        "valkey.autoscaling.minReplicas: 9 is more than maxReplicas: 6: raise maxReplicas or lower "
        "minReplicas.",
    ),
    "an autoscaler with nothing to measure": (
        {"valkey": {"url": "valkey://v"}, "resources": {"requests": {"cpu": None}}},
        "valkey.autoscaling measures CPU against resources.requests.cpu, which is not set: set it, "
        "or valkey.autoscaling.enabled to false.",
    ),
    "a hash that looks like a number": (
        {"image": {"tag": 1234567}},
        "image.tag: 1234567 is a number, and a tag is a text: use --set-string instead of --set, "
        "or quotes in a file of values.",
    ),
    "a truth where a text is wanted": (
        {"service": {"annotations": {"example.org/internal": True}}},
        "service.annotations: true is no text at example.org/internal: use --set-string instead of "
        "--set, or quotes in a file of values.",
    ),
    "a claim that is not used": (
        {"persistence": {"existingClaim": "mine"}},
        "persistence.existingClaim is set and persistence.enabled is false: set it to true, or "
        "empty persistence.existingClaim.",
    ),
    "a class of no load balancer": (
        {"service": {"loadBalancerClass": "nlb"}},
        "service.loadBalancerClass and service.loadBalancerSourceRanges are about a load balancer, "
        "and service.type is ClusterIP: set it to LoadBalancer, or empty them.",
    ),
    "a port of nodes that none opens": (
        {"service": {"nodePort": 30088}},
        "service.nodePort is set and service.type is ClusterIP, which opens no port of the nodes: "
        "set it to NodePort or LoadBalancer, or empty service.nodePort.",
    ),
    "a variable of the chart's": (
        {"env": [{"name": "KEYRACK_WORKERS", "value": "3"}]},
        "env: KEYRACK_WORKERS is a variable that the chart sets from other values: use these, and "
        "leave it out of env.",
    ),
    "a route to no gateway": (
        {"httpRoute": {"enabled": True}},
        "httpRoute.enabled is true and httpRoute.parentRefs is empty: name the Gateway, like "
        "httpRoute.parentRefs[0].name=public.",
    ),
    "an ingress without a name": (
        {"ingress": {"enabled": True}},
        "ingress.enabled is true and ingress.hosts is empty: name at least one host, like "
        "ingress.hosts={keyrack.example.org}.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize("case", REFUSALS)
def test_what_contradicts_itself_is_refused_with_a_sentence(
    case: str, name: str, tmp_path: Path
) -> None:
    values, sentence = REFUSALS[case]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    said = refusal("--values", file, name=name)
    assert f": {sentence}\n" in said


def test_a_container_has_room_for_the_process_that_takes_a_snapshot() -> None:
    flags = ("--set", "memory=348Mi,persistence.size=8Gi")
    assert objects(*flags)
    said = refusal(*flags, "--set", "persistence.enabled=true")
    assert "resources.limits.memory: 512Mi is too little for a store of 348Mi" in said
    assert "set it to at least 531Mi" in said


@pytest.mark.parametrize(
    ("flags", "needed"),
    [
        # Two workers with 48Mi each, 32Mi of room, an eighth of it all for clients,
        ("memory=64Mi", 64 + 147),
        # but at least 16Mi
        ("memory=64Mi,workers=1", 64 + 80 + 16),
        # and at most 512Mi.
        ("memory=64Mi,workers=100", 64 + 4832 + 512),
        ("memory=64Mi,settings.clientMemory=100m", 64 + 128 + 100),
        ("memory=64Mi,settings.clientMemory=0.1g", 64 + 128 + 103),
        # A worker that takes a longer body apart needs more.
        ("memory=64Mi,settings.maxBody=16m,settings.clientMemory=8m", 64 + 128 + 2 * 24 + 8),
        ("memory=64Mi,settings.maxValue=10240k,settings.clientMemory=8m", 64 + 128 + 2 * 6 + 8),
    ],
)
def test_a_container_has_room_for_what_is_held_for_clients(flags: str, needed: int) -> None:
    def with_limit(limit: int) -> tuple[str, str]:
        memory = f"resources.limits.memory={limit}Mi,resources.requests.memory={limit}Mi"
        return "--set", f"{flags},{memory}"

    assert f"set it to at least {needed}Mi" in refusal(*with_limit(needed - 1))
    assert objects(*with_limit(needed))
    loaded, _ = load({}, environment(objects(*with_limit(needed))))
    assert loaded.memory == 64 << 20
    # The program's own arithmetic, on the container that the chart allows.
    client = loaded.client_memory or min(max((needed - 64) // 8, 16), 512) << 20
    bodies = max(loaded.max_body or 0, loaded.max_value, 8 << 20)
    workers = loaded.workers * ((24 << 20) + 3 * bodies)
    assert (64 << 20) + client + workers + (32 << 20) <= needed << 20


@pytest.mark.parametrize(
    ("memory", "keep", "needed"),
    # As many snapshots as are kept and one that is taken, each with a journal of the same length;
    # a journal is replaced by a snapshot from 64 MiB on.
    [("256Mi", 2, 3 * 512), ("16Mi", 2, 3 * 80), ("256Mi", 1, 2 * 512)],
)
def test_a_volume_that_cannot_hold_the_journals_is_refused(
    memory: str, keep: int, needed: int
) -> None:
    flags = ("--set", f"persistence.enabled=true,persistence.durability=commit,memory={memory}")
    flags = (*flags, "--set", f"settings.snapshotKeep={keep}")
    said = refusal(*flags, "--set", f"persistence.size={needed - 1}Mi")
    assert f"commit keeps of a store of {memory}" in said
    assert f"set it to at least {needed}Mi" in said
    assert objects(*flags, "--set", f"persistence.size={needed}Mi")


# What the cluster would refuse


KEPT = "persistence.enabled=true,persistence.size=4Gi"
"""Values of a release that is there."""

FORBIDDEN = {
    "a larger volume": (
        "persistence.enabled=true,persistence.size=8Gi",
        ["has a volume of 4Gi", "want a volume of 8Gi", "patch pvc data-kr-keyrack-0 --patch"],
    ),
    "another class": (
        f"{KEPT},persistence.storageClassName=fast",
        ["the default storage class), and these values want", "storage class fast)"],
    ),
    "no volume": ("persistence.enabled=false", ["has a volume of 4Gi", "these values want none"]),
}


def looked_up(cluster: Cluster) -> tuple[object, ...]:
    """Return the flags with which Helm looks things up there."""
    flags = ("--dry-run=server", "--disable-openapi-validation", "--kubeconfig")
    return *flags, cluster.kubeconfig


def there(flags: str, kind: str = "StatefulSet") -> Object:
    """Return the workload of a release as a cluster has it."""
    return only(objects("--set", flags), kind)


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize("case", FORBIDDEN)
def test_another_volume_is_refused_before_anything_is_changed(
    case: str, name: str, tmp_path: Path
) -> None:
    flags, sentences = FORBIDDEN[case]
    with Cluster(tmp_path, there(KEPT)) as cluster:
        seen = looked_up(cluster)
        said = refusal("--set", flags, *seen, name=name)
        for sentence in sentences:
            assert sentence in said
        assert "kubectl --namespace team delete statefulset kr-keyrack --cascade=orphan" in said
        assert objects("--set", f"{KEPT},workers=3", *seen, name=name)


def claim(size: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-kr-keyrack-0", "namespace": "team"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def test_a_volume_that_would_not_grow_is_told_with_the_command_that_makes_it(
    tmp_path: Path,
) -> None:
    grown = ("--set", "persistence.enabled=true,persistence.size=8Gi")
    # The StatefulSet was removed, as the first sentence said, and the claim was not patched.
    with Cluster(tmp_path, claim("4Gi")) as cluster:
        said = refusal(*grown, *looked_up(cluster))
    assert "8Gi is more than the claim data-kr-keyrack-0 asks for, 4Gi" in said
    patch = re.search(r"kubectl (.*) --patch '(.*)'", said)
    assert patch is not None
    assert patch[1] == "--namespace team patch pvc data-kr-keyrack-0"
    assert json.loads(patch[2]) == {"spec": {"resources": {"requests": {"storage": "8Gi"}}}}
    with Cluster(tmp_path, claim("8Gi")) as cluster:
        assert objects(*grown, *looked_up(cluster))


@pytest.mark.parametrize("flags", ["workers=2", "valkey.url=valkey://v"])
def test_a_selector_that_changes_is_refused(flags: str, tmp_path: Path) -> None:
    name = "fullnameOverride=kr-keyrack"
    found = workload(objects("--set", f"{flags},{name}"))
    with Cluster(tmp_path, found) as cluster:
        seen = looked_up(cluster)
        said = refusal("--set", f"{flags},{name},nameOverride=other", *seen)
        assert f"the {found['kind']} kr-keyrack was made by another release" in said
        assert objects("--set", f"{flags},{name}", *seen)


BEFORE = CHART_SUPPORT / "keyrack-0.1.0.tgz"
"""The chart as it was before version 0.2.0."""


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize(
    "flags",
    ["workers=2", KEPT, f"{KEPT},persistence.storageClassName=gp3", "valkey.url=valkey://v"],
)
def test_an_upgrade_from_the_chart_of_before_changes_nothing_that_is_forbidden(
    flags: str, name: str, tmp_path: Path
) -> None:
    before = objects("--set", flags, chart=BEFORE)
    old = workload(before)
    secrets = [one for one in before if one["kind"] == "Secret"]
    for secret in secrets:  # as a cluster gives them back
        given = secret.pop("stringData")
        secret["data"] = {
            key: base64.b64encode(one.encode()).decode() for key, one in given.items()
        }
    with Cluster(tmp_path, old, *secrets) as cluster:
        seen = looked_up(cluster)
        after = objects("--set", flags, *seen, name=name)
    new = workload(after)
    for fixed in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"):
        assert new["spec"].get(fixed) == old["spec"].get(fixed)
    assert {(one["kind"], one["metadata"]["name"]) for one in before} <= {
        (one["kind"], one["metadata"]["name"]) for one in after
    }
    # Whoever has a token of before goes on to be let in.
    tokens = [one["data"]["token"] for one in secrets if "token" in one["data"]]
    made = [
        one["stringData"]["token"]
        for one in after
        if one["kind"] == "Secret" and "token" in one["stringData"]
    ]
    assert [base64.b64decode(one).decode() for one in tokens] == made


@pytest.mark.parametrize("values", VALUE_SETS)
def test_values_of_the_chart_of_before_are_still_accepted(values: str, tmp_path: Path) -> None:
    done = helm("helm4", "show", "values", BEFORE)
    file = tmp_path / "values.yaml"
    file.write_text(done.stdout)
    assert objects("--values", file, "--values", GOLDEN / f"{values}.values.yaml")


def test_a_claim_of_ones_own_is_mounted_and_none_is_made() -> None:
    found = objects("--set", f"{KEPT},persistence.existingClaim=mine")
    assert "volumeClaimTemplates" not in workload(found)["spec"]
    volume = next(one for one in pod(found)["volumes"] if one["name"] == "data")
    assert volume["persistentVolumeClaim"] == {"claimName": "mine"}
    assert "data" in {mount["name"] for mount in server(found)["volumeMounts"]}


def test_a_claim_has_the_modes_and_the_end_that_are_wanted() -> None:
    spec = workload(of_set("persistent"))["spec"]
    (one,) = spec["volumeClaimTemplates"]
    assert one["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert one["metadata"]["annotations"] == {"example.org/backup": "daily"}
    kept = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    assert spec["persistentVolumeClaimRetentionPolicy"] == kept


def test_a_test_pod_that_succeeded_is_removed_where_helm_has_read_its_log() -> None:
    policies = [
        only(objects(name=name), "Pod")["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        for name in HELMS
    ]
    assert policies == ["before-hook-creation", "before-hook-creation,hook-succeeded"]


# What other charts have, too


def test_all_objects_have_the_common_labels_and_annotations() -> None:
    found = of_set("everything")
    for one in found:
        assert one["metadata"]["labels"]["example.org/owner"] == "storage", one["kind"]
        assert one["metadata"]["annotations"]["example.org/note"] == "all", one["kind"]
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "keyrack"
    # A change of them restarts no pod, which would empty a store in memory.
    template = workload(found)["spec"]["template"]["metadata"]
    assert "example.org/owner" not in template["labels"]
    assert template["annotations"]["example.org/note"] == "watched"
    same = objects("--set", "commonLabels.app\\.kubernetes\\.io/name=other")
    names = {one["metadata"]["labels"]["app.kubernetes.io/name"] for one in same}
    assert names == {"keyrack"}


@pytest.mark.parametrize("kind", ["Service", "Ingress", "HTTPRoute", "ServiceAccount"])
def test_an_object_s_own_annotation_counts_more_than_a_common_one(kind: str) -> None:
    flags = "ingress.enabled=true,ingress.hosts={a.example.org},httpRoute.enabled=true"
    own = ",".join(f"{one}.annotations.a=own" for one in OWN_ANNOTATIONS.values())
    common = "commonAnnotations.a=all,httpRoute.parentRefs[0].name=g"
    found = objects("--set", f"{flags},{own},{common}")
    one = next(o for o in found if o["kind"] == kind and "headless" not in o["metadata"]["name"])
    assert OWN_ANNOTATIONS[kind]
    assert one["metadata"]["annotations"] == {"a": "own"}


OWN_ANNOTATIONS = {
    "Service": "service",
    "Ingress": "ingress",
    "HTTPRoute": "httpRoute",
    "ServiceAccount": "serviceAccount",
}


def test_pods_have_what_is_added_to_them() -> None:
    found = of_set("everything")
    spec = pod(found)
    assert [one["name"] for one in spec["containers"]] == ["keyrack", "beside"]
    assert [one["name"] for one in spec["initContainers"]] == ["first"]
    assert "scratch" in {one["name"] for one in spec["volumes"]}
    assert {"name": "scratch", "mountPath": "/scratch"} in server(found)["volumeMounts"]
    assert environment(found)["TZ"] == "Europe/Paris"
    sources = server(found)["envFrom"]
    assert sources == [
        {"secretRef": {"name": "keyrack-settings"}},
        {"configMapRef": {"name": "more"}},
    ]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ((), True),
        (("--set", "persistence.enabled=true"), False),
        (("--set", "valkey.url=valkey://v"), False),
    ],
)
def test_only_a_store_that_is_in_memory_alone_keeps_its_node(
    settings: tuple[str, ...], kept: bool
) -> None:
    template = workload(objects(*settings))["spec"]["template"]
    annotations = template["metadata"].get("annotations", {})
    assert (annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") == "false") is kept
    assert (annotations.get("karpenter.sh/do-not-disrupt") == "true") is kept


def test_the_values_for_a_load_balancer_of_aws_ask_for_one_that_ends_tls() -> None:
    values = ROOT / "deploy/cluster/example-values.yaml"
    found = objects("--values", values)
    ingress = only(found, "Ingress")
    controller = yaml.safe_load((ROOT / "deploy/cluster/load-balancer-controller.yaml").read_text())
    assert ingress["spec"]["ingressClassName"] == controller["ingressClass"]
    assert ingress["spec"]["tls"] == [{"hosts": ["keyrack.example.org"]}]
    annotations = ingress["metadata"]["annotations"]
    ports = json.loads(annotations["alb.ingress.kubernetes.io/listen-ports"])
    assert ports == [{"HTTPS": 443}]
    probe = server(found)["readinessProbe"]["httpGet"]["path"]
    assert annotations["alb.ingress.kubernetes.io/healthcheck-path"] == probe
    assert environment(found)["KEYRACK_DRAIN_DELAY"] == "20"


def test_whoever_wants_its_pod_moved_can_say_so() -> None:
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    escaped = key.replace(".", "\\.")
    found = objects("--set-string", f"podAnnotations.{escaped}=true")
    annotations = workload(found)["spec"]["template"]["metadata"]["annotations"]
    assert annotations[key] == "true"


@pytest.mark.parametrize("wish", ["affinity", "nodeSelector", "tolerations"])
def test_the_test_pod_goes_where_the_others_go(wish: str) -> None:
    found = of_set("everything")
    assert only(found, "Pod")["spec"][wish] == pod(found)[wish]


def test_probes_can_be_tuned() -> None:
    container = server(of_set("everything"))
    assert container["startupProbe"]["failureThreshold"] == 300
    assert container["readinessProbe"]["periodSeconds"] == 3
    assert container["livenessProbe"]["timeoutSeconds"] == 9


def test_a_load_balancer_has_its_class_its_clients_and_its_port() -> None:
    spec = only(of_set("everything"), "Service", "store")["spec"]
    assert spec["loadBalancerClass"] == "service.k8s.aws/nlb"
    assert spec["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert [port["nodePort"] for port in spec["ports"]] == [30088]


def test_a_gateway_leads_to_the_service() -> None:
    found = of_set("everything")
    route = only(found, "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [
        {"name": "public", "namespace": "gateways", "sectionName": "https"}
    ]
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    service = only(found, "Service", backend["name"])
    assert backend["port"] in {port["port"] for port in service["spec"]["ports"]}
    allowed = environment(found)["KEYRACK_ALLOWED_HOSTS"].split(",")
    assert {"keyrack.example.org", ".keys.example.org"} <= set(allowed)


def test_the_chart_says_where_it_comes_from() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["home"] in chart["sources"]
    assert chart["maintainers"]
    _, _, icon = chart["icon"].partition("/main/")
    assert (ROOT / icon).read_text().lstrip().startswith("<svg")


@pytest.mark.parametrize(
    "how", ["auth.existingSecret=s", "tls.existingSecret=s", "wait=2", "mayEvict=true"]
)
def test_nothing_is_said_about_a_valkey_that_is_not_used(how: str) -> None:
    assert "nothing says where it is" in refusal("--set", f"valkey.{how}")


def test_every_sentence_of_the_chart_is_shown_above() -> None:
    written = (CHART / "templates" / "_checks.tpl").read_text().count("{{- fail ")
    below = ("a selector that changes", "another volume", "a volume that would not grow")
    assert written == len(REFUSALS) + len(("a name that no service may have", *below))


@pytest.mark.parametrize("name", HELMS)
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"replicaCount": "two"}, "replicaCount"),
        ({"memory": 512}, "memory"),
        ({"memory": "1.5Gi"}, "memory"),
        ({"image": {"tag": [1234567]}}, "tag"),
        ({"startupProbe": {"periodSeconds": 0}}, "periodSeconds"),
        ({"httpRoute": {"parentRefs": [{"gateway": "g"}]}}, "parentRefs"),
        ({"persistence": {"accessModes": ["all"]}}, "accessModes"),
        ({"env": [{"value": "x"}]}, "env"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"ingress": {"enabled": "yes"}}, "enabled"),
        ({"ingress": {"enabled": True, "hosts": ["https://x"]}}, "hosts"),
        ({"networkPolicy": {"allowFrom": [{}]}}, "allowFrom"),
        ({"valkey": {"url": "http://valkey"}}, "url"),
        ({"valkey": {"wait": "all"}}, "wait"),
        ({"settings": {"maxConnections": "many"}}, "maxConnections"),
        ({"persistence": {"durability": "none"}}, "durability"),
        ({"settings": {"logLevel": "loud"}}, "logLevel"),
        ({"drainSeconds": -1}, "drainSeconds"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_named(
    given: dict[str, Any], named: str, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(given))
    said = refusal("--values", file, name=name)
    assert "values don't meet the specifications of the schema" in said
    assert named in said


def _closed(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object]]:
    """Yield every object of the schema that has named members."""
    if "properties" in schema:
        yield path, schema
        for name, member in schema["properties"].items():
            yield from _closed(member, (*path, name))
    if "items" in schema:
        yield from _closed(schema["items"], (*path, "[]"))


def test_the_schema_is_closed_and_only_maps_are_free() -> None:
    for path, schema in _closed(SCHEMA):
        assert schema["additionalProperties"] is False, path
    free = {
        name
        for path, schema in _closed(SCHEMA)
        for name, member in schema["properties"].items()
        if member.get("type") == "object" and "properties" not in member
    }
    maps = {"annotations", "labels", "matchLabels", "podAnnotations", "podLabels", "nodeSelector"}
    common = {"commonLabels", "commonAnnotations"}
    assert free == maps | common | {"affinity", "global"}


@pytest.mark.parametrize("path", [p for p, _ in _closed(SCHEMA) if "[]" not in p], ids=".".join)
def test_an_unknown_key_is_refused_everywhere(path: tuple[str, ...]) -> None:
    said = refusal("--set", ".".join((*path, "unknown")) + "=1")
    assert "additional properties 'unknown' not allowed" in said


def test_schema_and_values_know_the_same_keys() -> None:
    def keys(values: Object, schema: Object, path: str = "") -> None:
        known = schema["properties"].keys() - {"global"}
        if path.startswith("resources."):
            assert values.keys() <= known, path  # a CPU limit is allowed, and not recommended
        else:
            assert values.keys() == known, path
        for name, value in values.items():
            if "properties" in schema["properties"][name]:
                keys(value, schema["properties"][name], f"{path}{name}.")

    keys(VALUES, SCHEMA)


def test_an_unreachable_cluster_ends_it_before_anything_is_changed(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
            }
        )
    )
    for name in HELMS:
        flags = ("--install", "--wait", "--timeout", "5s", "--kubeconfig", config)
        done = helm(name, "upgrade", "keyrack", CHART, *flags)
        assert done.returncode != 0
        assert "ubernetes cluster unreachable" in done.stderr


# What the program thinks of it

LEFT_TO_THE_CHART = {
    "port": "the Service's port is service.port; the pod has its own address",
    "uds": "nobody shares the pod's file system",
    "tls_cert": "TLS ends at the Ingress",
    "tls_key": "TLS ends at the Ingress",
    "workers": "workers",
    "store": "the volume",
    "memory": "memory",
    "durability": "persistence.durability",
    "data_dir": "the volume",
    "engine": "valkey.url",
    "engine_password": "valkey.auth",
    "engine_password_file": "valkey.auth, as a variable",
    "engine_ca": "valkey.tls",
    "engine_cert": "valkey.tls",
    "engine_key": "valkey.tls",
    "valkey_wait": "valkey.wait",
    "valkey_may_evict": "valkey.mayEvict",
    "tls_min": "HTTPS ends at the Ingress",
    "tls_client_ca": "HTTPS ends at the Ingress",
    "tls_client_required": "as tls_client_ca",
    "auth": "auth.enabled and auth.existingSecret",
    "token": "auth, as hashes",
    "token_file": "auth, as hashes",
    "audit_log": "what a pod logs is collected; nobody reads its files",
    "takeover": "process 1 of a container cannot hand over: the container ends with it",
    "takeover_timeout": "as takeover",
    "drain_delay": "drainSeconds",
}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def test_every_setting_of_the_program_has_a_value() -> None:
    expected = {_camel(name) for name in ROWS if name not in LEFT_TO_THE_CHART}
    assert VALUES["settings"].keys() == expected


def test_the_settings_of_the_chart_are_the_defaults_of_the_program() -> None:
    loaded, _ = load({}, environment(objects()))
    for name in ROWS.keys() - LEFT_TO_THE_CHART.keys() - {"host"}:
        assert getattr(loaded, name) == getattr(Settings(), name), name


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_program_takes_every_variable(values: str, tmp_path: Path) -> None:
    found = of_set(values)
    secrets = {("valkey-url", "address"): "valkeys://v", ("valkey-users", "default"): "secret"}
    environ = all_environment(found, secrets)
    for name in ("CA", "CERT", "KEY"):  # files that have to be there
        if path := environ.get(f"KEYRACK_ENGINE_{name}"):
            environ[f"KEYRACK_ENGINE_{name}"] = str(tmp_path / Path(path).name)
            (tmp_path / Path(path).name).touch()
    loaded, warnings = load({}, environ)
    assert warnings == []
    assert (loaded.port, loaded.workers) == (8088, int(environ["KEYRACK_WORKERS"]))
    if workload(found)["kind"] == "StatefulSet":
        assert loaded.memory == int(environ["KEYRACK_MEMORY"][:-1]) << 20
    assert server(found)["args"] == ["serve"]


def test_numbers_reach_the_program_as_they_were_meant() -> None:
    environ = environment(of_set("everything"))
    assert environ["KEYRACK_EVENTS"] == "5000000"
    assert environ["KEYRACK_HEAD_TIMEOUT"] == "2.5"
    assert environ["KEYRACK_ACCESS_LOG"] == "true"
    assert environ["KEYRACK_MAX_CONNECTIONS"] == "10000"
    assert not {"KEYRACK_MAX_BODY", "KEYRACK_MAX_CONNECTIONS"} & environment(objects()).keys()


def test_the_container_runs_is_verified_keeps_its_store_and_ends_in_time(tmp_path: Path) -> None:
    node = Node(objects("--set", "memory=32Mi"), tmp_path)
    running = node.start()
    try:
        done = node.run_test_pod()
        assert done.returncode == 0, done.stderr + node.log()
        assert done.stdout.endswith("all checks passed\n")
        assert f'"memory":{32 << 20},"workers":2' in node.log()
        # The container is killed and started again; the pod, and so its volume, stay.
        node.cli("set", "kept", "here")
        node.kill(running)
        running = node.start()
        assert node.run_test_pod().returncode == 0
        assert node.cli("get", "kept") == "here"
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        assert time.monotonic() - began < pod(node.found)["terminationGracePeriodSeconds"]
    finally:
        running.kill()
        running.wait(10)
        node.close()


@pytest.mark.parametrize("mode", ["snapshot", "commit"])
def test_the_next_pod_is_filled_from_the_volume_of_the_last(mode: str, tmp_path: Path) -> None:
    claimed = tmp_path / "claimed"
    claimed.mkdir()
    flags = f"memory=16Mi,workers=1,persistence.enabled=true,persistence.durability={mode}"
    found = objects("--set", f"{flags},settings.whenFull=evict")
    for life in "12":
        (tmp_path / life).mkdir()
        node = Node(found, tmp_path / life, claimed)
        running = node.start()
        try:
            done = node.run_test_pod()
            assert done.returncode == 0, done.stderr + node.log()
            if life == "1":
                node.cli("set", "kept", "here")
            assert node.cli("get", "kept") == "here"
            if mode == "commit":  # as a node that dies
                node.kill(running)
            running.terminate()
            running.wait(30)
        finally:
            running.kill()
            running.wait(10)
            node.close()


class Caller(threading.Thread):
    """Writes without a break, many times on each connection, to any pod, as behind a Service."""

    def __init__(self, endpoints: list[int], token: dict[str, str], stop: threading.Event) -> None:
        super().__init__()
        self._endpoints = endpoints
        self._token = token
        self._stop_asked = stop
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.is_set():
            port = random.choice(tuple(self._endpoints))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                for _ in range(50):
                    if not self._write(connection) or self._stop_asked.is_set():
                        break
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()

    def _write(self, connection: http.client.HTTPConnection) -> bool:
        """Write once; False when the answer said that it is the connection's last."""
        connection.request("PUT", "/v1/keys/written", b"x", self._token)
        answer = connection.getresponse()
        answer.read()
        self.answered += answer.status < 300
        return not answer.will_close


@pytest.mark.parametrize("drain", [2, 0])
def test_a_rolling_restart_fails_no_request_thanks_to_the_drain(drain: int, tmp_path: Path) -> None:
    """Two pods on one Valkey, and everybody learns a second late that the first one goes."""
    valkey = Server()
    nodes = []
    for number in "12":
        (tmp_path / number).mkdir()
        found = objects(
            *("--set", f"workers=1,drainSeconds={drain},valkey.ports={{{valkey.port}}}"),
            *("--set", f"valkey.url=valkey://127.0.0.1:{valkey.port}/kr"),
        )
        nodes.append(Node(found, tmp_path / number))
    pods = [node.start() for node in nodes]
    endpoints = [node.port for node in nodes]
    stop = threading.Event()
    callers = [Caller(endpoints, nodes[0].token, stop) for _ in range(4)]
    try:
        for node in nodes:
            done = node.run_test_pod()
            assert done.returncode == 0, done.stderr + node.log()
        nodes[0].cli("set", "shared", "by both")
        assert nodes[1].cli("get", "shared") == "by both"
        for caller in callers:
            caller.start()
        while min(caller.answered for caller in callers) < 100:
            time.sleep(0.01)
        late = threading.Timer(1.0, endpoints.remove, (nodes[0].port,))
        late.start()
        pods[0].terminate()
        assert pods[0].wait(30) == 0
        late.join()
    finally:
        stop.set()
        for caller in callers:
            if caller.is_alive():
                caller.join()
        for process, node in zip(pods, nodes, strict=True):
            process.kill()
            process.wait(10)
            node.close()
        valkey.remove()
    # Without the drain requests do fail, which shows that this would notice.
    failures = [failure for caller in callers for failure in caller.failures]
    assert (failures == []) is (drain > 0), failures[:3]


def test_clients_of_the_embedded_store_wait_no_longer_than_its_pod_takes(tmp_path: Path) -> None:
    seen = replace("--set", "memory=32Mi,persistence.enabled=true", directory=tmp_path, keys=1000)
    drain = float(environment(objects())["KEYRACK_DRAIN_DELAY"])
    assert seen.answered > 400
    # While the pod drains they are served. What is added is for a busy machine.
    assert seen.longest < seen.ending - drain + seen.starting + 2
    assert seen.refused > 0


# What it says


def test_the_table_of_values_is_current_and_every_value_has_a_comment() -> None:
    command = [sys.executable, str(CHART / "readme.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        ("default", ["it ends with the pod", "http://kr-keyrack.team:8088"]),
        ("ingress", ["From outside: https://keyrack.example.org"]),
        ("persistent", ["every write that was answered", "leaves the claim data-kr-keyrack-0"]),
        ("valkey", ["The store is in Valkey, at the address in the Secret kr-keyrack-valkey."]),
        ("valkey-fixed", ["at the address in the Secret valkey-url."]),
    ],
)
def test_the_notes_say_the_next_command(values: str, sentences: list[str]) -> None:
    # Helm 3 renders them with the rest, but shows them only to whom a cluster answers.
    flags = ("--dry-run=client", "--namespace", "team")
    file = GOLDEN / f"{values}.values.yaml"
    done = helm("helm4", "install", "kr", CHART, *flags, "--values", file)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "helm test kr --namespace team --logs" in notes
    for sentence in sentences:
        assert sentence in notes
    assert not re.search(r"\n\n\n", notes)


def _documented_flags() -> Iterator[list[str]]:
    """Yield the flags of each helm command in the docs that sets values."""
    for page in (ROOT / "docs" / "deploy.md", CHART / "README.md"):
        text = page.read_text().replace("\\\n", " ").replace("$(git rev-parse HEAD)", "0" * 40)
        for line in text.splitlines():
            words = shlex.split(line) if line.startswith("    ") and "--set" in line else []
            pairs = itertools.pairwise(words)
            flags = [[flag, value] for flag, value in pairs if flag.startswith("--set")]
            if flags:
                yield list(itertools.chain.from_iterable(flags))


def test_every_command_of_the_docs_renders() -> None:
    found = list(_documented_flags())
    assert len(found) == 12
    for flags in found:
        with_valkey = any(value.startswith("valkey.") for value in flags)
        kind = "Deployment" if with_valkey else "StatefulSet"
        assert workload(objects(*flags))["kind"] == kind


def test_the_values_of_the_docs_render(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    block = re.search(r"^    memory: .*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    file = tmp_path / "values.yaml"
    file.write_text(textwrap.dedent(block[0]))
    assert environment(objects("--values", file))["KEYRACK_MEMORY"] == "4096m"


def test_every_make_target_of_the_docs_exists() -> None:
    named: set[str] = set()
    for page in (ROOT / "docs" / "deploy.md", CHART / "README.md"):
        for words in re.findall(r"(?:^    |`)make ([a-z -]+)", page.read_text(), re.MULTILINE):
            named |= set(words.split())
    assert {"chart-test", "image", "rollback"} <= named
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^([a-z-]+):", done.stdout, re.MULTILINE))


# Access


def test_the_secret_that_is_made_lets_in_its_tokens_and_nobody_else(tmp_path: Path) -> None:
    from keyrack.access import tokens
    from keyrack.access.file import load

    for name in HELMS:
        secret = only(objects("--set", "auth.anonymous={read-only}", name=name), "Secret", "-auth")
        data = secret["stringData"]
        path = tmp_path / "auth.toml"
        path.write_text(data["auth.toml"])
        path.chmod(0o600)
        access = load(str(path)).access
        assert access.anonymous == ("read-only",)
        told = [(one.id, one.hash, one.policies) for one in access.tokens]
        assert told == [
            (tokens.id_of(data[key]), tokens.digest(data[key]), (policy,))
            for key, policy in (("token", "admin"), ("metrics-token", "metrics"))
        ]


def test_what_more_is_said_of_access_is_in_the_file() -> None:
    text = only(of_set("everything"), "Secret", "-auth")["stringData"]["auth.toml"]
    assert text.endswith('\n[policies]\nteam = ["all keys:team/*"]\n')


def test_the_pods_see_the_hashes_and_no_token() -> None:
    found = objects()
    volume = next(one for one in pod(found)["volumes"] if one["name"] == "auth")
    mount = next(one for one in server(found)["volumeMounts"] if one["name"] == "auth")
    assert volume["secret"]["items"] == [{"key": "auth.toml", "path": "auth.toml"}]
    assert "subPath" not in mount  # what is mounted so is never updated
    assert environment(found)["KEYRACK_AUTH"] == mount["mountPath"] + "/auth.toml"
    assert "KEYRACK_TOKEN" not in all_environment(found)


def test_the_test_pod_and_prometheus_have_their_tokens() -> None:
    found = objects("--set", "serviceMonitor.enabled=true")
    name = only(found, "Secret", "-auth")["metadata"]["name"]
    (container,) = only(found, "Pod")["spec"]["containers"]
    reference = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": name, "key": "token"}
    (endpoint,) = only(found, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": name, "key": "metrics-token"}


def test_a_secret_of_ones_own_is_used_in_every_place() -> None:
    flags = ("--set", "auth.existingSecret=mine", "--set", "serviceMonitor.enabled=true")
    text = rendered(*flags)
    assert "kr-keyrack-auth" not in text
    assert text.count("mine") == 3


def test_access_control_can_be_switched_off() -> None:
    found = objects("--set", "auth.enabled=false")
    assert environment(found)["KEYRACK_AUTH"] == "none"
    assert not [one for one in found if one["kind"] == "Secret"]
    assert "env" not in only(found, "Pod")["spec"]["containers"][0]
