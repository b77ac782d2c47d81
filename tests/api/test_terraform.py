"""States of Terraform: stored under a lock, with earlier ones kept, as its `http` backend asks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from api_support import Client
from keyrack_server import ENGINE, ON_VALKEY, Server, chunked, request

if TYPE_CHECKING:
    from keyrack_server import Answer

ANYWAY = "durability=none"
"""The services of these tests keep nothing on a disk."""


def state(serial: int, size: int = 0) -> bytes:
    """Return a state as Terraform writes it, with so many bytes of output more."""
    return json.dumps(
        {
            "version": 4,
            "terraform_version": "1.11.4",
            "serial": serial,
            "lineage": "b0d35818-ee1c-7c46-7f26-b3692da62f88",
            "outputs": {"long": {"value": "x" * size}},
            "resources": [],
        },
        indent=2,
    ).encode()


def lock_info(lock: str, who: str = "ada@lab", operation: str = "OperationTypeApply") -> bytes:
    return json.dumps(
        {
            "ID": lock, "Operation": operation, "Info": "", "Who": who, "Version": "1.11.4",
            "Created": "2026-11-30T17:21:23.272002912Z", "Path": "",
        }
    ).encode()  # fmt: skip


def digest(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class Terraform:
    """Asks as Terraform's `http` backend does (hashicorp/terraform, remote-state/http/client.go).

    Every body has its Content-MD5. A write names the lock as `?ID=`. 200 of LOCK is the lock, 423
    and 409 have the info of whoever holds it; 404 of GET is no state.
    """

    def __init__(self, client: Client, name: str, query: str = ANYWAY) -> None:
        self.client = client
        self.path = f"/v1/terraform/{name}"
        self.query = query
        self.lock_id = ""

    def lock(self, lock: str, who: str = "ada@lab") -> Answer:
        answer = self._send("LOCK", lock_info(lock, who))
        if answer.status == 200:
            self.lock_id = lock
        return answer

    def unlock(self) -> Answer:
        return self._send("UNLOCK", lock_info(self.lock_id))

    def force_unlock(self) -> Answer:
        """Do what `terraform force-unlock` does: it sends no ID, and an empty body in chunks."""
        return self.client.wire.ask(
            request(
                "UNLOCK", f"{self.path}?{self.query}", chunked(),
                Content_MD5=digest(b""), Content_Type="application/json",
                Transfer_Encoding="chunked",
            )
        )  # fmt: skip

    def write(self, body: bytes) -> Answer:
        return self._send("POST", body, f"ID={self.lock_id}&" if self.lock_id else "")

    def read(self) -> bytes | None:
        answer = self.client.get(f"{self.path}?{self.query}")
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def versions(self) -> list[dict[str, Any]]:
        answer = self.client.get(f"{self.path}/versions")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json["versions"]
        return found

    def _send(self, method: str, body: bytes, more: str = "") -> Answer:
        fields = {"Content_Type": "application/json", "Content_MD5": digest(body)}
        return self.client.ask(method, f"{self.path}?{more}{self.query}", body, **fields)


@pytest.fixture
def terraform(client: Client, key: str) -> Terraform:
    return Terraform(client, key)


# States


def test_a_state_is_read_as_it_was_written(terraform: Terraform) -> None:
    assert terraform.read() is None
    assert terraform.write(state(1)).status == 200
    assert terraform.read() == state(1)


def test_a_state_is_a_key_like_any_other(terraform: Terraform, key: str) -> None:
    """So lists, exports, snapshots, watches and rules have it."""
    terraform.write(state(1))
    answer = terraform.client.get(f"/v1/keys/terraform/{key}")
    assert (answer.body, answer["Content-Type"]) == (state(1), "application/json")
    assert terraform.client.shown(f"terraform/{key}")["serial"] == 1


def test_a_name_may_have_slashes(client: Client, key: str) -> None:
    one, other = (Terraform(client, f"{key}/{name}") for name in ("network", "cluster"))
    one.write(state(1))
    other.write(state(7))
    assert (one.read(), other.read()) == (state(1), state(7))


@pytest.mark.parametrize("name", ["a/versions/17", "versions/a", "a/lock/b", "a%2Flock"])
def test_a_name_that_could_mean_something_else_is_refused(client: Client, name: str) -> None:
    answer = client.post(f"/v1/terraform/{name}?{ANYWAY}", state(1))
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-key")


def test_a_name_that_leaves_no_room_for_versions_is_refused(client: Client) -> None:
    assert client.post(f"/v1/terraform/{'n' * 456}?{ANYWAY}", state(1)).status == 200
    assert client.post(f"/v1/terraform/{'n' * 456}?{ANYWAY}", state(2)).status == 200
    answer = client.post(f"/v1/terraform/{'n' * 457}?{ANYWAY}", state(1))
    assert (answer.status, answer.json["limit"]) == (400, 456)


def test_a_state_that_was_damaged_on_its_way_is_refused(terraform: Terraform) -> None:
    fields = {"Content_MD5": digest(state(2))}
    answer = terraform.client.post(f"{terraform.path}?{ANYWAY}", state(1), **fields)
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/digest-mismatch")
    fields = {"Content_MD5": "no base64"}
    assert terraform.client.post(f"{terraform.path}?{ANYWAY}", state(1), **fields).status == 400
    assert terraform.read() is None


def test_a_state_may_be_as_long_as_a_value(terraform: Terraform) -> None:
    fits = state(1, (1 << 20) - len(state(1)))
    assert len(fits) == 1 << 20
    assert terraform.write(fits).status == 200
    assert terraform.read() == fits
    refused = terraform.write(fits + b"\n")
    assert (refused.status, refused.json["limit"]) == (413, 1 << 20)
    assert terraform.write(b"").status == 400, "that is none"
    assert terraform.read() == fits


def test_a_long_state_is_checked_as_well() -> None:
    """Its digest is made in steps, so that others are served meanwhile."""
    with Server("--max-value", "6m") as server, Client(server) as client:
        terraform = Terraform(client, "prod")
        long = state(1, 5 << 20)
        assert terraform.write(long).status == 200
        assert terraform.read() == long
        fields = {"Content_MD5": digest(long)}
        other = state(2, 5 << 20)
        assert client.post(f"{terraform.path}?{ANYWAY}", other, **fields).status == 400
        assert terraform.read() == long


def test_a_misspelt_parameter_is_refused(terraform: Terraform) -> None:
    assert terraform.client.post(f"{terraform.path}?durabilty=none", state(1)).status == 400
    assert terraform.client.post(f"{terraform.path}?durability=some", state(1)).status == 400
    for keep in ("-1", "101", "many"):
        asked = f"{terraform.path}?{ANYWAY}&keep={keep}"
        assert terraform.client.post(asked, state(1)).status == 400
    assert terraform.read() is None


# Durability


@pytest.mark.skipif(ENGINE == "commit", reason="the services of this run keep what they have")
@pytest.mark.parametrize("method", ["POST", "LOCK"])
def test_a_service_that_may_lose_a_state_refuses_it(
    terraform: Terraform, key: str, method: str
) -> None:
    """With a status that Terraform neither repeats nor takes for somebody's lock."""
    body = state(1) if method == "POST" else lock_info("1")
    answer = terraform.client.ask(method, terraform.path, body)
    assert (answer.status, answer.json["type"]) == (422, "/docs/problems/not-durable")
    assert "durability=none" in answer.json["detail"]
    assert terraform.read() is None
    assert terraform.client.get(f"{terraform.path}/lock").status == 404


