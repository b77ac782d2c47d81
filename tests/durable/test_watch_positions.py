"""A watch goes on from a position that is still known, and is refused one whose changes were lost.

Every mode, every way of ending, and positions before, in and after what was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from api_support.streams import Watch

from durable.kept_service import KeptService

if TYPE_CHECKING:
    from pathlib import Path

KEPT, LOST = True, False


class Case(NamedTuple):
    """How a service is run and ended, and what is known after it: before a snapshot, and behind."""

    mode: str
    named: bool
    killed: bool
    before: bool
    behind: bool


CASES = [
    Case("none", named=True, killed=False, before=KEPT, behind=KEPT),
    Case("none", named=True, killed=True, before=KEPT, behind=KEPT),
    Case("none", named=False, killed=False, before=LOST, behind=LOST),
    Case("none", named=False, killed=True, before=LOST, behind=LOST),
    Case("snapshot", named=True, killed=False, before=KEPT, behind=KEPT),
    Case("snapshot", named=True, killed=True, before=KEPT, behind=KEPT),
    Case("snapshot", named=False, killed=False, before=KEPT, behind=KEPT),
    Case("snapshot", named=False, killed=True, before=KEPT, behind=LOST),
    Case("commit", named=True, killed=False, before=KEPT, behind=KEPT),
    Case("commit", named=True, killed=True, before=KEPT, behind=KEPT),
    Case("commit", named=False, killed=False, before=KEPT, behind=KEPT),
    Case("commit", named=False, killed=True, before=KEPT, behind=KEPT),
]


def end(server: KeptService, killed: bool) -> None:
    if killed:
        server.kill_all()
    else:
        server._end()


def write(server: KeptService, key: str) -> int:
    return int(server.put(key, b"v").strip('"'))


def told_after(server: KeptService, position: int) -> list[int]:
    """Return the revisions that a watch from a position on tells of."""
    with Watch(server, f"?prefix=&since={position}") as watch:
        return [message.id for message in watch.synced() if message.event == "set"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:3])))
def test_a_position_is_known_or_refused(case: Case, disk: str, tmp_path: Path) -> None:
    flags = ("--store", str(tmp_path / "store")) if case.named else ()
    server = KeptService(case.mode, disk, *flags)
    before = [write(server, f"before/{n}") for n in range(3)]
    if case.mode != "none":
        assert server.ask("GET", "/v1/snapshot").status == 200
    behind = [write(server, f"behind/{n}") for n in range(3)]
    end(server, case.killed)
    lost = [*([] if case.before else before), *([] if case.behind else behind)]
    kept = [revision for revision in [*before, *behind] if revision not in lost]
    for life in range(2):
        server = KeptService(case.mode, disk, *flags)
        kept += [write(server, f"after/{life}/{n}") for n in range(3)]
        for position in kept:
            assert told_after(server, position) == [one for one in kept if one > position]
        for position in lost:
            assert server.ask("GET", f"/v1/watch?prefix=&since={position}").status == 410
        server._end()
        if case.mode == "none" and not case.named:
            lost += kept
            kept = []
