"""`keyrack serve` with a store in Valkey: several services, and Valkey away."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from api_support import quoted, until
from api_support.streams import Watch
from keyrack_server import Server, request
from valkey_support.servers import Alone
from valkey_support.servers import Server as Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyrack_server import Answer

pytestmark = pytest.mark.timeout(90)
JSON = {"Content_Type": "application/json"}


class Service(Server):
    """A service of a store in Valkey; that Valkey is away sometimes is no complaint."""

    def complaints(self) -> list[dict[str, object]]:
        """Return what was logged above `info`, without what the test has done to Valkey."""
        expected = ("is lost", "its data was lost", "is acceptable.", "writes go on")
        found = super().complaints()
        return [line for line in found if not str(line["message"]).endswith(expected)]


@pytest.fixture
def own() -> Iterator[Alone]:
    """A server that the test may do anything to."""
    servers = Alone()
    yield servers
    servers.server.remove()


def served(url: str, *flags: str) -> Service:
    return Service("--engine", url, *flags, memory=None)


def test_services_share_one_store_and_tell_one_anothers_changes(anywhere: str) -> None:
    with served(anywhere) as one, served(anywhere) as other, Watch(other, "?prefix=k") as watch:
        watch.synced()
        for number in range(20):
            put = one.ask("PUT", f"/v1/keys/k{number}", b"v")
            got = other.ask("GET", f"/v1/keys/k{number}")
            assert (got.body, got["etag"]) == (b"v", put["etag"])
            (message,) = watch.changes(1)
            assert (message.event, f'"{message.id}"') == ("set", put["etag"])


@pytest.mark.time_limits
def test_a_waiting_read_is_answered_by_a_write_at_another_service(server: str) -> None:
    with served(server) as one, served(server) as other, other.connect() as waiting:
        etag = one.ask("PUT", "/v1/keys/k", b"old")["etag"]
        fields = {"If_None_Match": etag, "Prefer": "wait=20"}
        waiting.send(request("GET", "/v1/keys/k", **fields))
        time.sleep(0.3)
        one.ask("PUT", "/v1/keys/k", b"new")
        began = time.monotonic()
        assert waiting.answer().body == b"new"
        assert time.monotonic() - began < 15


def test_a_batch_over_shards_is_a_problem_that_says_what_to_do(shards: str) -> None:
    with served(shards) as service:
        batch = {"operations": [{"op": "set", "key": key, "value": "v"} for key in "abc"]}
        answer = service.ask("POST", "/v1/batch", json.dumps(batch).encode(), **JSON)
        assert answer.status == 422
        assert answer.json["type"] == "/docs/problems/keys-in-several-shards"
        assert "{order:17}/state" in answer.json["detail"]
        assert not service.ask("GET", "/v1/info").json["engine"]["atomic_across_keys"]
        for operation in batch["operations"]:
            operation["key"] = "{t}" + operation["key"]
        body = json.dumps(batch).encode()
        assert service.ask("POST", "/v1/batch", body, **JSON).status == 200


def test_a_fence_of_one_service_is_known_to_the_other_soon(server: str) -> None:
    body = json.dumps({"keys": "jobs/*", "lock": "jobs"}).encode()
    with served(server) as one, served(server) as other:
        assert one.ask("PUT", "/v1/fences/jobs", body, **JSON).status == 201
        assert one.ask("PUT", "/v1/keys/jobs/1", b"v").status == 428
        assert until(lambda: other.ask("PUT", "/v1/keys/jobs/1", b"v").status == 428)
        assert other.ask("DELETE", "/v1/fences/jobs").status == 204
        assert until(lambda: one.ask("PUT", "/v1/keys/jobs/1", b"v").status in (201, 204))
    with served(server) as later:
        assert later.ask("PUT", "/v1/fences/jobs", body, **JSON).status == 201
    with served(server) as again:
        assert again.ask("PUT", "/v1/keys/jobs/1", b"v").status == 428


def test_a_fence_over_shards_needs_a_part_in_common(shards: str) -> None:
    def fence(keys: str, lock: str) -> Answer:
        body = json.dumps({"keys": keys, "lock": lock}).encode()
        return service.ask("PUT", "/v1/fences/jobs", body, **JSON)

    with served(shards) as service:
        for keys, lock in (("jobs/*", "jobs"), ("{a}/*", "{b}"), ("*", "jobs"), ("{a*", "{a}")):
            answer = fence(keys, lock)
            assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-fence")
            assert "{jobs}/*" in answer.json["detail"]
        for lock in ("{jobs}", "jobs", "{jobs}/all"):
            assert fence("{jobs}/*", lock).status in (201, 204)
            asked = b'{"owner":"o","ttl":60}'
            path = f"/v1/locks/{quoted(lock)}"
            token = service.ask("POST", path, asked, **JSON).json["token"]
            held = {"Keyrack_Lock": f'"{quoted(lock)}"; token={token}'}
            for number in range(20):
                key = f"/v1/keys/%7Bjobs%7D/{number}"
                assert service.ask("PUT", key, b"v").status == 428
                assert service.ask("PUT", key, b"v", **held).status in (201, 204)
            elsewhere = service.ask("PUT", "/v1/keys/other", b"v", **held)
            assert elsewhere.status in (201, 204, 422)
            assert service.ask("DELETE", f"{path}?token={token}").status == 204


def test_while_valkey_is_away_clients_are_told_and_the_service_stays(own: Alone) -> None:
    with served(own.url, "--engine-timeout", "0.5") as service:
        service.ask("PUT", "/v1/keys/k", b"v")
        own.server.kill()
        for method, path, body in (
            ("GET", "/v1/keys/k", b""),
            ("PUT", "/v1/keys/k", b"v"),
            ("GET", "/v1/keys", b""),
            ("GET", "/readyz", b""),
        ):
            answer = service.ask(method, path, body)
            assert (answer.status, answer["retry-after"]) == (503, "1"), (method, path)
            assert answer.json["type"] == "/docs/problems/unavailable"
        seed = service.ask("POST", "/set", b'{"key":"k","value":"v"}', **JSON)
        assert (seed.status, seed.json["status"]) == (503, "error")
        assert service.ask("GET", "/get/k").status == 503
        assert service.ask("GET", "/healthz").status == 200
        assert service.ask("GET", "/metrics").status == 200
        own.server.start()
        deadline = time.monotonic() + 30
        while service.ask("GET", "/readyz").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert service.ask("PUT", "/v1/keys/k", b"v").status == 201


def test_a_service_waits_for_a_valkey_that_starts_with_it(own: Alone) -> None:
    own.server.kill()
    command = ["sh", "-c", 'sleep 1; exec "$@"', "sh", *own.server.command()]
    starter = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with served(own.url) as service:
            assert service.ask("PUT", "/v1/keys/k", b"v").status == 201
    finally:
        starter.kill()
        starter.wait()


# TLS, which the binary of the tests' package has not


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for 127.0.0.1 that vouches for itself, and its key."""
    home = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=valkey"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(home / "key"), "-out", str(home / "cert")]
    subprocess.run(command, check=True, capture_output=True)
    return home


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="apt-get install redis-server")
def test_over_tls_both_sides_show_certificates(certificates: Path) -> None:
    cert, key = str(certificates / "cert"), str(certificates / "key")
    options = ("--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
    server = Valkey(*options, binary="redis-server", tls=True)
    try:
        flags = ("--engine-ca", cert, "--engine-cert", cert, "--engine-key", key)
        with served(f"valkeys://127.0.0.1:{server.tls_port}", *flags) as service:
            assert service.ask("PUT", "/v1/keys/k", b"v").status == 201
            assert service.ask("GET", "/v1/keys/k").body == b"v"
    finally:
        server.remove()


def test_a_full_server_says_what_helps_there(own: Alone) -> None:
    with served(own.url) as service:
        own.server.ask("CONFIG", "SET", "maxmemory", str(8 << 20))
        answers = (service.ask("PUT", f"/v1/keys/{number}", bytes(500_000)) for number in range(50))
        full = next(answer for answer in answers if answer.status != 201)
        assert full.status == 507
        assert "maxmemory" in full.json["detail"]
        assert "--memory" not in full.json["detail"]
        assert service.ask("DELETE", "/v1/keys/0").status == 204


def test_a_server_that_is_set_to_evict_is_used_no_more_within_seconds(own: Alone) -> None:
    with served(own.url) as service:
        assert service.ask("PUT", "/v1/keys/k", b"v").status == 201
        own.server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        ready = service.ask("GET", "/readyz")
        assert ready.status == 503
        assert "maxmemory-policy is allkeys-lru" in ready.json["detail"]
        deadline = time.monotonic() + 30
        while (answer := service.ask("PUT", "/v1/keys/k", b"w")).status != 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "Nothing was done" in answer.json["detail"]
        assert int(answer["retry-after"]) > 0
        assert service.ask("GET", "/healthz").status == 200
        assert service.ask("GET", "/v1/keys/k").status == 200
        own.server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        deadline = time.monotonic() + 30
        while service.ask("PUT", "/v1/keys/k", b"w").status != 204:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert service.ask("GET", "/readyz").status == 200
        assert "nothing is written from now on" in service.log()
