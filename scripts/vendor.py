"""Compare the console's vendored files with what npm has, as VENDOR.toml says.

python scripts/vendor.py            fetches each package anew; needs npm
python scripts/vendor.py --offline  compares the files with their checksums only
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

VENDOR: Final = Path(__file__).parents[1] / "src" / "keyrack" / "console" / "static" / "vendor"


def problems(offline: bool) -> list[str]:
    """Return a sentence for each file that is not what VENDOR.toml says."""
    found = []
    for row in tomllib.loads((VENDOR / "VENDOR.toml").read_text())["file"]:
        here = VENDOR / row["name"]
        if not here.is_file() or _checksum(here.read_bytes()) != row["sha256"]:
            found.append(f"{row['name']} is not the file that VENDOR.toml names")
        found += [
            f"{row['name']} lacks {one}" for one in row["licences"] if not (VENDOR / one).is_file()
        ]
        if not offline and _checksum(_published(row)) != row["sha256"]:
            found.append(f"{row['package']} {row['version']} holds another {row['path']}")
    return found


def _published(row: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        asked = ["npm", "pack", "--silent", f"{row['package']}@{row['version']}"]
        done = subprocess.run(asked, cwd=scratch, capture_output=True, text=True, check=True)
        with tarfile.open(Path(scratch, done.stdout.split()[-1])) as archive:
            member = archive.extractfile(row["path"])
            assert member is not None
            return member.read()


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    wrong = problems(offline="--offline" in sys.argv[1:])
    print("\n".join(wrong) or "The vendored files are what VENDOR.toml says.")
    sys.exit(1 if wrong else 0)
