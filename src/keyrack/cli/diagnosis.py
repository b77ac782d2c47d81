"""What stands out in what a service says of itself: sentences for whoever looks at it at night.

Everything here is a function of what was asked; nothing asks. Each finding says what is so, and
what can be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.exposition import Look

BAD: Final = "bad"
"""It needs somebody now."""
LOOK: Final = "look"
"""It is worth a look, or will be bad if it goes on."""

_FULL: Final = 0.9
_MANY_FILES: Final = 0.8
_DAY: Final = 86400.0
_SOON_DAYS: Final = 14
_STUCK_BYTES: Final = 100_000
_STUCK_SECONDS: Final = 5.0
_SLOW_SYNC: Final = 0.02
_SLOW_LOCK: Final = 0.01
_LATE: Final = 0.05
"""Means (seconds) above which something is slow."""
_ERRORS: Final = 0.01
"""A share of requests that fail."""
_STORM: Final = 5.0
"""Failed log-ins a second."""


class Finding(NamedTuple):
    """What stands out: how grave it is, what is so, and what to do."""

    level: str
    text: str
    advice: str


class Facts(NamedTuple):
    """What was asked of a service: twice for its figures, some seconds apart."""

    ready: str
    """Why it is not ready; empty when it is."""
    before: Look
    now: Look
    seconds: float
    time: float
    """The service's clock, in seconds since 1970."""
    info: dict[str, Any]
    slow: dict[str, Any]
    clients: dict[str, Any]

    def grown(self, name: str, **labels: str) -> float:
        """Return by how much a counter has grown a second."""
        return (self.now.sum(name, **labels) - self.before.sum(name, **labels)) / self.seconds

    def mean(self, name: str) -> float:
        """Return the mean of what was measured meanwhile, or since the beginning if nothing was."""
        count = self.grown(f"{name}_count")
        if count > 0:
            return self.grown(f"{name}_sum") / count
        count = self.now.sum(f"{name}_count")
        return self.now.sum(f"{name}_sum") / count if count else 0.0


def findings(facts: Facts) -> list[Finding]:
    """Return what stands out, the gravest first."""
    found = [
        finding
        for look in (
            _readiness, _workers, _errors, _memory, _clients_memory, _disk, _snapshots, _waits,
            _stuck, _connections, _access, _certificate, _logs, _slow,
        )
        for finding in look(facts)
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.level != BAD)


def _readiness(facts: Facts) -> Iterator[Finding]:
    if facts.ready:
        yield Finding(BAD, f"The service is not ready: {facts.ready}", "Its log says more.")


def _workers(facts: Facts) -> Iterator[Finding]:
    now = facts.now
    there, wanted = now.sum("keyrack_workers"), now.sum("keyrack_workers_wanted")
    if there < wanted:
        yield Finding(
            BAD,
            f"{there:.0f} of {wanted:.0f} workers answer.",
            "The log says why the others ended (`worker_ended`, `worker_failed`).",
        )
    missing = facts.clients.get("missing_workers", [])
    if missing:
        shown = ", ".join(map(str, missing))
        yield Finding(
            BAD,
            f"Worker {shown} does not react: it is stuck or stopped.",
            "It is replaced after --worker-timeout, unless that is 0.",
        )
    deaths = now.by("keyrack_worker_deaths_total", "reason")
    for reason, advice in (
        ("stuck", "Something held them up: a debugger, a stopped container, a disk."),
        ("killed", "The kernel does so when memory runs out; its log (dmesg) says whether."),
        ("failed", "The log has the exception."),
    ):
        if deaths.get(reason):
            yield Finding(
                LOOK, f"{deaths[reason]:.0f} workers have ended since the start: {reason}.", advice
            )
    late = facts.mean("keyrack_timer_lateness_seconds")
    if late > _LATE:
        yield Finding(
            LOOK,
            f"Event loops are held up: timers are {late * 1000:.0f} ms late on average.",
            "The processors are busy with other things, or requests are large; see `keyrack slow`.",
        )


def _errors(facts: Facts) -> Iterator[Finding]:
    name = "keyrack_http_requests_total"
    rates = {
        code: facts.grown(name, code=code) for code in facts.now.by(name, "code") if code > "499"
    }
    requests = facts.grown(name)
    for code, rate in rates.items():
        if code != "507" and requests and rate / requests > _ERRORS:
            yield Finding(
                BAD,
                f"{rate / requests:.0%} of the requests are answered {code}.",
                "503: the store or its disk is away; others are defects, and the log has them.",
            )


