"""What the tests know of the project's pipeline, and how a build of it is run by the harness."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
JENKINS = ROOT / "deploy" / "jenkins"
JENKINSFILE = (ROOT / "Jenkinsfile").read_text()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "5" * 64


def casc() -> dict[str, Any]:
    """The controller's configuration."""
    return yaml.safe_load((JENKINS / "jenkins.yaml").read_text())


def plugins() -> dict[str, str]:
    """What plugins.txt installs: name -> version."""
    lines = (JENKINS / "plugins.txt").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if line and not line.startswith("#"))


def credentials(configuration: dict[str, Any]) -> dict[str, str]:
    """The credentials that builds may use: id -> kind."""
    found = {}
    for domain in configuration["credentials"]["system"]["domainCredentials"]:
        for entry in domain["credentials"]:
            ((kind, values),) = entry.items()
            if values["scope"] == "GLOBAL":
                found[values["id"]] = kind
    return found


def java_environment() -> dict[str, str]:
    """Groovy's start script believes JAVA_HOME, and Debian's default may not be installed."""
    java = shutil.which("java")
    assert java, "java is missing: apt-get install default-jre-headless"
    return os.environ | {"JAVA_HOME": str(Path(java).resolve().parents[1])}


@dataclass
class Run:
    """One build: how it ended and what happened in it."""

    result: str
    description: str | None
    events: list[dict[str, Any]]

    @property
    def shell(self) -> list[str]:
        """What `sh` ran, in order."""
        return [event["script"] for event in self.events if event["event"] == "sh"]

    @property
    def made(self) -> list[str]:
        """The make targets in order, without arguments and without `prune`, which ends all."""
        targets = [re.sub(r"^make (--\S+ )*(\S+).*$", r"\2", script) for script in self.shell]
        return [target for target in targets if target != "prune"]

    @property
    def started(self) -> list[str]:
        """The stages that ran."""
        return [event["stage"] for event in self.events if event["event"] == "start"]

    @property
    def told(self) -> list[dict[str, str]]:
        """What the webhook was sent, in order."""
        return [json.loads(event["body"]) for event in self.of("http")]

    def of(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """The events of a kind, with these values."""
        return [
            event
            for event in self.events
            if event["event"] == kind and all(event.get(k) == v for k, v in wanted.items())
        ]

    def environment(self, target: str, stage: str | None = None) -> dict[str, str]:
        """The variables that a make target saw."""
        for event in self.of("sh"):
            if f" {target}" in event["script"] and stage in (None, event["stage"]):
                return event["env"]
        raise AssertionError(f"make {target} was not run")


def scenario(name: str, **differences: Any) -> dict[str, Any]:
    """A build of main that works, but for the differences."""
    usual: dict[str, Any] = {
        "name": name,
        "jenkinsfile": JENKINSFILE,
        "branch": "main",
        "change": False,
        "params": {},
        "commit": COMMIT,
        "sh": [],
        "credentials": credentials(casc()),
        "input": "alice",
        "controller": {"PRODUCTION_APPROVERS": "admin,alice", "DOCKERHUB_REGISTRY": "docker.io"},
        "previous": "SUCCESS",
        "webhook": "works",
        "secrets": {},
    }
    assert not differences.keys() - usual.keys()
    # The image does not exist yet, unless a scenario says otherwise.
    rules = list(differences.pop("sh", []))
    rules += [
        {"match": "image-exists", "status": 1},
        {"match": "image-digest", "status": 0, "stdout": DIGEST},
    ]
    return usual | differences | {"sh": rules}


def run_builds(
    scenarios: list[dict[str, Any]], directory: Path
) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    """Run each scenario's Jenkinsfile; also return the calls of the multibranch job's script."""
    request = directory / "request.json"
    request.write_text(json.dumps({"jobs": casc()["jobs"][0]["script"], "scenarios": scenarios}))
    done = subprocess.run(
        ["groovy", str(HERE / "jenkins.groovy"), str(request)],
        # The quick compiler: this runs for seconds.
        env=java_environment() | {"JAVA_OPTS": "-XX:TieredStopAtLevel=1 -Xshare:auto"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[:3000]
    answer = json.loads(done.stdout)
    runs = {
        run["name"]: Run(run["result"], run["description"], run["events"]) for run in answer["runs"]
    }
    return runs, answer["jobs"]
