"""The supervisor's part: what the files say is published, and a mistake changes nothing."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from keyrack.access import tokens
from keyrack.access.model import AccessFile
from keyrack.access.sections import AccessFileError
from keyrack.server.access_keeper import AccessKeeper
from keyrack.settings import Settings
from keyrack.shared.counters import Counters

if TYPE_CHECKING:
    from pathlib import Path


class Service:
    """A keeper, with what it tells the workers."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counters = Counters.create(1)
        self.now = 100.0
        monkeypatch.setattr("keyrack.server.access_keeper.time.monotonic", lambda: self.now)
        self.keeper = AccessKeeper(settings)
        self.board = self.keeper.board

    def look(self, seconds: float = 2.0) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.keeper.look(self.counters, lambda: None)

    def access(self) -> AccessFile:
        return msgspec.json.decode(self.board.document(), type=AccessFile)

    def woken(self) -> bool:
        try:
            os.eventfd_read(self.counters.wakeups[0])
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "auth.toml"
    made.write_text('version = 1\nanonymous = ["read-only"]\n')
    made.chmod(0o600)
    return made


@pytest.fixture
def service(path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(Settings(auth=str(path)), monkeypatch)


def test_what_the_file_says_is_published_before_the_first_worker_starts(service: Service) -> None:
    assert service.access().anonymous == ("read-only",)
    assert service.board.last_reload_ms > 0


def test_a_mistake_at_the_start_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("version = 2\n")
    with pytest.raises(AccessFileError, match="line 1"):
        Service(Settings(auth=str(path)), monkeypatch)


def test_a_change_is_published_within_two_seconds_and_wakes_the_workers(
    service: Service, path: Path
) -> None:
    service.look()
    assert not service.woken()
    epoch = service.board.epochs.epoch()
    path.write_text('version = 1\nanonymous = ["none"]\n')
    service.look(2.0)
    assert service.access().anonymous == ("none",)
    assert service.board.epochs.epoch() > epoch
    assert service.woken()


def test_a_mistake_changes_nothing_and_is_told_once(
    service: Service, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text('version = 1\nanonymous = ["nobody"]\n')
    with caplog.at_level(logging.ERROR, "keyrack.auth"):
        service.look(60)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}, line 2: there is no policy 'nobody'; there are admin, metrics, none, read-only, "
        "read-write. What counted before still counts."
    ]
    assert service.access().anonymous == ("read-only",)
    assert service.board.failed
    path.write_text('version = 1\nanonymous = ["metrics"]\n')
    service.look()
    assert service.access().anonymous == ("metrics",)
    assert not service.board.failed


def test_a_file_that_is_gone_for_a_while_changes_nothing(service: Service, path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    service.look(5)
    assert service.board.failed
    assert service.access().anonymous == ("read-only",)
    path.with_suffix(".away").rename(path)
    service.look(15)
    assert not service.board.failed


def test_what_a_file_names_may_come_later(service: Service, path: Path) -> None:
    issuer = (
        '[[issuers]]\nissuer = "i"\naudience = "a"\njwks = "late.json"\nalgorithms = ["RS256"]\n'
    )
    path.write_text("version = 1\n" + issuer)
    service.look(5)
    assert service.board.failed
    (path.parent / "late.json").write_text('{"keys":[]}')
    service.look(15)
    assert service.access().issuers[0].keys == '{"keys":[]}'


def test_at_a_signal_the_file_is_read_at_once(service: Service, path: Path) -> None:
    path.write_text('version = 1\nanonymous = ["none"]\n')
    service.keeper.reload(service.counters)
    assert service.access().anonymous == ("none",)


def test_one_token_without_a_file_administers(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokens.new()
    service = Service(Settings(token=made.text), monkeypatch)
    (token,) = service.access().tokens
    assert (token.id, token.hash, token.policies) == (made.id, made.hash, ("admin",))


def test_a_token_in_a_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tokens.new(), tokens.new()
    path = tmp_path / "token"
    path.write_text(first.text + "\n")
    service = Service(Settings(token_file=str(path)), monkeypatch)
    assert service.access().tokens[0].hash == first.hash
    path.write_text(second.text)
    service.look()
    assert service.access().tokens[0].hash == second.hash
    path.write_text("changeme")
    with pytest.raises(AccessFileError, match="holds no whole token"):
        Service(Settings(token_file=str(path)), monkeypatch)
