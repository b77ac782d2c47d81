"""The pictures of the documents are made from their texts."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "images" / "deploy.toml"


def test_the_picture_of_the_deployment_is_current_and_shown() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "draw.py"), str(DEPLOY)]
    drawn = subprocess.check_output(command, text=True)
    assert DEPLOY.with_suffix(".svg").read_text() == drawn, (
        "run: scripts/draw.py docs/images/deploy.toml >docs/images/deploy.svg"
    )
    assert "(images/deploy.svg)" in (ROOT / "docs" / "deploy.md").read_text()


def test_the_picture_has_all_boxes_and_arrows_and_nothing_outside() -> None:
    root = ET.parse(DEPLOY.with_suffix(".svg")).getroot()
    name = "{http://www.w3.org/2000/svg}"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = [one for one in root.iter(f"{name}rect") if one.get("class") == "box"]
    assert len(boxes) == DEPLOY.read_text().count("[[boxes]]")
    assert len(list(root.iter(f"{name}line"))) == DEPLOY.read_text().count("[[arrows]]")
    for box in boxes:
        x, y, wide, high = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + high <= height
