#!/usr/bin/env python3
"""Check that wheel and sdist hold the tracked files, all of them, and no others.

scripts/check_dist.py dist/keyrack-0.1.0-py3-none-any.whl dist/keyrack-0.1.0.tar.gz
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

_MADE_IN_WHEEL = re.compile(
    r"keyrack-[^/]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)"
)
_SDIST_ROOTS = ("src", "tests", "docs", "README.md", "CHANGELOG.md", "LICENSE")
_MADE_IN_SDIST = {"PKG-INFO", "pyproject.toml", ".gitignore"}


def tracked(*paths: str) -> set[str]:
    """Return the files of the commit below these paths."""
    return set(subprocess.check_output(["git", "ls-files", *paths], text=True).splitlines())


def wrong_in_wheel(names: set[str], expected: set[str]) -> list[str]:
    """Tell what a wheel lacks or has too much; `expected` are the files below src/."""
    wanted = {name.removeprefix("src/") for name in expected}
    packed = {name for name in names if not _MADE_IN_WHEEL.fullmatch(name)}
    made = {match[1] for name in names if (match := _MADE_IN_WHEEL.fullmatch(name))}
    needed = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    return _difference("the wheel", packed | made, wanted | needed)


def wrong_in_sdist(names: set[str], expected: set[str]) -> list[str]:
    """Tell what an sdist lacks or has too much; its names begin with a directory."""
    packed = {name.partition("/")[2] for name in names} - _MADE_IN_SDIST
    return _difference("the sdist", packed, expected)


def _difference(what: str, packed: set[str], wanted: set[str]) -> list[str]:
    missing = [f"{what} lacks {name}" for name in sorted(wanted - packed)]
    return missing + [
        f"{what} holds {name}, which is not tracked" for name in sorted(packed - wanted)
    ]


def main() -> int:
    """Check the two files that are named."""
    wheel, sdist = map(Path, sys.argv[1:])
    with zipfile.ZipFile(wheel) as packed:
        wrong = wrong_in_wheel(set(packed.namelist()), tracked("src"))
    with tarfile.open(sdist) as archive:
        files = {one.name for one in archive.getmembers() if one.isfile()}
        wrong += wrong_in_sdist(files, tracked(*_SDIST_ROOTS))
    if {wheel.name.split("-")[1]} != {sdist.name.removesuffix(".tar.gz").split("-")[1]}:
        wrong.append(f"{wheel.name} and {sdist.name} are two versions")
    print("\n".join(wrong) or f"{wheel.name} and {sdist.name} hold what they should")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
