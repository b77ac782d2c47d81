"""Caches of build tools that speak plain HTTP: ccache itself, and clients that ask as others do.

The real Bazel and Gradle take half a minute for a build of one line. They run where
KEYRACK_TEST_BUILD_TOOLS is set and they are installed (Debian: `bazel-bootstrap`, `gradle`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from access_support.service import Guarded
from keyrack_server import Server, Wire, chunked, request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from access_support.service import Who
    from keyrack_server import Answer

MIB = 1 << 20
FLAGS = ("--max-value", "2m", "--when-full", "evict")
TOOLS = os.environ.get("KEYRACK_TEST_BUILD_TOOLS")
"""Anything: the real build tools are to be tried, where they are installed."""


class BuildCache(Guarded):
    """A service with a cache of artifacts, which CI fills and pull requests read."""

    ci: Who
    reader: Who

    def __enter__(self) -> BuildCache:
        parts = ("ccache", "bazel", "gradle")
        self.ci = self.add(*(f"read,set keys:{part}/*" for part in parts), name="ci")
        self.reader = self.add(*(f"read keys:{part}/*" for part in parts), name="pull requests")
        super().__enter__()
        return self

    def url(self, path: str, who: Who | None = None) -> str:
        """Return an address below /v1/keys, with a token as the password of Basic."""
        login = "" if who is None else f"ci:{who.text}@"
        return f"http://{login}127.0.0.1:{self.server.port}/v1/keys/{path}"

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix."""
        field = self.admin.field
        answer = self.server.ask("GET", f"/v1/keys?prefix={prefix}&limit=1000", **field)
        return [entry["key"] for entry in answer.json["keys"]]


@pytest.fixture(scope="module")
def cache() -> Iterator[BuildCache]:
    with BuildCache("", *FLAGS) as running:
        yield running


def basic(who: Who) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"ci:{who.text}".encode()).decode()}


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# ccache

needs_ccache = pytest.mark.skipif(
    shutil.which("ccache") is None or shutil.which("gcc") is None,
    reason="ccache or gcc is missing",
)


