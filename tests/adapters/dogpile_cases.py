"""dogpile.cache's own tests of backends, run on Keyrack. KEYRACK_URL is the service."""

from __future__ import annotations

import os

import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

import keyrack.dogpile  # noqa: F401 - makes the backend known
from keyrack import Client

URL = os.environ["KEYRACK_URL"].replace("http", "keyrack") + "/dogpile:"
ARGUMENTS = {"url": URL, "secret": "only for tests, only here"}


class _OnKeyrack:
    backend = "keyrack"
    config_args = {"arguments": ARGUMENTS}  # noqa: RUF012 - what the fixture wants


class TestBackend(_OnKeyrack, _GenericBackendTestSuite):
    pass


class TestBackendWithoutLocks(_GenericBackendTestSuite):
    backend = "keyrack"
    config_args = {"arguments": {**ARGUMENTS, "distributed_lock": False}}  # noqa: RUF012


class TestSerializer(_OnKeyrack, _GenericSerializerTestSuite, _GenericBackendTestSuite):
    pass


class TestMutex(_OnKeyrack, _GenericMutexTestSuite):
    pass


def test_what_was_not_signed_is_not_read() -> None:
    region = make_region().configure("keyrack", arguments=ARGUMENTS)
    region.set("key", {1, 2})
    assert region.get("key") == {1, 2}
    with Client(os.environ["KEYRACK_URL"]) as client:
        value = client.get_value("dogpile:key")
        client.set("dogpile:other", value.data, media_type=value.media_type)
    assert region.get("other") is NO_VALUE


def test_without_a_secret_values_are_json() -> None:
    region = make_region().configure("keyrack", arguments={"url": URL})
    region.set("plain", {"a": [1]})
    assert region.get("plain") == {"a": [1]}
    with pytest.raises(TypeError):
        region.set("plain", {1, 2})
