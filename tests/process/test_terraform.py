"""The real Terraform with its `http` backend: locks, killed ones, force-unlock, history.

Nothing is downloaded: `terraform_data` is built in.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from access_support.service import Guarded
from durable.kept_service import KeptService
from keyrack_server import ON_VALKEY, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is missing"),
    pytest.mark.skipif(ON_VALKEY, reason="the services of these tests keep a data directory"),
    pytest.mark.timeout(300),
]

BLOCK = """
terraform {
  backend "http" {
    address        = "%(address)s"
    lock_address   = "%(address)s"
    unlock_address = "%(address)s"
  }
}
"""
OTHER_METHODS = """
terraform {
  backend "http" {
    address        = "%(address)s"
    lock_address   = "%(address)s/lock"
    unlock_address = "%(address)s/lock"
    lock_method    = "POST"
    unlock_method  = "DELETE"
  }
}
"""
EMPTY = """
terraform {
  backend "http" {}
}
"""
RESOURCE = """
variable "input" { default = "one" }
resource "terraform_data" "it" { input = var.input }
output "it" { value = terraform_data.it.output }
"""
SLOW = """
resource "terraform_data" "slow" {
  provisioner "local-exec" { command = "touch begun; while [ ! -e go ]; do sleep 0.05; done" }
}
"""


class Project:
    """A directory with a configuration, and Terraform in it."""

    def __init__(self, directory: Path, address: str, block: str = BLOCK, **more: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.write("backend.tf", block % {"address": address})
        self.write("main.tf", RESOURCE)
        self.write("rc", "")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TF_CLI_CONFIG_FILE": str(directory / "rc"),
            "TF_IN_AUTOMATION": "1",
            "TF_CLI_ARGS": "-no-color",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
            **more,
        }
        self.succeed("init")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def begin(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["terraform", *arguments],
            cwd=self.directory, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        with self.begin(*arguments) as running:
            said, _ = running.communicate(timeout=120)
            return running.returncode, said

    def succeed(self, *arguments: str) -> str:
        code, said = self.run(*arguments)
        assert code == 0, said
        return said

    def fail(self, *arguments: str) -> str:
        code, said = self.run(*arguments)
        assert code != 0, said
        return said

    def apply(self, value: str = "one") -> str:
        return self.succeed("apply", "-auto-approve", f"-var=input={value}")

    def output(self) -> str:
        return self.succeed("output", "-raw", "it")

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while not (self.directory / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come"
            time.sleep(0.02)


def address(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.port}/v1/terraform/{name}"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptService]:
    with KeptService("commit", str(tmp_path / "data")) as running:
        yield running


@contextlib.contextmanager
def killed_at_its_end(disk: str) -> Iterator[KeptService]:
    """A service that is killed, not ended, where the block ends."""
    running = KeptService("commit", disk)
    try:
        yield running
    finally:
        running.kill_all()


def versions(server: Server, name: str) -> list[dict[str, Any]]:
    answer = server.ask("GET", f"/v1/terraform/{name}/versions")
    found: list[dict[str, Any]] = answer.json["versions"]
    return found


def test_two_machines_share_a_state_that_outlives_the_service(tmp_path: Path) -> None:
    """Applied, read elsewhere, pushed and pulled, put back, with its history; after a kill, too."""
    disk = str(tmp_path / "data")
    with killed_at_its_end(disk) as kept:
        here = Project(tmp_path / "here", address(kept, "prod"))
        here.apply("one")
        here.apply("two")
        there = Project(tmp_path / "there", address(kept, "prod"))
        assert there.output() == "two"
        assert "No changes" in there.succeed("plan", "-var=input=two")
        pulled = json.loads(there.succeed("state", "pull"))
        assert [one["serial"] for one in versions(kept, "prod")] == [pulled["serial"] - 1]

        there.write("changed.json", json.dumps({**pulled, "serial": pulled["serial"] + 1}))
        there.succeed("state", "push", "changed.json")
        (second, first) = versions(kept, "prod")
        assert second["serial"] == pulled["serial"]
        earlier = f"/v1/terraform/prod/versions?version={first['version']}"
        assert kept.ask("POST", earlier, b"").status == 200
        assert here.output() == "one"
    with KeptService("commit", disk) as again:
        elsewhere = Project(tmp_path / "elsewhere", address(again, "prod"))
        assert elsewhere.output() == "one"
        assert versions(again, "prod")[1:] == [second, first]
        elsewhere.succeed("destroy", "-auto-approve")


def held(server: Server, name: str, **fields: str) -> dict[str, Any] | None:
    answer = server.ask("GET", f"/v1/terraform/{name}/lock", **fields)
    return None if answer.status == 404 else dict(answer.json)


@pytest.mark.parametrize("block", [BLOCK, OTHER_METHODS], ids=["LOCK", "POST"])
def test_of_two_applies_at_once_the_second_is_told_who_holds_the_lock(
    kept: KeptService, tmp_path: Path, block: str
) -> None:
    first = Project(tmp_path / "first", address(kept, "prod"), block)
    second = Project(tmp_path / "second", address(kept, "prod"), block)
    first.write("slow.tf", SLOW)
    with first.begin("apply", "-auto-approve") as running:
        first.wait_for("begun")
        holder = held(kept, "prod")
        assert holder is not None
        said = second.fail("apply", "-auto-approve")
        assert "state already locked" in said
        assert f"ID={holder['ID']} held by {holder['Who']} (OperationTypeApply)" in said
        first.write("go", "")
        said, _ = running.communicate(timeout=120)
        assert running.returncode == 0, said
    assert held(kept, "prod") is None
    second.write("slow.tf", SLOW)
    assert "No changes" in second.apply()


def test_what_a_killed_one_has_left_locked_is_unlocked_by_force(tmp_path: Path) -> None:
    """The lock outlives the service as well: what was under way is not known to be over."""
    disk = str(tmp_path / "data")
    with killed_at_its_end(disk) as kept:
        killed = Project(tmp_path / "killed", address(kept, "prod"))
        killed.write("slow.tf", SLOW)
        with killed.begin("apply", "-auto-approve", start_new_session=True) as running:
            killed.wait_for("begun")
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate(timeout=60)
    with KeptService("commit", disk) as again:
        holder = held(again, "prod")
        assert holder is not None
        next_one = Project(tmp_path / "next", address(again, "prod"))
        assert holder["ID"] in next_one.fail("apply", "-auto-approve")
        next_one.succeed("force-unlock", "-force", holder["ID"])
        next_one.apply()
        assert held(again, "prod") is None


def test_a_lock_that_was_lost_meanwhile_keeps_a_state_from_being_overwritten(
    kept: KeptService, tmp_path: Path
) -> None:
    """What could not be stored is in `errored.tfstate`, and can be pushed."""
    slow = Project(tmp_path / "slow", address(kept, "prod"))
    slow.write("slow.tf", SLOW)
    with slow.begin("apply", "-auto-approve") as running:
        slow.wait_for("begun")
        assert kept.ask("DELETE", "/v1/terraform/prod/lock").status == 200
        other = kept.ask("POST", "/v1/terraform/prod/lock", b'{"ID":"other","Who":"bob@desk"}')
        assert other.status == 200
        slow.write("go", "")
        said, _ = running.communicate(timeout=120)
        assert running.returncode != 0
        assert "HTTP error: 423" in said
    assert kept.ask("GET", "/v1/terraform/prod").status == 404
    assert kept.ask("DELETE", "/v1/terraform/prod/lock").status == 200
    slow.succeed("state", "push", "errored.tfstate")
    assert slow.output() == "one"


def test_a_service_that_keeps_nothing_is_told_of_before_anything_is_made(tmp_path: Path) -> None:
    with Server() as server:
        project = Project(tmp_path / "project", address(server, "prod"))
        assert "HTTP response code 422" in project.fail("apply", "-auto-approve")
        anyway = Project(tmp_path / "anyway", address(server, "prod") + "?durability=none&keep=1")
        for value in ("one", "two", "three"):
            anyway.apply(value)
        assert [one["serial"] for one in versions(server, "prod")] == [2]


def test_a_backend_without_workspaces_says_so(kept: KeptService, tmp_path: Path) -> None:
    """Another state is another address."""
    project = Project(tmp_path / "project", address(kept, "prod"))
    assert "workspaces not supported" in project.fail("workspace", "new", "staging")
    staging = Project(tmp_path / "staging", address(kept, "staging"))
    staging.apply("staging")
    project.apply("prod")
    assert (staging.output(), project.output()) == ("staging", "prod")


def test_terraform_logs_in_with_a_token_as_its_password(tmp_path: Path) -> None:
    flags = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    service = Guarded("", *flags)
    team = service.add("read,set keys:terraform/team/*")
    with service:
        login = {"TF_HTTP_USERNAME": "terraform", "TF_HTTP_PASSWORD": team.text}
        own = address(service.server, "team/prod")
        places = {f"TF_HTTP_{name}ADDRESS": own for name in ("", "LOCK_", "UNLOCK_")}
        project = Project(tmp_path / "own", own, EMPTY, **login, **places)
        project.apply()
        assert project.output() == "one"
        assert held(service.server, "team/prod", **team.field) is None
        other = tmp_path / "other"
        with pytest.raises(AssertionError, match="invalid auth"):
            Project(other, address(service.server, "prod"), **login)
        with pytest.raises(AssertionError, match="requires auth"):
            Project(tmp_path / "nobody", address(service.server, "team/prod"))
