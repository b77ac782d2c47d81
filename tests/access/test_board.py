"""What processes share about access: the document, the epoch, who has seen it."""

from __future__ import annotations

import os

from keyrack.access.table import Reason
from keyrack.shared.access_board import FAILURES, AccessBoard


def test_the_last_document_is_read_by_every_process() -> None:
    board = AccessBoard(2)
    assert board.document() == b""
    for number in range(5):
        board.publish(b"x" * number, 1000 + number)
        if (child := os.fork()) == 0:
            os._exit(board.document() != b"x" * number)
        assert os.waitpid(child, 0)[1] == 0
    assert board.last_reload_ms == 1004


def test_a_document_is_never_read_in_part() -> None:
    board = AccessBoard(1)
    board.publish(b"\0" * 100_000, 1)
    if (child := os.fork()) == 0:
        for number in range(2_000):
            board.publish(bytes([number % 251]) * (1 + number * 40), 1)
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert len(set(board.document())) == 1
    assert len(board.document()) == 1 + 1_999 * 40


def test_a_document_raises_the_epoch_and_ends_a_failure() -> None:
    board = AccessBoard(1)
    before = board.epochs.epoch()
    board.fail()
    assert board.failed
    assert board.epochs.epoch() == before
    board.publish(b"", 1)
    assert board.epochs.epoch() == before + 1
    assert not board.failed


def test_no_two_changes_get_the_same_epoch() -> None:
    board = AccessBoard(4)
    children = []
    for worker in range(4):
        if (child := os.fork()) == 0:
            for _ in range(5_000):
                before = board.epochs.epoch()
                if board.epochs.raise_epoch(worker) <= before:
                    os._exit(1)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert board.epochs.epoch() == 20_000


def test_it_is_known_who_has_seen_what() -> None:
    board = AccessBoard(2)
    epoch = board.epochs.raise_epoch(0)
    board.epochs.see(1, epoch)
    assert board.epochs.seen(0) < epoch <= board.epochs.seen(1)


def test_a_key_that_is_wanted_is_told_of_once() -> None:
    board = AccessBoard(1)
    assert not board.keys_wanted()
    board.want_keys()
    assert board.keys_wanted()
    assert not board.keys_wanted()


def test_counts_are_those_of_all_workers() -> None:
    board = AccessBoard(3)
    for worker in range(3):
        board.count_failed_login(worker, "unknown")
    board.count_failed_login(0, "expired")
    assert board.failed_logins == {"malformed": 0, "expired": 1, "unknown": 3, "scheme": 0}


def test_every_reason_is_counted() -> None:
    assert [reason.name.lower() for reason in Reason] == list(FAILURES)
