"""The seed API in FastAPI over a dict."""

# FastAPI lives in the bench's own environment, out of the type checker's sight.
# mypy: disable-error-code="import-not-found, untyped-decorator, misc"

from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
store: dict[str, Any] = {}


class Pair(BaseModel):
    key: str
    value: Any


@app.get("/get/{key:path}")
async def read(key: str) -> dict[str, Any]:
    if key not in store:
        raise HTTPException(404, "Key not found")
    return {"key": key, "value": store[key]}


@app.post("/set")
async def write(pair: Pair) -> dict[str, str]:
    store[pair.key] = pair.value
    return {"status": "success", "message": "key-value pair is set successfully"}


@app.post("/fill/{keys}")
async def fill(keys: int) -> dict[str, int]:
    """For the bench only: what `keys` writes would leave."""
    store.update((f"key:{i:012d}", f"value:{i:026d}") for i in range(keys))
    return {"keys": len(store)}
