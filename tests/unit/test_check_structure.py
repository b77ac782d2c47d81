"""The lint of the source's structure finds what it says it finds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_structure.py"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("check_structure", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[str]]:
    """Return what checks a package `shop` made of the given files."""
    script = _script()

    def check(**files: str) -> list[str]:
        root = tmp_path / "shop"
        for name, text in {"__init__": "", **files}.items():
            path = root / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found: list[str] = script.problems(root)
        return found

    return check


def test_a_sound_package_has_no_problem(problems: Callable[..., list[str]]) -> None:
    assert problems(a="from shop import b", b="class Till:\n    pass") == []


def test_a_cycle_of_modules_is_found(problems: Callable[..., list[str]]) -> None:
    found = problems(a="import shop.b", b="from shop.c import x", c="x = 1\nfrom shop import a")
    assert found == ["import cycle: shop.a, shop.b, shop.c"]


def test_imports_for_types_alone_make_a_cycle(problems: Callable[..., list[str]]) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shop.a import A"
    assert problems(a="import shop.b\nclass A: ...", b=typed) == ["import cycle: shop.a, shop.b"]


def test_imports_inside_functions_make_a_cycle(problems: Callable[..., list[str]]) -> None:
    late = "def f():\n    from shop.a import A\n    return A"
    assert problems(a="import shop.b\nclass A: ...", b=late) == ["import cycle: shop.a, shop.b"]


def test_what_a_package_offers_on_demand_it_may_name_for_type_checkers(
    problems: Callable[..., list[str]],
) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shop.a import A"
    assert problems(__init__=typed, a="from shop import x\nclass A: ...") == []
    eager = typed.replace("if TYPE_CHECKING", "if True")
    assert problems(__init__=eager, a="from shop import x\nclass A: ...") == [
        "import cycle: shop, shop.a"
    ]


def test_http_does_not_depend_on_the_server(problems: Callable[..., list[str]]) -> None:
    found = problems(http__in__app="import shop.server.worker", server__in__worker="")
    assert found == ["shop.http.app imports shop.server.worker: http must not depend on server"]


def test_the_server_may_depend_on_http(problems: Callable[..., list[str]]) -> None:
    assert problems(server__in__worker="import shop.http.app", http__in__app="") == []


def _large(attributes: int, methods: int, reason: str = "") -> str:
    first = "".join(f"        self.a{i} = {i}\n" for i in range(attributes))
    others = "".join(f"    def m{i}(self): ...\n" for i in range(methods - 1))
    return f"class Big:{reason}\n    def m(self):\n{first or '        pass'}\n{others}"


def test_a_class_of_exactly_the_allowed_size_passes(problems: Callable[..., list[str]]) -> None:
    assert problems(a=_large(20, 30)) == []


def test_one_attribute_too_many_is_found(problems: Callable[..., list[str]]) -> None:
    assert problems(a=_large(21, 2)) == ["shop.a:1 Big has 21 attributes, above 20"]


def test_one_method_too_many_is_found(problems: Callable[..., list[str]]) -> None:
    assert problems(a=_large(1, 31)) == ["shop.a:1 Big has 31 methods, above 30"]


def test_a_reason_beside_the_class_excuses_its_size(problems: Callable[..., list[str]]) -> None:
    assert problems(a=_large(21, 31, "  # structure: one slot for each field of the wire")) == []


def test_a_private_method_is_not_overridden_across_modules(
    problems: Callable[..., list[str]],
) -> None:
    found = problems(
        a="class Base:\n    def _hook(self): ...",
        b="from shop.a import Base\nclass Child(Base):\n    def _hook(self): ...",
    )
    assert found == ["shop.b:2 Child overrides the private Base._hook of shop.a"]


def test_an_override_through_two_modules_is_found(problems: Callable[..., list[str]]) -> None:
    found = problems(
        a="class Base:\n    def _hook(self): ...",
        b="from shop.a import Base\nclass Middle(Base): ...",
        c="import shop\nfrom shop.b import Middle as M\nclass Child(M):\n    def _hook(self): ...",
    )
    assert found == ["shop.c:3 Child overrides the private Base._hook of shop.a"]


def test_public_and_special_methods_may_be_overridden(problems: Callable[..., list[str]]) -> None:
    assert (
        problems(
            a="class Base:\n    def go(self): ...\n    def __len__(self): ...",
            b="from shop.a import Base\nclass Child(Base):\n    def go(self): ...\n"
            "    def __len__(self): ...",
        )
        == []
    )


def test_a_public_class_name_is_used_once(problems: Callable[..., list[str]]) -> None:
    found = problems(a="class Link: ...", b="\nclass Link: ...")
    assert found == ["the class name Link is used in shop.a:1 and shop.b:2"]


def test_a_private_class_name_may_come_twice(problems: Callable[..., list[str]]) -> None:
    assert problems(a="class _Link: ...", b="class _Link: ...") == []
