"""JSON, loaded when somebody needs it: importing `json` costs as much as opening a connection."""

from __future__ import annotations

from typing import Any


def dumps(value: Any) -> bytes:
    """Return a value's JSON in UTF-8, without white space between its tokens."""
    import json  # see above

    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def loads(data: bytes | str) -> Any:
    """Return what a JSON text stands for. Raises `ValueError` or `RecursionError`."""
    import json  # see above

    return json.loads(data)
