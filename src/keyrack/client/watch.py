"""Watches of a client without an event loop, and mirrors, which are kept by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keyrack.client import say
from keyrack.client.attempt import NoAnswer, fed
from keyrack.client.errors import HistoryGone, KeyrackError, ProtocolError, Refused, Timeout
from keyrack.client.mirroring import MirrorState
from keyrack.client.watching import (
    SILENCE_SECONDS,
    Reset,
    Synced,
    Watching,
    WatchItem,
    ends_a_watch,
)

if TYPE_CHECKING:
    from types import TracebackType

    from keyrack.client.pool import SyncConnection
    from keyrack.client.sending import Sender


class Watch(Iterator[WatchItem]):
    """An iterator of changes that goes on where it was when its connection breaks.

    `close` may be called from another thread, and ends the iteration. It is for one thread.
    """

    def __init__(self, sender: Sender, watching: Watching) -> None:
        self._sender = sender
        self._watching = watching
        self._connection: SyncConnection | None = None
        self._closed = threading.Event()
        self._items = self._run()

    @property
    def position(self) -> int | None:
        """The revision up to which it was told; None before anything was."""
        return self._watching.position

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> WatchItem:
        return next(self._items)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and close its connection."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            connection.shut_down()

    def _run(self) -> Iterator[WatchItem]:
        while not self._closed.is_set():
            try:
                if self._watching.must_list:
                    yield from self._listing()
                yield from self._stream()
            except HistoryGone as error:
                self._watching.lost(error)
            except Refused as error:
                if ends_a_watch(error):
                    raise
                say.info("A watch is asked for again: %s", error)
            except KeyrackError as error:
                say.info("A watch goes on after its connection broke: %s", error)
            self._closed.wait(self._watching.backoff())

    def _listing(self) -> Iterator[WatchItem]:
        watching, revision = self._watching, 0
        for prefix in watching.prefixes:
            after = None
            while True:
                page = self._sender.send(watching.page(prefix, after))
                if not revision:
                    # What changes while later pages are read is told again by the stream.
                    revision = page.revision
                    yield Reset(revision)
                yield from watching.listed(page)
                after = page.after
                if after is None:
                    break
        watching.position = revision
        yield Synced(revision)

    def _stream(self) -> Iterator[WatchItem]:
        with self._sender.opened(self._watching.request()) as (connection, body, data):
            self._connection = connection
            try:
                while not self._closed.is_set():
                    yield from self._watching.feed(fed(body, data))
                    if body.done or self._watching.must_list:
                        return
                    data = connection.read(time.monotonic() + SILENCE_SECONDS)
                    if not data:
                        return
            except (OSError, ProtocolError) as error:
                raise NoAnswer(error, sent=True, begun=True) from error
            finally:
                self._connection = None


class Mirror(Mapping[str, Any]):
    """A mapping of the keys under a prefix that keeps itself up to date, as fast as a dict.

    Keys are without the prefix. It is filled by a thread, and told of changes as they happen;
    while the service cannot be reached it stays as it was. `close` ends it.
    """

    def __init__(self, watch: Watch, prefix: str) -> None:
        self._watch = watch
        self._state = MirrorState(prefix)
        self._news = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="keyrack-mirror", daemon=True)
        self._thread.start()

    def __getitem__(self, key: str) -> Any:
        return self._state.values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._state.values))

    def __len__(self) -> int:
        return len(self._state.values)

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def revision(self) -> int:
        """Up to which revision it is right; 0 before it was filled."""
        return self._state.revision

    def wait_synced(self, timeout: float = 10.0, *, revision: int = 1) -> None:
        """Wait until it is filled, and right up to a revision. Raises `Timeout`."""
        deadline = time.monotonic() + timeout
        with self._news:
            while self._state.revision < revision:
                if self._failure is not None:
                    raise self._failure
                if not self._news.wait(max(0.0, deadline - time.monotonic())):
                    raise Timeout(f"The mirror was not filled within {timeout:g} s.")

    def close(self) -> None:
        """End it. What it holds stays as it is."""
        self._watch.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._watch:
                if self._state.apply(item):
                    with self._news:
                        self._news.notify_all()
        except Exception as error:
            say.warning("A mirror has ended, and stays as it is: %s", error)
            with self._news:
                self._failure = error
                self._news.notify_all()
