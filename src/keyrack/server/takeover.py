"""Takeovers: a new service gets the sockets and the store of the running one, which then ends.

The running service has a control socket in its store's directory. The new one connects to it and
asks; it is offered the listening sockets, the lock of the store (which belongs to the open file,
and so passes on with it) and the control socket itself. Its workers start beside the old ones, on
the same sockets and the same store. When all of them serve it says `Ready`; the old workers then
accept nothing more and close each connection with its next answer.

    new ── Ask ──▶ old          old ── Offer, then the descriptors ──▶ new
    new ── Ready ──▶ old        the old workers leave
    new ── Settled ──▶ old      the old service no longer comes back if the new one dies

Until `Ready` the end of the new service changes nothing for the old one, and until `Settled` the
old one starts its workers again. If the old one is gone the new one goes on alone: it has all.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from keyrack import __version__
from keyrack.engines.embedded.database import FORMAT
from keyrack.engines.embedded.directory import StoreDirectory, unnamed_stores
from keyrack.server.embedded_store import EmbeddedStore
from keyrack.server.listeners import Listeners
from keyrack.settings import ROWS, Settings, flag
from keyrack.shared.units import shown_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyrack.server.store import Store, TakeoverHandle

_NAME: Final = "control"
_ADDRESS_FILE: Final = "address"
"""Beside the control socket: at which address its service is, so that no other one is asked."""
_PROTOCOL: Final = 1
_ANSWER_SECONDS: Final = 10.0
_PASSING_SECONDS: Final = 2.0
"""How long an earlier version may take that does not tell whether it is the one that is meant."""
_POLITE_SECONDS: Final = 0.2
_READY_SECONDS: Final = 60.0
"""How long the new service may take from its question until all its workers serve."""
_MOST_DESCRIPTORS: Final = 128
"""Descriptors in one message; the kernel takes 253."""
_MOST_BYTES: Final = 1 << 16
_ADDRESS: Final = ("host", "port", "uds")
_FREE: Final = frozenset(("store", "memory", "events", "snapshot_interval", "snapshot_keep"))
"""Settings of the store that the services may differ in, or that are compared otherwise."""


_log = logging.getLogger("keyrack.supervisor")


class TakeoverRefused(Exception):
    """Raised at start: the running service cannot be taken over. The message says why."""


class _Elsewhere(TakeoverRefused):
    """Raised for a service that serves another address: where none was named, it is not meant."""


# Messages between two supervisors


class Ask(msgspec.Struct, tag=True):
    """The new service introduces itself."""

    protocol: int
    version: str
    pid: int
    format: str
    address: dict[str, str]


class Declined(msgspec.Struct, tag="Refused"):
    """The running service does not hand over."""

    why: str
    elsewhere: bool = False
    """It is another service than the one that is meant: it serves another address."""


class Offer(msgspec.Struct, tag=True):
    """What the running service hands over; so many descriptors follow."""

    version: str
    pid: int
    settings: dict[str, str]
    store: str
    named: bool
    memory: int
    urls: list[str]
    descriptors: int


class More(msgspec.Struct, tag=True):
    """Descriptors: the store's lock, the control socket, then the listening sockets."""


class Ready(msgspec.Struct, tag=True):
    """The new service serves."""


class Settled(msgspec.Struct, tag=True):
    """The new service needs nobody to come back."""


Message: TypeAlias = Ask | Declined | Offer | More | Ready | Settled
_decode: Final = msgspec.json.Decoder(Message).decode


class LinkEnded(Exception):
    """Raised when the other side is gone, or says what cannot be understood."""