def compiled(directory: Path, storage: str, text: str) -> dict[str, int]:
    """Compile a file with an empty cache of its own; return what ccache has counted.

    So whatever is a hit has come from the storage.
    """
    directory.mkdir(parents=True)
    (directory / "main.c").write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "CCACHE_DIR": str(directory / "cache"),
        "CCACHE_CONFIGPATH": os.devnull,
        "CCACHE_REMOTE_STORAGE": storage,
        "CCACHE_NOHASHDIR": "1",
    }
    made = subprocess.run(
        ["ccache", "gcc", "-c", "main.c", "-o", "main.o"],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (directory / "main.o").read_bytes().startswith(b"\x7fELF")
    stats = subprocess.run(
        ["ccache", "--print-stats"], env=environment, capture_output=True, text=True, check=True
    )
    rows = (line.split("\t") for line in stats.stdout.splitlines())
    return {name: int(number) for name, number in rows}


SOURCE = 'const char *greet(void) { return "hello from %s"; }\n'


@needs_ccache
@pytest.mark.parametrize("layout", ["", "|layout=flat", "|layout=subdirs", "|layout=bazel"])
def test_what_one_machine_has_compiled_is_a_remote_hit_on_another(
    cache: BuildCache, tmp_path: Path, layout: str
) -> None:
    storage = cache.url(f"ccache/{layout[-4:]}", cache.ci) + layout
    first = compiled(tmp_path / "one", storage, SOURCE % layout)
    assert (first["cache_miss"], first["remote_storage_miss"]) == (1, 1)
    assert first["remote_storage_write"] == 2, "manifest and object are stored"
    second = compiled(tmp_path / "other", storage, SOURCE % layout)
    assert (second["cache_miss"], second["remote_storage_hit"]) == (0, 1)
    assert second["direct_cache_hit"] == 1
    for counted in (first, second):
        assert counted["remote_storage_error"] == counted["remote_storage_timeout"] == 0


@needs_ccache
def test_ccache_sends_a_token_as_a_bearer_as_well(cache: BuildCache, tmp_path: Path) -> None:
    storage = cache.url("ccache/bearer") + f"|bearer-token={cache.ci.text}"
    assert compiled(tmp_path / "one", storage, SOURCE % "bearer")["remote_storage_write"] == 2
    assert compiled(tmp_path / "other", storage, SOURCE % "bearer")["remote_storage_hit"] == 1
    assert len(cache.keys("ccache/bearer/")) == 2


@needs_ccache
def test_a_pull_request_reads_what_ci_has_stored_and_stores_nothing(
    cache: BuildCache, tmp_path: Path
) -> None:
    ci, reader = (cache.url("ccache/main", who) for who in (cache.ci, cache.reader))
    compiled(tmp_path / "ci", ci, SOURCE % "main")
    stored = cache.keys("ccache/main/")
    read = compiled(tmp_path / "same", f"{reader}|read-only", SOURCE % "main")
    assert (read["remote_storage_hit"], read["remote_storage_error"]) == (1, 0)
    changed = compiled(tmp_path / "new", f"{reader}|read-only", SOURCE % "a branch")
    assert (changed["cache_miss"], changed["remote_storage_error"]) == (1, 0)
    assert cache.keys("ccache/main/") == stored


@needs_ccache
def test_a_build_goes_on_where_the_cache_refuses(cache: BuildCache, tmp_path: Path) -> None:
    """Without `read-only` ccache tries to store; it compiles all the same."""
    before = cache.keys("ccache/")
    storage = cache.url("ccache/refused", cache.reader)
    counted = compiled(tmp_path / "one", storage, SOURCE % "refused")
    assert counted["cache_miss"] == 1
    assert counted["remote_storage_error"] >= 1
    assert cache.keys("ccache/") == before


# Bazel


class Bazel:
    """Asks as Bazel's `HttpCacheClient` does (bazelbuild/bazel, remote/http/HttpCacheClient.java).

    Action results are below `ac/`, content below `cas/`, both under SHA-256 in hex behind the path
    of `--remote_cache`. Uploads have a Content-Length and no `Expect`, and count with 200, 201, 202
    or 204. Every downloaded answer needs a Content-Length or chunks; 404 is a miss.
    """

    def __init__(self, cache: BuildCache, who: Who | None, path: str = "/v1/keys/bazel") -> None:
        self._wire = Wire(cache.server.port)
        self._path = path
        self._fields = {
            "Accept": "*/*",
            "Connection": "keep-alive",
            "User-Agent": "bazel/release 8.4.2",
            **({} if who is None else basic(who)),
        }

    def close(self) -> None:
        self._wire.close()

    def upload(self, kind: str, digest: str, data: bytes) -> Answer:
        return self._ask("PUT", kind, digest, data)

    def download(self, kind: str, digest: str) -> bytes | None:
        """Return what is stored; None for a miss."""
        answer = self._ask("GET", kind, digest)
        assert answer.get("Content-Length") or answer["Transfer-Encoding"] == "chunked"
        if answer.status in (404, 204):
            return None
        assert answer.status == 200, answer
        if kind == "cas":  # `--remote_verify_downloads`
            assert hashlib.sha256(answer.body).hexdigest() == digest
        return answer.body

    def _ask(self, method: str, kind: str, digest: str, data: bytes | None = None) -> Answer:
        target = f"{self._path}/{kind}/{digest}"
        return self._wire.ask(request(method, target, data, **self._fields))


@pytest.fixture
def bazel(cache: BuildCache) -> Iterator[Bazel]:
    client = Bazel(cache, cache.ci)
    yield client
    client.close()


def build(client: Bazel, action: bytes, outputs: list[bytes]) -> bool:
    """Do an action as Bazel does: take its outputs from the cache, or make and upload them.

    The result that is uploaded names the outputs; it comes last, so that whoever sees it finds
    them. Tells whether it was a hit.
    """
    name = hashlib.sha256(action).hexdigest()
    digests = [hashlib.sha256(output).hexdigest() for output in outputs]
    found = client.download("ac", name)
    if found is not None:
        assert found.decode().split() == digests
        assert [client.download("cas", digest) for digest in digests] == outputs
        return True
    for digest, output in zip(digests, outputs, strict=True):
        assert client.upload("cas", digest, output).status in (200, 201, 202, 204)
    assert client.upload("ac", name, " ".join(digests).encode()).status in (200, 201, 202, 204)
    return False


def test_bazel_finds_the_outputs_of_an_action_that_was_done_before(bazel: Bazel) -> None:
    outputs = [b"", b"text", noise(300_000), noise(2 * MIB, 2)]
    assert not build(bazel, b"gcc -c main.c", outputs)
    assert build(bazel, b"gcc -c main.c", outputs)
    assert not build(bazel, b"gcc -O2 -c main.c", outputs)


def test_caches_with_other_paths_share_nothing(cache: BuildCache) -> None:
    """A path, as of `--remote_cache=.../bazel/linux-x86`, is a cache of its own."""
    one, other = (Bazel(cache, cache.ci, f"/v1/keys/bazel/{name}") for name in ("linux", "mac"))
    assert not build(one, b"action", [b"for linux"])
    assert not build(other, b"action", [b"for macOS"])
    assert build(one, b"action", [b"for linux"])
    one.close()
    other.close()


def test_content_may_be_uploaded_in_chunks_and_asked_for_by_head(cache: BuildCache) -> None:
    data = noise(700_000, 3)
    target = f"/v1/keys/bazel/cas/{hashlib.sha256(data).hexdigest()}"
    with Wire(cache.server.port) as wire:
        assert wire.ask(request("HEAD", target, **basic(cache.ci))).status == 404
        pieces = chunked(*(data[start : start + 65536] for start in range(0, len(data), 65536)))
        fields = {**basic(cache.ci), "Transfer_Encoding": "chunked"}
        assert wire.ask(request("PUT", target, pieces, **fields)).status == 201
        known = wire.ask(request("HEAD", target, **basic(cache.ci)))
        assert (known.status, known["Content-Length"]) == (200, str(len(data)))
        assert wire.ask(request("GET", target, **basic(cache.ci))).body == data


@pytest.mark.parametrize(("reader", "status"), [(True, 403), (False, 401)])
def test_bazel_is_told_why_an_upload_is_refused(
    cache: BuildCache, reader: bool, status: int
) -> None:
    """It prints status and body of a refusal as a warning, if the body has at most 10 KiB."""
    client = Bazel(cache, cache.reader if reader else None)
    answer = client.upload("cas", hashlib.sha256(b"data").hexdigest(), b"data")
    assert answer.status == status
    assert answer.json["detail"]
    assert len(answer.body) < 10_240
    client.close()


# Gradle


class Gradle:
    """Asks as Gradle's `HttpBuildCacheService` does (gradle/gradle, build-cache-http).

    Keys are 32 hex digits below the URL. Basic is sent with the first request. 200 to 299 is a hit
    or a store, 404 a miss, 413 an entry that is too large; 401, 403 and 400 switch the cache off
    for the rest of a build. With `useExpectContinue` it sends the body when it is told to.
    """

    KIND = "application/vnd.gradle.build-cache-artifact.v1"

    def __init__(self, cache: BuildCache, who: Who) -> None:
        self._port = cache.server.port
        self._fields = {"X_Gradle_Version": "9.1.0", **basic(who)}

    def load(self, key: str) -> bytes | None:
        accept = f"{self.KIND}, */*"
        with Wire(self._port) as wire:
            answer = wire.ask(request("GET", self._path(key), Accept=accept, **self._fields))
        if answer.status == 404:
            return None
        assert answer.status == 200
        assert answer["Content-Type"] == self.KIND
        return answer.body

    def store(self, key: str, entry: bytes) -> Answer:
        with Wire(self._port) as wire:
            return wire.ask(self._put(key, entry))

    def store_when_asked(self, key: str, entry: bytes) -> tuple[Answer, bool]:
        """Return the last answer, and whether the body was sent."""
        message = self._put(key, entry, Expect="100-continue")
        head = len(message) - len(entry)
        with Wire(self._port) as wire:
            answer = wire.ask(message[:head]) if not entry else self._first(wire, message[:head])
            if answer is not None:
                return answer, False
            return wire.ask(message[head:]), True

    def _first(self, wire: Wire, head: bytes) -> Answer | None:
        answer = wire.ask(head)
        return None if answer.status == 100 else answer

    def _put(self, key: str, entry: bytes, **more: str) -> bytes:
        fields: Mapping[str, Any] = {"Content_Type": self.KIND, **self._fields, **more}
        return request("PUT", self._path(key), entry, **fields)

    def _path(self, key: str) -> str:
        return f"/v1/keys/gradle/{key}"


def test_gradle_loads_what_it_has_stored(cache: BuildCache) -> None:
    gradle, entry = Gradle(cache, cache.ci), noise(400_000, 4)
    key = hashlib.md5(b"inputs", usedforsecurity=False).hexdigest()
    assert gradle.load(key) is None
    assert gradle.store(key, entry).status == 201
    assert gradle.load(key) == entry
    assert gradle.store(key, entry).status == 204, "another machine has built the same"


def test_gradle_that_waits_to_be_asked_sends_what_may_be_stored(cache: BuildCache) -> None:
    gradle, entry = Gradle(cache, cache.ci), noise(400_000, 5)
    answer, was_sent = gradle.store_when_asked("0" * 32, entry)
    assert (answer.status, was_sent) == (201, True)
    assert gradle.load("0" * 32) == entry


def test_gradle_learns_the_limit_before_it_sends_an_entry_that_is_too_large(
    cache: BuildCache,
) -> None:
    gradle, entry = Gradle(cache, cache.ci), noise(2 * MIB + 1, 6)
    answer, was_sent = gradle.store_when_asked("1" * 32, entry)
    assert (answer.status, was_sent) == (413, False)
    assert (answer.json["limit"], answer.json["actual"]) == (2 * MIB, 2 * MIB + 1)
    assert gradle.load("1" * 32) is None


def test_gradle_with_a_token_for_reading_only_reads(cache: BuildCache) -> None:
    assert Gradle(cache, cache.ci).store("2" * 32, b"entry").status == 201
    reader = Gradle(cache, cache.reader)
    assert reader.load("2" * 32) == b"entry"
    assert reader.store("2" * 32, b"changed").status == 403
    assert reader.load("2" * 32) == b"entry"


# A cache that is full


def test_a_full_cache_makes_room_and_keeps_what_is_used() -> None:
    """No build is refused: what nobody has asked for goes."""
    artifact = 400_000
    with Server(*FLAGS, memory="24m") as server, server.connect() as wire:
        for number in range(150):
            target = f"/v1/keys/bazel/cas/{hashlib.sha256(b'%d' % number).hexdigest()}"
            assert wire.ask(request("PUT", target, noise(artifact, number))).status == 201
            used = "/v1/keys/bazel/ac/used"
            if not number:
                assert wire.ask(request("PUT", used, b"result")).status == 201
            assert wire.ask(request("GET", used)).body == b"result"
        count = wire.ask(request("GET", "/v1/keys?prefix=bazel/cas/&count_only=true")).json["count"]
        assert 10 < count < 24 * MIB // artifact + 1
        assert wire.ask(request("GET", target)).body == noise(artifact, 149), "the newest is there"


# The real ones


def _run(*command: str, cwd: Path, seconds: float = 240) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (TOOLS and shutil.which("bazel")), reason="Bazel is not to be tried")
def test_the_real_bazel_takes_from_the_cache_what_it_has_built(
    cache: BuildCache, tmp_path: Path
) -> None:
    (tmp_path / "WORKSPACE").touch()
    rule = 'genrule(name = "one", outs = ["one.bin"], cmd = "head -c 1000000 /dev/urandom > $@")\n'
    (tmp_path / "BUILD").write_text(rule)

    def built(root: str) -> tuple[str, bytes]:
        said = _run(
            "bazel", "--batch", f"--output_user_root={tmp_path / root}", "build", "//:one",
            f"--remote_cache={cache.url('bazel/real', cache.ci)}", cwd=tmp_path,
        )  # fmt: skip
        return said, (tmp_path / "bazel-bin" / "one.bin").read_bytes()

    _, first = built("root-1")
    said, second = built("root-2")
    assert "1 remote cache hit" in said
    assert first == second, "it is random, so it came from the cache"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (TOOLS and shutil.which("gradle")), reason="Gradle is not to be tried")
def test_the_real_gradle_takes_from_the_cache_what_it_has_built(
    cache: BuildCache, tmp_path: Path
) -> None:
    (tmp_path / "settings.gradle").write_text(
        "buildCache { local { enabled = false }\n"
        f"remote(HttpBuildCache) {{ url = '{cache.url('gradle/')}'; push = true\n"
        f"credentials {{ username = 'ci'; password = '{cache.ci.text}' }} }} }}\n"
    )
    (tmp_path / "build.gradle").write_text(
        "@CacheableTask class Make extends DefaultTask {\n"
        "  @OutputFile File out = project.file('build/out.txt')\n"
        "  @TaskAction void run() { out.text = System.nanoTime() } }\n"
        "task make(type: Make)\n"
    )

    def built() -> tuple[str, str]:
        said = _run(
            "gradle", "--no-daemon", "--build-cache", "--console=plain",
            "-g", str(tmp_path / "home"), "make", cwd=tmp_path,
        )  # fmt: skip
        text = (tmp_path / "build" / "out.txt").read_text()
        shutil.rmtree(tmp_path / "build")
        shutil.rmtree(tmp_path / ".gradle")
        return said, text

    _, first = built()
    said, second = built()
    assert ":make FROM-CACHE" in said
    assert first == second
