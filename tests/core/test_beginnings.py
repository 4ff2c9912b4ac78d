"""Beginnings: from where on which keys count, through conversions, splits and merges."""

from __future__ import annotations

import hashlib

import numpy as np

from processor.core import beginnings
from processor.core.beginnings import (
    ALWAYS_MS,
    BEGINNINGS_MAX,
    Beginning,
    Beginnings,
    Starts,
    anew,
    bounded,
    inherited,
    nths,
    renamed,
)
from processor.core.homes import NOWHERE, place_of
from processor.model import Shard

MIDDLE = 2**127
WHOLE = Shard("whole")
LEFT = Shard("left", 0, MIDDLE - 1)
RIGHT = Shard("right", MIDDLE, 2**128 - 1)


def key_in(shard: Shard) -> str:
    """A partition key that is at home there."""
    return next(
        text
        for text in map(str, range(1_000))
        if shard.first_hash <= int(hashlib.md5(text.encode()).hexdigest(), 16) <= shard.last_hash
    )


A, B = key_in(LEFT), key_in(RIGHT)


def of_key(held: Beginnings, home: str | None) -> Beginning:
    """That of a key: `home` is its PartitionKey, None where it has no hash home."""
    place = NOWHERE if home is None else place_of(home)
    (nth,) = nths(held, place, np.array([home is None])).tolist()
    return (*held, beginnings.WHOLE)[nth]


def test_without_a_record_before_it_a_section_is_whole() -> None:
    assert anew(WHOLE, None, "here") == ()
    assert of_key((), A) == beginnings.WHOLE
    assert renamed((), WHOLE, None, "here") == ()


def test_a_section_that_starts_anew_is_whole_after_the_newest_time_seen() -> None:
    (one,) = anew(LEFT, 99, "here")
    assert (one.since_ms, one.apart_until_ms, one.origin) == (100, 100, "here")
    assert of_key((one,), A) == of_key((one,), None) == one
    assert of_key((one,), B) == beginnings.WHOLE


def test_a_conversion_names_what_had_no_name_and_makes_nothing_partial() -> None:
    (one,) = renamed((), WHOLE, 99, "here")
    assert (one.since_ms, one.apart_until_ms, one.origin, one.homeless) == (
        ALWAYS_MS,
        100,
        "here",
        True,
    )
    late = anew(LEFT, 49, "before")
    found = renamed(late, WHOLE, 99, "here")
    assert [of_key(found, key).since_ms for key in (A, B)] == [50, ALWAYS_MS]
    assert {one.origin for one in found} == {"here"}
    assert {one.apart_until_ms for one in found} == {100}


def test_children_take_their_part_and_a_merged_child_that_of_each_parent() -> None:
    whole = anew(WHOLE, 9, "w")
    left, right = inherited([whole], LEFT), inherited([whole], RIGHT)
    assert of_key(left, A).since_ms == of_key(right, B).since_ms == 10
    assert inherited([left, right], WHOLE) == inherited([whole], WHOLE), "one again"
    apart = inherited([anew(LEFT, 9, "l"), anew(RIGHT, 19, "r")], WHOLE)
    assert [of_key(apart, key).origin for key in (A, B)] == ["l", "r"]
    assert [of_key(apart, key).since_ms for key in (A, B)] == [10, 20]
    assert of_key(apart, None) == beginnings.WHOLE, "keys without a home are the child's own"


def test_too_many_beginnings_go_on_as_one_that_is_partial_as_long_as_any() -> None:
    width = 2**128 // 256
    shards = [Shard(f"{n}", n * width, (n + 1) * width - 1) for n in range(BEGINNINGS_MAX + 1)]
    many = [one for n, shard in enumerate(shards) for one in anew(shard, n, f"{n}")]
    assert len(bounded(many[:-1])) == BEGINNINGS_MAX
    (one,) = bounded(many)
    assert one.since_ms == BEGINNINGS_MAX + 1
    assert (one.first, one.last) == (many[0].first, many[-1].last)
    assert bounded(many[::-1]) == (one,)
    other = [*many[:-1], Beginning(many[-1].first, many[-1].last, 5, 5, "another")]
    assert bounded(other)[0].origin != one.origin


def test_windows_of_each_key_are_judged_by_its_own_beginning() -> None:
    starts = Starts(WHOLE)
    starts.begin(inherited([anew(LEFT, 9, "l"), anew(RIGHT, 19, "r")], WHOLE))
    places = place_of(A) + place_of(B) + NOWHERE
    starts.know(np.arange(3), places, np.array([False, False, True]))
    rows = np.arange(3)
    assert starts.partial(rows, 9).tolist() == [True, True, False]
    assert starts.partial(rows, 10).tolist() == [False, True, False]
    assert starts.partial(rows, 20).tolist() == [False, False, False]
    assert [starts.origin(row) for row in range(3)] == ["l", "r", ""]
    assert starts.window_origin(0, 9, is_other=False) == "l"
    assert starts.window_origin(0, 10, is_other=False) == ""
    assert starts.may_be_whole(0), "keys without a home are whole"


def test_a_row_that_is_used_again_has_the_beginning_of_its_new_key() -> None:
    starts = Starts(WHOLE)
    starts.begin(inherited([anew(LEFT, 9, "l"), anew(RIGHT, 19, "r")], WHOLE))
    for key, origin in ((A, "l"), (B, "r"), (A, "l")):
        starts.know(np.array([5]), place_of(key), np.array([False]))
        assert starts.origin(5) == origin


def test_other_bears_its_origin_for_good_for_whom_it_holds_depends_on_the_beginning() -> None:
    starts = Starts(WHOLE)
    starts.begin(anew(WHOLE, 9, "w"))
    starts.know(np.array([0]), NOWHERE, np.array([True]))
    assert starts.window_origin(0, 10**6, is_other=True) == "w"
    assert not starts.may_be_whole(9)
    assert starts.may_be_whole(10)
