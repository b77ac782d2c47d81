"""Many keys at once: batches, pipelines, scans, prefixes, counters, updates, waiting, mappings."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from client_support import KINDS, Asked, Where, asked, client_of

import keyrack
from keyrack import (
    KEEP,
    AsyncClient,
    BatchRefused,
    Client,
    Conflict,
    Folder,
    LockLost,
    Msgspec,
    Refused,
    ScanEntry,
    SignedPickle,
    Timeout,
    Unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)


def test_both_kinds_of_client_have_the_same_methods_with_the_same_parameters() -> None:
    only_sync = {"close", "mapping", "counter"}
    names = {name for name in dir(Client) if not name.startswith("_")}
    theirs = {name for name in dir(AsyncClient) if not name.startswith("_")}
    assert names - only_sync == theirs - {"aclose"}
    for name in names - only_sync:
        mine = inspect.signature(getattr(Client, name)).parameters.values()
        other = inspect.signature(getattr(AsyncClient, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in mine] == [
            (p.name, p.kind, p.default) for p in other
        ]


# Many keys


VALUES: dict[str, Any] = {
    "text": "ü\n",
    "bytes": b"\xff\x00",
    "json": {"a": [1, 2.5, None]},
    "string in JSON": ["x"],
    "number": 5,
    "none": None,
    "long": "x" * 300_000,
}


def test_many_values_come_back_equal(client: Asked, key: str) -> None:
    values = {f"{key}/{name}": value for name, value in VALUES.items()}
    etags = client.set_many(values)
    assert etags.keys() == values.keys()
    assert client.get_many([*values, f"{key}/missing"]) == values
    for name, value in values.items():
        assert client.get(name, "default") == value
        assert client.get_value(name).etag == etags[name]
    assert client.delete_many([*values, f"{key}/missing"]) == len(values)
    assert client.get_many(values) == {}


def test_more_keys_than_a_batch_takes_are_cut(client: Asked, key: str) -> None:
    values = {f"{key}/{number}": str(number) for number in range(2500)}
    assert len(client.set_many(values, ttl=60)) == 2500
    assert client.get_many(values) == values
    assert client.count(f"{key}/") == 2500
    assert client.delete_many(values) == 2500


def test_more_bytes_than_a_batch_takes_are_cut(client: Asked, key: str) -> None:
    values = {f"{key}/{number}": bytes(1 << 20) for number in range(12)}
    client.set_many(values)
    assert client.get_many(values) == values
    client.delete_prefix(f"{key}/")


def test_a_get_of_many_is_one_moment(where: Where, key: str) -> None:
    stop = threading.Event()

    def write() -> None:
        with client_of(where) as writer:
            number = 0
            while not stop.is_set():
                number += 1
                writer.set_many({f"{key}/a": number, f"{key}/b": number})

    thread = threading.Thread(target=write)
    with client_of(where) as reader:
        reader.set_many({f"{key}/a": 0, f"{key}/b": 0})
        thread.start()
        try:
            for _ in range(200):
                found = reader.get_many([f"{key}/a", f"{key}/b"])
                assert found[f"{key}/a"] == found[f"{key}/b"]
        finally:
            stop.set()
            thread.join()


def test_other_serializers_work_in_batches(where: Where, key: str) -> None:
    with client_of(where, serializer=SignedPickle(b"sixteen bytes or more"), prefix=key) as client:
        client.set_many({"a": {1, 2}, "b": (3,)})
        assert client.get_many(["a", "b"]) == {"a": {1, 2}, "b": (3,)}

    class Point(msgspec.Struct):
        x: int

    with client_of(where, serializer=Msgspec(Point), prefix=key) as client:
        client.set_many({"p": Point(1)})
        assert client.get_many(["p"]) == {"p": Point(1)}
        with client.batch() as batch:
            handle = batch.get("p")
        assert handle.value == Point(1)


class Order(msgspec.Struct):
    number: int
    lines: list[str] = []


def test_typed_keys_are_of_their_type(client: Asked, key: str) -> None:
    orders = client.typed(Order)
    ask = client.finished
    ask(orders.set(f"{key}/1", Order(1), ttl=60))
    assert ask(orders.get(f"{key}/1")) == Order(1)
    assert client.get(f"{key}/1") == {"number": 1, "lines": []}
    assert ask(orders.add(f"{key}/1", Order(2))) is None
    assert ask(orders.replace(f"{key}/2", Order(2))) is None
    ask(orders.set_many({f"{key}/2": Order(2)}))
    assert ask(orders.get_many([f"{key}/1", f"{key}/2", f"{key}/3"])) == {
        f"{key}/1": Order(1),
        f"{key}/2": Order(2),
    }
    changed = ask(orders.update(f"{key}/1", lambda order: Order(order.number, ["a"])))
    assert changed == Order(1, ["a"]) == ask(orders.get(f"{key}/1"))
    assert ask(orders.delete(f"{key}/1")) is True
    assert ask(orders.get(f"{key}/1")) is None
    client.set(f"{key}/2", {"number": "two"})
    with pytest.raises(Unreadable):
        ask(orders.get(f"{key}/2"))


# Batches


def filled(client: Asked, fill: Callable[[Any], Any], how: str = "batch") -> Any:
    """Collect operations of a batch or pipeline, and send them."""
    group = getattr(client, how)()
    result = fill(group)
    client.finished(group.send())
    return group, result


def test_a_batch_is_done_as_a_whole(client: Asked, key: str) -> None:
    client.set(f"{key}/old", "v")

    def fill(batch: Any) -> Any:
        return {
            "missing": batch.get(f"{key}/none"),
            "set": batch.set(f"{key}/a", {"n": 1}, ttl=50),
            "get": batch.get(f"{key}/a"),
            "add": batch.add(f"{key}/b", b"\x00"),
            "replace": batch.replace(f"{key}/old", "w"),
            "incr": batch.incr(f"{key}/n", 5, initial=10),
            "touch": batch.touch(f"{key}/b", 60),
            "check": batch.check(f"{key}/a", if_match="*"),
            "delete": batch.delete(f"{key}/old"),
        }

    _, handles = filled(client, fill)
    assert handles["missing"].value is None
    assert handles["missing"].etag is None
    assert handles["get"].value == {"n": 1}
    assert handles["set"].etag == client.get_value(f"{key}/a").etag
    assert handles["incr"].value == 15
    assert handles["delete"].existed is True
    assert handles["add"].existed is False
    assert client.get(f"{key}/b") == b"\x00"
    assert 59 < client.get_value(f"{key}/b").ttl <= 60
    assert client.get(f"{key}/old") is None


def test_a_refused_batch_says_which_and_why_and_does_nothing(client: Asked, key: str) -> None:
    def fill(batch: Any) -> Any:
        batch.set(f"{key}/a", "v")
        batch.check(f"{key}/b", if_match="*")

    with pytest.raises(BatchRefused) as caught:
        filled(client, fill)
    assert (caught.value.index, caught.value.reason) == (1, "condition")
    assert client.get(f"{key}/a") is None


def test_a_block_that_raises_sends_nothing(sync: Client, key: str) -> None:
    def block() -> None:
        with sync.batch() as batch:
            batch.set(key, "v")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        block()
    assert sync.get(key) is None
    with sync.batch() as batch:
        pass
    assert len(batch) == 0


def test_a_handle_has_nothing_before_its_batch_was_sent(sync: Client, key: str) -> None:
    with sync.batch() as batch:
        handle = batch.get(key)
        with pytest.raises(RuntimeError, match="has not been sent"):
            _ = handle.value
    assert handle.value is None
    with pytest.raises(ValueError, match="if_match"), sync.batch() as batch:
        batch.check(key)
    with pytest.raises(ValueError, match="not UTF-8"), sync.batch() as batch:
        batch.get(b"\xff")


def test_a_prefix_is_before_the_keys_of_batches(where: Where, sync: Client, key: str) -> None:
    with client_of(where, prefix=f"{key}/") as inner:
        with inner.batch() as batch:
            batch.set("a", "v")
        assert inner.get_many(["a"]) == {"a": "v"}
    assert sync.get(f"{key}/a") == "v"


# Pipelines


def test_a_pipeline_gives_results_in_order_and_exceptions_among_them(
    client: Asked, key: str
) -> None:
    client.set(f"{key}/n", "5")

    def fill(pipe: Any) -> None:
        pipe.set(f"{key}/a", "v")
        pipe.get(f"{key}/a")
        pipe.get(f"{key}/missing", 7)
        pipe.incr(f"{key}/n", 2)
        pipe.incr(f"{key}/a")
        pipe.add(f"{key}/a", "w")
        pipe.replace(f"{key}/none", "w")
        pipe.set(f"{key}/a", "w", if_match='"1"')
        pipe.touch(f"{key}/a", 60)
        pipe.touch(f"{key}/none", 60)
        pipe.delete(f"{key}/a")

    pipe, _ = filled(client, fill, "pipeline")
    etag, value, default, number, no_number, *rest = pipe.results
    assert etag.startswith('"')
    assert (value, default, number) == ("v", 7, 7)
    assert isinstance(no_number, Refused)
    added, replaced, conflict, touched, not_touched, deleted = rest
    assert (added, replaced) == (None, None)
    assert isinstance(conflict, Conflict)
    assert (touched, not_touched, deleted) == (True, False, True)


def test_a_long_pipeline_with_large_values_comes_to_its_end(client: Asked, key: str) -> None:
    client.set(f"{key}/large", bytes(1 << 20))

    def fill(pipe: Any) -> None:
        for number in range(120):
            pipe.set(f"{key}/{number}", str(number))
        for number in range(120):
            pipe.get(f"{key}/{number}")
        for _ in range(30):
            pipe.get(f"{key}/large")
        for _ in range(5):
            pipe.set(f"{key}/large", bytes(1 << 20))

    pipe, _ = filled(client, fill, "pipeline")
    assert pipe.results[120:240] == [str(number) for number in range(120)]
    assert pipe.results[240:270] == [bytes(1 << 20)] * 30
    client.delete_prefix(f"{key}/")


# Scans and prefixes


def test_a_scan_goes_over_all_pages_in_order(client: Asked, key: str) -> None:
    names = [f"{key}/{number:03}" for number in range(25)]
    client.set_many({name: name for name in names}, ttl=1000)
    found = list(client.scan(f"{key}/", page=10))
    assert [entry.key for entry in found] == names
    assert all(isinstance(entry, ScanEntry) and 999 < entry.ttl <= 1000 for entry in found)
    assert found[0].etag == client.get_value(names[0]).etag
    assert found[0].size == len(names[0])
    assert [e.key for e in client.scan(f"{key}/", page=7, reverse=True)] == names[::-1]
    assert [e.value for e in client.scan(f"{key}/", page=7, values=True)] == names
    assert client.count(f"{key}/") == 25


def test_a_scan_with_a_delimiter_shows_folders_among_the_keys(client: Asked, key: str) -> None:
    for name in ("a", "b/1", "b/2", "c"):
        client.set(f"{key}/{name}", "v")
    found = list(client.scan(f"{key}/", delimiter="/"))
    assert [type(item) for item in found] == [ScanEntry, Folder, ScanEntry]
    assert found[1] == Folder(f"{key}/b/")


@pytest.mark.parametrize("odd", ["a b", "a+b", "a&b=c", "a%20b", "ü", "?#"])
def test_a_prefix_means_itself(client: Asked, key: str, odd: str) -> None:
    client.set_many({f"{key}{odd}/1": 1, f"{key}{odd}/2": 2, f"{key}x/1": 3})
    assert [e.key for e in client.scan(f"{key}{odd}", page=1)] == [f"{key}{odd}/1", f"{key}{odd}/2"]
    assert client.count(f"{key}{odd}") == 2
    assert client.delete_prefix(f"{key}{odd}").deleted == 2


def test_a_client_with_a_prefix_sees_only_what_is_below_it(where: Where, key: str) -> None:
    with client_of(where, prefix=f"{key}/") as inner, client_of(where) as outer:
        outer.set_many({f"{key}/a": 1, f"{key}/b/c": 2, f"{key}x": 3})
        assert [e.key for e in inner.scan()] == ["a", "b/c"]
        assert [i[0] for i in inner.scan(delimiter="/")] == ["a", "b/"]
        assert inner.count() == 2
        assert [e.key for e in inner.history("a")] == ["a"]
        assert inner.delete_prefix("", dry_run=True).sample == ["a", "b/c"]
        assert inner.delete_prefix("").deleted == 2
        assert outer.get(f"{key}x") == 3


def test_a_prefix_can_be_deleted_or_only_looked_at(client: Asked, key: str) -> None:
    client.set_many({f"{key}/{n}": n for n in range(3)})
    report = client.delete_prefix(f"{key}/", dry_run=True)
    assert (report.deleted, report.dry_run) == (3, True)
    assert report.sample == [f"{key}/0", f"{key}/1", f"{key}/2"]
    done = client.delete_prefix(f"{key}/")
    assert (done.deleted, done.dry_run, done.sample) == (3, False, [])
    with pytest.raises(ValueError, match="everything=True"):
        client.delete_prefix("")


def test_a_history_tells_what_happened_to_a_key(client: Asked, key: str) -> None:
    client.set(key, "v")
    client.delete(key)
    assert [(event.kind, event.key) for event in client.history(key)] == [
        ("delete", key),
        ("set", key),
    ]
    assert len(client.history(key, limit=1)) == 1


# Counters, TTLs, updates


def test_a_counter_counts(client: Asked, key: str) -> None:
    assert client.incr(key) == 1
    assert client.incr(key, -5) == -4
    assert client.incr(f"{key}/ü", 2, initial=10, ttl=60) == 12
    assert 59 < client.get_value(f"{key}/ü").ttl <= 60
    client.set(key, "text")
    with pytest.raises(Refused, match="number") as caught:
        client.incr(key)
    assert caught.value.kind == "not-a-number"


def test_a_key_can_be_given_another_ttl_or_none(client: Asked, key: str) -> None:
    assert client.touch(key, 60) is False
    assert client.persist(key) is False
    etag = client.set(key, "v")
    assert client.touch(key, 60) is True
    assert 59 < client.get_value(key).ttl <= 60
    assert client.persist(key) is True
    stored = client.get_value(key)
    assert (stored.ttl, stored.etag) == (None, etag)


def test_an_update_makes_one_value_of_another(client: Asked, key: str) -> None:
    assert client.update(key, lambda value: [*(value or []), 1]) == [1]
    assert client.update(key, lambda value: [*value, 2]) == [1, 2]
    client.touch(key, 60)
    client.update(key, lambda value: value, ttl=KEEP)
    assert 58 < client.get_value(key).ttl <= 60
    client.update(key, lambda value: value, ttl=None)
    assert client.get_value(key).ttl is None
    client.update(key, lambda value: value, ttl=5)
    assert 4 < client.get_value(key).ttl <= 5


def test_of_updates_at_the_same_time_none_is_lost(where: Where, key: str) -> None:
    def work() -> None:
        with client_of(where) as client:
            for _ in range(25):
                client.update(key, lambda value: (value or 0) + 1, attempts=1000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with client_of(where) as client:
        assert client.get(key) == 100


def test_an_update_that_somebody_is_always_faster_than_is_a_conflict(
    client: Asked, where: Where, key: str
) -> None:
    with client_of(where) as other:

        def change(value: Any) -> int:
            return other.incr(key)

        with pytest.raises(Conflict):
            client.update(key, change, attempts=3)
        assert other.get(key) == "3"


# Waiting


def later(where: Where, work: Callable[[Client], Any]) -> threading.Thread:
    """Do something with a client of its own, in a moment."""

    def run() -> None:
        time.sleep(0.3)
        with client_of(where) as other:
            work(other)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_waiting_ends_when_the_key_exists(client: Asked, where: Where, key: str) -> None:
    thread = later(where, lambda other: other.set(key, "v"))
    assert client.wait(key, timeout=20).data == b"v"
    thread.join()
    assert client.wait(key, timeout=20).data == b"v"


def test_waiting_ends_when_the_key_is_gone(client: Asked, where: Where, key: str) -> None:
    client.set(key, "v")

    def work(other: Client) -> None:
        other.set(key, "w")
        time.sleep(0.1)
        other.delete(key)

    thread = later(where, work)
    assert client.wait(key, until="gone", timeout=20) is None
    thread.join()
    assert client.wait(key, until="gone", timeout=20) is None


def test_waiting_ends_when_the_key_changes(client: Asked, where: Where, key: str) -> None:
    first = client.set(key, "v")
    thread = later(where, lambda other: other.set(key, "w"))
    assert client.wait(key, until="changes", timeout=20).data == b"w"
    thread.join()
    assert client.wait(key, until="changes", etag=first, timeout=20).data == b"w"
    thread = later(where, lambda other: other.delete(key))
    assert client.wait(key, until="changes", timeout=20) is None
    thread.join()
    thread = later(where, lambda other: other.set(key, "x"))
    assert client.wait(key, until="changes", timeout=20).data == b"x"
    thread.join()


@pytest.mark.time_limits
def test_waiting_comes_to_an_end(client: Asked, key: str) -> None:
    began = time.monotonic()
    with pytest.raises(Timeout):
        client.wait(key, timeout=1)
    assert 0.9 < time.monotonic() - began < 15
    client.set(key, "v")
    for until in ("changes", "gone"):
        with pytest.raises(Timeout):
            client.wait(key, until=until, timeout=1)
    with pytest.raises(ValueError, match="until is"):
        client.wait(key, until="ever")


# Mappings and counters as objects


def test_a_mapping_is_one(sync: Client, key: str) -> None:
    mapping = sync.mapping(f"{key}/", ttl=100)
    mapping["a"] = 1
    mapping.update({"b": [2], "c": None})
    assert dict(mapping) == {"a": 1, "b": [2], "c": None} == mapping.snapshot()
    assert len(mapping) == 3
    assert list(mapping) == ["a", "b", "c"]
    assert "c" in mapping
    assert "d" not in mapping
    assert 5 not in mapping
    assert mapping.get("d", 7) == 7
    assert mapping.setdefault("d", 8) == 8
    assert mapping.setdefault("d", 9) == 8
    assert mapping.pop("d") == 8
    with pytest.raises(KeyError):
        _ = mapping["d"]
    with pytest.raises(KeyError):
        del mapping["d"]
    stored = sync.get_value(f"{key}/a")
    assert isinstance(stored, keyrack.Value)
    assert stored.ttl is not None
    assert stored.ttl > 90
    mapping.clear()
    assert dict(mapping) == {}
    with pytest.raises(ValueError, match="everything"):
        sync.mapping("").clear()


def test_a_counter_is_an_object(sync: Client, key: str) -> None:
    counter = sync.counter(key)
    assert counter.value == 0
    assert counter.add() == 1
    assert counter.add(5) == 6
    assert counter.value == 6
    counter.reset()
    assert counter.value == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_guards_a_write_in_the_same_request(kind: str, where: Where, key: str) -> None:
    with asked(kind, where) as client:
        lock = client.lock(key, ttl=30)
        client.finished(lock.acquire())
        client.set(f"{key}/v", "mine", lock=lock)
        assert client.get(f"{key}/v") == "mine"
        with client_of(where) as other:
            other._send(lock.release_call())
        with pytest.raises(LockLost):
            client.set(f"{key}/v", "too late", lock=lock)
        assert client.get(f"{key}/v") == "mine"
        client.finished(lock.release())
        with pytest.raises(LockLost):
            client.set(f"{key}/v", "never held", lock=lock)


def test_a_counter_can_get_its_ttl_when_it_is_made_and_keep_it(client: Asked, key: str) -> None:
    assert client.incr(key, 2, ttl_if_new=50) == 2
    client.touch(key, 20)
    assert client.incr(key, 3, ttl_if_new=50) == 5
    assert 19 < client.get_value(key).ttl <= 20
    with pytest.raises(ValueError, match="not both"):
        client.incr(key, ttl_if_new=5, ttl=5)
    with pytest.raises(Conflict):
        client.incr(f"{key}/missing", if_match="*")


def test_somebody_can_be_asked_who_holds_a_lock(client: Asked, key: str) -> None:
    assert client.lock_owner(key) is None
    lock = client.lock(key, owner="me")
    client.finished(lock.acquire())
    assert client.lock_owner(key) == "me"
    client.finished(lock.release())
