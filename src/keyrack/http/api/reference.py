"""The API's descriptions, made from the route table: OpenAPI 3.1, HTML and Markdown."""

from __future__ import annotations

import functools
import html
import json
import shlex
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyrack import __version__
from keyrack.engines.contract import MAX_KEY_BYTES
from keyrack.http import problems
from keyrack.http.api.examples import ANSWERS
from keyrack.http.api.members import Member, members
from keyrack.http.api.models import ProblemDocument, Status
from keyrack.http.api.rights import NEEDS
from keyrack.http.api.routes import ROUTES
from keyrack.http.problems import KINDS, TYPE_PREFIX, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.http.api.routes import Parameter, Reaction, Route, Shape

_REF: Final = "#/components/schemas/{name}"
_KEY: Final = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The rest of the path, percent-decoded once; it may hold slashes.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES},
}
_SEED: Final = frozenset(("get", "set"))
_MAY_BE_EMPTY: Final = frozenset(("counter", "terraform_unlock"))
"""Operations that do without a body."""
_LONG_LINE: Final = 160
"""Characters of JSON up to which an example stands in one line."""
_HEADERS: Final = {
    "Keyrack-Undo": "What `POST /v1/undo/{key}` takes to undo the deletion, if that can be.",
    "ETag": "The quoted revision of the key's last write.",
    "Content-Range": "Which bytes these are, and how many the value has.",
    "Keyrack-TTL": "Seconds left, when the key has a TTL.",
    "Cache-Control": "`no-store`, or what whoever stored the value lets caches do, like "
    "`public, max-age=30, stale-while-revalidate=60`; `max-age` is no more than the TTL left.",
    "Age": "Seconds since the value was stored, where a stale copy of it is kept.",
    "Cache-Status": "RFC 9211: `keyrack; hit; ttl=48`, below 0 for a stale value, `fwd=miss` where "
    "there is none; `collapsed` where somebody else recomputes it.",
    "Keyrack-Recompute": 'The lease to recompute the key: `"TOKEN"; ttl=SECONDS`.',
    "Location": "Where it is from now on.",
    "Link": '`rel="next"`: the next page.',
}
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "ETag": {"pattern": '^"[0-9]{1,19}"$', "examples": ['"1795474670195050"']},
    "Content-Range": {"examples": ["bytes 1-3/5"]},
    "Keyrack-TTL": {"pattern": r"^[0-9]+\.[0-9]{3}$", "examples": ["59.991"]},
    "Location": {"examples": ["/v1/auth/tokens/OjCJjnFw"]},
    "Link": {"examples": ['</v1/keys?after=config>; rel="next"']},
}


@functools.cache
def openapi_bytes() -> bytes:
    """Return the OpenAPI document as JSON."""
    return msgspec.json.encode(openapi())


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    types = [one for shape in _shapes() for one in _types(shape)]
    types += [ProblemDocument, Status]
    made, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = dict(zip(map(id, types), made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES.values():
        described = _described(route, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keyrack",
            "version": __version__,
            "description": "An in-memory key-value store that is spoken to with plain HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": title} for title, _ in GROUPS],
        "servers": [{"url": "/", "description": "The service that this document comes from."}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY_SCHEMES},
    }


def _shapes() -> Iterator[Shape]:
    for route in ROUTES.values():
        if route.body is not None:
            yield route.body
        for answer in route.answers:
            if answer.body is not None:
                yield answer.body


def _types(shape: Shape) -> tuple[Any, ...]:
    if shape.type is None:
        return ()
    return shape.type if isinstance(shape.type, tuple) else (shape.type,)


def _described(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [group_of(route)],
        "description": _description(route),
        "security": [{}] if _is_open(route) else [{"bearer": []}, {"basic": []}, {}],
        "parameters": [*_path_parameters(route), *map(_parameter, route.parameters)],
        "responses": {
            **{str(answer.status): _answer(route, answer, schemas) for answer in route.answers},
            **_failures(route),
        },
    }
    if route.body is not None:
        media = {"schema": _schema(route.body, schemas), "example": _sent_by(route)}
        content = {route.body.media_type: media}
        described["requestBody"] = {"required": route.name not in _MAY_BE_EMPTY, "content": content}
    return described


def _sent_by(route: Route) -> Any:
    """Return the body that a route's example sends; a file is what another example has answered."""
    words = shlex.split(route.example.rpartition("&& ")[2])
    if "-d" not in words:
        return ANSWERS["export"][200]
    body = words[words.index("-d") + 1]
    return json.loads(body) if body.startswith("{") else body


_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "krk_..."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The password is a token; the user's name means nothing.",
    },
}
"""Neither is needed where there is no access control, or for what is open to everybody."""


def _description(route: Route) -> str:
    return f"{route.description}\n\nNeeds: {_need(route)}.\n\nCost: {route.cost}.".strip()


def _need(route: Route) -> str:
    return NEEDS[route.name].told


