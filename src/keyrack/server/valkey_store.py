"""A store in Valkey, as the server takes and serves it."""

from __future__ import annotations

import asyncio
import re
import time
from importlib import metadata
from typing import TYPE_CHECKING, Final

import uvloop

from keyrack.engines.contract import StoreAway, StoreError
from keyrack.engines.valkey.address import parse, shown

if TYPE_CHECKING:
    import ssl

    from keyrack.engines.valkey.address import Address
    from keyrack.engines.valkey.engine import ValkeyEngine
    from keyrack.server.store import Work
    from keyrack.settings import Settings

_PATIENCE: Final = 10.0
"""Seconds in which Valkey, which may be starting as well, has to be there."""
_PAUSE: Final = 0.25


class RemoteStore:
    """A store in Valkey. Any number of services may have it, and none of them limits its memory."""

    engine = "valkey"
    memory = None
    named = True
    data = None
    takeover = None
    is_lost = False

    def __init__(self, settings: Settings, notes: list[str]) -> None:
        self._settings = settings
        self.path = shown(_address(settings))
        self.notes = notes

    def keep(self, running: bool) -> None:
        """Keep nothing on a disk: that is Valkey's to do."""

    def serve(self, work: Work) -> None:
        """Run a worker's event loop with the store open."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(work))

    async def _serve(self, work: Work) -> None:
        engine = _engine(self._settings)
        await engine.open()
        try:
            await work(engine)
        finally:
            await engine.close()

    def close(self) -> None:
        """Give it up; there is nothing to give."""


def prepare(settings: Settings) -> RemoteStore:
    """Make sure that the store can be used. Raises `StoreError`.

    The loop that this takes is gone again before workers are forked.
    """
    notes = []
    if settings.store is not None or settings.memory is not None:
        notes.append("--store and --memory mean nothing with a store in Valkey")
    asyncio.run(_try(settings))
    return RemoteStore(settings, notes)


async def _try(settings: Settings) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        engine = _engine(settings)
        try:
            await engine.open()
        except StoreAway:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            await engine.close()
            return


def _address(settings: Settings) -> Address:
    address = parse(settings.engine)
    if settings.engine_password is not None:
        return address._replace(password=settings.engine_password)
    if settings.engine_password_file is not None:
        try:
            with open(settings.engine_password_file, encoding="utf-8") as file:
                return address._replace(password=file.read().strip())
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"The password of the engine cannot be read: {error}.") from None
    return address


def _engine(settings: Settings) -> ValkeyEngine:
    try:
        from keyrack.engines.valkey.engine import Options, ValkeyEngine
        from keyrack.engines.valkey.servers import Login
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{error.name} is missing, which a store in Valkey needs: "
            f"pip install '{_requirement(error.name or '')}'."
        ) from None
    address = _address(settings)
    tls = _tls(settings) if address.tls else None
    login = Login(address.user, address.password, tls, settings.engine_timeout)
    options = Options(settings.events, settings.valkey_wait, settings.valkey_may_evict)
    return ValkeyEngine(address, login, options)


def _requirement(package: str) -> str:
    """Return a package and its version as our own metadata ask for it.

    Not as an extra of ours: this package itself need not be on an index.
    """
    for line in metadata.requires("keyrack") or ():
        wanted = line.partition(";")[0].strip()
        if re.fullmatch(rf"{re.escape(package)}\b.*", wanted):
            return wanted
    return package


def _tls(settings: Settings) -> ssl.SSLContext:
    import ssl  # costs 10 ms, and most services do without

    try:
        context = ssl.create_default_context(cafile=settings.engine_ca)
        if settings.engine_cert is not None:
            context.load_cert_chain(settings.engine_cert, settings.engine_key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StoreError(f"The certificates for the engine cannot be used: {error}.") from None
    return context