def _memory(facts: Facts) -> Iterator[Finding]:
    now = facts.now
    used, limit = now.sum("keyrack_store_used_bytes"), now.sum("keyrack_store_limit_bytes")
    refused = facts.grown("keyrack_http_requests_total", code="507") > 0
    if refused and now.sum("keyrack_quota_keys") and used < _FULL * limit:
        yield Finding(
            LOOK,
            "A quota is used up: writes are refused with 507.",
            "`GET /v1/quotas` shows how much there is of each. Delete keys there, or raise it.",
        )
    elif refused:
        yield Finding(
            BAD,
            "The store is full: writes are refused with 507.",
            "Raise --memory, delete keys (`keyrack big` says what fills it), or --when-full evict.",
        )
    elif not now.sum("keyrack_store_evicts") and limit and used > _FULL * limit:
        yield Finding(
            LOOK,
            f"The store is nearly full: {_size(used)} of {_size(limit)}.",
            "`keyrack big` says what fills it. Raise --memory before writes are refused.",
        )
    evicted = facts.grown("keyrack_keys_evicted_total")
    if evicted:
        yield Finding(
            LOOK,
            f"{evicted:.0f} keys a second are evicted, because the store is full.",
            "That is what --when-full evict is for. If hits fall, raise --memory.",
        )


def _clients_memory(facts: Facts) -> Iterator[Finding]:
    used = facts.now.sum("keyrack_client_memory_used_bytes")
    limit = facts.now.sum("keyrack_client_memory_limit_bytes")
    if limit and used > _FULL * limit:
        yield Finding(
            BAD,
            f"{_size(used)} are held for clients, of {_size(limit)}.",
            "`keyrack clients` shows who takes nothing; end them, or raise --client-memory.",
        )


def _disk(facts: Facts) -> Iterator[Finding]:
    if facts.now.sum("keyrack_disk_failed"):
        yield Finding(
            BAD,
            "The disk did not take the last writes; others are refused with 503.",
            "Make room or replace it. Writes go on by themselves after the next good snapshot.",
        )
    sync = facts.mean("keyrack_sync_seconds")
    if sync > _SLOW_SYNC:
        yield Finding(
            LOOK,
            f"The disk is slow: a sync takes {sync * 1000:.0f} ms on average.",
            "Each write waits for one. Use a faster disk, or --durability snapshot.",
        )


def _snapshots(facts: Facts) -> Iterator[Finding]:
    now = facts.now
    interval = now.sum("keyrack_snapshot_interval_seconds")
    if not interval:
        if facts.info.get("engine", {}).get("engine") == "embedded":
            yield Finding(
                LOOK,
                "Nothing is kept on a disk: the store ends with the machine.",
                "Good for a cache. Otherwise see --durability.",
            )
        return
    failed = now.sum("keyrack_snapshots_failed_total")
    age = facts.time - now.sum("keyrack_snapshot_last_success_timestamp_seconds")
    if facts.grown("keyrack_snapshots_failed_total"):
        yield Finding(BAD, "Snapshots fail.", "The log says why (`snapshot_failed`).")
    elif failed:
        yield Finding(LOOK, f"{failed:.0f} snapshots have failed.", "The log says why.")
    changes = now.sum("keyrack_journal_bytes") > _STUCK_BYTES
    if age > 3 * interval and changes:
        yield Finding(
            LOOK,
            f"The last snapshot is {age / 60:.0f} minutes old.",
            "A start has to replay all that has changed since. The log says what hinders the next.",
        )


def _waits(facts: Facts) -> Iterator[Finding]:
    wait = facts.mean("keyrack_write_lock_wait_seconds")
    if wait > _SLOW_LOCK:
        yield Finding(
            LOOK,
            f"Writes wait {wait * 1000:.0f} ms for one another.",
            "Large batches or a stopped worker hold the lock; see `keyrack slow`.",
        )