def _is_open(route: Route) -> bool:
    return NEEDS[route.name].check is None


def _problems(route: Route) -> tuple[str, ...]:
    """Return what a route may be refused for: its own problems, and those of what it takes."""
    found = route.problems if _is_open(route) else (*route.problems, *_OF_ACCESS)
    reused = "idempotency-key-reused"
    takes_key = any(parameter.name == "Idempotency-Key" for parameter in route.parameters)
    return (*found, reused) if takes_key and reused not in found else found


_OF_ACCESS: Final = ("unauthenticated", "invalid-token", "forbidden", "rate-limited")


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [_KEY] if "{key}" in route.path else []


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _schema(shape: Shape, schemas: dict[int, Any]) -> Any:
    if shape.type is None:
        return {} if shape.media_type in ("application/json", "*/*") else {"type": "string"}
    found = [schemas[id(one)] for one in _types(shape)]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _answer(route: Route, answer: Reaction, schemas: dict[int, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.body is not None:
        media = {"schema": _schema(answer.body, schemas)}
        if (example := _example(route, answer)) is not None:
            media["example"] = example
        described["content"] = {answer.body.media_type: media}
    if answer.headers:
        described["headers"] = {
            name: {
                "description": _HEADERS[name],
                "schema": {"type": "string", **_SHAPES.get(name, {})},
            }
            for name in answer.headers
        }
    return described


def _failures(route: Route) -> dict[str, Any]:
    """Return the failures of an operation by status: its own, and those of any request."""
    by_status: dict[int, list[str]] = {}
    for slug in (*_problems(route), *_OF_ANY):
        by_status.setdefault(KINDS[slug].status, []).append(slug)
    media_type = "application/json" if route.name in _SEED else "application/problem+json"
    name = "Status" if route.name in _SEED else "ProblemDocument"
    schema = {"$ref": _REF.format(name=name)}
    return {
        str(status): {
            "description": " ".join(f"`{slug}`: {KINDS[slug].title}." for slug in slugs),
            "content": {
                media_type: {
                    "schema": schema,
                    "examples": {slug: {"value": _failure(route, slug)} for slug in slugs},
                }
            },
        }
        for status, slugs in sorted(by_status.items())
    }


def _failure(route: Route, slug: str) -> Any:
    """Return the body of a failure. Its `detail` says more, and what to do, where it happens."""
    body = problems.answer(Problem(slug, KINDS[slug].explanation), route.path.encode()).body
    return json.loads(body)


def _example(route: Route, answer: Reaction) -> Any:
    """Return an example of an answer's body, None where it has none, or one that nobody reads."""
    return ANSWERS.get(route.name, {}).get(answer.status)


_OF_ANY: Final = (
    "malformed-message",
    "bad-host",
    "request-timeout",
    "target-too-long",
    "expectation-failed",
    "head-too-large",
    "internal",
)


# For people


GROUPS: Final = (
    ("The first two requests", ("/set", "/get/")),
    ("One key", ("/v1/keys/",)),
    ("Many keys", ("/v1/keys", "/v1/batch")),
    ("Counters and locks", ("/v1/counters/", "/v1/locks")),
    ("States of Terraform", ("/v1/terraform/",)),
    ("Changes", ("/v1/watch", "/v1/events/")),
    ("Moving data", ("/v1/export", "/v1/import", "/v1/snapshot")),
    ("Access", ("/v1/auth/",)),
    ("The service", ("/",)),
)
"""Groups of operations: title, and how their paths begin. The first that fits is a path's group."""


def group_of(route: Route) -> str:
    """Return the title of the group that an operation belongs to."""
    return next(title for title, paths in GROUPS if route.path.startswith(paths))


@functools.cache
def html_reference() -> str:
    """Return the operations as a piece of HTML: contents, then a section each."""
    contents, sections = [], []
    for title, _ in GROUPS:
        routes = [route for route in ROUTES.values() if group_of(route) == title]
        entries = "".join(
            f'<li><a href="#{one.name}"><code>{one.method}</code> '
            f"{html.escape(one.summary)}</a></li>"
            for one in routes
        )
        contents.append(f"<li>{html.escape(title)}<ul>{entries}</ul></li>")
        sections.append(f"<h2>{html.escape(title)}</h2>")
        sections += [_html_section(route) for route in routes]
    return (
        "<h1>Keyrack reference</h1><p>Everything that this service does. The same as "
        '<a href="openapi.json">OpenAPI 3.1</a>.</p>'
        f'<nav class="contents" aria-label="Contents"><ul>{"".join(contents)}</ul></nav>'
        f'<div class="sections">{"".join(sections)}</div>'
    )


def _html_section(route: Route) -> str:
    rows = "".join(
        f"<tr><td>{status}</td><td>{text}</td></tr>" for status, text in _answer_rows(route)
    )
    parameters = "".join(
        f"<li><code>{html.escape(one.name)}</code> ({one.where}): {_code(one.description)}</li>"
        for one in route.parameters
    )
    return (
        f'<section id="{route.name}"><h3><code>{route.method} '
        f"{html.escape(route.path)}</code> {html.escape(route.summary)}</h3>"
        f"<p>{_code(route.description)}</p>"
        + (f"<ul>{parameters}</ul>" if parameters else "")
        + _html_members("Body of the request", route.body)
        + f"<pre><code>{html.escape(route.example)}</code></pre><table>{rows}</table>"
        + "".join(_html_answers(route))
        + f"<p class=dim>Needs: {_code(_need(route))}. "
        f"Cost: {html.escape(route.cost)}.</p></section>"
    )


def _html_answers(route: Route) -> Iterator[str]:
    for answer in route.answers:
        if (example := _example(route, answer)) is not None:
            yield f"<p>An answer {answer.status}, for example:</p>"
            yield f"<pre><code>{html.escape(_shown(example))}</code></pre>"
        yield _html_members(f"Body of the answer {answer.status}", answer.body)


def _html_members(title: str, shape: Shape | None) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(one.name)}</code></td>"
        f"<td>{html.escape(one.type)}{'' if one.is_required else ', optional'}</td>"
        f"<td>{_code(one.meaning)}</td></tr>"
        for one in _members(shape)
    )
    return f"<details><summary>{title}</summary><table>{rows}</table></details>" if rows else ""


