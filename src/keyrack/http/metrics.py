"""The service's counters as Prometheus metrics; prometheus_client knows the format."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from keyrack import __version__
from keyrack.engines.quotas import MOST_QUOTAS
from keyrack.http import process_stats
from keyrack.http.api.counting import OPERATIONS, denied_word, request_word
from keyrack.http.api.statuses import STATUSES
from keyrack.shared.counters import (
    ACCEPTED,
    BUCKETS,
    BYTES_IN,
    BYTES_OUT,
    CLIENTS_CUT,
    CLIENTS_REFUSED,
    CLOCK_STEPS,
    EXPIRED,
    LANES,
    LEASES,
    OPEN_CONNECTIONS,
    SIZE_BUCKETS,
    SLOW,
    STALE_SERVED,
    STARTS,
    TURNED_AWAY,
    WAITING,
    WATCH_RESETS,
    WATCHERS,
    duration_word,
    latency_word,
    size_bound,
    size_word,
)
from keyrack.system import file_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from keyrack.engines.contract import Capabilities, Usage
    from keyrack.http.access_control import AccessControl
    from keyrack.http.client_memory import ClientMemory
    from keyrack.http.snapshots import Snapshots
    from keyrack.shared.counters import Counters

_READS: Final = ("get", "key_get")
_DURATIONS: Final = (
    ("turn", "turn", "Turns of the event loop in which requests were served."),
    ("timer_lateness", "late", "How late a timer of each worker was, twice a second."),
    ("commit", "commit", "From a turn's writes until their outcomes were known."),
    ("write_lock_wait", "lock_wait", "Waits for the store's write lock, one for each commit."),
    ("sync", "sync", "Syncs of the write-ahead log to the disk."),
)
_WRITES: Final = (
    ("set", 200),
    ("key_put", 201),
    ("key_put", 204),
    ("key_delete", 204),
    ("key_delete", 200),
)


class Metrics(Collector):
    """Everything that is counted, summed over all workers."""

    def __init__(
        self,
        counters: Counters,
        client_memory: ClientMemory,
        capabilities: Capabilities,
        access: AccessControl | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._access_control = access
        self._snapshot_files = snapshots
        self._counters = counters
        self._client_memory = client_memory
        self._engine = capabilities.engine
        self._evicts = capabilities.eviction
        self._usage: Usage | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str, usage: Usage | None) -> tuple[bytes, str]:
        """Return the exposition and its media type, in the format that `accept` prefers.

        Without `usage` what is known of the store itself is left out.
        """
        self._usage = usage
        try:
            encoder, media_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # prometheus_client stumbles over an Accept field with a version that is no number.
            encoder, media_type = choose_encoder("")
        return encoder(self._registry), media_type

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: collecting costs little, and the names are in `collect`."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        yield InfoMetricFamily(
            "keyrack_build",
            "What runs.",
            value={"version": __version__, "engine": self._engine},
        )
        yield self._requests()
        yield self._latency()
        yield from self._histograms()
        yield from self._hits_and_writes()
        yield from self._stale()
        yield from self._workers()
        yield from self._clients()
        yield from self._processes()
        yield CounterMetricFamily(
            "keyrack_slow_requests",
            "Requests that took longer than --slow, or had answers longer than --slow-bytes.",
            self._counters.total(SLOW),
        )
        yield from self._held_for_clients()
        yield from self._snapshots()
        yield from self._journal()
        yield from self._access()
        yield from self._store()

    def _access(self) -> Iterator[Metric]:
        access = self._access_control
        board = None if access is None else access.board
        yield GaugeMetricFamily(
            "keyrack_auth_enabled", "1 where it matters who asks.", int(board is not None)
        )
        if access is None or board is None:
            return
        failures = CounterMetricFamily(
            "keyrack_auth_failures", "Credentials that did not count.", labels=("reason",)
        )
        for reason, count in board.failed_logins.items():
            failures.add_metric((reason,), count)
        yield failures
        denied = CounterMetricFamily(
            "keyrack_auth_denied",
            "Requests whose senders may not do what they asked for.",
            labels=("operation",),
        )
        for operation in OPERATIONS:
            if count := self._counters.total(denied_word(operation)):
                denied.add_metric((operation,), count)
        yield denied
        tokens = GaugeMetricFamily(
            "keyrack_auth_tokens", "Tokens, by where they are kept.", labels=("source",)
        )
        for source, count in access.token_counts().items():
            tokens.add_metric((source,), count)
        yield tokens
        yield GaugeMetricFamily(
            "keyrack_auth_reload_failed",
            "1 while the operator's file cannot be used and what it said before counts.",
            int(board.failed),
        )
        yield GaugeMetricFamily(
            "keyrack_auth_last_reload_timestamp_seconds",
            "When a file that can be used was last read.",
            board.last_reload_ms / 1000,
        )
        yield CounterMetricFamily(
            "keyrack_audit_lines_dropped",
            "Lines of the audit log that could not be written.",
            board.audit_dropped,
        )

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "keyrack_http_requests", "Requests answered.", labels=("operation", "code")
        )
        for operation in OPERATIONS:
            for status in STATUSES:
                count = self._counters.total(request_word(operation, status))
                if count:
                    family.add_metric((operation, str(status)), count)
        return family

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "keyrack_http_request_duration_seconds",
            "Time from a request's turn of the event loop until that turn's answers were written.",
            labels=("lane",),
        )
        for lane in LANES:
            family.add_metric((lane,), *self._durations(latency_word(lane)))
        return family

    def _durations(self, first: int) -> tuple[list[tuple[str, float]], float]:
        """Return the buckets and the sum (seconds) of the histogram that begins at a word."""
        bounds = [str((1 << index) / 1e6) for index in range(BUCKETS - 1)]
        return self._buckets(first, bounds), self._counters.total(first + BUCKETS) / 1e9

    def _buckets(self, first: int, bounds: list[str]) -> list[tuple[str, float]]:
        buckets, below = [], 0
        for index, bound in enumerate((*bounds, "+Inf")):
            below += self._counters.total(first + index)
            buckets.append((bound, float(below)))
        return buckets

    def _histograms(self) -> Iterator[Metric]:
        for name, word, text in _DURATIONS:
            yield HistogramMetricFamily(
                f"keyrack_{name}_seconds", text, *self._durations(duration_word(word))
            )
        first = size_word()
        bounds = [str(float(size_bound(index))) for index in range(SIZE_BUCKETS - 1)]
        yield HistogramMetricFamily(
            "keyrack_value_bytes",
            "Sizes of values that were set: one of every eighth commit.",
            self._buckets(first, bounds),
            self._counters.total(first + SIZE_BUCKETS),
        )

    def _hits_and_writes(self) -> Iterator[Metric]:
        total = self._counters.total
        hits = sum(total(request_word(name, status)) for name in _READS for status in (200, 304))
        misses = sum(total(request_word(name, 404)) for name in _READS)
        writes = sum(total(request_word(name, status)) for name, status in _WRITES)
        yield CounterMetricFamily("keyrack_key_hits", "Reads that found their key.", hits)
        yield CounterMetricFamily("keyrack_key_misses", "Reads of missing keys.", misses)
        yield CounterMetricFamily("keyrack_key_writes", "Keys set or deleted.", writes)
        yield CounterMetricFamily(
            "keyrack_keys_expired", "Keys removed because their time was over.", total(EXPIRED)
        )

    def _stale(self) -> Iterator[Metric]:
        total = self._counters.total
        yield CounterMetricFamily(
            "keyrack_stale_served",
            "Values served after their time to those who take them.",
            total(STALE_SERVED),
        )
        family = CounterMetricFamily(
            "keyrack_recompute_leases",
            "Leases to recompute a key: granted; collapsed, as somebody else had it; filled; lost "
            "before that; returned.",
            labels=("outcome",),
        )
        for outcome, word in LEASES.items():
            family.add_metric((outcome,), total(word))
        yield family

    def _clients(self) -> Iterator[Metric]:
        total = self._counters.total
        yield GaugeMetricFamily("keyrack_connections", "Open connections.", total(OPEN_CONNECTIONS))
        yield CounterMetricFamily(
            "keyrack_connections_accepted", "Connections accepted.", total(ACCEPTED)
        )
        yield CounterMetricFamily(
            "keyrack_connections_refused",
            "Connections answered 503 because there were too many.",
            total(TURNED_AWAY),
        )
        yield CounterMetricFamily(
            "keyrack_received_bytes", "Bytes that clients have sent over TCP.", total(BYTES_IN)
        )
        yield CounterMetricFamily(
            "keyrack_sent_bytes", "Bytes that clients have taken over TCP.", total(BYTES_OUT)
        )
        yield GaugeMetricFamily("keyrack_watchers", "Clients that watch.", total(WATCHERS))
        yield GaugeMetricFamily(
            "keyrack_waiting_requests",
            "Requests that wait for a key to change, or for a lock.",
            total(WAITING),
        )
        yield CounterMetricFamily(
            "keyrack_watch_resets",
            "Watches that were ended because the log of changes no longer reached back to them.",
            total(WATCH_RESETS),
        )

    def _workers(self) -> Iterator[Metric]:
        total = self._counters.total
        yield GaugeMetricFamily(
            "keyrack_workers", "Workers that answer.", self._counters.ready_workers()
        )
        yield GaugeMetricFamily(
            "keyrack_workers_wanted", "Workers that there should be.", self._counters.workers
        )
        deaths = CounterMetricFamily(
            "keyrack_worker_deaths", "Workers that ended, by the reason.", labels=("reason",)
        )
        for reason, count in self._counters.deaths.by_reason.items():
            deaths.add_metric((reason,), count)
        yield deaths
        yield CounterMetricFamily(
            "keyrack_worker_starts", "Workers started, replacements included.", total(STARTS)
        )
        if ends := self._counters.certificate_ends:
            yield GaugeMetricFamily(
                "keyrack_tls_certificate_expiry_timestamp_seconds",
                "When the certificate that is shown ends.",
                ends,
            )
        yield CounterMetricFamily(
            "keyrack_clock_steps", "How often the machine's clock was set.", total(CLOCK_STEPS)
        )
        yield CounterMetricFamily(
            "keyrack_log_lines_dropped",
            "Lines of the log that were dropped because nobody read it.",
            self._counters.log_dropped,
        )

    def _processes(self) -> Iterator[Metric]:
        """Yield what each client of Prometheus tells of its process, of all processes together."""
        first = process_stats.read(os.getppid())
        pids = [(worker, pid) for worker, pid in enumerate(self._counters.pids) if pid]
        workers = [(worker, one) for worker, pid in pids if (one := process_stats.read(pid))]
        if first is None:
            return
        service = process_stats.summed(
            first, [one for _, one in workers], process_stats.booted(), file_limit()
        )
        yield CounterMetricFamily(
            "process_cpu_seconds", "Processor time of all processes.", service.cpu_seconds
        )
        for name, value, text in (
            ("start_time_seconds", service.started, "When the first process began."),
            (
                "resident_memory_bytes",
                service.resident,
                "What each process holds for itself, and once what they share: the store.",
            ),
            ("virtual_memory_bytes", service.virtual, "Address space of all processes."),
            ("open_fds", service.open_files, "Open files of all processes."),
            ("max_fds", service.most_files, "Files that all processes may have open."),
        ):
            yield GaugeMetricFamily(f"process_{name}", text, value)
        cpu = CounterMetricFamily(
            "keyrack_worker_cpu_seconds",
            "Processor time of each worker's present process.",
            labels=("worker",),
        )
        memory = GaugeMetricFamily(
            "keyrack_worker_memory_bytes",
            "What each worker holds for itself, without the store.",
            labels=("worker",),
        )
        for worker, one in workers:
            cpu.add_metric((str(worker),), one.cpu_seconds)
            memory.add_metric((str(worker),), one.anonymous)
        yield cpu
        yield memory

    def _held_for_clients(self) -> Iterator[Metric]:
        total = self._counters.total
        yield GaugeMetricFamily(
            "keyrack_client_memory_limit_bytes",
            "The most that may be held for clients.",
            self._client_memory.limit,
        )
        yield GaugeMetricFamily(
            "keyrack_client_memory_used_bytes",
            "Bodies that are arriving or wait, and answers that are not taken.",
            self._client_memory.used,
        )
        yield CounterMetricFamily(
            "keyrack_client_memory_refused",
            "Requests and answers that there was no room for.",
            total(CLIENTS_REFUSED),
        )
        yield CounterMetricFamily(
            "keyrack_client_memory_cut",
            "Connections closed because their clients took nothing while there was no room.",
            total(CLIENTS_CUT),
        )

    def _snapshots(self) -> Iterator[Metric]:
        last, failed = self._counters.snapshots.last_ms, self._counters.snapshots.failed
        if not last and not failed:
            return
        yield GaugeMetricFamily(
            "keyrack_snapshot_last_success_timestamp_seconds",
            "When a snapshot last held everything.",
            last / 1000,
        )
        yield CounterMetricFamily(
            "keyrack_snapshots_failed", "Snapshots that could not be taken.", failed
        )

    def _journal(self) -> Iterator[Metric]:
        if self._snapshot_files is not None:
            yield GaugeMetricFamily(
                "keyrack_journal_bytes",
                "The write-ahead log: what was changed since the snapshots that are kept.",
                self._snapshot_files.journal_bytes(),
            )
            yield GaugeMetricFamily(
                "keyrack_snapshot_interval_seconds",
                "How often a snapshot is taken, where something has changed.",
                self._snapshot_files.interval,
            )

    def _quotas(self, usage: Usage) -> Iterator[Metric]:
        families = [
            GaugeMetricFamily(name, text, labels=("quota",))
            for name, text in (
                ("keyrack_quota_bytes", "Bytes of keys and values below a quota's prefix."),
                ("keyrack_quota_keys", "Keys below a quota's prefix."),
                ("keyrack_quota_max_bytes", "Bytes that a quota allows."),
                ("keyrack_quota_max_keys", "Keys that a quota allows."),
            )
        ]
        for use in usage.quotas[:MOST_QUOTAS]:
            quota = use.quota
            figures = (use.bytes, use.keys, quota.max_bytes, quota.max_keys)
            for family, figure in zip(families, figures, strict=True):
                if figure is not None:
                    family.add_metric((quota.name,), figure)
        if usage.quotas:
            yield from families

    def _store(self) -> Iterator[Metric]:
        usage = self._usage
        if usage is None:
            return
        for name, value, text in (
            ("keys", usage.keys, "Keys, ended ones that are not yet removed included."),
            ("keys_with_ttl", usage.keys_with_ttl, "Keys that have a TTL."),
            ("stale_copies", usage.stale_copies, "Stale copies of keys that have ended."),
            ("trash_keys", usage.trash, "Deleted keys that can be put back."),
            ("events", usage.events, "Events kept in the log."),
            ("store_limit_bytes", usage.limit, "The store's memory limit."),
            ("store_used_bytes", usage.used, "Memory in use: records, indexes, events."),
            ("store_free_bytes", usage.free, "Memory that can still be used."),
            ("store_reclaimable_bytes", usage.reclaimable, "The part of it that was used before."),
            (
                "store_kept_free_bytes",
                usage.kept_free,
                "The part of it that only deletes and the event log may use.",
            ),
            ("store_reserved_bytes", usage.reserved, "Memory claimed from the system."),
        ):
            yield GaugeMetricFamily(f"keyrack_{name}", text, value)
        if usage.trash_bytes is not None:
            yield GaugeMetricFamily(
                "keyrack_trash_bytes",
                "About how many bytes deleted keys take that can be put back.",
                usage.trash_bytes,
            )
        yield from self._quotas(usage)
        yield GaugeMetricFamily(
            "keyrack_store_evicts", "1 where a full store evicts keys.", int(self._evicts)
        )
        yield GaugeMetricFamily(
            "keyrack_disk_failed",
            "1 while writes are refused because the disk did not take the last ones.",
            int(usage.disk_failed),
        )
        if usage.locks is not None:
            yield GaugeMetricFamily("keyrack_locks", "Locks that are held.", usage.locks)
        # Counted where keys are evicted, in the store, and not by worker: any of them may do it.
        yield CounterMetricFamily(
            "keyrack_keys_evicted", "Keys removed to make room for others.", usage.evicted
        )
