"""The examples of the documents work as they stand, from top to bottom on a fresh service."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from api_support import Client
from keyrack_server import ON_VALKEY, Server

from keyrack.access import tokens
from keyrack.engines.contract import BINARY
from keyrack.http.api.examples import ANSWERS
from keyrack.http.api.reference import markdown, openapi
from keyrack.http.api.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack.http.api.routes import Route

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl"),
    pytest.mark.skipif(ON_VALKEY, reason="a store in Valkey takes no snapshots"),
]
FOR_EVER = "watch"
NEEDS_ACCESS_CONTROL = "auth_"
NOBODY_THERE = "client_end"
"""Who is connected when it is pasted nobody knows."""


class Run(NamedTuple):
    """What came of an example: the exit code, the last status, what was printed."""

    code: int
    status: int
    printed: str


def run(route: Route, server: Server, directory: Path, token: str = "") -> Run:
    """Paste an example into a shell, which fails where it is refused."""
    command = route.example.replace("localhost:8088", f"localhost:{server.port}")
    seconds = 5 if route.name == FOR_EVER else 60
    added = f"-sS -f --max-time {seconds} -w '%{{stderr}}%{{http_code}}'"
    command = command.replace("curl ", f"curl {added} ")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, check=False, cwd=directory, env={**os.environ, "KEYRACK_TOKEN": token},
    )  # fmt: skip
    over_time = done.returncode == 28 and route.name == FOR_EVER
    said = done.stderr.decode()
    digits = said[-3:] if not over_time else "200"
    return Run(
        0 if over_time else done.returncode,
        int(digits) if digits.isdecimal() else 0,
        done.stdout.decode("utf-8", "replace").rpartition("\r\n\r\n")[2],
    )


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    directory = tmp_path_factory.mktemp("examples")
    flags = ("--durability", "snapshot", "--data-dir", str(directory / "data"))
    with Server(*flags) as server:
        yield server, directory


@pytest.fixture(scope="module")
def runs(fresh: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What came of all examples, from top to bottom: of those about access on a guarded service."""
    server, directory = fresh
    guarded_directory = tmp_path_factory.mktemp("guarded")
    token = tokens.new().text
    found = {}
    with Server(environ={"KEYRACK_TOKEN": token}) as guarded:
        for route in ROUTES.values():
            if route.name.startswith(NEEDS_ACCESS_CONTROL):
                found[route.name] = run(route, guarded, guarded_directory, token)
            else:
                found[route.name] = run(route, server, directory)
    return found


@pytest.mark.parametrize("name", ROUTES)
def test_every_example_works_as_it_stands(runs: dict[str, Run], name: str) -> None:
    if name == NOBODY_THERE:
        assert runs[name].status == 404
        return
    assert runs[name].code == 0, runs[name]
    assert runs[name].status in {answer.status for answer in ROUTES[name].answers}, runs[name]


@pytest.mark.parametrize("name", ROUTES)
def test_what_is_answered_is_what_the_example_of_an_answer_shows(
    runs: dict[str, Run], name: str
) -> None:
    if name == NOBODY_THERE:
        return
    status, printed = runs[name].status, runs[name].printed
    (answer,) = [one for one in ROUTES[name].answers if one.status == status]
    example = ANSWERS.get(name, {}).get(status)
    if answer.body is None or answer.body.media_type == BINARY:
        assert example is None
    elif answer.body.type is not None:
        # Of several lines the last one.
        assert alike(json.loads(printed.splitlines()[-1]), example), (printed, example)
    elif answer.body.media_type == "application/json":
        real = json.loads(printed)
        assert set(example) <= set(real)
    elif answer.body.media_type == "text/html":
        assert printed.startswith(example[:15])
    elif name in ("metrics", FOR_EVER):
        assert words(example) <= words(printed) | {"event: set"}
    else:
        assert printed == example


def alike(real: Any, example: Any) -> bool:
    """Tell whether both have the same members. Numbers, texts and null are all the same."""
    if isinstance(real, dict) and isinstance(example, dict):
        values = {"value"}  # any JSON that was stored
        return set(real) == set(example) and all(
            alike(real[name], example[name]) for name in set(real) - values
        )
    if isinstance(real, list) and isinstance(example, list):
        return all(alike(one, other) for one in real[:1] for other in example[:1])
    return not isinstance(real, dict | list) and not isinstance(example, dict | list)