@pytest.mark.skipif(ON_VALKEY, reason="what Valkey keeps is its operator's affair")
def test_a_service_that_evicts_keys_refuses_a_state(tmp_path: Any) -> None:
    kept = ("--durability", "commit", "--data-dir", str(tmp_path / "data"))
    with Server(*kept, "--when-full", "evict") as server, Client(server) as client:
        terraform = Terraform(client, "prod", "keep=3")
        answer = terraform.write(state(1))
        assert answer.status == 422
        assert "--when-full evict" in answer.json["detail"]


# Locks


def test_whoever_holds_the_lock_writes(terraform: Terraform) -> None:
    assert terraform.lock("one").status == 200
    assert terraform.write(state(1)).status == 200
    assert terraform.unlock().status == 200
    assert terraform.read() == state(1)


def test_a_second_one_is_told_who_holds_the_lock(client: Client, key: str) -> None:
    """Terraform shows the ID of what is answered, and nothing else of it."""
    first, second = Terraform(client, key), Terraform(client, key)
    first.lock("0a1b", "ada@lab")
    answer = second.lock("2c3d", "bob@desk")
    assert answer.status == 423
    found = answer.json
    assert found["ID"] == (
        "0a1b held by ada@lab (OperationTypeApply) since 2026-11-30T17:21:23.272002912Z"
    )
    assert (found["Who"], found["Operation"]) == ("ada@lab", "OperationTypeApply")
    shown = client.get(f"{first.path}/lock").json
    assert (shown["ID"], shown["Who"]) == ("0a1b", "ada@lab")


