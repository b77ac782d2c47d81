"""Render the chart with real Helm 3 and Helm 4, and look things up in what came out."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "chart"
GOLDEN = ROOT / "tests" / "delivery" / "chart_golden"
TOOLS = Path(os.environ.get("CHART_TOOLS", ROOT / ".delivery" / "chart"))
HELMS = ("helm3", "helm4")
VALUE_SETS = tuple(sorted(path.name.split(".")[0] for path in GOLDEN.glob("*.values.yaml")))
OLDEST, NEWEST = "1.25", "1.36"

Object = dict[str, Any]


def helm(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Helm that knows no cluster, and return what it said."""
    command = [str(TOOLS / "bin" / name), *map(str, arguments)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
    environ |= {"KUBECONFIG": os.devnull, "HOME": os.environ.get("TMPDIR", "/tmp")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environ, check=False
    )


@functools.cache
def rendered(
    *arguments: object,
    name: str = "helm4",
    kube: str = NEWEST,
    release: str = "kr",
    chart: Path = CHART,
) -> str:
    """Return what `helm template` makes, without the empty lines in which Helm 3 and 4 differ."""
    flags = ("--namespace", "team", "--kube-version", kube)
    done = helm(name, "template", release, chart, *flags, *arguments)
    assert done.returncode == 0, done.stderr
    return "".join(line + "\n" for line in done.stdout.splitlines() if line.strip())


def objects(*arguments: object, **more: Any) -> list[Object]:
    """Return the objects that `helm template` makes."""
    return [one for one in yaml.safe_load_all(rendered(*arguments, **more)) if one]


def of_set(values: str, **more: Any) -> list[Object]:
    """Return the objects of one of the value sets."""
    return objects("--values", GOLDEN / f"{values}.values.yaml", **more)


def only(found: list[Object], kind: str, name: str = "") -> Object:
    """Return the one object of a kind (and name)."""
    (one,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"].endswith(name)]
    return one


def workload(found: list[Object]) -> Object:
    """Return the StatefulSet or Deployment; there is exactly one of the two."""
    (one,) = [o for o in found if o["kind"] in ("StatefulSet", "Deployment")]
    return one


def pod(found: list[Object]) -> Object:
    """Return the specification of the pods that serve."""
    spec: Object = workload(found)["spec"]["template"]["spec"]
    return spec


def server(found: list[Object]) -> Object:
    """Return the container that serves."""
    container = pod(found)["containers"][0]
    return dict(container)


def store_volume(found: list[Object]) -> Object:
    """Return the volume in memory that holds the store."""
    volume: Object = next(one for one in pod(found)["volumes"] if one["name"] == "store")
    return volume


def environment(found: list[Object]) -> dict[str, str]:
    """Return the server's variables that have a value in the open."""
    return {one["name"]: one["value"] for one in server(found)["env"] if "value" in one}


def all_environment(
    found: list[Object], secrets: dict[tuple[str, str], str] | None = None
) -> dict[str, str]:
    """Return all variables of the server; `secrets` are those of others, by name and key."""
    known = dict(secrets or {})
    for one in found:
        if one["kind"] == "Secret":
            known |= {(one["metadata"]["name"], k): v for k, v in one["stringData"].items()}
    references = {
        one["name"]: one["valueFrom"]["secretKeyRef"]
        for one in server(found)["env"]
        if "valueFrom" in one
    }
    return environment(found) | {
        name: known[secret["name"], secret["key"]] for name, secret in references.items()
    }


def refusal(*arguments: object, name: str = "helm4", release: str = "kr") -> str:
    """Return why Helm refuses to render."""
    flags = ("--namespace", "team", "--kube-version", NEWEST)
    done = helm(name, "template", release, CHART, *flags, *arguments)
    assert done.returncode != 0, "it was not refused"
    return done.stderr


def mebibytes(size: str) -> int:
    """Return a size in Mi."""
    return int(size[:-2]) * {"Mi": 1, "Gi": 1024}[size[-2:]]
