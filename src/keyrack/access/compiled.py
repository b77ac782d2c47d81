"""Rules in the form that requests are judged by. It decides as `rules.RuleSet.decide` does.

The rules that name a verb are first brought into a tree of beginnings, in which each allowance is
inside a denial (or nothing) and each denial inside an allowance; what changes nothing is gone. From
the tree come two things:

- a test for one key: nothing where everything is allowed, `startswith` of a tuple where the tree
  has beginnings only, otherwise one regular expression: the allowed patterns, each with a lookahead
  for the denials directly inside it.
- the edges between what is allowed and what is not, in the order of keys, with which questions
  about all keys of a prefix are answered, and with which a listing jumps over what is denied.
"""

from __future__ import annotations

import itertools
import operator
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from keyrack.access.rules import Rule, Sourced


class _Node(NamedTuple):
    """A rule that changes something where it is. Denials directly inside it are its holes."""

    pattern: bytes
    beginning: bool
    allowed: bool
    holes: list[_Node]


class Permission:
    """Where one verb is allowed.

    `test` is None where it is allowed on every key; otherwise its result is true for keys on which
    it is. `edges` are the keys at which it begins and ends to be allowed, in turn.
    """

    __slots__ = ("beginnings", "edges", "test")

    def __init__(self, naming: Iterable[Sourced]) -> None:
        nodes = _tree(one.rule for one in naming)
        self.edges: Sequence[bytes] = _edges(nodes)
        self.beginnings = tuple(
            n.pattern for n in nodes if n.allowed and n.beginning and not n.holes
        )
        """Prefixes that rules allow as a whole."""
        self.test: Callable[[bytes], object] | None = None
        if self.edges != [b""]:
            self.test = _test(nodes)

    def allows(self, key: bytes) -> bool:
        """Tell whether it is allowed on a key."""
        return self.test is None or bool(self.test(key))

    def allows_whole(self, prefix: bytes) -> bool:
        """Tell whether it is allowed on every key that begins with a prefix. O(log rules)."""
        return self.ranges(prefix) == [(prefix, successor(prefix))]

    def ranges(self, prefix: bytes) -> list[tuple[bytes, bytes | None]]:
        """Return where it is allowed below a prefix, in the order of keys, none touching the next.

        Each range has its first key and the first key behind it, None for the end of all keys.
        """
        end = successor(prefix)
        at = bisect_right(self.edges, prefix)
        inside = at % 2 == 1
        found: list[tuple[bytes, bytes | None]] = []
        low = prefix if inside else None
        for edge in self.edges[at:]:
            if end is not None and edge >= end:
                break
            if low is None:
                low = edge
            else:
                found.append((low, edge))
                low = None
        if low is not None:
            found.append((low, end))
        return found


def successor(prefix: bytes) -> bytes | None:
    """Return the least key that is greater than all that begin with `prefix`, None if none is."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def _tree(rules: Iterable[Rule]) -> list[_Node]:
    """Return what changes something, in the order of keys, the outer before the inner."""
    allowed: dict[tuple[bytes, bool], bool] = {}
    for rule in rules:
        place = (rule.pattern, rule.beginning)
        allowed[place] = allowed.get(place, True) and not rule.deny
    nodes: list[_Node] = []
    around: list[_Node] = []
    # A beginning comes before the exact pattern of the same bytes, which is inside it.
    for pattern, beginning in sorted(allowed, key=lambda place: (place[0], not place[1])):
        while around and not pattern.startswith(around[-1].pattern):
            around.pop()
        node = _Node(pattern, beginning, allowed[pattern, beginning], [])
        if node.allowed == (around[-1].allowed if around else False):
            continue
        nodes.append(node)
        if around:
            around[-1].holes.append(node)
        if beginning:
            around.append(node)
    return nodes


def _edges(nodes: Iterable[_Node]) -> list[bytes]:
    marks: dict[bytes, bool] = {}
    around: list[_Node] = []

    def leave_all_that_end_before(pattern: bytes | None) -> None:
        while around and not (pattern or b"").startswith(around[-1].pattern):
            _leave()

    def _leave() -> None:
        node = around.pop()
        behind = successor(node.pattern)
        if behind is not None:
            marks[behind] = not node.allowed  # what is around a node is always its opposite

    for node in nodes:
        leave_all_that_end_before(node.pattern)
        marks[node.pattern] = node.allowed
        if node.beginning:
            around.append(node)
        else:
            marks[node.pattern + b"\0"] = not node.allowed
    while around:
        _leave()
    return _changes(marks)


def _changes(marks: dict[bytes, bool]) -> list[bytes]:
    edges: list[bytes] = []
    for point in sorted(marks):
        if marks[point] != (len(edges) % 2 == 1):
            edges.append(point)
    return edges


def _test(nodes: Sequence[_Node]) -> Callable[[bytes], object]:
    allowances = [node for node in nodes if node.allowed]
    if allowances and all(node.allowed and node.beginning for node in nodes):
        return operator.methodcaller("startswith", tuple(node.pattern for node in allowances))
    return re.compile(_any_of([(node.pattern, node) for node in allowances])).match


def _any_of(cases: Sequence[tuple[bytes, _Node]]) -> bytes:
    """Return an expression for nodes, given what is left of each one's pattern, in their order.

    Nodes of the same kind do not overlap but for their holes, so their order means nothing. What
    patterns share is written once: an expression of two hundred alternatives would try them all.
    """
    if not cases:
        return b"(?!)"
    branches = []
    for _, group in itertools.groupby(cases, key=lambda case: case[0][:1]):
        alike = list(group)
        if not alike[0][0]:
            branches += [_end(node) for _, node in alike]
            continue
        shared = _beginning_of_both(alike[0][0], alike[-1][0])
        rest = [(left[len(shared) :], node) for left, node in alike]
        branches.append(re.escape(shared) + _any_of(rest))
    return branches[0] if len(branches) == 1 else b"(?:%b)" % b"|".join(branches)


def _beginning_of_both(first: bytes, last: bytes) -> bytes:
    """Return what two texts begin with; so does all that is between them in the order of bytes."""
    pairs = enumerate(zip(first, last, strict=False))
    differ = (at for at, (one, other) in pairs if one != other)
    return first[: next(differ, min(len(first), len(last)))]


def _end(node: _Node) -> bytes:
    """Return what has to follow a node's pattern."""
    if not node.beginning:
        return rb"\Z"
    holes = [(hole.pattern[len(node.pattern) :], hole) for hole in node.holes]
    return b"(?!%b)" % _any_of(holes) if holes else b""
