"""The rules in .semgrep: each finds what it is about and nothing else (`make pipeline-test`)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from delivery.pipeline_support.builds import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SEMGREP = ROOT / ".delivery/semgrep/bin/semgrep"
BAD = {
    "blocking-call-on-the-event-loop": [
        "async def serve():\n    time.sleep(1)",
        "async def serve():\n    with open('x') as file:\n        pass",
        "async def serve():\n    subprocess.run(['x'])",
        "async def serve():\n    os.fsync(3)",
        "async def serve():\n    urllib.request.urlopen('http://x')",
    ],
    "secret-compared-with-equals": [
        "def right(given, password):\n    return given == password",
        "def right(given):\n    return self._secret != given",
        "def right(given, mac):\n    return mac == given",
    ],
    "request-decides-a-path": [
        "def serve(request):\n    return open(request.target).read()",
        "def serve(request):\n    name = request.query\n    return os.path.join('/x', name)",
        "def serve(scope):\n    return pathlib.Path(scope['path'])",
    ],
    "request-decides-a-program": [
        "def serve(request):\n    return re.compile(request.query)",
        "def serve(request):\n    return eval(request.body)",
        "def serve(request):\n    words = [request.body]\n    subprocess.run(words)",
    ],
    "request-decides-a-header": [
        'def serve(request):\n    return f"Location: {request.target}\\r\\n"',
        'def serve(request):\n    return b"Location: %s\\r\\n" % request.target',
    ],
    "shell-decides-what-runs": [
        "async def run(words):\n    await asyncio.create_subprocess_shell(words)"
    ],
    "archive-unpacked-anywhere": [
        "def unpack(archive, name):\n    archive.extract(name)",
        "def unpack(name):\n    shutil.unpack_archive(name)",
    ],
    "document-that-makes-objects": ["def read(text):\n    return yaml.unsafe_load(text)"],
    "tls-that-trusts-everybody": [
        "def context(made):\n    made.check_hostname = False",
        "def context(made):\n    made.verify_mode = ssl.CERT_NONE",
        "def ask(url):\n    return client.get(url, verify=False)",
    ],
    "token-that-is-not-verified": [
        "def read(text):\n    return jwt.decode(text, options={'verify_signature': False})",
        "def read(text, key):\n    return jwt.decode(text, key)",
    ],
    "token-that-can-be-guessed": ["def make():\n    token = str(random.random())"],
    "secret-in-a-log": [
        'def login(password):\n    log.info("tried %s", password)',
        'def login(user):\n    logger.warning(f"tried {user.password}")',
        "def login(head):\n    print(head.credentials)",
    ],
}
GOOD = {
    "blocking-call-on-the-event-loop": [
        "async def serve():\n    await asyncio.sleep(1)",
        "def at_the_start():\n    time.sleep(1)",
        "async def serve():\n    def in_a_thread():\n        time.sleep(1)\n"
        "    await asyncio.to_thread(in_a_thread)",
    ],
    "secret-compared-with-equals": [
        "def right(given, password):\n    return hmac.compare_digest(given, password)",
        "def given(password):\n    return password != ''",
        "def given(password):\n    return password is not None",
        "def given(mac, other):\n    return len(mac) == len(other)",
    ],
    "request-decides-a-path": [
        "def serve(request):\n    return open(PAGES[request.target]).read()",
        "def serve(settings):\n    return open(settings.path).read()",
    ],
    "request-decides-a-program": ["def serve(request):\n    return PATTERN.match(request.query)"],
    "request-decides-a-header": ['def serve(status):\n    return f"HTTP/1.1 {status}\\r\\n"'],
    "shell-decides-what-runs": [
        "async def run(words):\n    await asyncio.create_subprocess_exec(*words)"
    ],
    "archive-unpacked-anywhere": [
        "def unpack(archive, name):\n    archive.extract(name, filter='data')"
    ],
    "document-that-makes-objects": ["def read(text):\n    return yaml.safe_load(text)"],
    "tls-that-trusts-everybody": [
        "def context():\n    return ssl.create_default_context()",
        "def ask(url):\n    return client.get(url, verify='authority.pem')",
    ],
    "token-that-is-not-verified": [
        "def read(text, key):\n    return jwt.decode(text, key, algorithms=['ES256'])"
    ],
    "token-that-can-be-guessed": ["def wait():\n    delay = random.random()"],
    "secret-in-a-log": [
        'def login(password):\n    log.info("tried %d characters", len(password))',
        'def login(user):\n    log.info("tried %s", user.name)',
    ],
}
IMPORTS = (
    "import asyncio, hmac, jwt, os, pathlib, random, re, shutil, ssl, subprocess, time, yaml\n"
    "import urllib.request\n\n\n"
)


def scanned(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Look for what the rules are about below src of a directory."""
    return subprocess.run(
        [
            *(SEMGREP, "scan", "--quiet", "--metrics", "off", "--disable-version-check"),
            *("--config", ROOT / ".semgrep", *flags, "src"),
        ],
        cwd=directory,
        env=os.environ
        | {
            "PATH": f"{SEMGREP.parent}:{os.environ['PATH']}",
            "SEMGREP_SETTINGS_FILE": str(directory / "settings.yml"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """What was found in all examples, by one run: names of files and of rules."""
    directory = tmp_path_factory.mktemp("examples")
    where = directory / "src/keyrack/http"
    where.mkdir(parents=True)
    for kind, examples in (("bad", BAD), ("good", GOOD)):
        for rule, texts in examples.items():
            for number, text in enumerate(texts):
                (where / f"{kind}.{rule}.{number}.py").write_text(f"{IMPORTS}{text}\n")
    done = scanned(directory, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["errors"] == []
    return {
        (found["path"].rsplit("/", 1)[1], found["check_id"].rsplit(".", 1)[1])
        for found in answer["results"]
    }


def examples(of: dict[str, list[str]]) -> list[tuple[str, int]]:
    return [(rule, number) for rule, texts in of.items() for number in range(len(texts))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("rule", "number"), examples(BAD))
def test_a_rule_finds_what_it_is_about(
    findings: set[tuple[str, str]], rule: str, number: int
) -> None:
    assert (f"bad.{rule}.{number}.py", rule) in findings


@pytest.mark.timeout(300)
def test_no_rule_finds_what_is_as_it_should_be(findings: set[tuple[str, str]]) -> None:
    assert [found for found in findings if found[0].startswith("good")] == []


def test_every_rule_has_examples_of_both_kinds() -> None:
    files = (ROOT / ".semgrep").glob("*.yaml")
    rules = {rule["id"] for file in files for rule in yaml.safe_load(file.read_text())["rules"]}
    assert rules == BAD.keys() == GOOD.keys()


@pytest.mark.timeout(300)
def test_a_finding_fails_and_is_kept_and_a_reason_lets_it_pass(tmp_path: Path) -> None:
    file = tmp_path / "src/example.py"
    file.parent.mkdir()
    text = "async def serve():\n{}    time.sleep(1)\n"
    report = tmp_path / "report.sarif"
    flags = ("--error", "--sarif-output", str(report))
    file.write_text(IMPORTS + text.format(""))
    done = scanned(tmp_path, *flags)
    assert done.returncode == 1
    assert "Await the" in done.stdout
    (kept,) = json.loads(report.read_text())["runs"][0]["results"]
    assert kept["ruleId"].endswith("blocking-call-on-the-event-loop")

    file.write_text(IMPORTS + text.format("    # nosemgrep: blocking-call-on-the-event-loop\n"))
    assert scanned(tmp_path, *flags).returncode == 0
