"""A release: one version in all places, a dated changelog, packages of tracked files alone."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
DAY = datetime.date(2030, 1, 2)
WHEEL_EXTRA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release, check_dist = script("release"), script("check_dist")


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=Keyrack", "-c", "user.email=keyrack@example.org")
    return subprocess.check_output(["git", *who, *words], cwd=root, text=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of the three files that a release changes."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "config", "user.name", "Keyrack")
    git(tmp_path, "config", "user.email", "keyrack@example.org")
    for name in (release.PROGRAM, release.CHART, release.CHANGELOG):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_a_release_is_one_commit_and_one_tag_with_one_version(tree: Path) -> None:
    release.prepare(tree, "9.1.0", DAY)
    release.commit(tree, "9.1.0")
    assert '__version__ = "9.1.0"' in (tree / release.PROGRAM).read_text()
    assert 'appVersion: "9.1.0"' in (tree / release.CHART).read_text()
    changelog = (tree / release.CHANGELOG).read_text()
    assert "## Unreleased\n\n## 9.1.0 - 2030-01-02\n" in changelog
    assert git(tree, "tag", "--list").split() == ["v9.1.0"]
    assert git(tree, "rev-parse", "v9.1.0^{}") == git(tree, "rev-parse", "HEAD")
    assert git(tree, "status", "--porcelain") == ""


def unreleased(tree: Path) -> None:
    (tree / release.CHANGELOG).write_text("# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- first\n")
    git(tree, "commit", "--quiet", "--all", "--message", "Empty")


@pytest.mark.parametrize(
    ("version", "before", "sentence"),
    [
        ("0.0.9", None, "is not after"),
        ("next", None, "is no version"),
        ("9.0.0", unreleased, "says nothing under '## Unreleased'"),
        ("9.0.0", lambda tree: (tree / "new").touch(), "not committed"),
        ("9.0.0", lambda tree: git(tree, "tag", "v9.0.0"), "a tag v9.0.0 already"),
    ],
)
def test_what_cannot_be_released_is_refused_and_changes_nothing(
    tree: Path, version: str, before: Any, sentence: str
) -> None:
    if before is not None:
        before(tree)
    state = git(tree, "status", "--porcelain")
    with pytest.raises(release.CannotReleaseError, match=re.escape(sentence)):
        release.prepare(tree, version, DAY)
    assert git(tree, "status", "--porcelain") == state


def test_a_release_comes_after_its_candidates() -> None:
    versions = ["0.9.9", "1.0.0a1", "1.0.0b1", "1.0.0rc1", "1.0.0rc2", "1.0.0", "1.0.1", "1.10.0"]
    orders = [release.order(version) for version in versions]
    assert all(one < other for one, other in itertools.pairwise(orders))


def test_packages_hold_the_tracked_files_and_no_others() -> None:
    inside = {"src/keyrack/__init__.py", "src/keyrack/console/static/icon.svg"}
    packed = {name.removeprefix("src/") for name in inside}
    info = {f"keyrack-1.0.0.dist-info/{name}" for name in WHEEL_EXTRA}
    assert check_dist.wrong_in_wheel(packed | info, inside) == []
    assert check_dist.wrong_in_wheel(packed | info | {"tests/x.py"}, inside) == [
        "the wheel holds tests/x.py, which is not tracked"
    ]
    assert check_dist.wrong_in_wheel((packed | info) - {"keyrack/__init__.py"}, inside) == [
        "the wheel lacks keyrack/__init__.py"
    ]
    sdist = {f"keyrack-1.0.0/{name}" for name in (*inside, "PKG-INFO", "pyproject.toml")}
    assert check_dist.wrong_in_sdist(sdist, inside) == []
    assert check_dist.wrong_in_sdist(sdist | {"keyrack-1.0.0/secret"}, inside) != []


def managers() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "renovate.json").read_text())["customManagers"]
    return found


@pytest.mark.parametrize("number", range(len(managers())))
def test_each_rule_of_renovate_finds_what_it_is_about(number: int) -> None:
    rule = managers()[number]
    names = [re.compile(one.strip("/")) for one in rule["managerFilePatterns"]]
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    named = [one for one in files if any(name.search(one) for name in names)]
    assert named
    (pattern,) = rule["matchStrings"]
    found = re.compile(pattern.replace("(?<", "(?P<"))
    for file in named:
        match = found.search((ROOT / file).read_text())
        assert match is not None, file
        assert match["currentValue"]
