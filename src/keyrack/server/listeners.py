"""Listening sockets: made by the supervisor before it forks, and kept open for its whole life.

Each worker has TCP sockets of its own on the same address (SO_REUSEPORT): the kernel spreads new
connections over them, and no worker wakes up for a connection that another one takes. Since the
supervisor has them open too, connections that wait in a killed worker's queue are not lost: the
worker that replaces it accepts them. A Unix socket has one queue, which all workers share.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Any, Final

from keyrack.system import missing_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyrack.settings import Settings

BACKLOG: Final = 2048
_PATIENCE_SECONDS: Final = 1.0
"""How long the last processes of an earlier service may take to let go of an address."""
_UNIX_MODE: Final = 0o660
_LONGEST_UNIX_PATH: Final = 107
_MOST_UNSENT: Final = 256 << 10
"""Bytes that the kernel takes of an answer beyond those that are on their way to the client."""
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(Exception):
    """Raised at start: the address cannot be had. The message says why and what to do."""


def on_loopback_only(listeners: Sequence[socket.socket]) -> bool:
    """Tell whether nothing but programs and browsers of this machine can reach TCP sockets.

    False for a Unix socket: no browser reaches that.
    """
    return all(
        listener.family != socket.AF_UNIX
        and ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
        for listener in listeners
    )


def accept_waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept all connections that wait in a socket's queue; none if it is closed or empty."""
    accepted = []
    with contextlib.suppress(OSError):
        listener.setblocking(False)
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            accepted.append(client)
    return accepted


class Listeners:
    """The sockets of all workers; `urls` says where clients find them."""

    def __init__(self, by_worker: list[list[socket.socket]], urls: list[str]) -> None:
        self._by_worker = by_worker
        self.urls = urls
        self.workers = len(by_worker)
        self._unix_path = ""
        self._unix_inode = 0
        self._owned = True

    @classmethod
    def on_unix_path(cls, path: str, workers: int) -> Listeners:
        """Listen on a Unix socket; its file is removed when the listeners are closed."""
        listeners = cls([[_unix(path)]] * workers, [f"unix:{path}"])
        listeners._named(path)
        return listeners

    def _named(self, path: str) -> None:
        self._unix_path = path
        self._unix_inode = os.stat(path).st_ino

    @classmethod
    def inherited(
        cls, sockets: list[socket.socket], workers: int, urls: list[str], unix_path: str | None
    ) -> Listeners:
        """Take sockets that another service listens on as well.

        With fewer workers than sockets a worker serves several: one that is closed would lose the
        connections that wait in its queue.
        """
        if unix_path is not None:
            listeners = cls([sockets] * workers, urls)
            listeners._named(unix_path)
            return listeners
        listeners = cls([[] for _ in range(workers)], urls)
        with contextlib.ExitStack() as undo:
            undo.callback(listeners.close)
            for queue in _by_address(sockets):
                for number in range(max(len(queue), workers)):
                    one = queue[number] if number < len(queue) else _another(queue[0])
                    listeners.of(number % workers).append(one)
            undo.pop_all()
        return listeners

    def hand_over(self) -> None:
        """Leave the Unix socket's file to another service."""
        self._owned = False

    def adopt(self) -> None:
        """Take the Unix socket's file over, or back."""
        self._owned = True

    def of(self, worker: int) -> list[socket.socket]:
        """Return the sockets that one worker serves."""
        return self._by_worker[worker]

    def keep_only(self, worker: int) -> None:
        """Close, in a worker's own process, the sockets of all others."""
        mine = self._by_worker[worker]
        for listener in self.all():
            if listener not in mine:
                listener.close()

    def take_out(self, worker: int) -> None:
        """Have the kernel give a worker's connections to the others; what waits for it is reset.

        The sockets keep their address, and take part again when the next process listens on them.
        A Unix socket is everybody's and stays.
        """
        for listener in self._by_worker[worker]:
            if listener.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close all of them, in the supervisor."""
        for listener in self.all():
            listener.close()
        if not self._owned:
            return
        with contextlib.suppress(OSError):
            # A service that was started since may have put its own socket there.
            if self._unix_path and os.stat(self._unix_path).st_ino == self._unix_inode:
                os.unlink(self._unix_path)
        self._unix_path = ""

    def all(self) -> list[socket.socket]:
        """Return the sockets of all workers, each once."""
        return list(dict.fromkeys(one for mine in self._by_worker for one in mine))


def open_listeners(settings: Settings, patience: float = _PATIENCE_SECONDS) -> Listeners:
    """Bind and listen as the settings say. Raises `ListenError`.

    `patience` is how many seconds an address in use is waited for.
    """
    if settings.uds is not None:
        return Listeners.on_unix_path(settings.uds, settings.workers)
    return _on_tcp(settings, patience)


# TCP


def _on_tcp(settings: Settings, patience: float) -> Listeners:
    """Listen on every address of the host; those this machine lacks are left out if one is had."""
    addresses = _resolved(settings.host, settings.port)
    dual = len({family for family, _ in addresses}) == 1
    listeners = Listeners([[] for _ in range(settings.workers)], [])
    scheme = "https" if settings.tls_cert else "http"
    port, missing = settings.port, None
    with contextlib.ExitStack() as undo:
        undo.callback(listeners.close)
        for family, address in addresses:
            try:
                port = _listen(listeners, family, _at(address, port), dual, patience)
                listeners.urls.append(f"{scheme}://{_in_url(address[0])}:{port}")
            except ListenError as error:
                if _errno(error) not in _NOT_HERE:
                    raise
                missing = error
        if missing is not None and not listeners.urls:
            raise missing
        undo.pop_all()
    return listeners


def _listen(
    listeners: Listeners, family: int, address: tuple[Any, ...], dual: bool, patience: float
) -> int:
    """Give each worker a listening socket at an address, and return its port."""
    with contextlib.ExitStack() as stack:
        if address[1]:
            _make_sure_it_is_free(family, address, dual, patience)
        else:
            # A socket that was given any port gives it back when it no longer listens, and another
            # program could get it; one that named its port keeps it. So this one only finds a port.
            found = _tcp(family, address, dual, shared=True)
            stack.callback(found.close)
            address = _at(address, found.getsockname()[1])
        for worker in range(listeners.workers):
            made = _tcp(family, address, dual, shared=True)
            listeners.of(worker).append(made)
            made.listen(BACKLOG)
    return int(address[1])


def _by_address(sockets: list[socket.socket]) -> list[list[socket.socket]]:
    found: dict[tuple[Any, ...], list[socket.socket]] = {}
    for one in sockets:
        found.setdefault((one.family, one.getsockname()), []).append(one)
    return list(found.values())


def _another(listener: socket.socket) -> socket.socket:
    """Return one more listening socket at the address of another."""
    dual = False
    if listener.family == socket.AF_INET6:
        dual = not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    made = _tcp(listener.family, listener.getsockname(), dual, shared=True)
    made.listen(BACKLOG)
    return made


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _resolved(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(
            f"The host {host!r} is not known here ({error}). Give --host an address of this "
            "machine, or 0.0.0.0 for all of them."
        ) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _at(address: tuple[Any, ...], port: int) -> tuple[Any, ...]:
    """Return the address with a port: what follows them is IPv6's flow and scope."""
    return (address[0], port, *address[2:])


