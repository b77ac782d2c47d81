"""The stored bytes of a record are a promise: a store of version 1 is read by every later one."""

from __future__ import annotations

import pytest
from engine_support.property import examples
from hypothesis import example, given
from hypothesis import strategies as st

from keyrack.engines import record as wire
from keyrack.engines.contract import JSON, MAX_MEDIA_TYPE_BYTES, TEXT, CacheControl, Record

TABLE = (
    "text/plain; charset=utf-8",
    "application/json",
    "application/octet-stream",
    "text/plain",
    "text/html; charset=utf-8",
    "text/css",
    "text/csv",
    "application/xml",
    "application/x-www-form-urlencoded",
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/svg+xml",
    "application/pdf",
    "application/gzip",
    "application/msgpack",
    "application/cbor",
    "application/x-protobuf",
)

ascii_names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=255)
media_types = st.sampled_from(TABLE) | ascii_names
numbers = st.integers(0, 2**64 - 1)


@examples(200)
@given(numbers, st.binary(max_size=5000), media_types, numbers)
@example(2**64 - 1, b"", "a" * MAX_MEDIA_TYPE_BYTES, 2**64 - 1)
@example(1, b"x" * (3 << 20), TEXT, 0)
@example(1, b"", "", 1)
def test_what_is_packed_is_unpacked(
    revision: int, value: bytes, media_type: str, expires_at: int
) -> None:
    raw = wire.pack(revision, value, media_type, expires_at)
    assert wire.unpack(raw) == Record(value, media_type, revision, expires_at)
    assert wire.revision(raw) == revision
    assert wire.expires_at(raw) == expires_at
    assert wire.has_ttl(raw) is (expires_at > 0)


@examples(100)
@given(numbers, numbers, media_types, numbers, numbers)
@example(2**64 - 1, 2**64 - 1, "a" * MAX_MEDIA_TYPE_BYTES, 2**64 - 1, 0)
def test_what_is_packed_without_its_value_is_unpacked(
    revision: int, size: int, media_type: str, expires_at: int, another: int
) -> None:
    raw = wire.pack_long(revision, size, media_type, expires_at)
    assert wire.is_long(raw)
    assert not wire.is_plain(raw)
    assert wire.unpack_long(raw) == (Record(b"", media_type, revision, expires_at), size)
    with pytest.raises(wire.Elsewhere):
        wire.unpack(raw)
    assert wire.with_end(raw, another) == wire.pack_long(revision, size, media_type, another)


ends = st.integers(1, 2**64 - 1)


@examples(100)
@given(numbers, st.binary(max_size=5000), media_types, ends, ends, numbers)
@example(2**64 - 1, b"", "a" * MAX_MEDIA_TYPE_BYTES, 2**64 - 1, 2**64 - 1, 2**64 - 1)
def test_a_record_says_until_when_a_stale_copy_is_kept(
    revision: int, value: bytes, media_type: str, at: int, until: int, stored: int
) -> None:
    record = Record(value, media_type, revision, at, until, stored)
    raw = wire.pack(revision, value, media_type, at, until, stored)
    copy = wire.as_copy(raw)
    assert wire.unpack(raw) == wire.unpack(copy) == record
    assert wire.ends(raw) == wire.ends(copy) == (at, until, stored)
    assert (wire.expires_at(raw), wire.due_at(raw)) == (at, at)
    assert (wire.expires_at(copy), wire.due_at(copy)) == (at, until)
    assert (wire.is_copy(raw), wire.is_copy(copy)) == (False, True)
    assert wire.keeps_copy(raw)
    assert wire.keeps_copy(copy)
    for one in (raw, copy):
        assert not wire.is_plain(one)
        assert not wire.is_long(one)
        long = wire.without_value(one)
        assert wire.is_long(long)
        assert wire.size(long) == len(value)
        assert wire.with_value(long, value) == one
        assert wire.with_end(one, 0) == wire.pack(revision, value, media_type)
        assert wire.with_end(one, 7, 8, 9) == wire.pack(revision, value, media_type, 7, 8, 9)
    head = Record(b"", media_type, revision, at, until, stored)
    assert wire.unpack_long(wire.without_value(copy)) == (head, len(value))


@examples(50)
@given(numbers, st.binary(max_size=50), media_types, numbers)
def test_a_value_leaves_its_record_and_comes_back(
    revision: int, value: bytes, media_type: str, expires_at: int
) -> None:
    raw = wire.pack(revision, value, media_type, expires_at)
    long = wire.pack_long(revision, len(value), media_type, expires_at)
    assert (wire.without_value(raw), wire.with_value(long, value)) == (long, raw)
    assert not wire.keeps_copy(raw)
    assert wire.due_at(raw) == expires_at


@examples(100)
@given(numbers, st.binary(max_size=50), media_types, numbers, numbers)
def test_a_record_gets_another_end(
    revision: int, value: bytes, media_type: str, expires_at: int, another: int
) -> None:
    raw = wire.pack(revision, value, media_type, expires_at)
    assert not wire.is_long(raw)
    assert wire.with_end(raw, another) == wire.pack(revision, value, media_type, another)


seconds = st.integers(0, 2**32 - 1)
cache_controls = st.builds(CacheControl, seconds, seconds, st.booleans())
any_ends = st.tuples(numbers, st.just(0), st.just(0)) | st.tuples(ends, ends, numbers)


