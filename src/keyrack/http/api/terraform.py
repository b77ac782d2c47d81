"""Terraform's `http` backend: a state at one address, written under a lock, with those before it.

A state is the ordinary key `terraform/NAME`, so that lists, exports, snapshots, rules and watches
have it. Those that it has replaced are keys below it. Its lock is the lock of the same name, which
does not end by itself: the info that Terraform sends with it is kept as its owner. A write looks
at the lock in its own commit, so whoever has lost it writes nothing.

Terraform shows people the status of an answer and, of a lock that is held, the `ID` in its body.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

import msgspec

from keyrack.engines.contract import (
    ANY,
    JSON,
    MAX_TTL_MS,
    Check,
    Condition,
    Delete,
    Refusal,
    Set,
    Space,
    Why,
)
from keyrack.http.answer import Answer
from keyrack.http.api import codec
from keyrack.http.api.codec import etag
from keyrack.http.api.keys import check_size, refused
from keyrack.http.api.models import TerraformLock, TerraformVersion, TerraformVersions
from keyrack.http.api.state_names import KEYS, state_of, version_at, version_key, versions_of
from keyrack.http.problems import Problem
from keyrack.http.tick import JSON_HEADERS

if TYPE_CHECKING:
    from keyrack.engines.contract import Operation, Outcome, Record, Write
    from keyrack.http.api.state_names import Version
    from keyrack.http.protocol.request import Request
    from keyrack.http.reply import Context

VERSIONS: Final = 10
"""Earlier states that are kept unless the address says how many."""
MOST_VERSIONS: Final = 100
MAX_LOCK_BYTES: Final = 3000
_ADDRESS: Final = frozenset((b"durability", b"keep"))
"""What may stand in the address for every request: Terraform has one address for most of them."""
_ID: Final = _ADDRESS | {b"ID"}
_VERSION: Final = _ADDRESS | {b"version"}
_RESTORE: Final = _ID | {b"version"}
_NO_STORE: Final = (b"Cache-Control", b"no-store")
_FREE: Final = Condition(none_match=ANY)
_TRIES: Final = 20
"""So often something is tried again that somebody else was a moment faster with."""
_LEFT_OUT: Final = frozenset((Why.FULL, Why.SERVER_FULL, Why.DISK_FULL, Why.CONDITION))
"""Why an earlier state may be left out: for want of room. What does not hold is found out next."""
_STEP: Final = 1 << 20
"""Bytes whose digest is made at once: about a millisecond."""
_HEAD: Final = 1023
"""The last of the first bytes of a state, among which Terraform writes its number."""
_SERIAL: Final = re.compile(rb'"serial":\s*([0-9]{1,18})\s*[,}]')
_MADE_BY: Final = re.compile(rb'"terraform_version":\s*"([0-9A-Za-z.+-]{1,64})"')
_decode: Final = msgspec.json.Decoder(TerraformLock).decode


# States


async def read(request: Request, context: Context) -> Answer:
    """`GET /v1/terraform/{name}`: the state, or an earlier one."""
    given = codec.parameters(request.query, _VERSION)
    state = state_of(request.path)
    if b"version" in given:
        record = await _version(context, state, given)
    else:
        found = await context.engine.get(state)
        if found is None:
            raise Problem("key-not-found", "There is no state of this name.")
        record = found
    return Answer(200, (*JSON_HEADERS, (b"ETag", etag(record.revision))), record.value)


async def write(request: Request, context: Context) -> Answer:
    """`POST /v1/terraform/{name}`: store a state, if the lock is the sender's."""
    given = codec.parameters(request.query, _ID)
    change = _Change(request, context, given)
    check_size(request.body, context.limits)
    if not request.body:
        raise Problem("bad-json", "The body is empty; it must be a state.")
    await _check_digest(request)
    return await change.make(request.body)


async def remove(request: Request, context: Context) -> Answer:
    """`DELETE /v1/terraform/{name}`: remove a state, if the lock is the sender's, or nobody's."""
    given = codec.parameters(request.query, _ID)
    return await _Change(request, context, given).make(None)


async def restore(request: Request, context: Context) -> Answer:
    """`POST /v1/terraform/{name}/versions?version=`: make an earlier state the present one."""
    given = codec.parameters(request.query, _RESTORE)
    change = _Change(request, context, given)
    if b"version" not in given:
        raise Problem("bad-parameter", "Which one? `?version=`, as the list of versions tells.")
    return await change.make((await _version(context, change.state, given)).value)


