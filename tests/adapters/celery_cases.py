"""Celery's results in Keyrack, by workers that really run. KEYRACK_URL is the service."""

from __future__ import annotations

import os
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker
from celery.exceptions import ImproperlyConfigured

from keyrack import Client

URL = os.environ["KEYRACK_URL"].replace("http", "keyrack") + "/celery:"

app = Celery(
    "cases", broker="memory://", backend=f"keyrack.celery:KeyrackBackend+{URL}", set_as_current=True
)
app.conf.update(result_expires=100, task_ignore_result=False)


@app.task(name="cases.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="cases.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="cases.fail")
def fail() -> None:
    raise ValueError("it failed")


@pytest.fixture(scope="module", autouse=True)
def worker() -> Any:
    with start_worker(app, perform_ping_check=False, pool="solo", concurrency=1):
        yield


def test_a_result_comes_back_and_ends_by_itself() -> None:
    result = add.delay(2, 3)
    assert result.get(timeout=20) == 5
    with Client(os.environ["KEYRACK_URL"]) as client:
        stored = client.get_value(f"celery:celery-task-meta-{result.id}")
    assert 90 < stored.ttl <= 100
    result.forget()
    assert app.AsyncResult(result.id).state == "PENDING"


def test_a_failure_is_a_result() -> None:
    with pytest.raises(ValueError, match="it failed"):
        fail.delay().get(timeout=20)


def test_a_group_is_joined_natively() -> None:
    result = group(add.s(n, n) for n in range(20)).apply_async()
    assert result.supports_native_join
    assert result.join_native(timeout=30) == [2 * n for n in range(20)]


def test_a_chord_counts_its_parts() -> None:
    done = chord((add.s(n, 1) for n in range(10)), total.s()).apply_async()
    assert done.get(timeout=30) == sum(range(10)) + 10
    with Client(os.environ["KEYRACK_URL"]) as client:
        assert client.count("celery:chord-unlock-") == 0


def test_a_group_result_can_be_saved_and_restored() -> None:
    result = group(add.s(1, 1), add.s(2, 2)).apply_async()
    result.get(timeout=20)
    result.save()
    assert app.GroupResult.restore(result.id).get(timeout=20) == [2, 4]
    result.delete()
    assert app.GroupResult.restore(result.id) is None


def test_the_backend_survives_being_pickled() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(app.backend))
    again.set(b"key", b"value")
    assert app.backend.mget([b"key", b"none"]) == [b"value", None]
    assert app.backend.expire(b"none", 5) is False


def test_a_wrong_url_gets_a_sentence() -> None:
    wrong = Celery("wrong", backend="keyrack.celery:KeyrackBackend+keyrack://")
    with pytest.raises(ImproperlyConfigured, match="not a URL"):
        _ = wrong.backend
