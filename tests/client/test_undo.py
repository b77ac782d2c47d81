"""Deletions that can be undone, with each kind of client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyrack.client import Refused

if TYPE_CHECKING:
    from client_support import Asked


def test_a_key_comes_back(client: Asked, key: str) -> None:
    client.set(key, {"a": 1})
    gone = client.delete(key, undo=60)
    assert gone
    assert gone.deleted == 1
    assert client.get(key) is None
    assert client.undo(gone.undo).restored == 1
    assert client.get(key) == {"a": 1}


def test_without_undo_a_delete_tells_whether_the_key_was_there(client: Asked, key: str) -> None:
    client.set(key, "v")
    assert client.delete(key) is True
    assert client.delete(key) is False


def test_a_missing_key_has_no_undo(client: Asked, key: str) -> None:
    gone = client.delete(key, undo=60)
    assert not gone
    assert (gone.undo, gone.until) == (None, None)


def test_a_condition_counts(client: Asked, key: str) -> None:
    etag = client.set(key, "1")
    client.set(key, "2")
    with pytest.raises(Refused):
        client.delete(key, if_match=etag, undo=60)
    assert client.get(key) == "2"


def test_a_prefix_comes_back(client: Asked, key: str) -> None:
    client.set_many({f"{key}/{n}": n for n in range(3)})
    gone = client.delete_prefix(f"{key}/", undo=60)
    assert gone.deleted == 3
    client.set(f"{key}/1", "newer")
    done = client.undo(gone.undo)
    assert (done.deleted, done.restored, done.kept_newer) == (3, 2, 1)
    assert client.get(f"{key}/1") == "newer"
    assert client.get(f"{key}/2") == 2


def test_only_what_was_looked_at_goes(client: Asked, key: str) -> None:
    client.set(f"{key}/a", 1)
    client.set(f"{key}/b", 1)
    planned = client.delete_prefix(f"{key}/", dry_run=True)
    client.set(f"{key}/b", 2)
    done = client.delete_prefix(f"{key}/", at=planned.revision)
    assert (done.deleted, done.kept_newer) == (1, 1)
    assert client.get(f"{key}/b") == 2


def test_undos_are_listed(client: Asked, key: str) -> None:
    client.set(key, "v")
    gone = client.delete(key, undo=60)
    shown = next(one for one in client.undos(1000) if one.undo == gone.undo)
    assert (shown.key, shown.prefix, shown.left) == (key, None, 1)


def test_an_undo_that_is_not_there_is_refused(client: Asked) -> None:
    with pytest.raises(Refused) as error:
        client.undo(17)
    assert error.value.kind == "undo-not-found"