def test_a_lock_that_is_asked_for_again_by_its_holder_is_held(terraform: Terraform) -> None:
    """The answer to the first request was lost, and Terraform has repeated it."""
    assert [terraform.lock("one").status for _ in range(2)] == [200, 200]
    assert [terraform.unlock().status for _ in range(2)] == [200, 200]
    assert terraform.lock("two").status == 200


def test_of_many_at_once_one_gets_the_lock(server: Server, key: str) -> None:
    answers: list[int] = []

    def compete(number: int) -> None:
        with Client(server) as client:
            answers.append(Terraform(client, key).lock(f"lock-{number}").status)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [200] + [423] * 7


def test_a_write_without_the_lock_is_refused(client: Client, key: str) -> None:
    holder, other = Terraform(client, key), Terraform(client, key)
    holder.lock("mine")
    assert holder.write(state(1)).status == 200
    assert other.write(state(2)).status == 423, "it has no lock"
    other.lock_id = "theirs"
    assert other.write(state(2)).status == 423, "it has another one"
    assert client.delete(f"{other.path}?{ANYWAY}").status == 423
    assert holder.read() == state(1)


def test_a_write_with_a_lock_that_was_lost_is_refused(client: Client, key: str) -> None:
    slow, other = Terraform(client, key), Terraform(client, key)
    slow.lock("slow")
    other.force_unlock()
    answer = slow.write(state(1))
    assert (answer.status, answer.json["type"]) == (409, "/docs/problems/state-lock-lost")
    other.lock("other")
    answer = slow.write(state(1))
    assert (answer.status, answer.json["Who"]) == (423, "ada@lab")
    assert slow.unlock().status == 423, "it must not take the other's lock away"
    assert slow.read() is None
    assert other.write(state(2)).status == 200


def test_a_lock_is_taken_away_by_force(client: Client, key: str) -> None:
    gone, next_one = Terraform(client, key), Terraform(client, key)
    gone.lock("gone")
    assert next_one.lock("next").status == 423
    assert next_one.force_unlock().status == 200
    assert next_one.lock("next").status == 200


def test_a_lock_is_taken_away_by_what_a_refusal_shows_as_its_id(client: Client, key: str) -> None:
    gone, next_one = Terraform(client, key), Terraform(client, key)
    gone.lock("gone")
    shown = next_one.lock("next").json["ID"]
    next_one.lock_id = shown
    assert next_one.unlock().status == 200
    assert next_one.lock("next").status == 200


