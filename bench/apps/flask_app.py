"""The seed API in Flask over a dict: what Keyrack replaces."""

# Flask lives in the bench's own environment, out of the type checker's sight.
# mypy: disable-error-code="import-not-found, untyped-decorator, attr-defined"

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request

app = Flask(__name__)
app.json.sort_keys = False
store: dict[str, Any] = {}


@app.get("/get/<path:key>")
def read(key: str) -> Any:
    if key not in store:
        return jsonify(status="error", message="Key not found"), 404
    return jsonify(key=key, value=store[key])


@app.post("/set")
def write() -> Any:
    pair = request.get_json()
    store[pair["key"]] = pair["value"]
    return jsonify(status="success", message="key-value pair is set successfully")


@app.post("/fill/<int:keys>")
def fill(keys: int) -> Any:
    """For the bench only: what `keys` writes would leave."""
    store.update((f"key:{i:012d}", f"value:{i:026d}") for i in range(keys))
    return jsonify(keys=len(store))
