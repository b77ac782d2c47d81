"""States of Terraform in Valkey, where a state and its versions may be in different shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from keyrack_server import Server

if TYPE_CHECKING:
    from keyrack_server import Answer

pytestmark = pytest.mark.timeout(90)
ANYWAY = "durability=none"


def served(url: str) -> Server:
    return Server("--engine", url, memory=None)


def lock(service: Server, name: str, lock_id: str) -> Answer:
    body = b'{"ID":"%b","Who":"ada@lab","Operation":"OperationTypeApply"}' % lock_id.encode()
    return service.ask("LOCK", f"/v1/terraform/{name}?{ANYWAY}", body)


def write(service: Server, name: str, serial: int, lock_id: str) -> Answer:
    target = f"/v1/terraform/{name}?ID={lock_id}&{ANYWAY}&keep=2"
    return service.ask("POST", target, b'{"version":4,"serial":%d}' % serial)


def serials(service: Server, name: str) -> list[int]:
    versions = service.ask("GET", f"/v1/terraform/{name}/versions").json["versions"]
    return [one["serial"] for one in versions]


def test_services_share_states_with_their_locks_and_versions(anywhere: str) -> None:
    with served(anywhere) as one, served(anywhere) as other:
        for name in ("prod", "staging", "team/network", "{team}/dns"):  # in several shards
            assert lock(one, name, "mine").status == 200
            refused = lock(other, name, "theirs")
            assert (refused.status, refused.json["Who"]) == (423, "ada@lab")
            for serial in range(1, 5):
                assert write(one, name, serial, "mine").status == 200
            assert write(other, name, 9, "theirs").status == 423
            assert other.ask("GET", f"/v1/terraform/{name}").body == b'{"version":4,"serial":4}'
            assert serials(other, name) == [3, 2]

            assert other.ask("UNLOCK", f"/v1/terraform/{name}").status == 200, "by force"
            assert lock(other, name, "theirs").status == 200
            assert write(one, name, 5, "mine").status == 423
            assert write(other, name, 5, "theirs").status == 200
            assert serials(one, name) == [4, 3]


def test_an_earlier_state_is_put_back_and_a_state_removed(anywhere: str) -> None:
    with served(anywhere) as service:
        lock(service, "prod", "mine")
        for serial in (1, 2):
            write(service, "prod", serial, "mine")
        (version,) = service.ask("GET", "/v1/terraform/prod/versions").json["versions"]
        target = f"/v1/terraform/prod/versions?version={version['version']}&ID=mine&{ANYWAY}"
        assert service.ask("POST", target).status == 200
        assert service.ask("GET", "/v1/terraform/prod").body == b'{"version":4,"serial":1}'
        assert serials(service, "prod") == [2, 1]
        gone = f"/v1/terraform/prod?ID=mine&{ANYWAY}&keep=0"
        assert service.ask("DELETE", gone).status == 200
        assert serials(service, "prod") == []


def test_a_state_is_refused_unless_its_address_says_that_it_may_get_lost(server: str) -> None:
    """The service does not know what Valkey keeps."""
    with served(server) as service:
        answer = service.ask("POST", "/v1/terraform/prod", b"{}")
        assert (answer.status, answer.json["type"]) == (422, "/docs/problems/not-durable")
        assert "Valkey" in answer.json["detail"]