def test_other_methods_at_another_path_lock_as_well(client: Client, key: str) -> None:
    """For what stands between that lets LOCK and UNLOCK not through."""
    path = f"/v1/terraform/{key}/lock?{ANYWAY}"
    assert client.post(path, lock_info("one")).status == 200
    assert client.post(path, lock_info("two")).status == 423
    assert client.ask("DELETE", path, lock_info("two")).status == 423
    assert client.ask("DELETE", path, lock_info("one")).status == 200
    assert client.get(path).status == 404


def test_a_lock_of_the_same_name_locks_the_state(client: Client, key: str) -> None:
    """`keyrack lock terraform/NAME -- COMMAND` keeps Terraform away meanwhile."""
    taken = client.post(f"/v1/locks/terraform/{key}", {"owner": "backup", "ttl": 60})
    terraform = Terraform(client, key)
    refused = terraform.lock("one")
    assert (refused.status, refused.json["Who"]) == (423, "backup")
    assert terraform.write(state(1)).status == 423
    client.delete(f"/v1/locks/terraform/{key}?token={taken.json['token']}")
    assert terraform.lock("one").status == 200
    shown = client.get(f"/v1/locks/terraform/{key}").json
    assert json.loads(shown["owner"])["Who"] == "ada@lab"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"ID":""}', b'{"ID":7}', b"no JSON"])
def test_a_lock_without_an_id_is_refused(terraform: Terraform, body: bytes) -> None:
    answer = terraform.client.ask("LOCK", f"{terraform.path}?{ANYWAY}", body)
    assert (answer.status, answer.json["type"]) == (400, "/docs/problems/bad-json")


def test_a_lock_has_a_limit(terraform: Terraform) -> None:
    answer = terraform.client.ask("LOCK", f"{terraform.path}?{ANYWAY}", lock_info("i" * 4000))
    assert (answer.status, answer.json["limit"]) == (413, 3000)


# Versions


def test_the_states_before_are_kept_and_told_with_their_serials(terraform: Terraform) -> None:
    for serial in range(1, 4):
        terraform.write(state(serial))
    found = terraform.versions()
    assert [one["serial"] for one in found] == [2, 1]
    assert {one["terraform_version"] for one in found} == {"1.11.4"}
    assert [one["size"] for one in found] == [len(state(2)), len(state(1))]
    for one in found:
        answer = terraform.client.get(f"{terraform.path}?version={one['version']}")
        assert answer.body == state(one["serial"])
    assert terraform.read() == state(3)


def test_so_many_are_kept_as_the_address_says(terraform: Terraform) -> None:
    for serial in range(1, 15):
        terraform.write(state(serial))
    assert [one["serial"] for one in terraform.versions()] == [*range(13, 3, -1)], "ten"
    terraform.query = f"{ANYWAY}&keep=2"
    terraform.write(state(15))
    assert [one["serial"] for one in terraform.versions()] == [14, 13]
    terraform.query = f"{ANYWAY}&keep=0"
    terraform.write(state(16))
    assert terraform.versions() == []


def test_a_write_that_is_repeated_is_done_once(terraform: Terraform) -> None:
    terraform.write(state(1))
    first, again = terraform.write(state(2)), terraform.write(state(2))
    assert (again.status, again["ETag"]) == (200, first["ETag"])
    assert [one["serial"] for one in terraform.versions()] == [1]


def test_an_earlier_state_is_put_back(terraform: Terraform) -> None:
    for serial in range(1, 4):
        terraform.write(state(serial))
    (version,) = [one["version"] for one in terraform.versions() if one["serial"] == 1]
    restore = f"{terraform.path}/versions?version={version}&{ANYWAY}"
    terraform.lock("one")
    assert terraform.client.ask("POST", restore).status == 423
    assert terraform.client.ask("POST", f"{restore}&ID=one").status == 200
    assert terraform.read() == state(1)
    assert [one["serial"] for one in terraform.versions()] == [3, 2, 1], "3 is not lost"


