"""Hash homes: places sort as the 128-bit integers do, at both ends of a range and between."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from processor.core.homes import HashRange, place_of, places_of, range_of
from processor.model import Shard

hashes = st.one_of(
    st.integers(0, 2**128 - 1), st.integers(0, 300), st.integers(2**128 - 300, 2**128 - 1)
)
ranges = st.tuples(hashes, hashes).map(lambda ends: Shard("s", min(ends), max(ends)))


def test_a_partition_key_lies_where_the_service_puts_it() -> None:
    at = int(hashlib.md5(b"store-1").hexdigest(), 16)
    for shard, is_inside in (
        (Shard("s"), True),
        (Shard("s", at, at), True),
        (Shard("s", at + 1, 2**128 - 1), False),
        (Shard("s", 0, at - 1), False),
    ):
        assert (place_of("store-1") in range_of(shard)) == is_inside


@given(st.lists(hashes, max_size=20), ranges)
def test_a_mask_tells_what_comparing_integers_tells(at: list[int], shard: Shard) -> None:
    places = [number.to_bytes(16, "big") for number in at]
    expected = [shard.first_hash <= number <= shard.last_hash for number in at]
    assert range_of(shard).mask(b"".join(places)).tolist() == expected
    assert [place in range_of(shard) for place in places] == expected


def test_places_of_many_keys_lie_one_after_the_other() -> None:
    assert places_of(["a", "", "é"]) == place_of("a") + place_of("") + place_of("é")


@given(ranges, ranges, hashes)
def test_what_lies_in_both_ranges_lies_in_their_overlap(one: Shard, two: Shard, at: int) -> None:
    place, overlap = at.to_bytes(16, "big"), range_of(one).overlap(range_of(two))
    in_both = place in range_of(one) and place in range_of(two)
    assert in_both == (overlap is not None and place in overlap)
    assert overlap == range_of(two).overlap(range_of(one))
    assert isinstance(range_of(one).overlap(range_of(one)), HashRange)
