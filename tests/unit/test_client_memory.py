"""The budget for what is held for clients: who may hold more, and who is cut."""

from __future__ import annotations

import pytest

from keyrack.http.client_memory import LARGE, ClientMemory
from keyrack.shared.counters import Counters

MIB = 1 << 20
LIMIT = 16 * MIB


class Client:
    """Somebody for whom so many bytes are held."""

    def __init__(self, held: int, silent: bool) -> None:
        self.held = held
        self.is_cut = False
        self._silent = silent

    def stalled(self, seconds: float) -> bool:
        return self._silent

    def cut(self) -> None:
        self.is_cut = True


@pytest.fixture
def counters() -> Counters:
    return Counters.create(2)


def test_what_all_workers_hold_counts(counters: Counters) -> None:
    first, second = (ClientMemory(counters, slot, LIMIT) for slot in range(2))
    first.add(10 * MIB)
    second.add(3 * MIB)
    assert first.used == second.used == 13 * MIB
    assert second.has_room(MIB)
    assert not second.has_room(2 * MIB)
    assert second.has_room(4 * MIB, own=3 * MIB)


def test_small_things_have_the_last_part_for_themselves(counters: Counters) -> None:
    memory = ClientMemory(counters, 0, LIMIT)
    memory.add(LIMIT - LIMIT // 8)
    assert memory.has_room(LARGE)
    assert not memory.has_room(LARGE + 1)


def test_who_is_alone_may_hold_more_than_the_budget(counters: Counters) -> None:
    memory = ClientMemory(counters, 0, LIMIT)
    memory.add(LIMIT // 16)
    assert memory.has_room(2 * LIMIT)
    memory.add(1)
    assert not memory.has_room(2 * LIMIT)


def test_the_greediest_of_the_silent_are_cut_until_half_is_free(counters: Counters) -> None:
    memory = ClientMemory(counters, 0, LIMIT)
    clients = [Client(size * MIB, silent) for size, silent in ((1, True), (5, True), (6, False))]
    clients.append(Client(3 * MIB, silent=True))
    memory.add(15 * MIB)
    memory.relieve(clients)
    assert [client.is_cut for client in clients] == [False, True, False, True]


def test_nobody_is_cut_while_there_is_room(counters: Counters) -> None:
    memory = ClientMemory(counters, 0, LIMIT)
    client = Client(LIMIT // 2, silent=True)
    memory.add(client.held)
    memory.relieve([client])
    assert not client.is_cut


def test_what_a_predecessor_held_is_forgotten(counters: Counters) -> None:
    ClientMemory(counters, 0, LIMIT).add(MIB)
    assert ClientMemory(counters, 0, LIMIT).used == 0
