"""Queries are form-urlencoded, as every client library writes them; paths are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api_support import Client


def names(client: Client, query: str) -> list[str]:
    return [one["key"] for one in client.get(f"/v1/keys?{query}").json["keys"]]


def test_a_plus_in_a_query_is_a_space(client: Client, key: str) -> None:
    client.put(f"{key}/my app/1")
    client.put(f"{key}/my+app/1")
    assert names(client, f"prefix={key}/my+app/") == [f"{key}/my app/1"]
    assert names(client, f"prefix={key}/my%20app/") == [f"{key}/my app/1"]
    assert names(client, f"prefix={key}/my%2Bapp/") == [f"{key}/my+app/1"]


def test_a_plus_in_a_path_is_a_plus(client: Client, key: str) -> None:
    client.put(f"{key}/a b")
    client.put(f"{key}/a+b", b"plus")
    assert client.get(f"/v1/keys/{key}/a+b").body == b"plus"


def test_everything_that_takes_a_prefix_reads_it_alike(client: Client, key: str) -> None:
    client.put(f"{key}/x y")
    client.put(f"{key}/x+y")
    assert client.get(f"/v1/keys?prefix={key}/x+&count_only=true").json["count"] == 1
    assert client.delete(f"/v1/keys?prefix={key}/x+y").json["deleted"] == 1
    assert client.get(f"/v1/keys/{key}/x+y").status == 200


def test_a_link_to_the_next_page_leads_there(client: Client, key: str) -> None:
    for number in range(3):
        client.put(f"{key}/a+b c/{number}")
    page = client.get(f"/v1/keys?prefix={key}/a%2Bb+c/&limit=2")
    target = page["Link"].partition("<")[2].partition(">")[0]
    assert [one["key"] for one in client.get(target).json["keys"]] == [f"{key}/a+b c/2"]
