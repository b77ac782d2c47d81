"""cachelib's own tests of caches, run on Keyrack.

KEYRACK_SUITE is the source distribution of cachelib, KEYRACK_URL the service.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

sys.path.insert(0, os.path.join(os.environ["KEYRACK_SUITE"], "tests"))

from clear import ClearTests
from common import CommonTests
from delete_many_with_prefix import DeleteManyWithPrefixTests
from has import HasTests

from keyrack.cachelib import CachelibCache

URL = os.environ["KEYRACK_URL"].replace("http", "keyrack") + "/cachelib:"


@pytest.fixture(autouse=True)
def cache_factory(request: pytest.FixtureRequest) -> None:
    def factory(_: object, *given: Any, **named: Any) -> CachelibCache:
        made = CachelibCache(URL, *given, secret="only for tests", **named)
        made._client.delete_prefix("")
        return made

    request.cls.cache_factory = factory


class TestKeyrackCache(CommonTests, ClearTests, HasTests, DeleteManyWithPrefixTests):
    def test_what_is_not_plain_comes_back_only_with_a_secret(self) -> None:
        cache = self.cache_factory()
        assert cache.set("tuple", (1, {2}))
        assert cache.get("tuple") == (1, {2})
        with pytest.raises(TypeError):
            CachelibCache(URL).set("tuple", (1, {2}))

    def test_a_key_may_be_long(self) -> None:
        cache = self.cache_factory()
        cache.set("k" * 600, 1)
        cache.set("k" * 601, 2)
        assert (cache.get("k" * 600), cache.get("k" * 601)) == (1, 2)


class TestFlask:
    """Through a running Flask application."""

    def test_a_flask_app_keeps_sessions_and_cached_pages_in_keyrack(self) -> None:
        import threading
        import urllib.request

        import flask
        from flask_caching import Cache
        from flask_session import Session
        from werkzeug.serving import make_server

        app = flask.Flask("shop", root_path=os.getcwd())
        app.secret_key = "only for tests"
        cache = self.cache_factory()
        app.config.update(
            SESSION_TYPE="cachelib",
            SESSION_CACHELIB=cache,
            CACHE_TYPE="keyrack.cachelib.CachelibCache",
            CACHE_ARGS=[URL],
        )
        Session(app)
        pages = Cache(app)
        made = []

        @app.get("/count")
        def count() -> str:
            flask.session["count"] = flask.session.get("count", 0) + 1
            return str(flask.session["count"])

        @app.get("/page")
        @pages.cached(timeout=60)
        def page() -> str:
            made.append(1)
            return "made"

        server = make_server("127.0.0.1", 0, app)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            assert [opener.open(f"{base}/count").read() for _ in range(3)] == [b"1", b"2", b"3"]
            assert urllib.request.urlopen(f"{base}/count").read() == b"1"
            assert [opener.open(f"{base}/page").read() for _ in range(3)] == [b"made"] * 3
            assert len(made) == 1
        finally:
            server.shutdown()
            thread.join()
        assert cache._client.count("session:") >= 1
