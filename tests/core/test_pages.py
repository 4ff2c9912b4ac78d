"""Pages are cut where marks lie, so that a replay applies each at its position again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core import pages
from processor.model import END, TRIM_HORIZON, Mark, Page, Position, Shard

BASE = 10**55  # sequence numbers have up to 64 digits: no float, no int64 holds them


def after(n: int) -> Position:
    return Position("after", str(BASE + n))


def page(*numbers: int, children: tuple[Shard, ...] | None = None) -> Page:
    return Page(
        payloads=[b"%d" % n for n in numbers],
        sequence_numbers=[str(BASE + n) for n in numbers],
        partition_keys=[f"k{n}" for n in numbers],
        arrivals_ms=np.array(numbers, dtype=np.int64),
        millis_behind=7,
        date_ms=8,
        children=children,
    )


def mark(position: Position, watermark_ms: int = 0) -> Mark:
    return Mark(position, "idle", watermark_ms)


def cut(taken: Page, marks: list[Mark]) -> list[Any]:
    """Each page as its numbers, each mark as itself."""
    return [
        item.arrivals_ms.tolist() if isinstance(item, Page) else item
        for item in pages.cut(taken, marks)
    ]


# ---- before and after -----------------------------------------------------------------------

POSITIONS = [TRIM_HORIZON, after(1), after(2), END]


def test_positions_of_a_shard_stand_in_order_from_its_horizon_to_its_end() -> None:
    for i, one in enumerate(POSITIONS):
        for j, other in enumerate(POSITIONS):
            assert pages.is_behind(one, other) == (i < j)


def test_sequence_numbers_are_compared_as_integers_with_and_without_zeros_before() -> None:
    assert pages.is_behind(Position("after", "9"), Position("after", "10"))
    assert not pages.is_behind(Position("after", "0010"), Position("after", "9"))
    assert not pages.is_behind(Position("after", "0010"), Position("after", "10"))


def test_starts_of_either_kind_come_before_every_record() -> None:
    start = Position("at_time", "1700000000000")
    assert pages.is_behind(start, after(0))
    assert not pages.is_behind(after(0), start)
    assert not pages.is_behind(start, TRIM_HORIZON)


def test_a_replay_meets_the_marks_at_its_position_and_past_it() -> None:
    marks = [mark(TRIM_HORIZON), mark(after(1)), mark(after(2), 5), mark(after(2), 6)]
    assert pages.pending(marks, TRIM_HORIZON) == marks
    assert pages.pending(marks, after(1)) == marks[1:]
    assert pages.pending(marks, after(2)) == marks[2:]
    assert pages.pending(marks, after(3)) == []
    assert pages.pending(marks, END) == []


# ---- the cut --------------------------------------------------------------------------------


def test_a_page_without_marks_stays_as_it_is() -> None:
    whole = page(1, 2, 3)
    assert list(pages.cut(whole, [])) == [whole]
    assert cut(whole, [mark(after(4))]) == [[1, 2, 3]]


def test_an_empty_page_leaves_all_marks() -> None:
    marks = [mark(TRIM_HORIZON), mark(after(1))]
    assert cut(page(), marks) == [[]]
    assert len(marks) == 2


@pytest.mark.parametrize(
    ("position", "first", "rest"),
    [
        (TRIM_HORIZON, [], [[1, 3, 5]]),
        (after(0), [], [[1, 3, 5]]),
        (after(1), [[1]], [[3, 5]]),
        (after(2), [[1]], [[3, 5]]),  # its record was aggregated away, or expired
        (after(3), [[1, 3]], [[5]]),
        (after(5), [[1, 3, 5]], []),
    ],
)
def test_a_mark_comes_after_the_last_record_at_its_position(
    position: Position, first: list[Any], rest: list[Any]
) -> None:
    there, later = mark(position), mark(after(6))
    marks = [there, later]
    assert cut(page(1, 3, 5), marks) == [*first, there, *rest]
    assert marks == [later], "what was met is taken, the rest stays for the next page"


def test_records_that_share_a_sequence_number_are_not_torn_apart() -> None:
    there = mark(after(2))
    assert cut(page(1, 2, 2, 2, 3), [there]) == [[1, 2, 2, 2], there, [3]]


def test_two_marks_at_one_position_come_one_after_the_other() -> None:
    two = [mark(after(1), 5), mark(after(1), 6)]
    assert cut(page(1, 2), list(two)) == [[1], *two, [2]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=20), st.lists(st.integers(-1, 32), max_size=6))
def test_cutting_loses_no_record_and_keeps_every_mark_in_its_place(
    numbers: list[int], places: list[int]
) -> None:
    whole = page(*sorted(numbers), children=(Shard("child"),))
    marks = [mark(after(place)) for place in sorted(places)]
    left = list(marks)
    items = list(pages.cut(whole, left))
    parts = [item for item in items if isinstance(item, Page)]
    for name in ("payloads", "sequence_numbers", "partition_keys"):
        assert [x for part in parts for x in getattr(part, name)] == getattr(whole, name)
    assert np.concatenate([part.arrivals_ms for part in parts]).tolist() == sorted(numbers)
    assert {(p.millis_behind, p.date_ms, p.children) for p in parts} == {(7, 8, whole.children)}
    assert [item for item in items if isinstance(item, Mark)] + left == marks
    last: Position = TRIM_HORIZON
    for item in items:
        if isinstance(item, Mark):
            assert not pages.is_behind(item.position, last)
        elif len(item):
            assert not any(pages.is_behind(m.position, last) for m in left)
            last = Position("after", item.sequence_numbers[-1])
