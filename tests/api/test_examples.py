"""The examples of the documents work as they stand, from top to bottom on a fresh service."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from api_support import Client
from keyrack_server import ON_VALKEY, Server

from keyrack.http.api.reference import openapi
from keyrack.http.api.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl"),
    pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey takes no snapshots"),
]
FOR_EVER = "watch"
NEEDS_ACCESS_CONTROL = "auth_"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    directory = tmp_path_factory.mktemp("examples")
    flags = ("--durability", "snapshot", "--data-dir", str(directory / "data"))
    with Server(*flags) as server:
        yield server, directory


def test_every_example_works_one_after_the_other(fresh: tuple[Server, Path]) -> None:
    """As somebody pastes them: a failure of HTTP is one of theirs."""
    server, directory = fresh
    failed = {}
    for route in ROUTES.values():
        if route.name.startswith(NEEDS_ACCESS_CONTROL):
            continue
        command = route.example.replace("localhost:8088", f"localhost:{server.port}")
        command = command.replace("curl ", "curl -sS -f --max-time 5 ")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            capture_output=True, text=True, check=False, cwd=directory,
        )  # fmt: skip
        over_time = done.returncode == 28 and route.name == FOR_EVER
        if done.returncode and not over_time:
            failed[route.name] = (done.returncode, done.stdout[-300:], done.stderr[-300:])
    assert failed == {}


def test_urls_with_a_query_are_quoted() -> None:
    """`zsh` takes `?` for a pattern, and any shell takes `&` for itself."""
    for route in ROUTES.values():
        for word in route.example.split():
            assert "?" not in word or word[0] in "'\"", route.example


def test_the_document_names_its_server_and_what_requests_send() -> None:
    document = openapi()
    assert document["servers"][0]["url"] == "/"
    sent = {
        described["operationId"]: media["example"]
        for path in document["paths"].values()
        for described in path.values()
        for media in described.get("requestBody", {}).get("content", {}).values()
        if "example" in media
    }
    assert sent["set"] == {"key": "key_1", "value": "value_1"}
    assert sent["key_put"] == "hello"
    assert sent["lock_acquire"] == {"owner": "job-7", "ttl": 30}
    assert len(sent) >= 6
    set_request = document["components"]["schemas"]["SetRequest"]
    assert set_request["properties"]["ttl"]["minimum"] == 0.001


def test_the_least_ttl_of_the_document_is_the_least_that_is_taken(
    fresh: tuple[Server, Path],
) -> None:
    server, _ = fresh
    with Client(server) as client:
        for ttl, status in ((0.001, 200), (0.0009, 400)):
            body = {"key": "least", "value": 1, "ttl": ttl}
            assert client.post("/set", body).status == status
