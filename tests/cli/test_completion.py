"""Completion, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from cli_support.running import environment

from keyrack.cli import completing, table

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack

BASH = """
source "$SCRIPT"
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_keyrack
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit; compinit -u -d "$HOME/.zcompdump"
source "$SCRIPT"
compadd() {
  while [[ $1 == -S || $1 == -- ]]; do [[ $1 == -S ]] && shift; shift; done
  print -rl -- "$@"
}
_files() { print -r -- FILES }
words=(${(z)1}); [[ $1 == *' ' ]] && words+=('')
CURRENT=${#words}
_keyrack
"""
FISH = 'source "$SCRIPT"; complete -C "$argv[1]"'
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@pytest.fixture(params=completing.SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    return name


class Typist:
    """Somebody who types a line in a shell and presses Tab."""

    def __init__(self, shell: str, environ: dict[str, str], home: Path) -> None:
        self.shell = shell
        script = home / "script"
        script.write_text(completing.script(shell))
        self._environ = {**environ, "SCRIPT": str(script)}
        self._home = home

    def words(self, line: str) -> set[str]:
        argv = [self.shell, "-c", SCRIPTS[self.shell]]
        argv += [line] if self.shell == "fish" else [self.shell, line]
        done = subprocess.run(
            argv, env=self._environ, cwd=self._home, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done
        assert done.stderr == "", done
        # fish tells what a word is for behind a tab.
        found = {shown.split("\t")[0] for shown in done.stdout.splitlines()} - {""}
        begun = line.rpartition(" ")[2]
        return found if self.shell != "zsh" else {one for one in found if one.startswith(begun)}


@pytest.fixture
def typist(shell: str, keyrack: Keyrack, home: Path) -> Typist:
    return Typist(shell, environment(keyrack.url, home), home)


def test_commands_and_their_second_words_are_completed(typist: Typist) -> None:
    assert typist.words("keyrack sn") == {"snapshot"}
    assert {"get", "set", "token", "help"} <= typist.words("keyrack ")
    assert typist.words("keyrack token cre") == {"create"}


def test_flags_and_their_values_are_completed(typist: Typist) -> None:
    assert typist.words("keyrack set --ad") == {"--add"}
    assert typist.words("keyrack token create --adm") == {"--admin"}
    assert typist.words("keyrack ls --color ") == {"auto", "always", "never"}
    assert typist.words("keyrack get -o ") == {"raw", "json", "hex"}


def test_keys_and_contexts_are_completed(typist: Typist, keyrack: Keyrack) -> None:
    for key in ("app/name", "app/port", "other", "user:1", "user:2"):
        keyrack.out("set", key, "x")
    keyrack.out("context", "add", "staging", "--url", "http://127.0.0.1:1")
    eventually(typist, "keyrack get ap", {"app/"})
    eventually(typist, "keyrack get app/n", {"app/name"})
    eventually(typist, "keyrack context use st", {"staging"})
    # bash itself cuts words at a colon.
    expected = {"1", "2"} if typist.shell == "bash" else {"user:1", "user:2"}
    eventually(typist, "keyrack get user:", expected)


def eventually(typist: Typist, line: str, expected: set[str]) -> None:
    """Try until it is so: on a busy machine a service may not answer within 300 ms."""
    deadline = time.monotonic() + 60
    while (found := typist.words(line)) != expected:
        assert found == set(), "it is all or nothing"
        assert time.monotonic() < deadline, line


@pytest.mark.parametrize("name", completing.SHELLS)
def test_a_script_knows_every_verb_and_flag(name: str) -> None:
    script = completing.script(name)
    for verb in table.VERBS:
        assert verb.split()[-1] in script
        for flag in table.flags_of(verb):
            assert flag.name.lstrip("-") in script, (verb, flag.name)


def test_a_service_that_is_not_there_costs_no_more_than_a_moment(home: Path) -> None:
    """A listening socket that answers nothing: the limit is 300 ms, whatever starting takes."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environ = environment(url, home)
        done = subprocess.run(
            ["keyrack", "__complete", "keys", "a"], env=environ, capture_output=True, timeout=60
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_script_of_bash_has_nothing_that_shellcheck_knows_better(home: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed here")
    (home / "script").write_text(completing.script("bash"))
    argv = ["shellcheck", "--shell=bash", str(home / "script")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
