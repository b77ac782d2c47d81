"""Tokens are revoked under load: what begins after the answer is refused by every worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from access_support import Guarded, Who
from api_support import Client
from keyrack_server import request
from keyrack_server.wire import parse

if TYPE_CHECKING:
    from keyrack_server import Wire

WORKERS = 8
REQUESTS = 100_000
PIPELINED = 25


class Caller(threading.Thread):
    """Reads a key over connections to all workers, again and again, with the latest tokens."""

    def __init__(self, service: Guarded, tokens: list[Who], revoked: dict[str, float]) -> None:
        super().__init__()
        self.service = service
        self.tokens = tokens
        self.revoked = revoked
        self.asked = 0
        self.let_in = 0
        self.wrong: list[str] = []
        self.stop = False

    def run(self) -> None:
        wires = [self.service.server.connect() for _ in range(2 * WORKERS)]
        while not self.stop:
            for place, wire in enumerate(wires):
                who = self.tokens[-1] if self.asked % 3 else self.tokens[-2]
                try:
                    self.ask(wire, who)
                except OSError:  # its worker was killed
                    wire.close()
                    wires[place] = self.service.server.connect()
        for wire in wires:
            wire.close()

    def ask(self, wire: Wire, who: Who) -> None:
        began = time.monotonic()
        revoked = self.revoked.get(who.id, float("inf"))
        wire.send(request("GET", "/get/a", **who.field) * PIPELINED)
        data = b""
        for _ in range(PIPELINED):
            while (found := parse(data)) is None:
                piece = wire.socket.recv(1 << 16)
                if not piece:
                    raise ConnectionResetError
                data += piece
            answer, data = found
            self.asked += 1
            if answer.status < 300:
                self.let_in += 1
                if began > revoked:
                    self.wrong.append(f"{who.id} began {began - revoked:.6f} s after the answer")


def test_after_the_answer_nobody_is_let_in_by_any_of_eight_workers() -> None:
    with Guarded(workers=WORKERS) as service, Client(service.server) as client:
        admin = service.admin

        def make() -> Who:
            asked = {"name": "t", "rules": ["read keys:*"]}
            answer = client.post("/v1/auth/tokens", asked, **admin.field).json
            return Who(answer["id"], answer["token"])

        client.put("a", b"v", **admin.field)
        tokens = [make(), make()]
        revoked: dict[str, float] = {}
        callers = [Caller(service, tokens, revoked) for _ in range(3)]
        for caller in callers:
            caller.start()
        slowest = 0.0
        changes = 0
        while sum(caller.asked for caller in callers) < REQUESTS:
            began = time.monotonic()
            answer = client.delete(f"/v1/auth/tokens/{tokens[-1].id}", **admin.field)
            assert answer.status == 204, answer
            revoked[tokens[-1].id] = time.monotonic()
            slowest = max(slowest, revoked[tokens[-1].id] - began)
            changes += 1
            tokens.append(make())
            if changes == 10:  # one is replaced meanwhile
                os.kill(service.server.worker_pids()[0], signal.SIGKILL)
                client.close()
                client = Client(service.server)
        for caller in callers:
            caller.stop = True
        for caller in callers:
            caller.join()
        client.close()
        assert [wrong for caller in callers for wrong in caller.wrong] == []
        assert changes > 20
        assert sum(caller.let_in for caller in callers) > REQUESTS // 100
        print(f"{changes} revocations, the slowest took {slowest * 1000:.1f} ms")


def test_a_stopped_worker_is_told_of_and_learns_of_it_before_it_serves() -> None:
    with Guarded("", "--worker-timeout", "0", workers=2) as service:
        clients = [Client(service.server) for _ in range(8)]
        admin = service.admin
        asked = {"name": "t", "rules": ["read keys:*"]}
        made = clients[0].post("/v1/auth/tokens", asked, **admin.field).json
        who = Who(made["id"], made["token"])
        for client in clients:
            for _ in range(3):
                assert client.get("/get/a", **who.field).status == 404
        from api_support.client import worker_of

        by_worker = {worker_of(service.server, client.wire): client for client in clients}
        assert len(by_worker) == 2
        (stopped, waiting), (_, other) = by_worker.items()
        os.kill(stopped, signal.SIGSTOP)
        try:
            answer = other.delete(f"/v1/auth/tokens/{who.id}", **admin.field)
            assert (answer.status, answer.json) == (202, {"pending": 1})
            assert other.get("/get/a", **who.field).status == 401
            waiting.wire.send(request("GET", "/get/a", **who.field))
        finally:
            os.kill(stopped, signal.SIGCONT)
        answer = waiting.wire.answer()
        assert answer.status in (404, 401)  # it was on its way before the worker was woken
        assert waiting.get("/get/a", **who.field).status == 401
        for client in clients:
            client.close()