class _Change:
    """A state that is to be replaced, or removed: by whom, and how many before it are kept."""

    def __init__(self, request: Request, context: Context, given: dict[bytes, bytes]) -> None:
        _refuse_forgetful(context, given)
        self.state = state_of(request.path)
        self._request = request
        self._context = context
        self._lock_id = given[b"ID"].decode("utf-8", "replace") if b"ID" in given else None
        self._keep = codec.whole(given, b"keep", VERSIONS, 0, MOST_VERSIONS)

    async def make(self, value: bytes | None) -> Answer:
        """Store a value, or remove the state; only if nobody changes lock or state meanwhile."""
        for _ in range(_TRIES):
            held = await self._lock()
            old = await self._context.engine.get(self.state)
            if old is None and value is None:
                raise Problem("key-not-found", "There is no state of this name.")
            if old is not None and old.value != value:
                await self._keep_version(old, held)
            write = (held, self._operation(old, value))
            outcome = await self._context.tick.write(write)
            self._request.note_write(write, outcome)
            if not isinstance(outcome, Refusal):
                await self._forget_versions(held)
                # A check changes nothing, and so has no revision.
                revision = outcome[1].revision or (old.revision if old is not None else 0)
                return Answer(200, ((b"ETag", etag(revision)), _NO_STORE))
            if outcome.why is not Why.CONDITION:
                raise refused(outcome)
        raise _busy()

    async def _lock(self) -> Check:
        """Return what the write makes sure of: that the lock is as it has to be, and as it is."""
        record = await self._context.engine.lock_of(self.state)
        if record is None and self._lock_id is not None:
            raise Problem(
                "state-lock-lost",
                "Nobody holds the lock under which this was to be done: it was taken away. "
                "Nothing was changed.",
            )
        if record is None:
            return Check(self.state, _FREE, Space.LOCKS)
        if self._lock_id is None or not _is_lock(self._lock_id, record):
            raise _locked(record)
        same = Condition(match=frozenset((record.revision,)))
        return Check(self.state, same, Space.LOCKS)

    def _operation(self, old: Record | None, value: bytes | None) -> Operation:
        same = _FREE if old is None else Condition(match=frozenset((old.revision,)))
        if value is None:
            return Delete(self.state, same)
        if old is not None and old.value == value:
            return Check(self.state, same)  # the request was sent again
        return Set(self.state, value, JSON, condition=same)

    async def _keep_version(self, old: Record, held: Check) -> None:
        """Keep what is about to be replaced. That comes first: it is lost in no case.

        Where there is no room for it the new state is stored all the same: without that nobody
        knows what there is.
        """
        if not self._keep:
            return
        known = await _versions(self._context, self.state)
        if not any(one.revision == old.revision for one in known):
            name = version_key(self.state, old.revision)
            outcome = await self._write_beside(held, Set(name, old.value, old.media_type))
            if isinstance(outcome, Refusal) and outcome.why not in _LEFT_OUT:
                raise refused(outcome)

    async def _forget_versions(self, held: Check) -> None:
        known = await _versions(self._context, self.state)
        for one in known[: max(0, len(known) - self._keep)]:
            await self._write_beside(held, Delete(one.key))

    async def _write_beside(self, held: Check, operation: Set | Delete) -> Outcome:
        """Change a version, under the lock too where that is in the same shard."""
        together = self._context.engine.capabilities.atomic_across_keys
        write = (held, operation) if together else (operation,)
        return await self._context.tick.write(write)


# Versions


async def _versions(context: Context, state: bytes) -> list[Version]:
    """Return the earlier states that are kept, in the order in which they were written."""
    found: list[Version] = []
    after = None
    while True:
        sizes, after = await context.engine.sizes(versions_of(state), after, 1000)
        known = (version_at(state, key) for key, _ in sizes)
        found += (one for one in known if one is not None)
        if after is None:
            return sorted(found)


async def _version(context: Context, state: bytes, given: dict[bytes, bytes]) -> Record:
    wanted = codec.revision_of(given[b"version"], "version")
    for one in await _versions(context, state):
        if one.revision == wanted:
            record = await context.engine.get(one.key)
            if record is not None:
                return record
    raise Problem("key-not-found", "No such version is kept. The list of versions tells which are.")


async def versions(request: Request, context: Context) -> Answer:
    """`GET /v1/terraform/{name}/versions`: the states before the present one, the newest first."""
    codec.parameters(request.query, _ADDRESS)
    state = state_of(request.path)
    found = [await _shown(context, one) for one in reversed(await _versions(context, state))]
    shown = TerraformVersions(state[len(KEYS) :].decode(), [one for one in found if one])
    return Answer(200, JSON_HEADERS, codec.encode(shown))


async def _shown(context: Context, one: Version) -> TerraformVersion | None:
    part = await context.engine.get_part(one.key, (0, _HEAD))
    if part is None:
        return None
    head = part.record.value
    serial, made_by = _SERIAL.search(head), _MADE_BY.search(head)
    return TerraformVersion(
        str(one.revision),
        one.replaced,
        part.size,
        None if serial is None else int(serial[1]),
        None if made_by is None else made_by[1].decode(),
    )


# Locks


