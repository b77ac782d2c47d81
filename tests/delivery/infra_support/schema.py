"""What the current AWS provider knows, without having it.

The provider itself cannot be had without Terraform's registry. A PyPI package of bindings made from
the schema of 6.25 can: each resource is a Python class, each argument a keyword, each nested block
another class whose name continues the first. Nothing of it is imported, only read.
"""

import ast
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

Block = dict[str, Any]
_DETAILS = ("__comments__", "__is_block__")
_OF_THE_LANGUAGE = {"count", "for_each", "depends_on", "lifecycle", "provider"}
_OF_THE_BINDINGS = _OF_THE_LANGUAGE | {"connection", "provisioners"}


def parse(source: Path) -> Block:
    """The blocks of a .tf file, names without their quotes."""
    with source.open() as file:
        blocks: Block = hcl2.load(file)
    return blocks


def plain(name: str) -> str:
    """A label without the quotes that the parser keeps."""
    return name.strip('"')


def labelled(blocks: list[Block], labels: int = 2) -> Iterator[tuple[str, Block]]:
    """The blocks with the last of their labels, or with both, joined by a dot."""
    for entry in blocks:
        for first, body in entry.items():
            if first in _DETAILS:
                continue
            if labels == 1:
                yield plain(first), body
            else:
                for second, inner in body.items():
                    yield f"{plain(first)}.{plain(second)}", inner


class Bindings:
    """The classes of the bindings, read from their wheel."""

    def __init__(self, wheel: Path) -> None:
        self._wheel = zipfile.ZipFile(wheel)
        self._classes = cache(self._read)
        self._annotations = cache(self._annotated)

    def faults(self, kind: str, name: str, body: Block) -> list[str]:
        """What the provider would not take, or misses, in a resource, data source or itself."""
        if kind == "provider":
            return self._compare("provider", "AwsProvider", body, name)
        body = {key: value for key, value in body.items() if key not in _OF_THE_LANGUAGE}
        module = name.removeprefix("aws_") if kind == "resource" else f"data_{name}"
        return self._compare(module, _camel(module), body, name)

    def schema(self, kind: str, name: str) -> dict[str, Any]:
        """What Terraform would be told of a resource, a data source or the provider itself."""
        if kind == "provider":
            return self._block("provider", "AwsProvider", meta=True)
        module = name.removeprefix("aws_") if kind == "resource" else f"data_{name}"
        return self._block(module, _camel(module), meta=True)

    def _block(self, module: str, of: str, *, meta: bool = False) -> dict[str, Any]:
        """The arguments of a class, those that only AWS sets, and its nested blocks."""
        annotations = self._annotations(module)
        arguments, required = annotations[of]["arguments"], annotations[of]["required"]
        outputs = annotations.get(of if meta else f"{of}OutputReference", {}).get("outputs", {})
        found: dict[str, Any] = {"attributes": {}, "blocks": {}}
        for name, annotation in arguments.items():
            if meta and name in _OF_THE_BINDINGS:
                continue
            inner = re.search(r"[\[ ]['\"](\w+)['\"]", annotation)
            if inner:
                found["blocks"][name] = self._nested(module, inner[1], name, annotation, required)
            else:
                found["attributes"][name] = {
                    "type": _type(annotation),
                    "required": name in required,
                    "optional": name not in required,
                    "computed": name in ("id", "tags_all"),
                }
        for name, annotation in outputs.items():
            if name in arguments or name in _OF_THE_BINDINGS:
                continue
            found["attributes"][name] = {
                "type": self._computed(module, annotation),
                "required": False,
                "optional": False,
                "computed": True,
            }
        return found

    def _nested(
        self, module: str, of: str, name: str, annotation: str, required: set[str]
    ) -> dict[str, Any]:
        many = "Sequence" in annotation
        return {
            "block": self._block(module, of),
            "nesting": "single" if name == "timeouts" else "list",
            "least": 1 if name in required else 0,
            "most": 0 if many or name == "timeouts" else 1,
        }

    def _computed(self, module: str, annotation: str) -> Any:
        """The type of an attribute that AWS sets; a list of objects where it is a class."""
        inner = re.search(r"['\"](\w+)List['\"]", annotation)
        if not inner:
            return _type(annotation)
        outputs = self._annotations(module)[f"{inner[1]}OutputReference"]["outputs"]
        of = {name: self._computed(module, each) for name, each in outputs.items()}
        return ["list", ["object", of]]

    def _annotated(self, module: str) -> dict[str, dict[str, Any]]:
        """By class: its arguments, which of them are required, and its outputs, as written."""
        path = f"cdktf_cdktf_provider_aws/{module}/__init__.py"
        found = {}
        for node in ast.parse(self._wheel.read(path)).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = _described(node)
        return found

    def _compare(self, module: str, of: str, body: Block, where: str) -> list[str]:
        classes = self._classes(module)
        if of not in classes:
            return [f"{where}: unknown"]
        known, required = classes[of]
        given = {argument: value for argument, value in body.items() if argument not in _DETAILS}
        for entry in given.pop("dynamic", []):
            given |= {plain(name): [inner["content"][0]] for name, inner in entry.items()}
        faults = [f"{where}: no argument {name}" for name in given if name not in known]
        faults += [f"{where}: misses {name}" for name in required - given.keys()]
        for name, value in given.items():
            for inner in _blocks(value):
                faults += self._compare(module, of + _camel(name), inner, f"{where}.{name}")
        return faults

    def _read(self, module: str) -> dict[str, tuple[set[str], set[str]]]:
        path = f"cdktf_cdktf_provider_aws/{module}/__init__.py"
        if path not in self._wheel.namelist():
            return {}
        found = {}
        for node in ast.parse(self._wheel.read(path)).body:
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        found[node.name] = _keywords(method)
        return found


def _described(node: ast.ClassDef) -> dict[str, Any]:
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    start = next((each for each in methods if each.name == "__init__"), None)
    arguments = start.args.kwonlyargs if start else []
    return {
        "arguments": {
            each.arg: ast.unparse(each.annotation) for each in arguments if each.annotation
        },
        "required": _keywords(start)[1] if start else set(),
        "outputs": {
            each.name: ast.unparse(each.returns)
            for each in methods
            if each.returns and _is_output(each)
        },
    }


def _is_output(method: ast.FunctionDef) -> bool:
    """Whether it reads an attribute of the resource, and not something of the bindings."""
    reads = any("jsii.member" in ast.unparse(each) for each in method.decorator_list)
    is_property = any(ast.unparse(each) == "builtins.property" for each in method.decorator_list)
    own = method.name.endswith("_input") or method.name.startswith("_")
    return reads and is_property and not own and method.name not in ("internal_value", "fqn")


def _type(annotation: str) -> Any:
    """Terraform's type for an annotation of the bindings."""
    plain_types = {"builtins.str": "string", "jsii.Number": "number", "builtins.bool": "bool"}
    inner = next((known for text, known in plain_types.items() if text in annotation), "bool")
    if "Mapping" in annotation or "StringMap" in annotation:
        return ["map", "string"]
    if "Sequence" in annotation or "List[" in annotation:
        return ["list", inner]
    return inner


def _keywords(method: ast.FunctionDef) -> tuple[set[str], set[str]]:
    arguments = zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)
    defaults = {argument.arg: default for argument, default in arguments}
    return set(defaults), {name for name, default in defaults.items() if default is None}


def _blocks(value: Any) -> list[Block]:
    values = value if isinstance(value, list) else []
    return [inner for inner in values if isinstance(inner, dict) and "__is_block__" in inner]


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
