"""Is a history linearizable? A checker for one key at a time, because keys are independent.

A history is what clients saw: for each operation when it was asked, when it was answered, and what
the answer was. It is linearizable when every operation can be given one moment between question
and answer, so that a single store that does them in the order of these moments answers the same.

The search is that of Wing and Gong, done in the order of time (Lowe's "just-in-time" variant): it
walks over questions and answers and keeps all the ways in which the store may have got here, each a
state together with the operations under way that were already done in it. A question adds an
operation to those under way. An answer lets each way do operations under way, in every order, until
the answered one is done; ways in which it cannot be done as it was answered are given up. Ways that
are equal are kept once. When none is left, no order explains the history.

An operation whose answer was lost is never required to be done. Where two ways are equal but for
that, the one that has done less can still do whatever the other can, so the other is forgotten;
and of lost operations that do the same only the one that is given up first is tried. Without these
two rules a history with many lost operations would have more ways than atoms.

Revisions are part of the state: each change of a key must have a greater one than the last, and an
`ETag` that an answer carries must be that of the state. A lost change has a revision that nobody
was told; it is learned when the first answer shows it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NEVER: Final = math.inf


class Found(NamedTuple):
    """An answer to a read. `revision` is 0 where the answer does not tell it."""

    value: bytes
    revision: int = 0


class Missing(NamedTuple):
    """The answer that there is no such key."""


class Done(NamedTuple):
    """A change was made: its revision, and whether the key was there before, as far as told."""

    revision: int = 0
    existed: bool | None = None


class Added(NamedTuple):
    """A number was added to: what it is now, and the change's revision."""

    number: int
    revision: int = 0


class Refused(NamedTuple):
    """A precondition did not hold: the key's revision then, 0 when it was missing."""

    revision: int


Answer: TypeAlias = Found | Missing | Done | Added | Refused


class Get(NamedTuple):
    """Read."""


class Set(NamedTuple):
    """Write. `match` is a revision that the key must have; `create` means it must be missing."""

    value: bytes
    match: int = 0
    create: bool = False


class Delete(NamedTuple):
    """Remove. `match` is a revision that the key must have."""

    match: int = 0


class Add(NamedTuple):
    """Add to the number that the value is, from 0 where the key is missing."""

    delta: int


Action: TypeAlias = Get | Set | Delete | Add


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client. Times are of one clock that all clients share.

    Without an answer it was lost, and may or may not have been done. It is done by `answered` or
    not at all; NEVER means that it may still be done at any time.
    """

    key: str
    action: Action
    asked: float
    answered: float = NEVER
    answer: Answer | None = None

    def __str__(self) -> str:
        what = "lost" if self.answer is None else str(self.answer)
        return f"{self.asked} to {self.answered} {self.key}: {self.action} -> {what}"


class State(NamedTuple):
    """A key: its value (None: missing) and its revision, or what is known of that.

    `least` is the revision when `known`, else one that it is greater than.
    """

    value: bytes | None = None
    least: int = 0
    known: bool = False

    def at(self, revision: int) -> State | None:
        """Return this state if its revision is the given one, or may be; 0 is no claim."""
        if revision == 0 or (self.known and self.least == revision):
            return self
        if self.known or self.value is None or revision <= self.least:
            return None
        return State(self.value, revision, True)

    def changed(self, value: bytes | None, revision: int) -> State | None:
        """Return the state after a change; a revision of 0 is one that nobody was told."""
        if revision == 0:
            return State(value, self.least)
        return State(value, revision, True) if revision > self.least else None


INITIAL: Final = State()


def after(state: State, action: Action, answer: Answer | None) -> State | None:
    """Return the state after an action that was answered so; None when that cannot be.

    Of a lost action (no answer) it is the state after it was done; None where it does nothing.
    """
    if isinstance(action, Get):
        return _after_get(state, answer)
    if isinstance(action, Add):
        return _after_add(state, action, answer)
    if isinstance(answer, Refused):
        return _after_refusal(state, action, answer)
    if isinstance(answer, Missing):
        return state if isinstance(action, Delete) and state.value is None else None
    before = _if_held(state, action)
    if before is None:
        return None
    existed = state.value is not None
    revision = 0
    if isinstance(answer, Done):
        if answer.existed not in (None, existed):
            return None
        revision = answer.revision
    if isinstance(action, Set):
        return before.changed(action.value, revision)
    return before.changed(None, revision) if existed else None


def _after_get(state: State, answer: Answer | None) -> State | None:
    if isinstance(answer, Found):
        return state.at(answer.revision) if state.value == answer.value else None
    return state if answer is None or state.value is None else None


def _after_add(state: State, action: Add, answer: Answer | None) -> State | None:
    number = int(state.value or b"0") + action.delta
    if answer is None:
        return state.changed(b"%d" % number, 0)
    if not isinstance(answer, Added) or answer.number != number:
        return None
    return state.changed(b"%d" % number, answer.revision)


def _after_refusal(state: State, action: Set | Delete, answer: Refused) -> State | None:
    if answer.revision == 0:
        return state if state.value is None and action.match else None
    if state.value is None or answer.revision == action.match:
        return None
    if not action.match and not (isinstance(action, Set) and action.create):
        return None
    return state.at(answer.revision)


def _if_held(state: State, action: Set | Delete) -> State | None:
    """Return the state in which the action's condition holds, None when it does not."""
    if isinstance(action, Set) and action.create and state.value is not None:
        return None
    if not action.match:
        return state
    return state.at(action.match) if state.value is not None else None