async def lock(request: Request, context: Context) -> Answer:
    """`LOCK /v1/terraform/{name}`: take the lock, with the info that tells others who has it."""
    given = codec.parameters(request.query, _ADDRESS)
    state = state_of(request.path)
    _refuse_forgetful(context, given)
    await _check_digest(request)
    wanted = _info(request.body)
    write: Write = (Set(state, request.body, JSON, MAX_TTL_MS, _FREE, Space.LOCKS),)
    for _ in range(_TRIES):
        outcome = await context.tick.write(write)
        request.note_write(write, outcome)
        if not isinstance(outcome, Refusal):
            return _done()
        if outcome.why is not Why.CONDITION:
            raise refused(outcome)
        record = outcome.holder or await context.engine.lock_of(state)
        if record is not None and _is_lock(wanted.id, record):
            return _done()  # the request was sent again
        if record is not None:
            raise _locked(record)
    raise _busy()


async def unlock(request: Request, context: Context) -> Answer:
    """`UNLOCK /v1/terraform/{name}`: give the lock back, or take it away.

    `terraform force-unlock` sends an empty body: whoever holds the lock then has it no longer.
    """
    codec.parameters(request.query, _ADDRESS)
    state = state_of(request.path)
    await _check_digest(request)
    wanted = _info(request.body).id if request.body else None
    for _ in range(_TRIES):
        record = await context.engine.lock_of(state)
        if record is None:
            return _done()
        if wanted is not None and not _is_lock(wanted, record):
            raise _locked(record)
        same = Condition(match=frozenset((record.revision,)))
        write: Write = (Delete(state, same, Space.LOCKS),)
        outcome: Outcome = await context.tick.write(write)
        request.note_write(write, outcome)
        if not isinstance(outcome, Refusal):
            return _done()
        if outcome.why is not Why.CONDITION:
            raise refused(outcome)
    raise _busy()


async def show_lock(request: Request, context: Context) -> Answer:
    """`GET /v1/terraform/{name}/lock`: who holds the lock."""
    codec.parameters(request.query, _ADDRESS)
    record = await context.engine.lock_of(state_of(request.path))
    if record is None:
        raise Problem("lock-not-held", "Nobody holds the lock of this state.")
    return Answer(200, JSON_HEADERS, codec.encode(_held(record)))


def _info(body: bytes) -> TerraformLock:
    """Return what Terraform says of a lock; refuse what has no ID."""
    if len(body) > MAX_LOCK_BYTES:
        raise Problem(
            "too-large",
            f"What is said of a lock has at most {MAX_LOCK_BYTES} bytes.",
            limit=MAX_LOCK_BYTES,
            actual=len(body),
        )
    info = codec.decoded(body, _decode)
    if not info.id:
        raise Problem("bad-json", "A lock needs an ID.")
    return info


def _held(record: Record) -> TerraformLock:
    """Return what is known of a lock that is held; one that a user took has an owner alone."""
    try:
        return _decode(record.value)
    except codec.NOT_JSON:
        owner = record.value.decode("utf-8", "replace")
        return TerraformLock(id=owner, who=owner, operation="lock")


def _is_lock(given: str, record: Record) -> bool:
    """Tell whether an ID is that of the lock that is held, as it is or as a refusal showed it."""
    held = _held(record)
    return given in (held.id, _told(held))


def _told(held: TerraformLock) -> str:
    """Return the ID with who holds the lock: Terraform shows nothing else of a refusal."""
    since = f" since {held.created}" if held.created else ""
    return f"{held.id} held by {held.who or 'somebody'} ({held.operation or 'lock'}){since}"


def _locked(record: Record) -> Problem:
    held = _held(record)
    members: dict[str, str] = msgspec.to_builtins(held)
    members["ID"] = _told(held)
    return Problem("state-locked", f"The state is locked: {members['ID']}.", (), **members)


def _done() -> Answer:
    return Answer(200, (_NO_STORE,))


# What is refused


def _refuse_forgetful(context: Context, given: dict[bytes, bytes]) -> None:
    """Refuse to keep a state where it may get lost, unless the address says that it may."""
    wanted = given.get(b"durability", b"commit")
    if wanted not in (b"commit", b"none"):
        raise Problem("bad-parameter", "`durability` is `commit`, as it is without it, or `none`.")
    able = context.engine.capabilities
    if wanted == b"none" or (able.durable and not able.eviction):
        return
    why = "is not on the disk before it is answered: start the service with --durability commit"
    if able.durable:
        why = "may be evicted: start the service without --when-full evict"
    elif able.engine != "embedded":
        why = "is in Valkey, and the service does not know what that keeps"
    raise Problem(
        "not-durable",
        f"A state {why}. Or say that it may get lost: ?durability=none at the end of address, "
        "lock_address and unlock_address.",
    )


async def _check_digest(request: Request) -> None:
    """Refuse a body that is not the one whose MD5 its sender tells."""
    told = [value for name, value in request.head.fields if name == b"content-md5"]
    if not told:
        return
    made, body = hashlib.md5(usedforsecurity=False), memoryview(request.body)
    for start in range(0, len(body), _STEP):
        if start:
            await asyncio.sleep(0)
        made.update(body[start : start + _STEP])
    if told != [base64.b64encode(made.digest())]:
        raise Problem("digest-mismatch", "The body is not the one that Content-MD5 tells of.")


def _busy() -> Problem:
    return Problem("unavailable", "Others change this all the time.", ((b"Retry-After", b"1"),))
