"""What the current AWS provider knows, without having it.

The provider itself cannot be had without Terraform's registry. A PyPI package of bindings made from
the schema of 6.25 can: each resource is a Python class, each argument a keyword, each nested block
another class whose name continues the first. Nothing of it is imported, only read.
"""

import ast
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

Block = dict[str, Any]
_DETAILS = ("__comments__", "__is_block__")
_OF_THE_LANGUAGE = {"count", "for_each", "depends_on", "lifecycle", "provider"}


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

    def faults(self, kind: str, name: str, body: Block) -> list[str]:
        """What the provider would not take, or misses, in a resource, data source or itself."""
        if kind == "provider":
            return self._compare("provider", "AwsProvider", body, name)
        body = {key: value for key, value in body.items() if key not in _OF_THE_LANGUAGE}
        module = name.removeprefix("aws_") if kind == "resource" else f"data_{name}"
        return self._compare(module, _camel(module), body, name)

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


def _keywords(method: ast.FunctionDef) -> tuple[set[str], set[str]]:
    arguments = zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)
    defaults = {argument.arg: default for argument, default in arguments}
    return set(defaults), {name for name, default in defaults.items() if default is None}


def _blocks(value: Any) -> list[Block]:
    values = value if isinstance(value, list) else []
    return [inner for inner in values if isinstance(inner, dict) and "__is_block__" in inner]


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
