"""Where the store lives, how much it may hold, and that only one service has it open.

A store without a name is a directory of its own on tmpfs that dies with the service. A store with
a name (`--store`) is kept. In either, the file `lock` is locked for as long as any process of the
service lives: the lock belongs to the open file, which workers inherit. So a store whose lock is
free belongs to nobody, and without a name it is what a killed service left behind: it is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import lmdb

from keyrack.engines.contract import StoreFormatUnknown, StoreInUse, StoreTooSmall, WhenFull
from keyrack.engines.embedded.engine import EmbeddedEngine
from keyrack.engines.embedded.eviction import frequency
from keyrack.engines.embedded.locking import lock_patiently, owner_of, sign, try_lock
from keyrack.shared.units import shown_size
from keyrack.system import file_size_limit, missing_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyrack.engines.embedded.durability import DurabilityConfig

MINIMUM: Final = 8 << 20
_FILE_SIZES: Final = "`ulimit -f`, or LimitFSIZE of systemd"
_PREFIX: Final = "keyrack-"
_UNNAMED: Final = "unnamed"
_SHARED_MEMORY: Final = Path("/dev/shm")
_SLACK: Final = 1 << 20
"""Bytes of a directory that an automatic limit leaves to others, and at least a twentieth of it."""
_FILES: Final = frozenset(
    (
        "data.mdb",
        "lock.mdb",
        "words",
        frequency.FILE,
        "lock",
        "sync",
        "control",
        "address",
        _UNNAMED,
    )
)


class StoreDirectory:
    """A store's directory, held by this service. `memory` is the store's limit in bytes."""

    def __init__(self, path: str, lock: int, memory: int, named: bool, notes: list[str]) -> None:
        self.path = path
        self.memory = memory
        self.named = named
        self.notes = notes
        self.kept: DurabilityConfig | None = None
        """Where it is kept on a disk, if it is."""
        self._lock = lock
        self._owned = True

    @property
    def lock(self) -> int:
        """The descriptor that the lock belongs to; who gets it holds the store as well."""
        return self._lock

    def hand_over(self) -> None:
        """Leave the store's fate to another service, which has the lock too."""
        self._owned = False

    def adopt(self) -> None:
        """Take the store over from the service that has handed it over, or take it back."""
        self._owned = True
        sign(self._lock)

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed, moved or replaced what this service owns."""
        return self._owned and not (
            self._is_mine() and os.path.exists(os.path.join(self.path, "data.mdb"))
        )

    def _is_mine(self) -> bool:
        mine = os.fstat(self._lock)
        try:
            there = os.stat(os.path.join(self.path, "lock"))
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Give the store up: it is kept if it has a name or another owner, else removed."""
        if self._owned and not self.named and self._is_mine():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def prepare(
    store: str | None,
    memory: int | None,
    available: int,
    events: int,
    default_directory: Path | None = None,
    when_full: WhenFull = WhenFull.REJECT,
) -> StoreDirectory:
    """Take or make the store's directory, and check that it can hold its limit.

    `memory` is the limit that was asked for, None for an automatic one; `available` is the memory
    that this service may use at most, both in bytes. Raises `StoreInUse`, `StoreTooSmall` or
    `StoreFormatUnknown`.
    """
    if store is None:
        path, lock = _make_unnamed(default_directory or _default_directory())
    else:
        path, lock = _take_named(store)
    notes: list[str] = []
    directory = StoreDirectory(path, lock, 0, store is not None, notes)
    try:
        directory.memory = _limit(path, memory, available, notes)
        _note_file_system(path, notes)
        _open_once(directory, events, when_full)
    except BaseException:
        directory.close()
        raise
    return directory


def _open_once(directory: StoreDirectory, events: int, when_full: WhenFull) -> None:
    try:
        engine = EmbeddedEngine(directory.path, directory.memory, events, when_full=when_full)
    except (lmdb.MemoryError, MemoryError):
        raise StoreTooSmall(
            f"a store of {_mib(directory.memory)} does not fit into what this process may have in "
            "memory. Raise the limit (`ulimit -v` and `ulimit -d`, or LimitAS and LimitDATA of "
            "systemd), or use a smaller --memory."
        ) from None
    try:
        engine.begin_life()
    finally:
        engine.close()


def _default_directory() -> Path:
    if _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


# Directories


def _make_unnamed(parent: Path) -> tuple[str, int]:
    remove_leftovers(parent)
    try:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    except OSError as error:
        raise StoreTooSmall(
            f"no store can be made in {parent}: {error.strerror}. Name another place with --store."
        ) from None
    lock = try_lock(path)
    assert lock is not None, "nobody else knows the directory yet"
    # Written after the lock is held: without the mark nobody removes the directory.
    Path(path, _UNNAMED).touch()
    return path, lock


def remove_leftovers(parent: Path) -> list[str]:
    """Remove unnamed stores whose service is dead, and return which."""
    removed = []
    for path in unnamed_stores(parent):
        try:
            lock = try_lock(str(path))
        except OSError:
            continue
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            removed.append(str(path))
    return removed


def unnamed_stores(parent: Path | None = None) -> list[Path]:
    """Return the directories of this user's stores without a name, in use or left behind."""
    found = []
    for path in sorted((parent or _default_directory()).glob(_PREFIX + "*")):
        try:
            if (path / _UNNAMED).stat().st_uid == os.geteuid():
                found.append(path)
        except OSError:
            continue  # it is gone, or somebody else's: anybody may make such a directory there
    return found


