"""What is mistyped on the command line gets a proposal, whichever verb it was meant for."""

from __future__ import annotations

import pytest

from keyrack import cli


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said about arguments that are of no use."""
    try:
        code = cli.run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else -1
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gte a", "get"),
        ("GET a", "get"),
        ("exprot", "export"),
        ("tokens", "token"),
        ("help sevre", "serve"),
        ("--verison", "--version"),
        ("hlep", "help"),
        ("token lst", "list"),
        ("token craete --admin", "create"),
        ("snapshot restroe x", "restore"),
        ("data chek", "check"),
        ("serve --prot 80", "--port"),
        ("get a --ulr x", "--url"),
        ("set a v --tll=5", "--ttl"),
        ("set a v --if_match=5", "--if-match"),
        ("export --perfix a", "--prefix"),
        ("import --stop-on-eror", "--stop-on-error"),
        ("health --udss x", "--uds"),
        ("verify --wiat 3", "--wait"),
        ("token --hlep", "--help"),
        ("token create --rul x", "--rule"),
        ("snapshot list --dta-dir x", "--data-dir"),
    ],
)
def test_a_typo_gets_a_proposal(capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    assert f"(is {meant} meant?)" in refused(typed.split(), capsys)


def test_a_mistyped_flag_is_named_though_its_value_is_taken_for_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(["token", "check", "--toekn", "x"], capsys)
    assert "--toekn is no flag of this command (is --token" in said


def test_what_is_like_nothing_gets_no_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "meant" not in refused(["xyzzy"], capsys)
    assert "meant" not in refused(["get", "a", "--xyzzy"], capsys)
    assert "meant" not in refused(["token", "xyzzy"], capsys)


def test_what_comes_after_two_dashes_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --b" in refused(["get", "--", "--a", "--b"], capsys)


@pytest.mark.parametrize("group", ["token", "snapshot", "data"])
def test_a_group_without_a_command_says_so(capsys: pytest.CaptureFixture[str], group: str) -> None:
    assert "a command is missing" in refused([group], capsys)
