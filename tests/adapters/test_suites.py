"""Each adapter through its framework's own tests: `make test-adapters`.

The frameworks are in an environment of their own, which KEYRACK_ADAPTERS names; without it there is
nothing to run. The cases are in files of their own, because that environment runs them.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server

import keyrack

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SOURCE = Path(keyrack.__file__).parent.parent
HOME = os.environ.get("KEYRACK_ADAPTERS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not HOME, reason="`make test-adapters` installs the frameworks and runs it"),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(memory="256m") as server:
        yield f"http://127.0.0.1:{server.port}"


def run(*arguments: str, url: str, suite: str = "") -> str:
    """Run Python in the frameworks' environment, and assert that it went well."""
    home = Path(str(HOME))
    found = sorted(home.glob(f"suites/{suite}-*/")) if suite else []
    assert found or not suite, f"the source distribution of {suite} is not there"
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "KEYRACK_URL": url,
        "KEYRACK_SUITE": str(found[0]) if found else "",
    }
    command = [str(home / "venv/bin/python"), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def run_cases(name: str, url: str, suite: str = "") -> None:
    """Run the cases of an adapter with pytest."""
    said = run(
        *("-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"),
        # Our own conftest.py is not theirs, which some of them import by that name.
        *("--rootdir", str(HERE), "--confcutdir", str(HERE)),
        *("-o", "asyncio_mode=auto", str(HERE / f"{name}_cases.py")),
        url=url,
        suite=suite,
    )
    assert " passed" in said


def test_django_runs_its_cache_tests_on_keyrack_with_and_without_an_event_loop(url: str) -> None:
    said = run(str(HERE / "django_cases.py"), url=url, suite="django")
    assert "OK" in said
    assert "ran 110" in said


def test_cachelib_runs_its_tests_on_keyrack_and_a_flask_app_runs_on_it(url: str) -> None:
    run_cases("cachelib", url, "cachelib")


def test_limits_runs_its_strategies_on_keyrack(url: str) -> None:
    run_cases("limits", url, "limits")


def test_dogpile_runs_its_backend_tests_on_keyrack(url: str) -> None:
    run_cases("dogpile", url)


def test_celery_workers_keep_their_results_in_keyrack(url: str) -> None:
    run_cases("celery", url)


def test_a_py_key_value_store_keeps_its_promises_on_keyrack(url: str) -> None:
    run_cases("key_value", url)


def test_hishel_keeps_values_for_as_long_as_it_may(url: str) -> None:
    run_cases("hishel", url)


def test_opentelemetry_gets_a_span_of_each_call(url: str) -> None:
    run_cases("telemetry", url)


@pytest.mark.parametrize(
    "page", sorted((HERE.parents[1] / "docs/python").glob("*.md")), ids=lambda p: p.stem
)
def test_the_example_of_an_adapters_page_runs(page: Path, url: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    program = tmp_path / "example.py"
    program.write_text("\n".join(blocks).replace("127.0.0.1:8088", url.partition("//")[2]))
    run(str(program), url=url)
