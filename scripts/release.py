#!/usr/bin/env python3
"""Make a release: one version in all places, a dated section in the changelog, a commit and a tag.

    scripts/release.py prepare VERSION    write the version and the changelog; nothing is committed
    scripts/release.py commit VERSION     commit that, and tag it v<VERSION>

`make release VERSION=...` runs both, and between them builds and checks what is published. Nothing
is pushed: a tag that is pushed cannot be taken back.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

PROGRAM, CHART, CHANGELOG = "src/keyrack/__init__.py", "deploy/chart/Chart.yaml", "CHANGELOG.md"
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:(a|b|rc)(\d+))?")
_CURRENT = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
_APP = re.compile(r'^appVersion: ".*"$', re.MULTILINE)
_UNRELEASED = "## Unreleased\n"


class CannotReleaseError(Exception):
    """Raised before anything is changed; the message says what to do."""


def order(version: str) -> tuple[int, int, int, str, int]:
    """Return what orders versions: a release comes after its candidates."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise CannotReleaseError(f"{version!r} is no version: give one like 0.2.0, or 0.2.0rc1.")
    major, minor, patch, stage, number = match.groups()
    return int(major), int(minor), int(patch), stage or "z", int(number or 0)


def dated(changelog: str, version: str, day: datetime.date) -> str:
    """Return the changelog with what was unreleased under the version, and room for what comes."""
    before, found, after = changelog.partition(_UNRELEASED)
    section = after.partition("\n## ")[0].strip()
    if not found or not section:
        raise CannotReleaseError(
            f"{CHANGELOG} says nothing under '## Unreleased': write what changes."
        )
    return f"{before}{_UNRELEASED}\n## {version} - {day.isoformat()}\n{after}"


def prepare(root: Path, version: str, day: datetime.date) -> None:
    """Write the version to the program and the chart, and date the changelog."""
    if _git(root, "status", "--porcelain"):
        raise CannotReleaseError("there are changes that are not committed: commit or stash them.")
    if _git(root, "tag", "--list", f"v{version}"):
        raise CannotReleaseError(f"there is a tag v{version} already: choose a later version.")
    program, chart = ((root / name).read_text() for name in (PROGRAM, CHART))
    current = _CURRENT.search(program)
    if current is None:
        raise CannotReleaseError(f"{PROGRAM} has no line with __version__.")
    tagged = _git(root, "tag", "--list", f"v{current[1]}")
    if order(version) < order(current[1]) or (tagged and version == current[1]):
        raise CannotReleaseError(f"{version} is not after {current[1]}: choose a later version.")
    changelog = dated((root / CHANGELOG).read_text(), version, day)
    (root / CHANGELOG).write_text(changelog)
    (root / PROGRAM).write_text(_CURRENT.sub(f'__version__ = "{version}"', program))
    (root / CHART).write_text(_APP.sub(f'appVersion: "{version}"', chart))


def commit(root: Path, version: str) -> None:
    """Commit what `prepare` wrote and tag it."""
    _git(root, "commit", "--quiet", "--message", f"Release {version}", PROGRAM, CHART, CHANGELOG)
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"Keyrack {version}")


def _git(root: Path, *words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=root, text=True).strip()


def main() -> int:
    """Run one of the two steps."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("prepare", "commit"):
        print(__doc__, file=sys.stderr)
        return 2
    step, version = sys.argv[1:]
    try:
        if step == "prepare":
            order(version)
            prepare(Path.cwd(), version, datetime.datetime.now(datetime.UTC).date())
        else:
            commit(Path.cwd(), version)
            print(f"tagged v{version}; publish it with: git push origin main v{version}")
    except CannotReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
