"""Floors: of which records the watermark is raised, and what is left of them at a reshard."""

from __future__ import annotations

import numpy as np

from processor.core.floors import Floor, inherited, raised, standing
from processor.core.homes import place_of, range_of
from processor.model import Shard

WHOLE = range_of(Shard("w"))
LOWER = range_of(Shard("l", 0, 2**127 - 1))
UPPER = range_of(Shard("u", 2**127, 2**128 - 1))
HIGH_KEY, LOW_KEY = "store-1", "store-2"


def test_the_keys_of_these_tests_lie_where_their_names_say() -> None:
    assert UPPER.mask(b"".join([place_of(HIGH_KEY), place_of(LOW_KEY)])).tolist() == [
        True,
        False,
    ]


def test_a_floor_raises_the_watermark_of_its_own_keys_only_and_never_lowers_it() -> None:
    keys = [HIGH_KEY, LOW_KEY, HIGH_KEY, LOW_KEY]
    watermarks = np.array([10, 10, 70, 70])
    assert raised([Floor(UPPER, 50)], watermarks, keys).tolist() == [50, 10, 70, 70]
    assert watermarks.tolist() == [10, 10, 70, 70]


def test_of_several_floors_the_highest_counts_in_any_order() -> None:
    floors = [Floor(WHOLE, 30), Floor(UPPER, 50)]
    for each in (floors, floors[::-1]):
        assert raised(each, np.array([10, 10]), [HIGH_KEY, LOW_KEY]).tolist() == [50, 30]


def test_a_floor_stands_until_the_watermark_has_come_to_it() -> None:
    floor = Floor(UPPER, 50)
    assert standing([floor], 49) == (floor,)
    assert standing([floor], 50) == ()


def test_a_child_keeps_what_lies_in_its_range_of_its_parents_watermarks_and_floors() -> None:
    """The parents merged: one over the lower half, one over the upper with a floor of its own."""
    top = range_of(Shard("t", 2**128 - 2**120, 2**128 - 1))
    parents = [(Floor(LOWER, 10), ()), (Floor(UPPER, 50), (Floor(top, 90),))]
    assert inherited(parents, WHOLE) == [Floor(LOWER, 10), Floor(UPPER, 50), Floor(top, 90)]
    assert inherited(reversed(parents), WHOLE) == inherited(parents, WHOLE)
    assert inherited(parents, LOWER) == [Floor(LOWER, 10)]
    assert inherited(parents, top) == [Floor(top, 50), Floor(top, 90)]