class SupervisorLink:
    """A connection between two supervisors that carries whole messages and descriptors."""

    def __init__(self, connected: socket.socket, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._socket = connected
        self._answer_seconds = answer_seconds

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message. Raises `LinkEnded`."""
        try:
            socket.send_fds(self._socket, [msgspec.json.encode(message)], list(descriptors))
        except OSError as error:
            raise LinkEnded from error

    def receive(self, seconds: float = 0.0) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors, None if none comes within the time."""
        self._socket.settimeout(seconds)
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _MOST_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, TimeoutError):
            return None
        except OSError as error:
            raise LinkEnded from error
        try:
            return _decode(data), descriptors
        except msgspec.DecodeError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise LinkEnded from error

    def expect(self) -> tuple[Message, list[int]]:
        """Return the next message, which is due. Raises `LinkEnded`."""
        found = self.receive(self._answer_seconds)
        if found is None:
            raise LinkEnded
        return found

    def peer_user(self) -> int:
        """Return the user that the other side runs as."""
        size = struct.calcsize("3i")
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", raw)[1])

    def close(self) -> None:
        """End it, which the other side notices."""
        self._socket.close()


# The control socket


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@contextlib.contextmanager
def _address(store: str) -> Iterator[str]:
    """Give the control socket's address, which is short however long the directory's name is."""
    directory = os.open(store, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)


def open_control(store: str, settings: Settings) -> socket.socket:
    """Make the control socket of a store whose lock is held. Raises `OSError`."""
    made = _new_socket()
    mask = os.umask(0o177)
    try:
        Path(store, _ADDRESS_FILE).write_bytes(msgspec.json.encode(_address_of(settings)))
        # Whoever had the lock before is gone, and so is whatever listened here.
        Path(store, _NAME).unlink(missing_ok=True)
        with _address(store) as address:
            made.bind(address)
        made.listen(8)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made


def _connect(store: str, seconds: float = _ANSWER_SECONDS) -> SupervisorLink | None:
    """Connect to the service that has a store; None when there is none."""
    made = _new_socket()
    made.settimeout(seconds)
    try:
        with _address(store) as address:
            made.connect(address)
    except OSError:
        made.close()
        return None
    return SupervisorLink(made, seconds)


# The running service


class Step(enum.Enum):
    """What has happened in a handover."""

    ASKED = enum.auto()
    WITHDRAWN = enum.auto()
    READY = enum.auto()
    SETTLED = enum.auto()
    ABANDONED = enum.auto()
    """The new service has ended after it was ready and before it was settled."""


class Handover:
    """The running service's side. Nothing here waits: `step` is called again and again."""

    def __init__(
        self, control: socket.socket, offer: Callable[[], tuple[Offer, list[int]]]
    ) -> None:
        self._control = control
        self._offer = offer
        self._link: SupervisorLink | None = None
        self._stage: Step | None = None
        self._since = 0.0
        self.successor = ""
        """Who asked, for the log."""

    @property
    def under_way(self) -> bool:
        """Whether somebody has asked and not yet settled."""
        return self._link is not None and self._stage is not Step.SETTLED

    def step(self) -> Step | None:
        """Take the next message, if there is one; return what it means."""
        if self._stage in (None, Step.ASKED):
            self._accept()
        if self._link is None:
            return None
        try:
            found = self._link.receive()
            if found is not None:
                return self._take(found[0])
        except LinkEnded:
            return self._end()
        late = self._stage in (None, Step.ASKED) and time.monotonic() - self._since > _READY_SECONDS
        return self._end() if late else None

    def _accept(self) -> None:
        try:
            connected, _ = self._control.accept()
        except OSError:
            return
        link = SupervisorLink(connected)
        if link.peer_user() not in (0, os.geteuid()):
            link.close()
        elif self._link is not None:
            _turn_away(link)
        else:
            self._link, self._since = link, time.monotonic()

    def _take(self, message: Message) -> Step | None:
        assert self._link is not None
        if isinstance(message, Ask) and self._stage is None:
            return self._answer(message)
        if isinstance(message, Ready) and self._stage is Step.ASKED:
            self._stage = Step.READY
        elif isinstance(message, Settled) and self._stage is Step.READY:
            self._stage = Step.SETTLED
        else:
            raise LinkEnded
        return self._stage

    def _answer(self, ask: Ask) -> Step | None:
        assert self._link is not None
        offer, descriptors = self._offer()
        if (refused := _objection(ask, offer)) is not None:
            self._link.send(refused)
            return self._end()
        self._link.send(offer)
        for first in range(0, len(descriptors), _MOST_DESCRIPTORS):
            self._link.send(More(), descriptors[first : first + _MOST_DESCRIPTORS])
        self.successor = f"Keyrack {ask.version} (process {ask.pid})"
        self._stage = Step.ASKED
        return self._stage

    def _end(self) -> Step | None:
        """Let go of the new service, which is gone or of no use."""
        if self._stage is Step.SETTLED:
            return None
        if self._link is not None:
            self._link.close()
        was, self._link, self._stage = self._stage, None, None
        return {Step.ASKED: Step.WITHDRAWN, Step.READY: Step.ABANDONED}.get(was) if was else None

    def close(self) -> None:
        """End; the new service notices that this one is gone."""
        if self._link is not None:
            self._link.close()
        self._control.close()