# The search

_Way: TypeAlias = tuple[State, frozenset[int], frozenset[int]]
"""A state, and which operations under way are done in it: answered ones, lost ones."""


class _Search:
    """The walk over one key's history. Operations are named by their place in it."""

    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._ways: set[_Way] = {(INITIAL, frozenset(), frozenset())}
        self._asked: list[int] = []
        """Under way, and the answer is known."""
        self._lost: dict[Action, list[int]] = {}
        """Under way, and lost: what does the same together, the first to be given up first."""

    def fault(self) -> int | None:
        """Return the first operation that no way can explain, None when all are explained."""
        for _, answers, number in self._moments():
            operation = self._operations[number]
            lost = operation.answer is None
            if not answers and lost:
                same = self._lost.setdefault(operation.action, [])
                insort(same, number, key=lambda one: self._operations[one].answered)
            elif not answers:
                self._asked.append(number)
            elif lost:
                self._give_up(number)
            elif not self._take_answer(number):
                return number
        return None

    def _moments(self) -> list[tuple[float, bool, int]]:
        """Return questions (False) and answers (True) in order; of equal times questions first."""
        moments = []
        for number, operation in enumerate(self._operations):
            if operation.answer is None and isinstance(operation.action, Get):
                continue
            moments.append((operation.asked, False, number))
            if operation.answered != NEVER:
                moments.append((operation.answered, True, number))
        return sorted(moments)

    def _take_answer(self, number: int) -> bool:
        reached: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = defaultdict(list)
        seen = set(self._ways)
        stack = list(self._ways)
        while stack:
            way = stack.pop()
            state, done, lost = way
            if number in done:
                _keep_least(reached[state, done - {number}], lost)
                continue
            for following in self._steps(way):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
        self._asked.remove(number)
        self._ways = {(state, done, lost) for (state, done), all in reached.items() for lost in all}
        return bool(self._ways)

    def _steps(self, way: _Way) -> Iterator[_Way]:
        state, done, lost = way
        for number in self._asked:
            if number not in done:
                operation = self._operations[number]
                following = after(state, operation.action, operation.answer)
                if following is not None:
                    yield following, done | {number}, lost
        for action, numbers in self._lost.items():
            number = next((number for number in numbers if number not in lost), None)
            if number is not None:
                following = after(state, action, None)
                if following is not None:
                    yield following, done, lost | {number}

    def _give_up(self, number: int) -> None:
        """From now on a lost operation was done, or never is. It may be what nobody asked for."""
        operation = self._operations[number]
        ways = list(self._ways)
        for state, done, lost in self._ways:
            if number in lost:
                continue
            # What was answered later may have been done after it: let it be done now, last.
            ways += self._until_done((state, done, lost), number)
        numbers = self._lost[operation.action]
        numbers.remove(number)
        if not numbers:
            del self._lost[operation.action]
        reached: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = defaultdict(list)
        for state, done, lost in ways:
            _keep_least(reached[state, done], lost - {number})
        self._ways = {(state, done, lost) for (state, done), all in reached.items() for lost in all}

    def _until_done(self, way: _Way, number: int) -> Iterator[_Way]:
        """Yield the ways in which a lost operation is done, as the last so far."""
        seen = {way}
        stack = [way]
        while stack:
            way = stack.pop()
            if number in way[2]:
                yield way
                continue
            for following in self._steps(way):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)


def _keep_least(kept: list[frozenset[int]], lost: frozenset[int]) -> None:
    """Add a set of lost operations that were done, unless a smaller one is there."""
    if any(other <= lost for other in kept):
        return
    kept[:] = [other for other in kept if not lost <= other]
    kept.append(lost)


# Whole histories


def by_key(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return each key's operations in the order in which they were asked."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        keys[operation.key].append(operation)
    for operations in keys.values():
        operations.sort(key=lambda operation: operation.asked)
    return keys


def why_not_linearizable(history: Iterable[Operation]) -> str | None:
    """Return None for a linearizable history, else a text that shows where it stops being one."""
    for key, operations in by_key(history).items():
        fault = _Search(operations).fault()
        if fault is not None:
            return _shown(key, operations, fault)
    return None


def _shown(key: str, operations: list[Operation], fault: int) -> str:
    at = operations[fault]
    near = [
        operation
        for operation in operations
        if operation.answered >= 2 * at.asked - at.answered and operation.asked <= at.answered
    ]
    shown = [f"{'>>' if one is at else '  '} {one}" for one in near[-40:]]
    return "\n".join((f"no order explains this answer of {key}:", *shown))


def why_not_ordered(history: Iterable[Operation]) -> str | None:
    """Return None when revisions are unique and follow real time over all keys, else a text.

    A change that was asked after another was answered has the greater revision, whatever the keys.
    """
    changes = [
        (operation, operation.answer.revision)
        for operation in history
        if isinstance(operation.answer, Done | Added) and operation.answer.revision
    ]
    changes.sort(key=lambda change: change[1])
    for (first, one), (second, other) in pairwise(changes):
        if one == other:
            return f"the revision {one} was given twice:\n  {first}\n  {second}"
    earliest: Operation | None = None
    for operation, _ in reversed(changes):
        if earliest is not None and earliest.answered < operation.asked:
            return f"an older revision was given later:\n  {earliest}\n  {operation}"
        if earliest is None or operation.answered < earliest.answered:
            earliest = operation
    return None
