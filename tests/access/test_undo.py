"""Whose deletions are undone by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from access_support import Who

if TYPE_CHECKING:
    from access.conftest import Cast
    from api_support import Client
    from keyrack_server import Answer


def put(client: Client, who: Who, *keys: str) -> None:
    for key in keys:
        client.put(key, **who.field)


def undo(client: Client, number: str, who: Who) -> Answer:
    return client.post(f"/v1/undo/{number}", b"", **who.field)


def made(client: Client, cast: Cast, *rules: str) -> Who:
    """Make a token with these rules."""
    about = {"name": "of a test", "rules": rules}
    answer = client.post("/v1/auth/tokens", about, **cast.admin.field).json
    return Who(answer["id"], answer["token"])


def shown(client: Client, who: Who) -> set[str]:
    undos = client.get("/v1/undo?limit=1000", **who.field).json["undos"]
    return {one["undo"] for one in undos}


def test_an_undo_is_shown_to_who_deleted_and_to_administrators(client: Client, cast: Cast) -> None:
    put(client, cast.admin, "app/undo/1", "app/undo/2")
    of_app = client.delete("/v1/keys/app/undo/1?undo=60", **cast.app.field).json["undo"]
    of_admin = client.delete("/v1/keys/app/undo/2?undo=60", **cast.admin.field).json["undo"]
    assert of_app in shown(client, cast.app)
    assert of_admin not in shown(client, cast.app)
    assert {of_app, of_admin} <= shown(client, cast.admin)
    assert not {of_app, of_admin} & shown(client, cast.writer)


def test_nobody_else_can_undo_it_nor_learns_that_it_is_there(client: Client, cast: Cast) -> None:
    put(client, cast.admin, "app/undo/3")
    number = client.delete("/v1/keys/app/undo/3?undo=60", **cast.admin.field).json["undo"]
    for who in (cast.app, cast.writer, cast.reader):
        answer = undo(client, number, who)
        assert answer.status == 404
        assert answer.json["type"] == "/docs/problems/undo-not-found"
        assert answer.body == undo(client, "17", who).body
    assert undo(client, number, cast.admin).json["restored"] == 1


def test_an_administrator_undoes_what_others_have_deleted(client: Client, cast: Cast) -> None:
    put(client, cast.admin, "app/undo/4")
    number = client.delete("/v1/keys/app/undo/4?undo=60", **cast.app.field).json["undo"]
    assert undo(client, number, cast.admin).json["restored"] == 1


def test_who_may_only_delete_cannot_put_back(client: Client, cast: Cast) -> None:
    remover = made(client, cast, "delete keys:app/*")
    put(client, cast.admin, "app/undo/5", "app/undo/6/a")
    one = client.delete("/v1/keys/app/undo/5?undo=60", **remover.field).json["undo"]
    some = client.delete("/v1/keys?prefix=app/undo/6/&undo=60", **remover.field).json["undo"]
    for number in (one, some):
        answer = undo(client, number, remover)
        assert answer.status == 403
        assert answer.json["verb"] == "set"
    assert client.get("/v1/keys/app/undo/5", **cast.admin.field).status == 404
    assert undo(client, one, cast.admin).status == 200


def test_a_batch_is_put_back_whole_or_not_at_all(client: Client, cast: Cast) -> None:
    half = made(client, cast, "delete keys:app/*", "set keys:app/undo/may/*")
    put(client, cast.admin, "app/undo/may/1", "app/undo/not/1")
    operations = [{"op": "delete", "key": key} for key in ("app/undo/may/1", "app/undo/not/1")]
    answer = client.post("/v1/batch", {"operations": operations, "undo": 60}, **half.field)
    refused = undo(client, answer.json["undo"], half)
    assert refused.status == 403
    assert client.get("/v1/keys/app/undo/may/1", **cast.admin.field).status == 404