def _turn_away(link: SupervisorLink) -> None:
    """Refuse one who asks while another takes over."""
    with contextlib.suppress(LinkEnded):
        link.receive(_POLITE_SECONDS)  # closing with something unread would take the answer away
        link.send(Declined("another service is just taking over; try again when it is done."))
    link.close()


def _objection(ask: Ask, offer: Offer) -> Declined | None:
    if ask.protocol != _PROTOCOL:
        return Declined("the two versions do not know how to hand over to each other: restart.")
    for name, wanted in ask.address.items():
        if (mine := offer.settings[name]) != wanted:
            return Declined(_differ(offer.pid, flag(name), mine, wanted), elsewhere=True)
    if ask.format != FORMAT.decode():
        return Declined(
            f"the running service's store has the format {FORMAT.decode()!r}, and the new version "
            f"reads {ask.format!r}. End it and start the new one on another --store."
        )
    if os.getpid() == 1:
        return Declined(
            "the running service is process 1 of its container, which would end with it. "
            "Replace the container instead."
        )
    return None


def _differ(pid: int, what: str, theirs: str, mine: str) -> str:
    return (
        f"the running service (process {pid}) has {what} {theirs}, and this one {mine}. "
        "Give both the same, or restart instead of taking over."
    )


def offer_of(
    settings: Settings,
    listeners: Listeners,
    store: Store,
    handle: TakeoverHandle,
    control: socket.socket,
) -> tuple[Offer, list[int]]:
    """Return what a service has to hand over, and the descriptors."""
    sockets = (one.fileno() for one in listeners.all())
    descriptors = [handle.lock, control.fileno(), *sockets]
    offer = Offer(
        version=__version__,
        pid=os.getpid(),
        settings=shown_settings(settings),
        store=store.path,
        named=store.named,
        memory=store.memory or 0,
        urls=listeners.urls,
        descriptors=len(descriptors),
    )
    return offer, descriptors


def shown_settings(settings: Settings) -> dict[str, str]:
    """Return what the two services must agree about, as texts."""
    return {name: str(getattr(settings, name)) for name in _kept()} | {
        "tls": str(settings.tls_cert is not None)
    }


def _kept() -> list[str]:
    store = (name for name, row in ROWS.items() if row.group == "Store" and name not in _FREE)
    return [*_ADDRESS, *store]


# The new service


class Predecessor:
    """The service that is being taken over, as the new one sees it."""

    def __init__(self, link: SupervisorLink, offer: Offer) -> None:
        self._link = link
        self.name = f"Keyrack {offer.version} (process {offer.pid})"
        self.gone = False

    def look(self) -> bool:
        """Tell whether it has ended, which `gone` says from then on."""
        try:
            self._link.receive()
        except LinkEnded:
            self.gone = True
        return self.gone

    def tell(self, message: Ready | Settled) -> None:
        """Say how far this service is. One that is gone need not know."""
        with contextlib.suppress(LinkEnded):
            self._link.send(message)

    def close(self) -> None:
        """End; one that has not been told `Ready` goes on as if nothing had been."""
        self._link.close()