def test_a_version_that_is_not_there_is_404(terraform: Terraform) -> None:
    terraform.write(state(1))
    for target in ("?version=17", "/versions?version=17"):
        method = "POST" if "/" in target else "GET"
        answer = terraform.client.ask(method, f"{terraform.path}{target}&{ANYWAY}")
        assert (answer.status, answer.json["type"]) == (404, "/docs/problems/key-not-found")
    assert terraform.client.ask("POST", f"{terraform.path}/versions?{ANYWAY}").status == 400


def test_a_state_that_is_removed_can_be_put_back(terraform: Terraform) -> None:
    terraform.write(state(1))
    target = f"{terraform.path}?{ANYWAY}"
    assert terraform.client.delete(target).status == 200
    assert terraform.read() is None
    assert terraform.client.delete(target).status == 404
    (version,) = terraform.versions()
    restore = f"{terraform.path}/versions?version={version['version']}&{ANYWAY}"
    assert terraform.client.ask("POST", restore).status == 200
    assert terraform.read() == state(1)
    assert terraform.client.delete(f"{target}&keep=0").status == 200
    assert terraform.versions() == []


def test_versions_of_a_state_whose_name_begins_alike_are_its_own(client: Client, key: str) -> None:
    one, other = Terraform(client, key), Terraform(client, f"{key}x")
    for serial in (1, 2):
        one.write(state(serial))
    other.write(state(9))
    other.write(state(10))
    assert [found["serial"] for found in one.versions()] == [1]
    assert [found["serial"] for found in other.versions()] == [9]


def test_what_is_no_state_of_terraform_is_kept_without_a_serial(terraform: Terraform) -> None:
    """OpenTofu encrypts states: what is inside is its affair."""
    terraform.write(b'{"encrypted_data":"b3BhcXVl"}')
    terraform.write(state(1))
    (found,) = terraform.versions()
    assert (found["serial"], found["terraform_version"]) == (None, None)


# Fences


def test_a_fence_has_a_state_written_under_its_lock_alone(client: Client, key: str) -> None:
    """Not even an administrator overwrites it without the lock."""
    fence = f"/v1/fences/{key}"
    rule = {"keys": f"terraform/{key}*", "lock": f"terraform/{key}"}
    made = client.ask("PUT", fence, json.dumps(rule).encode(), Content_Type="application/json")
    assert made.status == 201
    terraform = Terraform(client, key)
    assert terraform.write(state(1)).status == 428
    assert client.ask("PUT", f"/v1/keys/terraform/{key}", state(1)).status == 428
    terraform.lock("one")
    for serial in range(1, 4):
        assert terraform.write(state(serial)).status == 200
    assert [one["serial"] for one in terraform.versions()] == [2, 1]
    terraform.query += "&keep=1"
    assert terraform.write(state(4)).status == 200
    assert [one["serial"] for one in terraform.versions()] == [3]
    assert client.delete(fence).status == 204


# Two at once without locks


def test_writes_at_once_leave_a_whole_history(server: Server, key: str) -> None:
    """Where nobody locks, the last one counts and no other is lost."""

    def write(serial: int) -> None:
        with Client(server) as client:
            assert Terraform(client, key, f"{ANYWAY}&keep=100").write(state(serial)).status == 200

    threads = [threading.Thread(target=write, args=(serial,)) for serial in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with Client(server) as client:
        terraform = Terraform(client, key)
        found = {one["serial"] for one in terraform.versions()}
        found.add(json.loads(terraform.read() or b"{}")["serial"])
    assert found == set(range(1, 9))


def test_an_operation_tells_its_methods(client: Client, key: str) -> None:
    answer = client.ask("OPTIONS", f"/v1/terraform/{key}")
    assert answer["Allow"] == "DELETE, GET, HEAD, LOCK, OPTIONS, POST, UNLOCK"
