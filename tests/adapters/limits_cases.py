"""The strategy tests of `limits`, sync and async, run on Keyrack.

KEYRACK_SUITE is the source distribution of `limits`, KEYRACK_URL the service.
"""

from __future__ import annotations

import os
import sys

import pytest

sys.path.insert(0, os.environ["KEYRACK_SUITE"])

import tests.utils

import keyrack.limits
from keyrack import Client

URL = os.environ["KEYRACK_URL"].replace("http", "keyrack") + "/limits:"


def _storages(uri: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("uri", "args", "fixture"), [pytest.param(uri, {}, None, id="keyrack")]
    )


# The suite's own lists of storages need their servers; its tests are about any storage.
for _name in ("all_storage", "moving_window_storage", "sliding_window_counter_storage"):
    setattr(tests.utils, _name, _storages(URL))
    setattr(tests.utils, f"async_{_name}", _storages(f"async+{URL}"))

from limits.storage import storage_from_string  # noqa: E402
from tests.aio.test_strategy import *  # noqa: F403, E402
from tests.test_strategy import *  # noqa: F403, E402


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    with Client(os.environ["KEYRACK_URL"]) as client:
        client.delete_prefix("limits:")


def test_a_counter_ends_when_its_window_does_however_often_it_was_hit() -> None:
    import time

    storage = storage_from_string(URL)
    ends = storage.incr("a", 2) and storage.get_expiry("a")
    time.sleep(0.3)
    assert storage.incr("a", 2) == 2
    assert abs(storage.get_expiry("a") - ends) < 0.1
    assert storage.check()
    assert storage.reset() == 1
    assert storage.get("a") == 0
    assert isinstance(storage, keyrack.limits.KeyrackStorage)


def test_a_storage_that_is_not_there_says_so() -> None:
    storage = storage_from_string("keyrack://127.0.0.1:1", retries=0)
    assert storage.check() is False