def words(text: str) -> set[str]:
    """Return how the lines of a text begin, with the names of events."""
    lines = [line for line in text.splitlines() if line]
    return {line if line.startswith("event:") else line.partition(" ")[0] for line in lines}


@pytest.mark.parametrize("name", ROUTES)
def test_every_body_that_is_answered_has_an_example_that_is_what_it_says(name: str) -> None:
    """A new operation has its row in keyrack/http/api/examples.py."""
    bodies = {
        answer.status: answer.body
        for answer in ROUTES[name].answers
        if answer.body is not None and answer.body.media_type != BINARY
    }
    assert set(ANSWERS.get(name, {})) == set(bodies)
    for status, body in bodies.items():
        if body.type is not None:
            kinds = body.type if isinstance(body.type, tuple) else (body.type,)
            text = json.dumps(ANSWERS[name][status])
            msgspec.json.decode(text, type=kinds[0])


def test_examples_are_of_operations_that_there_are() -> None:
    assert set(ANSWERS) <= set(ROUTES)


def test_each_answer_of_the_document_has_an_example() -> None:
    for path in openapi()["paths"].values():
        for described in path.values():
            for status, answer in described["responses"].items():
                for media_type, media in answer.get("content", {}).items():
                    assert "example" in media or media.get("examples") or media_type == BINARY, (
                        described["operationId"], status,
                    )  # fmt: skip
            for media in described.get("requestBody", {}).get("content", {}).values():
                assert "example" in media, described["operationId"]


def test_the_example_of_a_failure_is_what_is_answered(fresh: tuple[Server, Path]) -> None:
    server, _ = fresh
    document = openapi()["paths"]
    for path, method, slug in (
        ("/v1/keys/{key}", "get", "key-not-found"),
        ("/get/{key}", "get", "key-not-found"),
        ("/v1/locks/{key}", "get", "lock-not-held"),
    ):
        answer = server.ask("GET", path.replace("{key}", "missing"))
        (content,) = document[path][method]["responses"]["404"]["content"].values()
        assert set(content["examples"][slug]["value"]) <= set(answer.json)


def test_the_pages_show_the_members_of_each_body(fresh: tuple[Server, Path]) -> None:
    server, _ = fresh
    docs = server.ask("GET", "/docs").body.decode()
    for page in (docs, html.escape(markdown())):
        for member in ("operations[].delta", "ttl", "keys[].revision", "errors[].line", "encoding"):
            assert member in page
        for kind in ("get", "set", "delete", "add", "touch", "check"):
            assert html.escape(f'"op": "{kind}"') in page
        assert "event: synced" in page
        assert "event: set" in page


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


def test_the_patterns_of_tags_fit_what_is_answered(fresh: tuple[Server, Path]) -> None:
    server, _ = fresh
    put = openapi()["paths"]["/v1/keys/{key}"]["put"]
    answered = server.ask("PUT", "/v1/keys/tagged?ttl=60", b"v")["ETag"]
    declared = put["responses"]["201"]["headers"]["ETag"]["schema"]
    taken = next(one for one in put["parameters"] if one["name"] == "If-Match")["schema"]
    for schema in (declared, taken):
        assert re.search(schema["pattern"], answered)
        assert not re.search(schema["pattern"], answered.strip('"'))
        assert all(re.search(schema["pattern"], one) for one in schema["examples"])
    left = server.ask("GET", "/v1/keys/tagged")["Keyrack-TTL"]
    got = openapi()["paths"]["/v1/keys/{key}"]["get"]["responses"]["200"]["headers"]
    assert re.search(got["Keyrack-TTL"]["schema"]["pattern"], left)


def test_the_least_ttl_of_the_document_is_the_least_that_is_taken(
    fresh: tuple[Server, Path],
) -> None:
    server, _ = fresh
    with Client(server) as client:
        for ttl, status in ((0.001, 200), (0.0009, 400)):
            body = {"key": "least", "value": 1, "ttl": ttl}
            assert client.post("/set", body).status == status
