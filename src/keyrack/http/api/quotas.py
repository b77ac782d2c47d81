"""Quotas over HTTP: how many keys there may be below a prefix, and how many bytes."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.engines.contract import Delete, Quota, Refusal, Set, Space
from keyrack.engines.quotas import MOST_QUOTAS, QUOTA, encode
from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.keys import refused
from keyrack.http.api.models import QuotaList, QuotaRequest, QuotaShown
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import QuotaUse
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

_NONE: Final[frozenset[bytes]] = frozenset()
_QUOTAS: Final = b"/v1/quotas/"
_NO_STORE: Final = ((b"Cache-Control", b"no-store"),)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_decode: Final = msgspec.json.Decoder(QuotaRequest).decode


async def list_quotas(request: Request, context: Context) -> Answer:
    """`GET /v1/quotas`: all quotas, in the order of their names."""
    codec.parameters(request.query, _NONE)
    shown = QuotaList([_shown(one) for one in (await _uses(context)).values()])
    return Answer(200, JSON_HEADERS, codec.encode(shown))


async def show(request: Request, context: Context) -> Answer:
    """`GET /v1/quotas/{name}`: one quota, and what there is below its prefix."""
    codec.parameters(request.query, _NONE)
    name = _name(request)
    found = (await _uses(context)).get(name)
    if found is None:
        raise _missing(name)
    return Answer(200, JSON_HEADERS, codec.encode(_shown(found)))


async def put(request: Request, context: Context) -> Answer:
    """`PUT /v1/quotas/{name}`: when this is answered, every worker refuses what is beyond it."""
    codec.parameters(request.query, _NONE)
    if not context.engine.capabilities.quotas:
        raise Problem("quotas-not-supported", "A store in Valkey has no quotas.")
    name = _name(request)
    quota = _quota(name, codec.read_json(request, _decode))
    known = await _uses(context)
    if name not in known and len(known) >= MOST_QUOTAS:
        raise Problem("bad-quota", f"There are {MOST_QUOTAS} quotas, the most there may be.")
    change = Set(QUOTA + name.encode(), encode(quota), space=Space.ADMIN)
    await _change(context, change)
    found = (await _uses(context)).get(name)
    if found is not None and not found.counted:
        raise Problem("store-full", "The quota is kept, but there is no room to count its keys.")
    return Answer(204 if name in known else 201, _NO_STORE)


async def drop(request: Request, context: Context) -> Answer:
    """`DELETE /v1/quotas/{name}`: remove a quota; keys stay."""
    codec.parameters(request.query, _NONE)
    name = _name(request)
    if name not in await _uses(context):
        raise _missing(name)
    await _change(context, Delete(QUOTA + name.encode(), space=Space.ADMIN))
    return Answer(204, _NO_STORE)


async def _change(context: Context, change: Set | Delete) -> None:
    """Keep a quota or remove one, and count the keys that there are."""
    outcome = await context.tick.write((change,))
    if isinstance(outcome, Refusal):
        raise refused(outcome)
    while await context.engine.count_quotas():
        await asyncio.sleep(0)


async def _uses(context: Context) -> dict[str, QuotaUse]:
    return {one.quota.name: one for one in (await context.engine.usage()).quotas}


def _name(request: Request) -> str:
    return codec.key_of(request.path[len(_QUOTAS) :]).decode()


def _missing(name: str) -> Problem:
    return Problem("quota-not-found", f"There is no quota {name[:100]!r}.")


def _quota(name: str, asked: QuotaRequest) -> Quota:
    if not _NAME.fullmatch(name):
        raise Problem(
            "bad-quota",
            f"{name[:100]!r} is no name for a quota: 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'.",
        )
    if asked.max_bytes is None and asked.max_keys is None:
        raise Problem("bad-quota", "A quota has `max_bytes`, `max_keys` or both.")
    if asked.prefix:
        codec.checked_key(codec.utf8(asked.prefix))
    return Quota(name, asked.prefix, asked.max_bytes, asked.max_keys)


def _shown(one: QuotaUse) -> QuotaShown:
    quota = one.quota
    return QuotaShown(
        quota.name, quota.prefix, quota.max_bytes, quota.max_keys, one.bytes, one.keys, one.counted
    )