def _tcp(family: int, address: tuple[Any, ...], dual: bool, shared: bool) -> socket.socket:
    """Return a bound socket. `dual`: an IPv6 socket on `::` takes IPv4 as well."""
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _explained(error, address) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Each accepted connection inherits it: what a client does not take waits in this service's
        # own memory, which is counted and bounded, and not by the megabyte in the kernel's.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        made.bind(address)
    except OSError as error:
        made.close()
        raise _explained(error, address) from error
    return made


def _make_sure_it_is_free(
    family: int, address: tuple[Any, ...], dual: bool, patience: float
) -> None:
    """Bind without sharing: with it, a second service would silently get half the connections."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return _tcp(family, address, dual, shared=False).close()
        except ListenError as error:
            if _errno(error) != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _errno(error: ListenError) -> int | None:
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None


def _explained(error: OSError, address: tuple[Any, ...]) -> ListenError:
    where = f"{address[0]} port {address[1]}"
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"{where} is in use by another program. Stop that one "
            f"(`ss -ltnp 'sport = :{address[1]}'` shows it), or choose another --port."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ListenError(f"{where} may not be used by this user. Choose a --port above 1023.")
    if error.errno in _NOT_HERE:
        return ListenError(
            f"{address[0]} is no address of this machine. Give --host one that is, or 0.0.0.0 "
            "for all of them."
        )
    return ListenError(f"{where} cannot be listened on: {error.strerror}. Choose another --host.")


# Unix sockets


def _unix(path: str) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_UNIX_PATH:
        raise ListenError(
            f"The path {path!r} is too long for a Unix socket, which may have "
            f"{_LONGEST_UNIX_PATH} bytes. Give --uds a shorter one."
        )
    if (missing := missing_parent(path)) is not None:
        raise ListenError(
            f"No Unix socket can be made at --uds {path}: {missing} does not exist. Make it, or "
            "mend the path."
        )
    try:
        _remove_stale(path)
        return _bound(path)
    except OSError as error:
        raise ListenError(
            f"No Unix socket can be made at {path!r}: {error.strerror}. Give --uds a path in a "
            "directory that this user may write to."
        ) from None


def _bound(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode comes with the file, so that nobody gets in before it is set.
    mask = os.umask(0o777 & ~_UNIX_MODE)
    try:
        made.bind(path)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made


def _remove_stale(path: str) -> None:
    """Remove the socket that a killed service left behind, and nothing else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path!r} exists and is no socket. Give --uds another path.")
    if _is_answered(path):
        raise ListenError(
            f"Another service listens on {path!r}. Stop that one, or give --uds another path."
        )
    os.unlink(path)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # its queue is full, so somebody is there
    return True
