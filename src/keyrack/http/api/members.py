"""What a body consists of, member by member, for the pages that people read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Member(NamedTuple):
    """A member of a body: where it stands, as in `keys[].size`, its type, and what it means."""

    name: str
    type: str
    is_required: bool
    meaning: str


def members(schema: dict[str, Any], components: dict[str, Any]) -> list[Member]:
    """Return the members of a JSON Schema, those of what a member consists of after it.

    Each of several variants has a row that says which it is, and its members after that.
    """
    return list(_Walk(components).below(schema, ""))


class _Walk:
    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components

    def below(self, schema: dict[str, Any], path: str) -> Iterator[Member]:
        """Yield the members of what a schema describes, if they are known."""
        schema = self._resolved(schema)
        if "items" in schema:
            yield from self.below(schema["items"], f"{path}[]")
        variants = [one for one in schema.get("anyOf", ()) if "$ref" in one]
        for variant in variants:
            found = self._resolved(variant)
            if len(variants) > 1:
                # A docstring's lines are indented or not, as the version of Python has it.
                meaning = " ".join(found.get("description", "").split())
                yield Member(path or "either", _tag(found), True, meaning)
            yield from self._of_object(found, path)
        yield from self._of_object(schema, path)

    def _of_object(self, schema: dict[str, Any], path: str) -> Iterator[Member]:
        required = schema.get("required", ())
        for name, member in schema.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield Member(here, self._type(member), name in required, _meaning(member))
            yield from self.below(member, here)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in schema:
            return schema
        found: dict[str, Any] = self._components[schema["$ref"].rpartition("/")[2]]
        return found

    def _type(self, schema: dict[str, Any]) -> str:
        schema = self._resolved(schema)
        if "enum" in schema:
            return " or ".join(json.dumps(value) for value in schema["enum"])
        if "anyOf" in schema:
            return " or ".join(dict.fromkeys(map(self._type, schema["anyOf"])))
        kind = schema.get("type", "any JSON")
        if kind == "array" and "items" in schema:
            return f"array of {self._type(schema['items'])}"
        return kind if isinstance(kind, str) else " or ".join(kind)


def _tag(variant: dict[str, Any]) -> str:
    """Return what tells a variant from the others: its only member that can have but one value."""
    for name, member in variant.get("properties", {}).items():
        if len(member.get("enum", ())) == 1:
            return f'"{name}": "{member["enum"][0]}"'
    return str(variant.get("title", "object"))


def _meaning(schema: dict[str, Any]) -> str:
    described = (schema, *schema.get("anyOf", ()))
    meaning = next((one["description"] for one in described if "description" in one), "")
    if "default" not in schema:
        return meaning
    return f"{meaning} Default: {json.dumps(schema['default'])}.".strip()