def _stuck(facts: Facts) -> Iterator[Finding]:
    stuck = [
        one
        for one in facts.clients.get("clients", ())
        if one["owed"] > _STUCK_BYTES and one["idle"] + one["age"] > _STUCK_SECONDS
    ]
    if stuck:
        first = stuck[0]
        yield Finding(
            LOOK,
            f"{len(stuck)} clients do not take their answers: {first['address']} is owed "
            f"{_size(first['owed'])} ({first['request'] or 'no request'}).",
            f"`keyrack clients` shows them; `keyrack clients --end {first['id']}` ends one.",
        )
    if facts.grown("keyrack_watch_resets_total"):
        yield Finding(
            LOOK,
            "Watches end because their clients are too slow for what changes.",
            "Watch fewer keys, read faster, or raise --events.",
        )


def _connections(facts: Facts) -> Iterator[Finding]:
    if facts.grown("keyrack_connections_refused_total"):
        yield Finding(
            BAD,
            "Connections are refused: there are too many.",
            "Use fewer with more requests each, or raise --max-connections.",
        )
    open_, most = facts.now.sum("process_open_fds"), facts.now.sum("process_max_fds")
    if most and open_ > _MANY_FILES * most:
        yield Finding(
            LOOK, f"{open_:.0f} of {most:.0f} files are open.", "Raise `ulimit -n` (LimitNOFILE)."
        )


def _access(facts: Facts) -> Iterator[Finding]:
    if not facts.now.sum("keyrack_auth_enabled"):
        yield Finding(
            LOOK,
            "There is no access control: whoever reaches the service may do everything.",
            "On a network use --auth (docs/security.md).",
        )
    if facts.now.sum("keyrack_auth_reload_failed"):
        yield Finding(
            BAD, "The operator's file cannot be read.", "The log names the line; mend the file."
        )
    rate = facts.grown("keyrack_auth_failures_total")
    if rate > _STORM:
        reasons = {
            reason: count
            for reason, count in facts.now.by("keyrack_auth_failures_total", "reason").items()
            if count
        }
        yield Finding(
            LOOK,
            f"{rate:.0f} log-ins a second fail ({', '.join(reasons)}).",
            "A client has an old token, or somebody guesses; the audit log has their addresses.",
        )


def _certificate(facts: Facts) -> Iterator[Finding]:
    ends = facts.now.sum("keyrack_tls_certificate_expiry_timestamp_seconds")
    days = (ends - facts.time) / _DAY
    if ends and days < _SOON_DAYS:
        text = f"The certificate ends in {days:.0f} days." if days > 0 else "The certificate ended."
        yield Finding(BAD if days < 1 else LOOK, text, "Replace the files, then send SIGHUP.")


def _logs(facts: Facts) -> Iterator[Finding]:
    if dropped := facts.now.sum("keyrack_log_lines_dropped_total"):
        yield Finding(
            LOOK, f"{dropped:.0f} lines of the log were dropped.", "Nobody reads the log in time."
        )
    if steps := facts.now.sum("keyrack_clock_steps_total"):
        yield Finding(
            LOOK,
            f"The machine's clock was set {steps:.0f} times.",
            "Times to live are not affected; dates in logs, tokens and certificates are.",
        )


def _size(size: float) -> str:
    """Return about how many bytes there are."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size:.0f} bytes"


def _slow(facts: Facts) -> Iterator[Finding]:
    """Name what took the time, not who waited for it."""
    entries = facts.slow.get("entries", ())
    if not entries:
        return
    own: dict[str, list[float]] = {}
    for one in entries:
        waited = (one.get("lock_ms") or 0.0) + (one.get("disk_ms") or 0.0)
        what = f"{one['operation']} {one['key']!r}" if one.get("key") else one["operation"]
        own.setdefault(what, []).append(max(0.0, one["ms"] - waited))
    what, times = max(own.items(), key=lambda item: (not item[0].startswith("turn"), sum(item[1])))
    waits = [
        f"{len(found)} waited for the {name}, {max(found):.0f} ms at most"
        for name in ("lock", "disk")
        if (found := [one[f"{name}_ms"] for one in entries if one.get(f"{name}_ms", 0.0) > 1.0])
    ]
    yield Finding(
        LOOK,
        f"Requests were slow; the last {len(entries)} are remembered. What took most time by "
        f"itself is {what}: {_times(len(times))}, {max(times):.0f} ms at most."
        + "".join(f" {sentence}." for sentence in waits),
        "`keyrack slow` shows them all; `keyrack clients` says who is connected.",
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
