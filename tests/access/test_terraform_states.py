"""Who may read, write and lock which state of Terraform: whoever may do so with its key."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from access_support import Guarded
from api_support import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from access_support import Who

LOCK = b'{"ID":"one"}'
ANYWAY = "?durability=none"


def basic(who: Who) -> dict[str, str]:
    """Return what Terraform sends for `username` and `password`."""
    pair = base64.b64encode(f"terraform:{who.text}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


class States(Guarded):
    """A service with a token of a team that applies, and one of somebody who plans."""

    def __enter__(self) -> States:
        self.team = self.add("read,set keys:terraform/team/*")
        self.planner = self.add("read keys:terraform/team/*")
        super().__enter__()
        return self


@pytest.fixture(scope="module")
def states() -> Iterator[States]:
    with States() as running:
        yield running


@pytest.fixture
def client(states: States) -> Iterator[Client]:
    with Client(states.server) as one:
        yield one


@pytest.fixture
def team(states: States) -> Who:
    return states.team


@pytest.fixture
def planner(states: States) -> Who:
    return states.planner


def test_a_token_that_reads_and_sets_is_enough_for_terraform(client: Client, team: Who) -> None:
    path = f"/v1/terraform/team/prod{ANYWAY}"
    fields = basic(team)
    assert client.ask("LOCK", path, LOCK, **fields).status == 200
    assert client.ask("POST", f"{path}&ID=one", b'{"serial":1}', **fields).status == 200
    assert client.ask("POST", f"{path}&ID=one", b'{"serial":2}', **fields).status == 200
    assert client.ask("UNLOCK", path, LOCK, **fields).status == 200
    assert client.get(path, **fields).body == b'{"serial":2}'
    (earlier,) = client.get("/v1/terraform/team/prod/versions", **fields).json["versions"]
    assert earlier["serial"] == 1
    assert client.delete(path, **fields).status == 403, "it may not delete"


@pytest.mark.parametrize("name", ["other", "team", "tea", "teamx/prod", "other%2Fteam%2Fprod"])
def test_states_of_others_are_neither_read_nor_written_nor_locked(
    client: Client, team: Who, name: str
) -> None:
    for method, end, body in (
        ("GET", "", None), ("POST", "", b"{}"), ("LOCK", "", LOCK), ("UNLOCK", "", None),
        ("GET", "/lock", None), ("POST", "/lock", LOCK), ("DELETE", "/lock", None),
        ("GET", "/versions", None), ("POST", "/versions", None), ("DELETE", "", None),
    ):  # fmt: skip
        answer = client.ask(method, f"/v1/terraform/{name}{end}{ANYWAY}", body, **basic(team))
        assert answer.status == 403, (method, end, answer)


def test_who_only_reads_plans_without_the_lock(client: Client, team: Who, planner: Who) -> None:
    path = f"/v1/terraform/team/planned{ANYWAY}"
    assert client.ask("POST", path, b"{}", **basic(team)).status == 200
    assert client.get(path, **basic(planner)).status == 200
    for method in ("POST", "LOCK", "UNLOCK"):
        assert client.ask(method, path, LOCK, **basic(planner)).status == 403


def test_the_audit_trail_tells_who_has_written_and_locked_a_state() -> None:
    service = States("", "--audit", "writes")
    with service, Client(service.server) as client:
        path, fields = f"/v1/terraform/team/prod{ANYWAY}", basic(service.team)
        assert client.ask("LOCK", path, LOCK, **fields).status == 200
        written = client.ask("POST", f"{path}&ID=one", b"{}", **fields)
        assert client.ask("POST", path, b"{}", **fields).status == 423
        assert client.ask("UNLOCK", path, LOCK, **basic(service.planner)).status == 403
        told = [line for line in service.server.log_lines() if line.get("event") == "audit"]
    assert [(line["operation"], line["outcome"], line["token"]) for line in told] == [
        ("terraform_lock", 200, service.team.id),
        ("terraform_write", 200, service.team.id),
        ("terraform_write", 423, service.team.id),
        ("terraform_unlock", 403, service.planner.id),
    ]
    assert told[1]["revision"] == written["ETag"].strip('"')
    assert {line["path"] for line in told} == {"/v1/terraform/team/prod"}
