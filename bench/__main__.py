"""`python -m bench`: measure, then write the report."""

from __future__ import annotations

import sys
from pathlib import Path

# `python bench/__main__.py` puts this folder on the path, not the one that holds the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