def _members(shape: Shape | None) -> list[Member]:
    """Return the members of a body, none where it is not of a known type."""
    if shape is None or shape.type in (None, Any):
        return []
    made, components = msgspec.json.schema_components(_types(shape), ref_template=_REF)
    return members({"anyOf": list(made)}, components)


def _shown(example: Any) -> str:
    """Return an example as it is on the wire, but for line breaks in what would be long."""
    if isinstance(example, str):
        return example.strip("\n")
    text = json.dumps(example, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _LONG_LINE else json.dumps(example, ensure_ascii=False, indent=2)


def _answer_rows(route: Route) -> Iterator[tuple[int, str]]:
    for answer in route.answers:
        with_fields = "".join(f" <code>{name}</code>" for name in answer.headers)
        yield answer.status, _code(answer.description) + with_fields
    for slug in route.problems:
        kind = KINDS[slug]
        link = f'<a href="{TYPE_PREFIX[1:]}{slug}">{slug}</a>'
        yield kind.status, f"{link}: {html.escape(kind.title)}"


def _code(text: str) -> str:
    """Return text as HTML, with what is between backticks as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(parts))


def markdown() -> str:
    """Return the operations as Markdown, for `docs/http-api.md`."""
    return "\n".join(_markdown_section(route) for route in ROUTES.values())


def _markdown_section(route: Route) -> str:
    lines = [f"### `{route.method} {route.path}`: {route.summary}", ""]
    if route.description:
        lines += [route.description, ""]
    if route.parameters:
        lines += [f"- `{p.name}` ({p.where}): {p.description}" for p in route.parameters] + [""]
    lines += _markdown_members("The body", route.body)
    lines += ["```sh", route.example, "```", "", "| answer | when |", "|---|---|"]
    lines += [
        f"| {answer.status}{_with(answer)} | {answer.description} |" for answer in route.answers
    ]
    lines += [f"| {KINDS[slug].status} `{slug}` | {KINDS[slug].title} |" for slug in route.problems]
    lines.append("")
    for answer in route.answers:
        lines += _markdown_answer(route, answer)
    needs = f"Needs, where access is controlled: {_need(route)}."
    return "\n".join([*lines, needs, f"Cost: {route.cost}.", ""])


def _markdown_answer(route: Route, answer: Reaction) -> list[str]:
    example = _example(route, answer)
    if example is None:
        return []
    language = "" if isinstance(example, str) else "json"
    lines = [f"An answer {answer.status}:", "", f"```{language}", _shown(example), "```", ""]
    return lines + _markdown_members("Its body", answer.body)


def _markdown_members(subject: str, shape: Shape | None) -> list[str]:
    lines = [
        f"- `{one.name}` ({one.type}{'' if one.is_required else ', optional'})"
        + (f": {one.meaning}" if one.meaning else "")
        for one in _members(shape)
    ]
    return [f"{subject} has", "", *lines, ""] if lines else []


def _with(answer: Reaction) -> str:
    return "".join(f" `{name}`" for name in answer.headers)


_BEGIN: Final = "<!-- operations: made by `make docs` from src/keyrack/http/api/routes.py -->"
_END: Final = "<!-- end of operations -->"


def with_operations(page: str) -> str:
    """Return a Markdown page with the operations, as they are now, between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{markdown()}\n{_END}{after}"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    path = Path(sys.argv[1])
    path.write_text(with_operations(path.read_text(encoding="utf-8")), encoding="utf-8")
