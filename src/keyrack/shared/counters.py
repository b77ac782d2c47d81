"""Counters in memory that all workers share, so that any of them can answer for all.

Each worker counts in words of its own and nobody else writes them, so nothing is locked. A worker
that is replaced leaves its slot, counts included, to its successor. A count is one store into
shared memory: nothing is lost when a worker is killed. The memory belongs to one service: another
one that takes over has counters of its own, so their layout may change from version to version.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from typing import Final

from keyrack.shared.epochs import Epochs
from keyrack.shared.inquiries import Inquiries
from keyrack.shared.slow_ring import SlowRing

LANES: Final = ("read", "write", "list", "bulk", "wide")
"""What the latency histogram tells apart: reads of single keys, writes, pages of lists, work on
everything that is stored, and all else."""
DURATIONS: Final = ("turn", "late", "commit", "lock_wait", "sync")
"""What else is measured in time: turns of the event loop, timers that were late, writes of a turn
until their outcomes are known, waits for the store's write lock, syncs of the disk."""
BUCKETS: Final = 22
"""Upper bounds of 1 us * 2**n; the last bucket has none."""
SIZE_BUCKETS: Final = 16
"""Upper bounds of 64 bytes * 2**n; the last bucket has none."""
_LEAST_SIZE_BITS: Final = 6
DEATHS: Final = ("ended", "failed", "killed", "stuck")
"""Why worker processes end: by themselves, by an error, by a signal from elsewhere, or by the
supervisor because they gave no sign of life."""

# Words of the service, in front of those of its workers

_DRAINING: Final = 0
_SUPERVISOR_BEATS: Final = 1
_SHARED: Final = 2
_LAST_SNAPSHOT: Final = 3
_SNAPSHOTS_FAILED: Final = 4
_SNAPSHOTS_WANTED: Final = 5
_SNAPSHOTS_ANSWERED: Final = 6
_SNAPSHOTS_TAKEN: Final = 7
_LEAVING: Final = 8
_CERTIFICATE: Final = 9
_LOG_DROPPED: Final = 10
_STARTED: Final = 11
_CERTIFICATE_ENDS: Final = 12
_DEATHS: Final = 13
"""The first of as many words as there are reasons."""
_HEADER: Final = 32
"""How many there may be; a test looks after that."""

# Words of each worker

_READY: Final = 0
OPEN_CONNECTIONS: Final = 1
ACCEPTED: Final = 2
EXPIRED: Final = 3
STARTS: Final = 4
_INTERESTED: Final = 5
_SIGNALLED: Final = 6
_BEATS: Final = 7
TURNED_AWAY: Final = 8
LOG_DROPPED: Final = 9
"""Lines of the log that could not be written."""
CLIENT_BYTES: Final = 10
CLIENTS_REFUSED: Final = 11
CLIENTS_CUT: Final = 12
WATCHERS: Final = 13
WAITING: Final = 14
"""Requests that wait for a key to change, or for a lock."""
WATCH_RESETS: Final = 15
BYTES_IN: Final = 16
BYTES_OUT: Final = 17
_PID: Final = 18
CLOCK_STEPS: Final = 20
SLOW: Final = 19
"""Requests that the slow log was told of."""
STALE_SERVED: Final = 22
"""Values that were served although their time was over, to those who take such."""
LEASES: Final = {"granted": 23, "collapsed": 24, "filled": 25, "lost": 26, "returned": 27}
"""What came of reads that offer to recompute a key, and of the leases that they were given."""
_LATENCY: Final = 32
"""Where the histograms begin: as many other words may be in front of them."""
_LATENCY_WORDS: Final = BUCKETS + 1
_SIZES: Final = _LATENCY + (len(LANES) + len(DURATIONS)) * _LATENCY_WORDS
_SIZE_WORDS: Final = SIZE_BUCKETS + 1
REQUESTS: Final = _SIZES + _SIZE_WORDS
"""Where the words for requests begin; who makes the counters says how many of those there are."""
_CACHE_LINE: Final = 8
"""Words of a cache line. No two workers write to the same one."""


def latency_word(lane: str) -> int:
    """Return the first word of a lane's histogram: the buckets, then the sum in nanoseconds."""
    return _LATENCY + LANES.index(lane) * _LATENCY_WORDS


def duration_word(name: str) -> int:
    """Return the first word of the histogram of one of `DURATIONS`; as `latency_word`."""
    return _LATENCY + (len(LANES) + DURATIONS.index(name)) * _LATENCY_WORDS


def size_word() -> int:
    """Return the first word of the histogram of values' sizes: the buckets, then the sum."""
    return _SIZES


