"""What a service that could not start leaves for the kubelet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyrack.server.termination import leave_message

if TYPE_CHECKING:
    from pathlib import Path


def test_the_sentence_replaces_what_an_earlier_start_left(tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    file.write_text("what an earlier start had to say, at some length")
    leave_message("the port 8088 is taken", str(file))
    assert file.read_text() == "the port 8088 is taken"


def test_no_more_is_written_than_is_read(tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    file.touch()
    leave_message("x" * 10_000, str(file))
    assert file.stat().st_size == 4096


def test_outside_of_kubernetes_nothing_is_made(tmp_path: Path) -> None:
    leave_message("unread", str(tmp_path / "termination-log"))
    leave_message("unread", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