def _take_named(store: str) -> tuple[str, int]:
    path = os.path.abspath(store)
    if (missing := missing_parent(path)) is not None:
        raise StoreFormatUnknown(
            f"--store {path} cannot be made: {missing} does not exist. Make it, or mend the path."
        )
    if os.path.exists(path) and not os.path.isdir(path):
        raise StoreFormatUnknown(f"--store {path} is a file. Name a directory.")
    with _named_store(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = set(os.listdir(path))
    if found - _FILES and "words" not in found:
        raise StoreFormatUnknown(
            f"--store {path} holds other files ({min(found - _FILES)}, ...) and is no store. "
            "Name an empty directory or a new one."
        )
    with _named_store(path):
        lock = _lock(path)
        Path(path, _UNNAMED).unlink(missing_ok=True)
    return path, lock


@contextlib.contextmanager
def _named_store(path: str) -> Iterator[None]:
    """Explain what the system refuses: a directory of somebody else, a read-only file system."""
    try:
        yield
    except OSError as error:
        raise StoreFormatUnknown(
            f"--store {path} cannot be used: {error.strerror}. Name a directory that is yours."
        ) from None


def _lock(path: str) -> int:
    """Lock a named store."""
    lock = lock_patiently(path)
    if lock is None:
        owner = owner_of(path) or "unknown"
        raise StoreInUse(
            f"the store {path} is in use by another service (process {owner}). "
            "Stop that one first, take it over with --takeover, or name another --store."
        )
    return lock


# Limits


def _limit(path: str, memory: int | None, available: int, notes: list[str]) -> int:
    """Return the store's limit in bytes, or refuse the one that was asked for."""
    held = _bytes_held(path)
    total, free = _capacity(path)
    room = free + held
    if memory is None:
        return _within_file_sizes(_automatic(path, available, total, room, notes), notes)
    _refuse_more_than(
        memory,
        room,
        f"{path} can hold {_mib(room)}",
        f"Use --memory {shown_size(room >> 20 << 20)}, or {_enlarge()}",
    )
    _refuse_more_than(
        memory,
        available,
        f"this machine or container allows {_mib(available)}",
        f"Use less than --memory {shown_size(available >> 20 << 20)}",
    )
    _refuse_more_than(
        memory,
        file_size_limit(),
        f"a file of this process may have {_mib(file_size_limit())} ({_FILE_SIZES})",
        f"Raise that, or use --memory {shown_size(file_size_limit() >> 20 << 20)}",
    )
    if held > memory:
        raise StoreTooSmall(
            f"the store in {path} already takes {_mib(held)}, more than --memory "
            f"{shown_size(memory)}. Give it at least that."
        )
    return memory


def _within_file_sizes(limit: int, notes: list[str]) -> int:
    largest = file_size_limit() // (1 << 20) * (1 << 20)
    if limit <= largest:
        return limit
    if largest < MINIMUM:
        raise StoreTooSmall(
            f"a file of this process may have {_mib(largest)} ({_FILE_SIZES}), and a store needs "
            f"{_mib(MINIMUM)}. Raise that."
        )
    notes.append(
        f"The store is limited to {_mib(largest)} by how large a file may be ({_FILE_SIZES}), "
        f"though {_mib(limit)} of memory would be there."
    )
    return largest


def _automatic(path: str, available: int, total: int, room: int, notes: list[str]) -> int:
    half = available // 2
    fitting = room - max(_SLACK, total // 20)
    limit = min(half, fitting) // (1 << 20) * (1 << 20)
    if limit < MINIMUM:
        raise StoreTooSmall(
            f"{os.path.dirname(path)} has room for {_mib(max(0, fitting))}, and a store needs "
            f"{_mib(MINIMUM)}. Name another place with --store, or {_enlarge()}."
        )
    if fitting < half:
        notes.append(
            f"The store is limited to {_mib(limit)} by its directory ({path}), though {_mib(half)} "
            f"of memory would be there. To give it more, {_enlarge()}."
        )
    return limit


def _refuse_more_than(memory: int, bound: int, why: str, advice: str) -> None:
    if memory > bound:
        raise StoreTooSmall(f"--memory {shown_size(memory)} is not possible: {why}. {advice}.")


def _enlarge() -> str:
    return (
        "enlarge the directory's file system (`docker run --shm-size=1g`, or in Kubernetes an "
        "emptyDir with `medium: Memory`)"
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _capacity(path: str) -> tuple[int, int]:
    """Return the bytes in all and free of a directory's file system, very many where unlimited."""
    found = os.statvfs(path)
    if found.f_blocks == 0:
        return 1 << 62, 1 << 62
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _bytes_held(path: str) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(path) if entry.is_file())


def _note_file_system(path: str, notes: list[str], mounts: Callable[[], str] | None = None) -> None:
    """Say when the store is not in memory: then the system writes it to a disk now and then."""
    text = (mounts or Path("/proc/self/mounts").read_text)()
    device = os.stat(path).st_dev
    for line in text.splitlines():
        _, point, kind, *_ = line.split(" ")
        try:
            there = os.stat(point)
        except OSError:
            continue
        if there.st_dev == device and stat.S_ISDIR(there.st_mode):
            if kind not in ("tmpfs", "ramfs"):
                notes.append(
                    f"The store in {path} is on {kind}, not in memory (tmpfs): it is slower, and "
                    "an unclean end of the machine may damage it."
                )
            return
