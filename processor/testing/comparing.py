"""What was told against what was expected: which event is which, and where they differ.

An expectation names some fields of an event; several may fit one event, and one several. So they
are paired like workers and jobs (a largest matching, by augmenting paths: Kuhn 1955, Berge 1957),
and a broad expectation never takes what only a narrow one could. What is left over is told beside
its nearest: the pair of which the most fields agree, first of all rule, key and window.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from processor.core.matching import ABSENT
from processor.testing.suite import Expect, Expected, Leaf

# Six digits: as many as an event's sentence has, and more than a mean is written with.
TOLERANCE = 1e-6
# A field that names an event weighs more than one that it tells; without any of these, an event
# that merely has as many records would be the nearest.
WEIGHTS = {"rule": 8, "key": 8, "window": 4, "detail_type": 4, "anomaly": 2, "reason": 8}

Told = Mapping[str, Any]  # an event's detail with its sink and type, or a dead letter


class Outcome(Struct, frozen=True):
    """All that a pipeline told since the last expectation."""

    events: Sequence[Told]
    dead_letters: Sequence[Told]
    late: Mapping[str, int]
    duplicates: int = 0
    unmatched: int = 0


class Field(Struct, frozen=True):
    """One field that is not as expected; `told` is ABSENT where there is none."""

    path: tuple[str, ...]
    expected: Any
    told: Any


class Difference(Struct, frozen=True):
    """`what`: event or dead letter, or what is counted. `fields` where a nearest one was told."""

    what: str
    line: int
    expected: Any = None  # as it is written; None: nothing of it was expected
    told: Any = None  # None: nothing was told that comes near
    fields: tuple[Field, ...] = ()


def differences(expect: Expect, outcome: Outcome) -> list[Difference]:
    found = _compared("event", expect.events, outcome.events, expect)
    found += _compared("dead letter", expect.dead_letters, outcome.dead_letters, expect)
    return found + _counts(expect, outcome)


def _counts(expect: Expect, outcome: Outcome) -> list[Difference]:
    late: Any = sum(outcome.late.values())
    if isinstance(expect.late, Mapping):
        late = {name: n for name, n in outcome.late.items() if n or name in expect.late}
    each = [("late", expect.late, late), ("duplicates", expect.duplicates, outcome.duplicates)]
    if expect.unmatched is not None:
        each.append(("unmatched", expect.unmatched, outcome.unmatched))
    return [
        Difference(what, expect.line, wanted, told) for what, wanted, told in each if wanted != told
    ]


def _compared(
    what: str, expected: Sequence[Expected], told: Sequence[Told], expect: Expect
) -> list[Difference]:
    pairs = matching([[agrees(one, other) for other in told] for one in expected], len(told))
    missing = [one for i, one in enumerate(expected) if i not in pairs]
    taken = set(pairs.values())
    left = [other for j, other in enumerate(told) if j not in taken]
    found = []
    for one in missing:
        near = _nearest(one, left)
        fields = () if near is None else tuple(fields_of(one, near))
        found.append(Difference(what, one.line, one.written, near, fields))
        if near is not None:
            left.remove(near)
    if expect.is_exact or what != "event":  # a bad record is never by the way
        found += [Difference(what, expect.line, None, other) for other in left]
    return found


def _nearest(one: Expected, left: Sequence[Told]) -> Told | None:
    """None where not even what names it agrees."""
    most = max(left, key=lambda other: _likeness(one, other), default=None)
    whole = sum(map(_weight, one.leaves))
    return most if most is not None and 2 * _likeness(one, most) >= whole else None


def _likeness(one: Expected, other: Told) -> int:
    return sum(_weight(leaf) for leaf in one.leaves if is_as(leaf, value_at(other, leaf.path)))


def _weight(leaf: Leaf) -> int:
    return WEIGHTS.get(leaf.path[0], 1) if leaf.path else 1


# ---- one event ------------------------------------------------------------------------------


def agrees(one: Expected, other: Told) -> bool:
    return all(is_as(leaf, value_at(other, leaf.path)) for leaf in one.leaves)


def fields_of(one: Expected, other: Told) -> list[Field]:
    told = [(leaf, value_at(other, leaf.path)) for leaf in one.leaves]
    return [Field(leaf.path, leaf.value, value) for leaf, value in told if not is_as(leaf, value)]


def value_at(told: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(told, Mapping) or part not in told:
            return ABSENT
        told = told[part]
    return told


def is_as(leaf: Leaf, value: Any) -> bool:
    if leaf.pattern is not None:
        return bool(leaf.pattern.mask({"value": [value]}, 1)[0])
    return _is_same(leaf.value, value)


def _is_same(one: Any, other: Any) -> bool:
    """Types count, but 1 is 1.0; of floats six digits do."""
    if _is_number(one) and _is_number(other):
        if isinstance(one, int) and isinstance(other, int):
            return one == other
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)
    return type(one) is type(other) and one == other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- which is which -------------------------------------------------------------------------


def matching(fits: Sequence[Sequence[bool]], n: int) -> dict[int, int]:
    """A largest pairing of rows with columns that fit: column by row."""
    of_row: dict[int, int] = {}
    of_column: dict[int, int] = {}
    for start in range(len(fits)):
        came_from = _path(start, fits, n, of_column)
        column = came_from.pop(-1, -1)
        while column >= 0:
            row = came_from[column]
            before = of_row.get(row, -1)
            of_row[row], of_column[column] = column, row
            column = before
    return of_row


def _path(
    start: int, fits: Sequence[Sequence[bool]], n: int, of_column: Mapping[int, int]
) -> dict[int, int]:
    """Rows by the columns that were reached from them; -1: the free column that ends the path."""
    came_from: dict[int, int] = {}
    rows = deque([start])
    while rows:
        row = rows.popleft()
        for column in range(n):
            if fits[row][column] and column not in came_from:
                came_from[column] = row
                if column not in of_column:
                    came_from[-1] = column
                    return came_from
                rows.append(of_column[column])
    return {}
