"""What a start costs: scripts call `keyrack get` in loops."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support.running import environment

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack

MOST_OF_PYTHON = 40 / 22
"""How much of what Python alone takes `keyrack get` may take."""
RUNS = 15
MAIN = "from keyrack.__main__ import main; main()"


def processor_seconds(environ: dict[str, str], *arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", *arguments], env=environ, stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.timing
def test_get_takes_little_more_than_python_itself(keyrack: Keyrack, home: Path) -> None:
    """The least of several runs, taken in turns: what else the machine does only adds."""
    keyrack.out("set", "app/name", "Keyrack")
    environ = environment(keyrack.url, home)
    bare, get = [], []
    for _ in range(RUNS):
        bare.append(processor_seconds(environ, "pass"))
        get.append(processor_seconds(environ, MAIN, "get", "app/name"))
    assert min(get) <= min(bare) * MOST_OF_PYTHON, (min(get), min(bare))


def test_get_in_its_plainest_form_loads_next_to_nothing(keyrack: Keyrack, home: Path) -> None:
    keyrack.out("set", "app/name", "Keyrack")
    program = (
        "import sys; before = set(sys.modules)\n"
        "from keyrack.cli import quick\n"
        "assert quick.run(['get', 'app/name'])\n"
        "print('', *sorted(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-c", program]
    out = subprocess.check_output(argv, env=environment(keyrack.url, home), text=True)
    assert out == "Keyrack __future__ _socket keyrack keyrack.cli keyrack.cli.quick\n"


def test_what_is_not_plain_is_left_to_the_verb(keyrack: Keyrack, home: Path) -> None:
    """Every shape that the short way does not know gives what the verb gives."""
    odd = ["ä b", "a//b", "/a", "a/../b", ".", "-dash", "new\nline", "\udcff"]
    program = "import sys; from keyrack.cli import quick; print(quick.run(['get', *sys.argv[1:]]))"
    for key in odd:
        argv = [sys.executable, "-c", program, key]
        out = subprocess.check_output(argv, env=environment(keyrack.url, home))
        assert out == b"False\n", key
    for variable in ("KEYRACK_CONTEXT", "KEYRACK_TOKEN_FILE", "KEYRACK_UDS", "KEYRACK_PORT"):
        environ = {**environment("", home), variable: "1"}
        argv = [sys.executable, "-c", program, "a"]
        assert subprocess.check_output(argv, env=environ) == b"False\n", variable


def test_a_value_of_any_size_comes_whole(keyrack: Keyrack, home: Path) -> None:
    value = os.urandom(1 << 20)
    keyrack.out("set", "big", "-", stdin=value)
    argv = [sys.executable, "-m", "keyrack", "get", "big"]
    assert subprocess.check_output(argv, env=environment(keyrack.url, home)) == value
