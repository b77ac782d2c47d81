#!/usr/bin/env python3
"""Print the CycloneDX 1.6 list of what is in an image: its Debian and its Python packages.

    sbom.py IMAGE >sbom.json      DOCKER names the docker command

It asks the image itself, so that the list is of what runs. No network is needed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from urllib.parse import quote

_PYTHON = """from importlib.metadata import distributions
for one in distributions():
    print(one.name, one.version, sep="\\t")"""
_DEBIAN = (
    "dpkg-query --show --showformat '${Package}\\t${Version}\\t${Architecture}\\n'"
    " && . /etc/os-release && echo $ID"
)


def purl(kind: str, name: str, version: str, qualifier: str = "") -> str:
    """Return the package URL by which scanners know a package."""
    return f"pkg:{kind}/{quote(name.lower())}@{quote(version, safe='.')}{qualifier}"


def document(image: str, debian: str, python: str) -> dict[str, object]:
    """Return the list as CycloneDX has it; `debian` and `python` have a package a line."""
    *packages, system = debian.splitlines()
    components = []
    for line in packages:
        name, version, architecture = line.split("\t")
        url = purl(f"deb/{system}", name, version, f"?arch={architecture}")
        components.append((name, version, url))
    for line in python.splitlines():
        name, version = line.split("\t")
        components.append((name, version, purl("pypi", name.replace("_", "-"), version)))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "bom-ref": image}},
        "components": [
            {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
            for name, version, url in sorted(set(components))
        ],
    }


def _inside(image: str, *command: str) -> str:
    docker = shlex.split(os.environ.get("DOCKER", "docker"))
    flags = ("run", "--rm", "--network", "none", "--entrypoint", command[0])
    return subprocess.check_output([*docker, *flags, image, *command[1:]], text=True)


def main() -> int:
    """Print the list of the image that is named."""
    image = sys.argv[1]
    debian = _inside(image, "sh", "-ec", _DEBIAN)
    print(json.dumps(document(image, debian, _inside(image, "python", "-c", _PYTHON)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
