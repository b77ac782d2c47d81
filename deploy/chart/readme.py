"""Write the table of values in README.md from the comments of values.yaml (`make chart-docs`).

    python deploy/chart/readme.py [--check]

A comment belongs to the key right below it. A value without one ends this with a sentence.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BEGIN, END = "<!-- values: made by `make chart-docs` -->\n", "<!-- end of values -->\n"
KEY = re.compile(r"( *)([A-Za-z][\w-]*):( |$)")


def main() -> int:
    """Write the table, or with --check tell whether it is current."""
    readme = HERE / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    made = head + BEGIN + "\n" + table() + "\n" + END + tail
    if "--check" not in sys.argv:
        readme.write_text(made)
    elif made != text:
        print("deploy/chart/README.md is not current: run `make chart-docs`.", file=sys.stderr)
        return 1
    return 0


def table() -> str:
    """Return the values as a Markdown table."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, comment in rows((HERE / "values.yaml").read_text()):
        meaning = comment.replace("|", "\\|")
        lines.append(f"| `{path}` | `{json.dumps(default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def rows(text: str) -> Iterator[tuple[str, object, str]]:
    """Yield path, default and comment of each value, in the file's order."""
    values = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        found = KEY.match(line)
        if line.lstrip().startswith("# "):
            comment.append(line.strip()[2:])
            continue
        if found:
            path = [*path[: len(found[1]) // 2], found[2]]
            default = values
            for key in path:
                default = default[key]
            if not isinstance(default, dict) or not default:
                if not comment:
                    raise SystemExit(f"values.yaml: {'.'.join(path)} has no comment above it.")
                yield ".".join(path), default, " ".join(comment)
        comment = []


if __name__ == "__main__":
    sys.exit(main())