@examples(200)
@given(numbers, st.binary(max_size=50), media_types, any_ends, cache_controls, any_ends)
@example(2**64 - 1, b"", "a" * MAX_MEDIA_TYPE_BYTES, (7, 8, 9), CacheControl(0), (0, 0, 0))
def test_a_record_says_what_caches_may_do_with_it(
    revision: int,
    value: bytes,
    media_type: str,
    at: tuple[int, int, int],
    caching: CacheControl,
    another: tuple[int, int, int],
) -> None:
    record = Record(value, media_type, revision, *at, caching)
    raw = wire.with_cache_control(wire.pack(revision, value, media_type, *at), caching)
    assert wire.unpack(raw) == record
    assert (wire.expires_at(raw), wire.ends(raw), wire.has_ttl(raw)) == (at[0], at, at[0] > 0)
    assert not wire.is_plain(raw)
    assert not wire.is_long(raw)
    assert len(raw) <= wire.MOST_HEAD + len(value)
    long = wire.without_value(raw)
    assert wire.is_long(long)
    assert wire.unpack_long(long) == (Record(b"", media_type, revision, *at, caching), len(value))
    assert wire.with_value(long, value) == raw
    ended = Record(value, media_type, revision, *another, caching)
    assert wire.unpack(wire.with_end(raw, *another)) == ended
    rest = wire.cached_rest(wire.pack_rest(value, media_type), caching)
    assert wire.with_end(raw, 0) == revision.to_bytes(8, "big") + rest


@pytest.mark.parametrize("code", range(len(TABLE)))
def test_a_known_media_type_takes_one_byte_that_never_changes(code: int) -> None:
    assert wire.pack(1, b"v", TABLE[code])[8:] == bytes([code]) + b"v"


def test_a_short_text_costs_nine_bytes_of_header() -> None:
    assert len(wire.pack(2**63, b"v" * 32, TEXT)) == 32 + 9


def test_a_ttl_costs_eight_bytes_more() -> None:
    assert len(wire.pack(1, b"v" * 32, TEXT, 1)) == 32 + 9 + 8


VERSION_1 = [
    ("0000000000000001 00 76", Record(b"v", TEXT, 1)),
    ("0000000000000100 01 5b5d", Record(b"[]", JSON, 256)),
    ("0000000000000002 80 0000000000000003 76", Record(b"v", TEXT, 2, 3)),
    ("0000000000000002 7f 03 612f62 76", Record(b"v", "a/b", 2)),
    ("0000000000000002 ff 0000000000000003 03 612f62 76", Record(b"v", "a/b", 2, 3)),
    ("ffffffffffffffff 11", Record(b"", "application/x-protobuf", 2**64 - 1)),
]


VERSION_2 = [
    ("0000000000000001 7e 0000000000002000 00", Record(b"", TEXT, 1)),
    ("0000000000000001 7e 0000000000002000 7f 03 612f62", Record(b"", "a/b", 1)),
    ("0000000000000001 fe 0000000000000003 0000000000002000 01", Record(b"", JSON, 1, 3)),
]


VERSION_3 = [
    (
        "0000000000000001 fd 0000000000000002 0000000000000003 0000000000000004 00 76",
        Record(b"v", TEXT, 1, 2, 3, 4),
    ),
    (
        "0000000000000001 fc 0000000000000002 0000000000000003 0000000000000000 7f 03 612f62 76",
        Record(b"v", "a/b", 1, 2, 3),
    ),
]


VERSION_4 = [
    ("0000000000000001 7b 0000001e 0000003c 01 00 76", CacheControl(30, 60, True), (0, 0, 0)),
    (
        "0000000000000001 fb 0000000000000002 0000001e 00000000 00 00 76",
        CacheControl(30),
        (2, 0, 0),
    ),
    (
        "0000000000000001 fd 0000000000000002 0000000000000003 0000000000000004 "
        "7b 0000001e 0000003c 00 00 76",
        CacheControl(30, 60),
        (2, 3, 4),
    ),
]


@pytest.mark.parametrize(("stored", "caching", "at"), VERSION_4)
def test_a_record_stored_by_version_4_is_read(
    stored: str, caching: CacheControl, at: tuple[int, int, int]
) -> None:
    raw = bytes.fromhex(stored)
    assert wire.unpack(raw) == Record(b"v", TEXT, 1, *at, caching)
    assert wire.with_cache_control(wire.pack(1, b"v", TEXT, *at), caching) == raw


@pytest.mark.parametrize(("stored", "record"), VERSION_3)
def test_a_record_stored_by_version_3_is_read(stored: str, record: Record) -> None:
    assert wire.unpack(bytes.fromhex(stored)) == record
    packed = wire.pack(
        record.revision,
        record.value,
        record.media_type,
        record.expires_at,
        record.stale_until,
        record.stored_at,
    )
    assert bytes.fromhex(stored) in (packed, wire.as_copy(packed))


@pytest.mark.parametrize(("stored", "record"), VERSION_2)
def test_a_record_stored_by_version_2_is_read(stored: str, record: Record) -> None:
    assert wire.unpack_long(bytes.fromhex(stored)) == (record, 8192)


@pytest.mark.parametrize(("stored", "record"), VERSION_1)
def test_a_record_stored_by_version_1_is_read(stored: str, record: Record) -> None:
    assert wire.unpack(bytes.fromhex(stored)) == record


@pytest.mark.parametrize(("stored", "record"), VERSION_1)
def test_a_record_is_stored_as_version_1_did(stored: str, record: Record) -> None:
    raw = wire.pack(record.revision, record.value, record.media_type, record.expires_at)
    assert raw == bytes.fromhex(stored)
