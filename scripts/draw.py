#!/usr/bin/env python3
"""Make a picture of boxes and arrows (SVG) from a text.

    scripts/draw.py docs/images/deploy.toml >docs/images/deploy.svg

A box and an area have a place `at` = [column, row, width, height]; an arrow leads from one named
box to another, from edge to edge. The picture follows the reader's light or dark theme.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

_CELL = 32
"""Pixels of a cell of the grid, in both directions."""
_LINE = 17
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222; text-anchor: middle }
text.first { font-weight: 600 }
text.area { text-anchor: start; font-size: 12px; fill: #555 }
text.arrow { font-size: 12px; fill: #345; paint-order: stroke; stroke: #fff; stroke-width: 4px }
rect.box { fill: #eef3fb; stroke: #4a6fa5 }
rect.area { fill: none; stroke: #aaa; stroke-dasharray: 5 4 }
rect.page { fill: #fff }
line { stroke: #4a6fa5; stroke-width: 1.5; marker-end: url(#head) }
path { fill: #4a6fa5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e6 } text.area { fill: #aaa } text.arrow { fill: #cde; stroke: #16191f }
rect.page { fill: #16191f }
rect.box { fill: #223049; stroke: #7fa3d6 }
line { stroke: #7fa3d6 }
path { fill: #7fa3d6 }
}
"""

Place = tuple[float, float, float, float]


def picture(text: str) -> str:
    """Return the SVG of a picture that is given as TOML."""
    given = tomllib.loads(text)
    width, height = given["columns"] * _CELL, given["rows"] * _CELL + _LINE
    places = {box["name"]: _pixels(box["at"]) for box in given["boxes"]}
    title = escape(given["title"])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
        ' orient="auto"><path d="M0 0 8 4 0 8z"/></marker>',
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for area in given["areas"]:
        x, y, _, _ = place = _pixels(area["at"])
        lines += [_rectangle("area", place), _text("area", x + 8, y + _LINE, area["label"])]
    arrows = [
        (arrow, _line(*(places[name] for name in arrow["path"]))) for arrow in given["arrows"]
    ]
    lines += [f'<line x1="{a:g}" y1="{b:g}" x2="{c:g}" y2="{d:g}"/>' for _, (a, b, c, d) in arrows]
    for box in given["boxes"]:
        lines += _box(places[box["name"]], box["label"])
    for arrow, (a, b, c, d) in arrows:
        if arrow["label"]:
            lines.append(_text("arrow", (a + c) / 2, (b + d) / 2 + 4, arrow["label"]))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _pixels(at: list[float]) -> Place:
    x, y, width, height = (cells * _CELL for cells in at)
    return x, y, width, height


def _rectangle(kind: str, place: Place) -> str:
    x, y, width, height = place
    size = f'width="{width:g}" height="{height:g}" rx="6"'
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" {size}/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _box(place: Place, label: list[str]) -> list[str]:
    x, y, width, height = place
    top = y + height / 2 - (len(label) - 1) * _LINE / 2 + 5
    return [
        _rectangle("box", place),
        *(
            _text("first" if not number else "more", x + width / 2, top + number * _LINE, line)
            for number, line in enumerate(label)
        ),
    ]


def _line(start: Place, end: Place) -> Place:
    """Return where an arrow leaves one box and reaches the other."""
    leaves = _edge(start, _centre(end))
    reaches = _edge(end, _centre(start))
    return *leaves, *reaches


def _centre(place: Place) -> tuple[float, float]:
    x, y, width, height = place
    return x + width / 2, y + height / 2


def _edge(place: Place, towards: tuple[float, float]) -> tuple[float, float]:
    x, y = _centre(place)
    across, down = towards[0] - x, towards[1] - y
    # How much of the way to the other centre lies inside of the box.
    part = min(
        place[2] / 2 / abs(across) if across else 1,
        place[3] / 2 / abs(down) if down else 1,
    )
    return round(x + across * part, 1), round(y + down * part, 1)


def main() -> int:
    """Print the picture of the text that is named."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    print(picture(Path(sys.argv[1]).read_text()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
