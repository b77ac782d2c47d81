"""A snapshot's file is a promise, and what is not that file, byte for byte, is refused."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from engine_support.world import rounds

from keyrack.engines.contract import StoreFormatUnknown
from keyrack.engines.embedded.durability import changes, snapshot
from keyrack.engines.embedded.durability.changes import EVENTS
from keyrack.engines.embedded.durability.files import FILES
from keyrack.engines.embedded.durability.snapshot import (
    CHANGES,
    RECORDS,
    SnapshotDamaged,
    SnapshotHeader,
    Summary,
    Writer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keyrack.engines.embedded.durability.changes import Change

HEADER = SnapshotHeader(7, b"a data directory")
SUMMARY = Summary(1000, 2000, 3000, 40, 500, 6, 0)
SMALL: list[Change] = [(0, b"a", b"record"), (1, b"lock", b"holder"), (EVENTS, b"12345678", b"")]


def written(path: Path, records: list[Change], later: Sequence[Change] = ()) -> Path:
    """Write a snapshot in the way that is done for a store."""
    writer = Writer(FILES, str(path), HEADER)
    for change in records:
        writer.add(RECORDS, changes.pack([change]), 1)
    for change in later:
        writer.add(CHANGES, changes.pack([change]), 1)
    writer.finish(SUMMARY)
    writer.close()
    return path


def read(path: Path) -> list[tuple[int, Change]]:
    snapshot.verify(str(path))
    return [(kind, change) for kind, block in snapshot.read(str(path)) for change in block]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small", SMALL, [(0, b"a", None)])


@pytest.fixture
def big(tmp_path: Path) -> Path:
    chance = random.Random(1)
    return written(tmp_path / "big", [(0, b"%06d" % n, chance.randbytes(900)) for n in range(1200)])


def test_what_was_written_is_read(small: Path) -> None:
    assert read(small) == [*((RECORDS, change) for change in SMALL), (CHANGES, (0, b"a", None))]
    assert snapshot.verify(str(small)) == (HEADER, SUMMARY._replace(changes=4))


def test_the_bytes_of_version_4_stay_as_they_are(small: Path) -> None:
    data = small.read_bytes()
    assert data[:48] == (
        b"keyrack snapshot" + b"\0\0\0\4" + b"\0\0\0\0" + b"\0\0\0\0\0\0\0\7" + HEADER.directory
    )
    first = data[64 : 64 + 8]
    assert first == b"\1\0\0\0" + (7 + 1 + 6 + 7 + 4 + 6 + 7 + 8).to_bytes(4, "big")
    assert data[72:86] == b"\0" + b"\0\1" + b"\0\0\0\6" + b"a" + b"record"
    assert sha256(data).hexdigest() == (
        "f77657d2fca15ffcd35aaa5c5516c22f8f0a52f8fe31e4487dfa914cb21acfcc"
    )


def test_a_snapshot_that_is_cut_off_anywhere_is_refused(small: Path) -> None:
    data = small.read_bytes()
    for length in range(len(data)):
        small.write_bytes(data[:length])
        with pytest.raises(SnapshotDamaged):
            snapshot.verify(str(small))


def test_a_big_snapshot_that_is_cut_off_at_a_page_is_refused(big: Path) -> None:
    data = big.read_bytes()
    assert len(data) > 250 * 4096
    for length in range(0, len(data), 4096):
        big.write_bytes(data[:length])
        with pytest.raises(SnapshotDamaged):
            snapshot.verify(str(big))


def test_every_bit_counts(small: Path) -> None:
    data = small.read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        small.write_bytes(flipped)
        with pytest.raises((SnapshotDamaged, StoreFormatUnknown)):
            snapshot.verify(str(small))


def test_random_bits_of_a_big_snapshot_count(big: Path) -> None:
    data, chance = big.read_bytes(), random.Random(2)
    for _ in range(rounds(150)):
        flipped = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if flipped == data:
            continue
        big.write_bytes(flipped)
        with pytest.raises((SnapshotDamaged, StoreFormatUnknown)):
            snapshot.verify(str(big))


def blocks_of(data: bytes) -> list[bytes]:
    found, position = [], 64
    while position < len(data):
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "big") + 16
        found.append(data[position:end])
        position = end
    return found


def test_blocks_cannot_be_left_out_repeated_moved_or_exchanged(tmp_path: Path, big: Path) -> None:
    data = big.read_bytes()
    blocks = blocks_of(data)
    other = blocks_of(written(tmp_path / "other", [(0, b"x", b"y" * 300_000)]).read_bytes())
    assert len(blocks) > 4
    for wrong in (
        blocks[1:],
        blocks[:-2] + blocks[-1:],
        [blocks[0], *blocks],
        [blocks[1], blocks[0], *blocks[2:]],
        [*blocks[:-1], other[0], blocks[-1]],
        [*other[:1], *blocks[1:]],
        [*blocks, *other],
        [*blocks, b"\0"],
    ):
        big.write_bytes(data[:64] + b"".join(wrong))
        with pytest.raises(SnapshotDamaged):
            snapshot.verify(str(big))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_snapshot_of_an_earlier_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(snapshot, "VERSION", version)
    earlier = written(tmp_path / "earlier", SMALL)
    monkeypatch.undo()
    assert earlier.read_bytes()[16:20] == bytes((0, 0, 0, version))
    assert read(earlier) == [(RECORDS, change) for change in SMALL]


def test_another_version_is_refused_with_a_sentence(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "VERSION", 5)
    with pytest.raises(StoreFormatUnknown, match=r"has the format 4, and this version .* reads 5"):
        snapshot.verify(str(small))


def test_another_file_is_no_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"SQLite format 3\0" * 100)
    with pytest.raises(SnapshotDamaged, match="is no snapshot of Keyrack"):
        snapshot.verify(str(path))


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        snapshot.verify(str(tmp_path / "none"))


def test_a_number_of_changes_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    writer = Writer(FILES, str(path), HEADER)
    writer.add(RECORDS, changes.pack(SMALL), 4)
    writer.finish(SUMMARY)
    writer.close()
    with pytest.raises(SnapshotDamaged, match="holds 3 changes and says otherwise"):
        snapshot.verify(str(path))
