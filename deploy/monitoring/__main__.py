"""Write the files that are made from the tables."""

from __future__ import annotations

from pathlib import Path

from deploy.monitoring.alerts import rules
from deploy.monitoring.dashboard import dashboard

ROOT = Path(__file__).parent
FILES = {
    ROOT / "dashboard.json": dashboard,
    ROOT / "rules.yaml": rules,
    ROOT.parent / "chart" / "files" / "rules.yaml": rules,
}

if __name__ == "__main__":
    for path, made in FILES.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(made(), encoding="utf-8")
