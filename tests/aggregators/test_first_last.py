"""First and last by event time; of equal times the stream's order decides."""

from __future__ import annotations

import pytest

from tests.aggregators.support import Slots


@pytest.mark.parametrize(("kind", "expected"), [("first", 2.0), ("last", 3.0)])
def test_event_time_decides_not_the_order_of_arrival(kind: str, expected: float) -> None:
    for cut in range(5):
        values, times = [1.0, 2.0, 3.0, 4.0], [20, 10, 40, 30]
        slots = Slots(kind).add(values[:cut], times=times[:cut])
        assert slots.add(values[cut:], times=times[cut:]).result() == expected


@pytest.mark.parametrize(("kind", "expected"), [("first", 1.0), ("last", 4.0)])
def test_of_equal_times_position_decides_however_pages_are_cut(kind: str, expected: float) -> None:
    for cut in range(5):
        values = [1.0, 3.0, 2.0, 4.0]
        slots = Slots(kind).add(values[:cut], times=[7] * cut)
        assert slots.add(values[cut:], times=[7] * (4 - cut)).result() == expected


@pytest.mark.parametrize(("kind", "expected"), [("first", 1.0), ("last", 9.0)])
def test_at_equal_times_the_order_of_merging_does_not_show(kind: str, expected: float) -> None:
    parts = [Slots(kind).add([value], times=[7]) for value in (5.0, 1.0, 9.0)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        whole = Slots(kind)
        for i in order:
            whole.merge(3, parts[i], 0)
        assert whole.result(3) == expected


def test_times_before_1970_are_times_too() -> None:
    assert Slots("first").add([1.0, 2.0], times=[0, -5]).result() == 2.0
    assert Slots("last").add([1.0, 2.0], times=[-9, -5]).result() == 2.0
