"""kill -9 of everything, again and again, on one store: what was answered is there in each life."""

from __future__ import annotations

import random
import time

import pytest
from consistency.lives import (
    kill_everything,
    kill_the_supervisor,
    kill_the_workers,
    listens,
    stored,
    written_until_killed,
)
from consistency.storm import ROUNDS, Service, audit, store, until

LIVES = 20 * ROUNDS
KILLS = (kill_everything, kill_the_supervisor, kill_the_workers)
_LONGEST = 0.4
"""Seconds that writers have in a life, at most; some lives are over before the first answer."""


class Ledger:
    """What has to be in the store and what must not."""

    def __init__(self) -> None:
        self.answered: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.in_all = 0

    def note(self, answered: dict[str, str]) -> None:
        """Take what was answered in a life."""
        self.answered |= answered
        self.in_all += len(answered)

    def compare(self, found: dict[str, str]) -> None:
        """Assert that all that was answered is there, unharmed, and nothing that was deleted."""
        assert self.answered.items() <= found.items()
        assert all(key == value for key, value in found.items())
        assert not self.deleted & found.keys()

    def delete(self, server: Service, life: int) -> None:
        """Delete what an earlier life has written."""
        prefix = f"{life}/"
        assert server.ask("DELETE", f"/v1/keys?prefix={prefix}").status == 200
        self.deleted = {key for key in self.answered if key.startswith(prefix)}
        self.answered = {k: v for k, v in self.answered.items() if k not in self.deleted}


@pytest.mark.timeout(60 + 8 * LIVES)
def test_no_answered_write_is_lost_however_the_service_is_killed() -> None:
    chance = random.Random(7)
    ledger = Ledger()
    began = time.monotonic()
    with store() as directory:
        for life in range(LIVES):
            kill = KILLS[life % len(KILLS)]
            server = Service("--store", directory, workers=2, memory="512m")
            try:
                ledger.compare(stored(server))
                if life > 2:
                    ledger.delete(server, life - 3)
                after = chance.uniform(0, _LONGEST)
                ledger.note(written_until_killed(server, life, lambda: kill(server), after))  # noqa: B023 - called in this round
                assert "Traceback" not in server.log()
            finally:
                server.process.kill()
                server.process.wait()
                server._log.close()
            until(lambda: not listens(server), 5, "the workers ended")  # noqa: B023 - likewise
            assert audit(directory) == []
        with Service("--store", directory, workers=1, memory="512m") as server:
            ledger.compare(stored(server))
    seconds = time.monotonic() - began
    print(f"{LIVES} lives in {seconds:.0f} s, {ledger.in_all} writes answered, none lost")
    assert ledger.in_all > 20 * LIVES
