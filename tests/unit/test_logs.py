"""Log lines: one record is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from keyrack.server import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

NASTY = 'a\nb\r\x1b[31m\x00\x7f\x9b2J\u2028\u202e"\ud800'


class Log:
    """What was logged through a configured root logger."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def lines(self) -> list[str]:
        raw = os.pread(self.descriptor, 1 << 20, 0)
        assert raw == b"" or raw.endswith(b"\n")
        return raw.decode().split("\n")[:-1]

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def log(tmp_path: Any) -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield Log(descriptor)
    os.close(descriptor)
    root.handlers[:] = handlers
    root.setLevel(level)


def configure(log: Log, level: str = "info", terminal: bool = False) -> logging.Logger:
    logs.configure(level, log.descriptor, terminal)
    return logging.getLogger("keyrack.test")


def test_a_json_line_says_when_how_grave_who_what_and_all_extras(log: Log) -> None:
    configure(log).warning("%d keys", 3, extra={"event": "swept", "seconds": 0.5})
    (record,) = log.records()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {
        "level": "warning",
        "logger": "keyrack.test",
        "message": "3 keys",
        "pid": os.getpid(),
        "event": "swept",
        "seconds": 0.5,
    }


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_a_record_can_begin_a_line_or_steer_a_terminal(log: Log, terminal: bool) -> None:
    configure(log, terminal=terminal).info("key %s", NASTY, extra={"key": NASTY})
    (line,) = log.lines()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", line)


def test_json_keeps_what_it_escapes(log: Log) -> None:
    configure(log).info("%s", "a\n\x9b\u2028é")
    assert log.records()[0]["message"] == "a\n\x9b\u2028é"


def test_extras_cannot_replace_what_every_line_has(log: Log) -> None:
    configure(log).info("a", extra={"level": "none", "pid": 0, "time": "never"})
    (record,) = log.records()
    assert (record["level"], record["pid"]) == ("info", os.getpid())


def test_extras_that_are_no_json_are_shown_as_text(log: Log) -> None:
    configure(log).info("a", extra={"odd": {(1, 2): object}, "raw": b"x", "path": os})
    assert "(1, 2)" in log.records()[0]["odd"]


def test_an_exception_is_one_member_in_json_and_indented_on_a_terminal(log: Log) -> None:
    for terminal in (False, True):
        logger = configure(log, terminal=terminal)
        try:
            raise ValueError("first\n2026-01-01T00:00:00.000Z info    forged")
        except ValueError:
            logger.exception("failed")
    in_json, *on_terminal = log.lines()
    assert "ValueError: first" in json.loads(in_json)["exception"]
    assert all(line.startswith("    ") for line in on_terminal[1:])


def test_a_text_line_is_readable(log: Log) -> None:
    configure(log, terminal=True).info("stored", extra={"key": "ä b"})
    assert log.lines()[0].endswith("Z info    stored  key=ä b")


def test_records_below_the_level_are_dropped_but_not_the_logs_with_switches(log: Log) -> None:
    configure(log, "error").warning("dropped")
    for name in (logs.ACCESS, logs.AUDIT):
        logging.getLogger(name).info("GET / 200")
    assert [record["message"] for record in log.records()] == ["GET / 200"] * 2


def test_uvicorn_is_quiet_unless_it_warns_or_debugging_is_on(log: Log) -> None:
    uvicorn = logging.getLogger("uvicorn.error")
    for level in ("info", "debug"):
        configure(log, level)
        uvicorn.info("Started", extra={"color_message": "x"})
        uvicorn.warning("Odd")
    said = [(record["message"], "color_message" in record) for record in log.records()]
    assert said == [("Odd", False), ("Started", False), ("Odd", False)]


def test_configuring_twice_does_not_log_twice(log: Log) -> None:
    configure(log)
    configure(log).info("once")
    assert len(log.lines()) == 1


def test_a_record_that_cannot_be_formatted_is_still_one_line(log: Log) -> None:
    configure(log).info("%d", "no number")
    (line,) = log.lines()
    assert "could not be shown" in line


def test_a_reader_that_has_gone_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = logs.LineHandler(logs.DescriptorSink(writer))
    handler.handle(logging.makeLogRecord({"msg": "nobody reads this"}))
    handler.close()
    os.close(writer)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1e9 + 0.0625, "2001-09-09T01:46:40.062Z"),
        (4294967295, "2106-02-07T06:28:15.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert logs.rfc3339(seconds) == text
