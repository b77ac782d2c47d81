"""Each operation is declared once, and everything that describes the API comes from that."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import keyrack
from keyrack.http.api import dispatch, reference
from keyrack.http.api.routes import ROUTES, Route
from keyrack.http.problems import KINDS, TYPE_PREFIX

if TYPE_CHECKING:
    from api_support import Client

SOURCE = Path(keyrack.__file__).parent
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "TRACE", "OPTIONS", "COPY", "LOCK")


def every(route: Route) -> str:
    return route.name


@pytest.mark.parametrize("route", ROUTES.values(), ids=every)
def test_an_operation_is_declared_completely(route: Route) -> None:
    assert route.summary
    assert route.summary[0].isupper()
    assert route.cost
    assert route.example.startswith("curl ")
    assert route.path.partition("{key}")[0] in route.example or route.path == "/"
    assert route.answers
    assert all(answer.description for answer in route.answers)
    assert all(parameter.description for parameter in route.parameters)
    assert set(route.problems) <= set(KINDS)
    assert len(set(route.problems)) == len(route.problems)
    assert route.writes == (route.method not in ("GET", "HEAD"))


@pytest.mark.parametrize("route", ROUTES.values(), ids=every)
def test_an_operation_is_in_every_description(client: Client, route: Route) -> None:
    document = client.get("/openapi.json").json
    described = document["paths"][route.path][route.method.lower()]
    assert described["operationId"] == route.name
    statuses = {str(answer.status) for answer in route.answers}
    statuses |= {str(KINDS[slug].status) for slug in route.problems}
    assert statuses <= set(described["responses"])
    assert f'id="{route.name}"' in client.get("/docs").body.decode()
    assert f"### `{route.method} {route.path}`" in reference.markdown()


@pytest.mark.parametrize("route", ROUTES.values(), ids=every)
def test_an_operation_answers(client: Client, route: Route) -> None:
    """With whatever it is given: it is not 404 for the path, nor 405."""
    path = route.path.replace("{key}", "declared")
    if route.name == "watch":
        path += "?since=0"
    if route.name == "big":
        path += "?limit=0"
    if route.name == "export":
        path += "?prefix=%ff&limit=1"
    answer = client.ask(route.method, path, b"" if route.body else None)
    assert answer.status not in (405, 500, 501)
    assert answer.status != 404 or not answer.json.get("type", "").endswith("/not-found")
    declared = {one.status for one in route.answers}
    declared |= {KINDS[slug].status for slug in route.problems}
    assert answer.status in declared


@pytest.mark.parametrize(
    "path", [*{route.path: None for route in ROUTES.values()}, "/nothing", "/v1"]
)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_declared_is_405_or_404(client: Client, method: str, path: str) -> None:
    target = path.replace("{key}", "declared")
    declared = {one.method for one in ROUTES.values() if one.path == path}
    declared |= {"HEAD"} if "GET" in declared else set()
    declared |= {other for one in ROUTES.values() for other, there in one.also if there == path}
    if method in declared or (method == "OPTIONS" and declared):
        return
    answer = client.ask(method, target)
    assert answer.status == (405 if declared else 404), answer
    if declared:
        allowed = set(answer["Allow"].split(", "))
        assert allowed == declared | {"OPTIONS"}


def test_every_route_of_the_wide_lane_is_declared() -> None:
    source = (SOURCE / "http" / "app.py").read_text()
    named = set(re.findall(r'^            "(\w+)": self\._', source, re.MULTILINE))
    assert named <= set(ROUTES)
    unserved = {name for name, one in ROUTES.items() if one.serve is None}
    assert unserved <= named


def test_every_declared_path_is_found() -> None:
    for route in ROUTES.values():
        path = route.path.replace("{key}", "a/b").encode()
        resource = dispatch.find(path)
        assert resource is not None
        assert resource.routes[route.method.encode()] is route


# OpenAPI


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_document_is_openapi_3_1(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert answer["Content-Type"] == "application/json"
    document = answer.json
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"]["title"] == "Keyrack"
    assert document["info"]["version"] == keyrack.__version__
    for reference_ in references(document):
        target: Any = document
        for step in reference_.removeprefix("#/").split("/"):
            target = target[step]
        assert target
    names = [
        described["operationId"]
        for path in document["paths"].values()
        for described in path.values()
    ]
    assert len(set(names)) == len(names) == len(ROUTES)


def test_parameters_of_the_document_are_unique_and_in_the_path(client: Client) -> None:
    for path, methods in client.get("/openapi.json").json["paths"].items():
        for described in methods.values():
            given = [(one["name"], one["in"]) for one in described["parameters"]]
            assert len(set(given)) == len(given)
            in_path = {name for name, where in given if where == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(
                one.get("required") for one in described["parameters"] if one["in"] == "path"
            )
            assert all(one["schema"] for one in described["parameters"])
            for response in described["responses"].values():
                assert response["description"]


def test_the_document_passes_a_validator(client: Client) -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="pip install openapi-spec-validator"
    )
    validator.validate(client.get("/openapi.json").json)


@pytest.mark.parametrize("route", ROUTES.values(), ids=every)
def test_every_parameter_that_is_declared_is_taken(client: Client, route: Route) -> None:
    """And none besides: an unknown one is refused."""
    path = route.path.replace("{key}", "declared")
    answer = client.ask(route.method, f"{path}?no-such-parameter=1", b"" if route.body else None)
    assert answer.status in (400, 415), answer
    source = answer.json.get("detail") or answer.json.get("message")
    if answer.status == 400 and "Known here" in source:
        known = set(source.partition("Known here: ")[2].rstrip(".").split(", ")) - {"none"}
        declared = {one.name for one in route.parameters if one.where == "query"}
        assert known - {"prefix"} == declared - {"prefix"} or route.name == "watch"


# Problems


def test_each_kind_of_problem_has_its_page(client: Client) -> None:
    everything = client.get("/docs/problems").body.decode()
    for slug, kind in KINDS.items():
        page = client.get(TYPE_PREFIX + slug)
        assert page.status == 200
        assert kind.title.split("'")[0] in page.body.decode()
        assert f'id="{slug}"' in everything
        assert kind.explanation
        assert 400 <= kind.status < 600
    assert client.get(TYPE_PREFIX + "no-such-problem").status == 404


def test_every_slug_that_is_used_is_a_kind_and_every_kind_is_used() -> None:
    pattern = re.compile(
        r'(?:Problem\(|_noted\(\s*request,)\s*"([a-z0-9-]+)"|Why\.[A-Z]+: \(\s*"([a-z-]+)"'
    )
    text = "".join(path.read_text() for path in (SOURCE / "http").rglob("*.py"))
    used = {one or other for one, other in pattern.findall(text)}
    used |= {"bad-host"} if '"bad-host" if name' in text else set()
    assert used - set(KINDS) == set()
    assert set(KINDS) - used == set()


def test_the_pages_need_nothing_from_elsewhere(client: Client) -> None:
    for path in ("/docs", "/docs/problems", "/"):
        answer = client.get(path)
        assert answer["Content-Type"].startswith("text/html")
        text = answer.body.decode()
        assert not re.search(r'(?:src|href)="?(?:https?:)?//', text)
        assert not re.search(r"<script(?![^>]* src=)", text)
        assert "default-src 'none'" in answer["Content-Security-Policy"]


def test_the_limits_that_are_enforced_are_served(client: Client) -> None:
    limits = client.get("/v1/limits").json
    assert limits["key_bytes"] == 511
    assert limits["page_keys"] == 1000
    assert limits["batch_operations"] == 1000
    assert limits["wait_seconds"] == 300
    assert limits["idempotency_seconds"] == 600


def test_the_console_files_are_packaged() -> None:
    for name in ("static/index.html", "static/main.js", "static/docs.js"):
        assert resources.files("keyrack.console").joinpath(name).is_file()
    assert json.loads(reference.openapi_bytes())["openapi"]