class Inheritance(NamedTuple):
    """What a service begins with; what another one has handed over is not owned until adopted."""

    listeners: Listeners
    store: Store
    control: socket.socket | None
    predecessor: Predecessor | None


def inherit(settings: Settings, parent: Path | None = None) -> Inheritance | None:
    """Ask the running service for all it has; None where none runs. Raises `TakeoverRefused`.

    `parent` is where stores without a name are looked for.
    """
    if settings.store is not None:
        return _inherit_from(os.path.abspath(settings.store), settings)
    for path in unnamed_stores(parent):
        told = _address_told(path)
        if told is not None and told != _address_of(settings):
            continue
        try:
            seconds = _ANSWER_SECONDS if told is not None else _PASSING_SECONDS
            if (found := _inherit_from(str(path), settings, seconds)) is not None:
                return found
        except _Elsewhere:
            continue
        except TakeoverRefused as refused:
            if told is not None:
                raise
            # An earlier version does not tell where it is: it may well be another service.
            _log.info("%s It is passed over.", refused)
    return None


def _address_of(settings: Settings) -> dict[str, str]:
    return {name: str(getattr(settings, name)) for name in _ADDRESS}


def _address_told(store: Path) -> dict[str, str] | None:
    try:
        return msgspec.json.decode((store / _ADDRESS_FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return None


def _inherit_from(
    store: str, settings: Settings, seconds: float = _ANSWER_SECONDS
) -> Inheritance | None:
    link = _connect(store, seconds)
    if link is None:
        return None
    descriptors: list[int] = []
    try:
        address = _address_of(settings)
        link.send(Ask(_PROTOCOL, __version__, os.getpid(), FORMAT.decode(), address))
        offer = _offered(link)
        while len(descriptors) < offer.descriptors:
            message, more = link.expect()
            if not isinstance(message, More) or not more:
                raise LinkEnded
            descriptors += more
        _compare(offer, settings)
    except BaseException as error:
        link.close()
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, LinkEnded):
            raise TakeoverRefused(
                f"the service on {store} broke off the takeover; its log may say why."
            ) from None
        raise
    return _adopted(link, offer, descriptors, settings)


def _offered(link: SupervisorLink) -> Offer:
    message, _ = link.expect()
    if isinstance(message, Declined):
        raise _Elsewhere(message.why) if message.elsewhere else TakeoverRefused(message.why)
    if not isinstance(message, Offer):
        raise LinkEnded
    return message


def _compare(offer: Offer, settings: Settings) -> None:
    """Refuse settings that cannot change while two services share sockets and store."""
    mine = shown_settings(settings)
    for name, value in mine.items():
        theirs = offer.settings.get(name, _default(name))
        if theirs != value:
            what = flag(name) if name in ROWS else "TLS"
            raise TakeoverRefused(_differ(offer.pid, what, theirs, value))
    if settings.memory not in (None, offer.memory):
        raise TakeoverRefused(
            f"the running service's store is limited to {shown_size(offer.memory)}, and --memory "
            f"{shown_size(settings.memory or 0)} would change that. Leave --memory out, or restart."
        )


def _default(name: str) -> str:
    """Return the value of a setting that the running version does not know yet."""
    return str(getattr(Settings(), name, False))


def _adopted(
    link: SupervisorLink, offer: Offer, descriptors: list[int], settings: Settings
) -> Inheritance:
    lock, control, *listening = descriptors
    sockets = [socket.socket(fileno=descriptor) for descriptor in listening]
    listeners = Listeners.inherited(sockets, settings.workers, offer.urls, settings.uds)
    listeners.hand_over()
    directory = StoreDirectory(offer.store, lock, offer.memory, offer.named, [])
    directory.hand_over()
    return Inheritance(
        listeners,
        EmbeddedStore(settings, directory),
        socket.socket(fileno=control),
        Predecessor(link, offer),
    )
