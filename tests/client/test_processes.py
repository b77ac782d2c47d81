"""Forks, servers that are killed and replaced, and what importing costs."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server
from keyrack_server.server import clean_environment

import keyrack
from keyrack import AsyncClient, Client, KeyrackError, client

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def where(url: str) -> str:
    """Only a service: this is about connections."""
    return url


def in_child(work: Callable[[], None]) -> None:
    """Run something in the child of a fork, and assert that it went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_parent_and_children_of_a_fork_never_share_a_connection(url: str, sync: Client) -> None:
    for number in range(20):
        sync.set(f"fork-{number}", f"fork-{number}")

    def work() -> None:
        for _ in range(20):
            for number in range(20):
                assert sync.get(f"fork-{number}") == f"fork-{number}"

    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    work()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    work()


def test_a_fork_while_other_threads_ask_leaves_the_child_a_client_that_works(
    sync: Client,
) -> None:
    stop = threading.Event()
    failed: list[object] = []

    def busy() -> None:
        while not stop.is_set():
            if sync.set("busy", "v") == "":
                failed.append("no ETag")

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(lambda: _check(sync))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


def _check(sync: Client) -> None:
    sync.set("child", "c")
    assert sync.get("child") == "c"


def test_a_child_can_use_an_async_client_on_a_loop_of_its_own(url: str) -> None:
    one = AsyncClient(url)

    async def ask() -> None:
        await one.set("loop", "v")
        assert await one.get("loop") == "v"

    async def main() -> None:
        await ask()
        in_child(lambda: _in_new_thread(lambda: asyncio.run(ask())))
        await ask()
        await one.aclose()

    asyncio.run(main())


def _in_new_thread(work: Callable[[], None]) -> None:
    """Run something where no loop is running: a fork copies the one that was."""
    done: list[bool] = []

    def run() -> None:
        work()
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [True]


def test_one_async_client_serves_many_loops_in_turn(url: str) -> None:
    one = AsyncClient(url)

    async def ask() -> None:
        assert await one.set("loops", "v")
        assert await one.get("loops") == "v"
        await one.aclose()

    for _ in range(3):
        asyncio.run(ask())


PRELOADED = """
import keyrack
client = keyrack.Client({url!r})
client.set("preload", "before the fork")

def app(environ, start_response):
    key = environ["PATH_INFO"][1:]
    client.set(key, key)
    body = str(client.get(key)).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_a_client_that_was_made_before_a_server_forked_its_workers_serves_them_all(
    url: str,
) -> None:
    """What gunicorn does with `--preload`: load the application, then fork."""
    code = PRELOADED.format(url=url) + (
        "import os\n"
        "def worker(n):\n"
        "    for turn in range(100):\n"
        "        key = f'worker-{n}-{turn}'\n"
        "        (body,) = app({'PATH_INFO': '/' + key}, lambda *_: None)\n"
        "        assert body.decode() == key, (key, body)\n"
        "pids = []\n"
        "for n in range(4):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        worker(n)\n"
        "        os._exit(0)\n"
        "    pids.append(pid)\n"
        "worker('parent')\n"
        "raise SystemExit(max(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_is_killed_and_replaced_under_load_costs_only_documented_errors() -> None:
    unexpected: list[BaseException] = []
    counts = {"done": 0, "failed": 0}
    stop = threading.Event()

    def work(shared: Client, number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            key = f"k-{number}-{turn % 10}"
            try:
                shared.set(key, key)
                if shared.get(key) not in (key, None):
                    raise AssertionError("crossed")
                counts["done"] += 1
            except KeyrackError:
                counts["failed"] += 1
                time.sleep(0.01)
            except BaseException as error:
                unexpected.append(error)
                return

    server = Server(workers=2)
    try:
        shared = Client(f"http://127.0.0.1:{server.port}", timeout=5)
        threads = [threading.Thread(target=work, args=(shared, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.4)
            os.kill(server.worker_pids()[0], 9)
        time.sleep(1)
        before = counts["done"]
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        shared.close()
        assert unexpected == []
        assert counts["done"] > before, "calls are answered again"
        server.tell_to_end()
        assert server.process.wait(20) == 0
    finally:
        server.process.kill()
        server.process.wait()
        server._log.close()


PACKAGE = Path(keyrack.__file__).parent
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_nothing_unpickles_but_what_checks_a_signature_first() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if _imported(path) & PICKLES]
    assert paths == [PACKAGE / "client" / "serializers.py"]


@pytest.mark.parametrize("name", ["django", "cachelib", "limits", "dogpile", "celery", "key_value"])
def test_an_adapter_is_small_enough_to_be_read_in_a_sitting(name: str) -> None:
    assert len((PACKAGE / f"{name}.py").read_text().splitlines()) <= 250


HEAVY = {
    *("asyncio", "json", "http.client", "msgspec", "lmdb", "uvloop", "starlette", "uvicorn"),
    *("keyrack.settings", "keyrack.http", "keyrack.engines"),
}


def test_importing_keyrack_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, keyrack; alone = set(sys.modules); keyrack.Client;"
        "print('keyrack.client' in alone, sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    early, _, loaded = done.stdout.partition(" ")
    assert early == "False"
    assert set(ast.literal_eval(loaded)) & HEAVY == set()


def test_keyrack_offers_what_its_client_offers() -> None:
    assert set(client.__all__) == keyrack._CLIENT
    for name in client.__all__:
        assert getattr(keyrack, name) is getattr(client, name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = keyrack.nothing_like_it
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = client.nothing_like_it
