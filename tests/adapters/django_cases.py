"""Django's own tests of cache backends, run on Keyrack, as a program.

KEYRACK_SUITE is Django's source distribution, KEYRACK_URL the service. The cases run as they are,
and again with each method of the cache answered by the one that begins with `a`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import unittest
from typing import Any

import django
from django.conf import settings

sys.path.insert(0, os.path.join(os.environ["KEYRACK_SUITE"], "tests"))
URL = os.environ["KEYRACK_URL"]
CACHE = {
    "BACKEND": "keyrack.django.KeyrackCache",
    "LOCATION": URL.replace("http", "keyrack") + "/django-tests:",
}
settings.configure(
    SECRET_KEY="only for tests",
    INSTALLED_APPS=["cache"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CACHES={"default": CACHE},
    USE_TZ=False,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    ROOT_URLCONF="",
)
django.setup()

from cache.tests import BaseCacheTests, caches_setting_for_tests  # noqa: E402
from django.core.cache import cache, caches  # noqa: E402
from django.test import TestCase, override_settings  # noqa: E402
from django.test.utils import get_runner, setup_test_environment  # noqa: E402

from keyrack.django import KeyrackCache  # noqa: E402

SETTING = caches_setting_for_tests(base=CACHE, exclude={"cull", "zero_cull"})


@override_settings(CACHES=SETTING)
class KeyrackCases(BaseCacheTests, TestCase):
    """As they are."""


class Awaited(KeyrackCache):
    """The methods that begin with `a`, called as the others are."""


def _awaiting(name: str) -> Any:
    def called(self: Any, *given: Any, **named: Any) -> Any:
        return asyncio.run(_finished(getattr(KeyrackCache, f"a{name}"), self, given, named))

    return called


async def _finished(method: Any, cache: Any, given: Any, named: Any) -> Any:
    try:
        return await method(cache, *given, **named)
    finally:
        await cache._async.aclose()


NAMES = (
    "get set add touch delete has_key incr decr get_many set_many delete_many clear get_or_set "
    "incr_version decr_version"
)
for _name in NAMES.split():
    setattr(Awaited, _name, _awaiting(_name))


@override_settings(
    CACHES={name: {**one, "BACKEND": f"{__name__}.Awaited"} for name, one in SETTING.items()}
)
class AwaitedCases(BaseCacheTests, TestCase):
    """Through the event loop."""

    def test_cache_write_for_model_instance_with_deferred(self) -> None:
        """A queryset is read when it is pickled, which Django refuses on an event loop."""
        self.skipTest("not on an event loop")

    test_cache_read_for_model_instance_with_deferred = (
        test_cache_write_for_model_instance_with_deferred
    )

    def test_it_is_the_awaited_one(self) -> None:
        assert isinstance(caches["default"], Awaited)
        assert cache.get("nothing") is None


@override_settings(CACHES={"default": {**CACHE, "OPTIONS": {"stale": 60}}})
class StaleCases(TestCase):
    """`get_or_set` while somebody makes the value."""

    made = 0

    def make(self) -> str:
        self.made += 1
        # Whoever asks meanwhile gets the old value.
        old = asyncio.run(_finished(KeyrackCache.aget_or_set, cache, ("k", self.fail, 60), {}))
        return f"{old} and new"

    def test_others_get_the_old_value_while_one_makes_the_new(self) -> None:
        assert cache.get_or_set("k", lambda: "old", 0.05) == "old"
        while cache.get("k") is not None:
            time.sleep(0.01)
        assert cache.get_or_set("k", self.make, 60) == "old and new"
        assert cache.get_or_set("k", self.make, 60) == "old and new"
        assert self.made == 1
        assert cache.get_or_set("plain", "value", None) == "value"
        cache.clear()


def load_tests(loader: unittest.TestLoader, *_: object) -> unittest.TestSuite:
    """Return the cases of all."""
    suite = unittest.TestSuite()
    for case in (KeyrackCases, AwaitedCases, StaleCases):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    setup_test_environment()
    runner = get_runner(settings)(verbosity=0, interactive=False)
    old = runner.setup_databases()
    result = unittest.TextTestRunner(verbosity=1).run(load_tests(unittest.TestLoader()))
    runner.teardown_databases(old)
    print(f"ran {result.testsRun}, skipped {len(result.skipped)}")
    sys.exit(not result.wasSuccessful())