def bucket(nanoseconds: int) -> int:
    """Return the histogram's bucket for a latency."""
    return min((nanoseconds // 1000).bit_length(), BUCKETS - 1)


def observe(words: memoryview, first: int, nanoseconds: int) -> None:
    """Count a duration in a histogram of a worker's words."""
    words[first + bucket(nanoseconds)] += 1
    words[first + BUCKETS] += nanoseconds


def size_bucket(size: int) -> int:
    """Return the histogram's bucket for a number of bytes."""
    return min((max(size - 1, 0) >> _LEAST_SIZE_BITS).bit_length(), SIZE_BUCKETS - 1)


def size_bound(index: int) -> int:
    """Return the greatest size that a bucket counts."""
    return 1 << (_LEAST_SIZE_BITS + index)


class SnapshotRequests:
    """Snapshots that clients ask for: numbers that go up, in words of the service."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    @property
    def wanted(self) -> int:
        """How often somebody has asked for a snapshot."""
        return self._words[_SNAPSHOTS_WANTED]

    def want(self) -> int:
        """Ask the supervisor for a snapshot, and return the number that it will be answered by."""
        self._words[_SNAPSHOTS_WANTED] += 1
        return self._words[_SNAPSHOTS_WANTED]

    def answer(self, number: int, taken: bool) -> None:
        """Say that those who have asked up to a number have a snapshot, or get none."""
        if taken:
            self._words[_SNAPSHOTS_TAKEN] = number
            self._words[_LAST_SNAPSHOT] = time.time_ns() // 1_000_000
        else:
            self._words[_SNAPSHOTS_FAILED] += 1
        self._words[_SNAPSHOTS_ANSWERED] = number

    @property
    def last_ms(self) -> int:
        """When a snapshot last held everything, in ms since 1970; 0 before that."""
        return self._words[_LAST_SNAPSHOT]

    @property
    def failed(self) -> int:
        """How many snapshots could not be taken."""
        return self._words[_SNAPSHOTS_FAILED]

    def answered(self, number: int) -> bool | None:
        """Tell whether a snapshot was taken for a number; None while that is not known."""
        if self._words[_SNAPSHOTS_ANSWERED] < number:
            return None
        return self._words[_SNAPSHOTS_TAKEN] >= number


class Beats:
    """Signs of life of the workers and the supervisor, each a number that goes up."""

    def __init__(self, words: memoryview, slots: list[memoryview]) -> None:
        self._words = words
        self._slots = slots

    def give(self, worker: int) -> None:
        """Say that a worker's event loop runs."""
        self._slots[worker][_BEATS] += 1

    @property
    def of_workers(self) -> list[int]:
        """How often each worker has given a sign."""
        return [slot[_BEATS] for slot in self._slots]

    def give_as_supervisor(self) -> None:
        """Say that the supervisor looks after its workers."""
        self._words[_SUPERVISOR_BEATS] += 1

    @property
    def of_supervisor(self) -> int:
        """How often the supervisor has given a sign."""
        return self._words[_SUPERVISOR_BEATS]


class Deaths:
    """How often worker processes have ended, and why. The supervisor counts."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def count(self, reason: str) -> None:
        """Count one, for one of the reasons in `DEATHS`."""
        self._words[_DEATHS + DEATHS.index(reason)] += 1

    @property
    def by_reason(self) -> dict[str, int]:
        """How many there were of each."""
        return {reason: self._words[_DEATHS + n] for n, reason in enumerate(DEATHS)}


class Counters:
    """The words of all workers. Made by the supervisor before it forks."""

    def __init__(self, words: memoryview, workers: int, width: int) -> None:
        self._words = words
        self._width = width
        self.workers = workers
        self._slots = [self.slot(worker) for worker in range(workers)]
        self.snapshots = SnapshotRequests(words)
        self.beats = Beats(words, self._slots)
        self.deaths = Deaths(words)
        self.slow_ring = SlowRing(workers)
        self.inquiries = Inquiries(workers)
        self.fence_epochs = Epochs(workers)
        self.wakeups = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers)]
        """For each worker, what it is woken by when another one has committed something."""

    @classmethod
    def create(cls, workers: int, requests: int = 0) -> Counters:
        """Make zeroed counters for so many workers, with so many words for requests in each."""
        width = -(-(REQUESTS + requests) // _CACHE_LINE) * _CACHE_LINE
        size = (_HEADER + workers * width) * 8
        words = memoryview(mmap.mmap(-1, size)).cast("q")
        words[_STARTED] = time.monotonic_ns()
        return cls(words, workers, width)

    def close(self) -> None:
        """Let go of the descriptors. For a process that goes on without these counters."""
        for wakeup in self.wakeups:
            os.close(wakeup)
        self.inquiries.close()

    @property
    def age(self) -> float:
        """For how many seconds there has been a service that counts here."""
        return (time.monotonic_ns() - self._words[_STARTED]) / 1e9

    def slot(self, worker: int) -> memoryview:
        """Return one worker's words; only that worker writes them."""
        start = _HEADER + worker * self._width
        return self._words[start : start + self._width]

    def total(self, word: int) -> int:
        """Return the sum of a word over all workers."""
        start = _HEADER + word
        return sum(self._words[start : start + self.workers * self._width : self._width])

    def ready(self, worker: int) -> bool:
        """Tell whether a worker answers requests."""
        return self.slot(worker)[_READY] == 1

    def ready_workers(self) -> int:
        """Return how many workers answer requests."""
        return self.total(_READY)

    def set_ready(self, worker: int) -> None:
        """Say that a worker, which is this process, answers requests from now on."""
        slot = self.slot(worker)
        slot[_PID] = os.getpid()
        slot[_READY] = 1

    @property
    def pids(self) -> list[int]:
        """The process id of each worker; 0 where none answers requests."""
        return [slot[_PID] for slot in self._slots]

    def clear_ready(self, worker: int) -> None:
        """Say that a worker is gone, and its connections with it."""
        slot = self.slot(worker)
        for word in (
            _READY, _PID, OPEN_CONNECTIONS, CLIENT_BYTES, _INTERESTED, WATCHERS, WAITING,
        ):  # fmt: skip
            slot[word] = 0

    def set_interested(self, worker: int, interested: bool) -> None:
        """Say whether a worker wants to be woken by what the others commit."""
        self.slot(worker)[_INTERESTED] = int(interested)

    def wake_others(self, me: int) -> None:
        """Wake the workers that are interested and do not know yet. Call after a commit."""
        for worker, slot in enumerate(self._slots):
            if slot[_INTERESTED] and worker != me and not slot[_SIGNALLED]:
                slot[_SIGNALLED] = 1
                os.eventfd_write(self.wakeups[worker], 1)

    def wake_all(self) -> None:
        """Wake every worker. Call when one has died: it may have committed and told nobody yet."""
        for worker, slot in enumerate(self._slots):
            slot[_SIGNALLED] = 1
            os.eventfd_write(self.wakeups[worker], 1)

    def woken(self, me: int) -> None:
        """Take a wake-up; what is committed from now on wakes anew. Call before looking."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wakeups[me])
        self.slot(me)[_SIGNALLED] = 0

    @property
    def draining(self) -> bool:
        """Whether the service is about to end."""
        return self._words[_DRAINING] == 1

    def set_draining(self, draining: bool) -> None:
        """Say whether the service is about to end, and wake the workers so that they see.

        Readiness follows it, and every answer from then on closes its connection.
        """
        self._words[_DRAINING] = int(draining)
        self.wake_all()

    # The log

    @property
    def log_dropped(self) -> int:
        """How many lines of the log were dropped because nobody read it."""
        return self.total(LOG_DROPPED) + self._words[_LOG_DROPPED]

    def count_log_dropped(self, lines: int) -> None:
        """Say how many lines the supervisor has dropped."""
        self._words[_LOG_DROPPED] += lines

    # Certificates

    @property
    def certificate(self) -> int:
        """The number of the certificate that is to be shown."""
        return self._words[_CERTIFICATE]

    @property
    def certificate_ends(self) -> float:
        """When the certificate ends, in seconds since 1970; 0 where there is none."""
        return float(self._words[_CERTIFICATE_ENDS])

    def set_certificate(self, number: int, ends: float) -> None:
        """Say which certificate is to be shown, and wake the workers so that they see."""
        self._words[_CERTIFICATE_ENDS] = int(ends)
        self._words[_CERTIFICATE] = number
        self.wake_all()

    # Takeovers

    @property
    def shared(self) -> bool:
        """Whether the workers of another service have the store open as well."""
        return self._words[_SHARED] == 1

    def set_shared(self, shared: bool) -> None:
        """Say whether another service shares the store, and wake the workers so that they see."""
        self._words[_SHARED] = int(shared)
        self.wake_all()

    @property
    def leaving(self) -> bool:
        """Whether another service has taken over, and the workers are to accept nothing more."""
        return self._words[_LEAVING] == 1

    def set_leaving(self, leaving: bool) -> None:
        """Say whether another service has taken over, and wake the workers so that they see."""
        self._words[_LEAVING] = int(leaving)
        self.wake_all()
