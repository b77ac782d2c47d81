"""Fail where the structure of the source breaks a rule that no linter on the market checks.

    python scripts/check_structure.py [ROOT]      ROOT is the directory of the package: src/keyrack

The rules:

- No import cycle. Imports for types alone and imports inside functions count: a design that needs
  them is circular too. Only the package's own `__init__` may import on demand what it offers, and
  say so to type checkers.
- Packages depend on each other in one direction, as `FORBIDDEN` says.
- A class has at most 20 attributes and 30 methods. One that needs more gives its reason behind the
  class statement: `class Name:  # structure: why`.
- A class does not override a private method of a class in another module.
- A public class name is used once in the whole package.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MOST_ATTRIBUTES: Final = 20
MOST_METHODS: Final = 30
REASON: Final = "# structure: "
FORBIDDEN: Final = (
    ("engines", "http"),
    ("engines", "server"),
    ("engines", "access"),
    ("shared", "http"),
    ("shared", "server"),
    ("http", "server"),
    ("http", "cli"),
    ("access", "http"),
    ("access", "server"),
    ("access", "engines"),
    ("client", "engines"),
    ("client", "http"),
    ("client", "server"),
    ("client", "inprocess"),
    ("engines", "inprocess"),
    ("http", "inprocess"),
    ("server", "inprocess"),
    ("http", "compat"),
    ("engines", "compat"),
)
"""The package on the left does not import the one on the right, at run time or for types."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One source file."""

    name: str
    path: Path
    lines: list[str]
    tree: ast.Module
    is_package: bool


class ClassFacts(NamedTuple):
    """What the rules ask of one class."""

    name: str
    module: str
    line: int
    bases: tuple[str, ...]
    """Qualified names, as far as imports of the module tell."""
    methods: frozenset[str]
    attributes: frozenset[str]
    has_reason: bool


def modules_of(root: Path) -> dict[str, Module]:
    """Read every module of the package at `root`, by its dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text.splitlines(), ast.parse(text), is_package)
    return found


def imports_of(module: Module, known: Mapping[str, Module]) -> set[str]:
    """Return the modules of the package that `module` imports, anywhere in it."""
    found: set[str] = set()
    offers = module.is_package and "." not in module.name
    for node in _at_once(module.tree.body) if offers else ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in known else node.module
                if target in known:
                    found.add(target)
    return found - {module.name}


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach one another (Tarjan's algorithm), sorted."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return sorted(found)


def classes_of(module: Module) -> Iterator[ClassFacts]:
    """Yield what the rules ask of each class of a module, nested ones left out."""
    names = _imported_names(module)
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        functions = [item for item in node.body if isinstance(item, FunctionNode)]
        yield ClassFacts(
            node.name,
            module.name,
            node.lineno,
            tuple(_qualified(base, names, module.name) for base in node.bases),
            frozenset(function.name for function in functions),
            frozenset(_attributes(functions)),
            REASON in module.lines[node.lineno - 1],
        )


def problems(root: Path) -> list[str]:
    """Return a sentence for each rule that the package at `root` breaks."""
    known = modules_of(root)
    graph = {name: imports_of(module, known) for name, module in known.items()}
    classes = [facts for module in known.values() for facts in classes_of(module)]
    return [
        *(f"import cycle: {', '.join(group)}" for group in cycles(graph)),
        *_against_direction(graph, root.name),
        *_too_large(classes),
        *_private_overrides(classes),
        *_names_used_twice(classes),
    ]


def _at_once(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what a module runs when it is imported, but for what is for type checkers."""
    return _top_level([one for one in body if not _is_for_types(one)])


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _top_level([*node.body, *node.orelse])
        else:
            yield node


def _imported_names(module: Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in _top_level(module.tree.body)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _qualified(base: ast.expr, names: Mapping[str, str], module: str) -> str:
    if isinstance(base, ast.Subscript):
        return _qualified(base.value, names, module)
    if isinstance(base, ast.Attribute):
        return f"{_qualified(base.value, names, module)}.{base.attr}"
    if isinstance(base, ast.Name):
        return names.get(base.id, f"{module}.{base.id}")
    return ast.unparse(base)


def _attributes(functions: Iterable[FunctionNode]) -> Iterator[str]:
    for function in functions:
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                yield node.attr


def _against_direction(graph: Mapping[str, set[str]], package: str) -> Iterator[str]:
    for name, targets in sorted(graph.items()):
        for upper, lower in FORBIDDEN:
            if not _inside(name, f"{package}.{upper}"):
                continue
            for target in sorted(targets):
                if _inside(target, f"{package}.{lower}"):
                    yield f"{name} imports {target}: {upper} must not depend on {lower}"


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _too_large(classes: Iterable[ClassFacts]) -> Iterator[str]:
    for facts in classes:
        sizes = (
            (len(facts.attributes), MOST_ATTRIBUTES, "attributes"),
            (len(facts.methods), MOST_METHODS, "methods"),
        )
        for size, most, what in sizes:
            if size > most and not facts.has_reason:
                yield f"{facts.module}:{facts.line} {facts.name} has {size} {what}, above {most}"


def _private_overrides(classes: Iterable[ClassFacts]) -> Iterator[str]:
    by_name = {f"{facts.module}.{facts.name}": facts for facts in classes}
    for facts in by_name.values():
        for base in _ancestors(facts, by_name):
            if base.module == facts.module:
                continue
            for method in sorted(facts.methods & base.methods):
                if method.startswith("_") and not method.endswith("__"):
                    yield (
                        f"{facts.module}:{facts.line} {facts.name} overrides the private"
                        f" {base.name}.{method} of {base.module}"
                    )


def _ancestors(facts: ClassFacts, by_name: Mapping[str, ClassFacts]) -> Iterator[ClassFacts]:
    for base in facts.bases:
        if base in by_name:
            yield by_name[base]
            yield from _ancestors(by_name[base], by_name)


def _names_used_twice(classes: Iterable[ClassFacts]) -> Iterator[str]:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for facts in classes:
        if not facts.name.startswith("_"):
            places[facts.name].append(f"{facts.module}:{facts.line}")
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"the class name {name} is used in {' and '.join(where)}"


def main(arguments: list[str]) -> int:
    """Print what is wrong, a line each; return 1 if anything is."""
    root = Path(arguments[0]) if arguments else Path(__file__).parents[1] / "src" / "keyrack"
    found = problems(root)
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
