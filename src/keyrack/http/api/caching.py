"""What caches between the store and its readers may do with a value (RFC 9111, RFC 5861).

They may do nothing unless whoever stored the value has allowed it. A cache that serves several
people may keep only what everybody may read who shows nothing, as the rules are when it asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyrack.engines.contract import CacheControl
from keyrack.http.api import codec
from keyrack.http.api.models import MAX_CACHE_SECONDS
from keyrack.http.problems import Problem

if TYPE_CHECKING:
    from keyrack.engines.contract import Record
    from keyrack.http.answer import Headers
    from keyrack.http.api.models import BatchSet, Entry, ExportedKey, SetRequest
    from keyrack.http.gate import Gate
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

PARAMETERS: Final = frozenset((b"max_age", b"swr", b"public"))
_NO_STORE: Final[Headers] = ((b"Cache-Control", b"no-store"),)
# One field for all of them: some proxies look at one only. Who waits for a change, or offers to
# recompute the key, is not to be answered out of a cache; nor is a page of one origin with what
# another one may read.
_VARY: Final = b"Origin, Prefer"
_VARY_PRIVATE: Final = b"Authorization, Origin, Prefer"


def of_query(given: dict[bytes, bytes]) -> CacheControl | None:
    """Return what a write's parameters let caches do. Raises `Problem`."""
    if not given.keys() & PARAMETERS:
        return None
    max_age = None
    if b"max_age" in given:
        max_age = codec.whole(given, b"max_age", 0, 0, MAX_CACHE_SECONDS)
    swr = codec.whole(given, b"swr", 0, 0, MAX_CACHE_SECONDS)
    return _made(max_age, swr, codec.switch(given, b"public"))


def of_members(given: SetRequest | BatchSet | ExportedKey) -> CacheControl | None:
    """Return what the members of a JSON body let caches do. Raises `Problem`."""
    return _made(given.max_age, given.swr or 0, given.public)


def _made(max_age: int | None, swr: int, public: bool) -> CacheControl | None:
    if max_age is not None:
        return CacheControl(max_age, swr, public)
    if swr or public:
        raise Problem("bad-parameter", "swr and public say more of max_age: give that as well.")
    return None


def show(shown: Entry | ExportedKey, record: Record) -> None:
    """Set the members that tell what caches may do with a value."""
    caching = record.cache_control
    if caching is None:
        return
    shown.max_age = caching.max_age
    if caching.stale_while_revalidate:
        shown.swr = caching.stale_while_revalidate
    if caching.public:
        shown.public = True


def fields(request: Request, record: Record, context: Context) -> Headers:
    """Return the fields of an answer that tell caches what they may do with it.

    An answer to somebody who waits, who takes stale copies or who shows a ticket is for them alone.
    """
    caching, head = record.cache_control, request.head
    if caching is None or head.prefer or head.max_stale is not None or request.ticket is not None:
        return _NO_STORE
    max_age = caching.max_age
    if record.expires_at:
        left = max(0, record.expires_at - context.engine.now()) // 1000
        max_age = min(max_age, left)
    is_public = caching.public and _is_for_everybody(request, context.gate)
    value = b"%b, max-age=%d" % (b"public" if is_public else b"private", max_age)
    if caching.stale_while_revalidate:
        value += b", stale-while-revalidate=%d" % caching.stale_while_revalidate
    vary = _VARY if is_public else _VARY_PRIVATE
    return ((b"Cache-Control", value), (b"Vary", vary))


def _is_for_everybody(request: Request, gate: Gate | None) -> bool:
    """Tell whether who shows nothing may read the key, too."""
    if gate is None:
        return False
    reads = gate.nobody.reads
    return reads is None or bool(reads(codec.key_of(request.path[len(b"/v1/keys/") :])))
