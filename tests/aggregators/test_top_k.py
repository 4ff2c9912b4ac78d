"""The most frequent keys: exact while few are different, bounded and honest beyond."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.aggregators.support import Slots

ROOM = 200


def zipf(n: int, seed: int = 5) -> list[str]:
    return [f"k{i}" for i in np.random.default_rng(seed).zipf(1.3, n).tolist()]


def spread(n: int) -> list[str]:
    """All different."""
    return [f"one-off {i}" for i in range(n)]


def in_parts(keys: list[str], cuts: list[int], **options: Any) -> Slots:
    slots = Slots("top_k", **options)
    for a, b in pairwise(sorted({0, len(keys), *(cut for cut in cuts if cut < len(keys))})):
        slots.add(keys[a:b])
    return slots


def test_of_equal_counts_integers_come_before_texts_each_in_order() -> None:
    keys = ["b", "a", 2, 10, "1", "b", "a"]
    found = Slots("top_k", k=5).add(keys).result()
    assert [(each["key"], each["count"]) for each in found] == [
        ("a", 2),
        ("b", 2),
        (2, 1),
        (10, 1),
        ("1", 1),
    ]


def test_fewer_keys_than_asked_for_are_all_there() -> None:
    assert Slots("top_k").add(["a"]).result() == [{"key": "a", "count": 1}]
    assert Slots("top_k").result() == []


def test_counts_are_exact_up_to_two_hundred_different_keys() -> None:
    keys = spread(ROOM) * 3 + ["one-off 7"] * 5
    first, *others = Slots("top_k").add(keys).result()
    assert first == {"key": "one-off 7", "count": 8}
    assert (
        others
        == [{"key": key, "count": 3} for key in sorted(spread(ROOM))[:10] if key != first["key"]][
            :9
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_beyond_that_each_true_count_lies_between_the_two_that_are_told(seed: int) -> None:
    keys = zipf(30_000, seed)
    truth = Counter(keys)
    found = Slots("top_k", k=10).add(keys).result()
    assert len(found) == 10
    for each in found:
        assert each["count"] <= truth[each["key"]] <= each["at_most"]
        assert each["at_most"] - each["count"] <= len(keys) / 101


def test_a_key_of_more_than_one_record_in_a_hundred_is_never_missing() -> None:
    rng = np.random.default_rng(1)
    keys = [*["often"] * 110, *spread(10_000 - 110)]
    rng.shuffle(keys)
    found = Slots("top_k", k=10).add(keys).result()
    assert "often" in [each["key"] for each in found]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 20), st.lists(st.integers(0, 3_000), max_size=6))
def test_page_cuts_never_show_not_even_past_the_bound(seed: int, cuts: list[int]) -> None:
    keys = [*zipf(2_000, seed), *spread(500)]
    np.random.default_rng(seed).shuffle(keys)
    whole = in_parts(keys, [])
    assert in_parts(keys, cuts).saved() == whole.saved()
    one_by_one = in_parts(keys[:600], list(range(600)))
    assert one_by_one.saved() == in_parts(keys[:600], cuts).saved()


def test_merged_windows_hold_their_bounds_whichever_comes_first() -> None:
    halves = zipf(20_000, 1), zipf(20_000, 2)
    truth = Counter(halves[0] + halves[1])
    one, other = (Slots("top_k").add(half) for half in halves)
    there, back = one.result(), other.result()
    merged = Slots("top_k").add(halves[0]).merge(0, other, 0)
    assert merged.saved() == Slots("top_k").add(halves[1]).merge(0, one, 0).saved()
    for each in merged.result():
        assert each["count"] <= truth[each["key"]] <= each["at_most"]
    assert (one.result(), other.result()) == (there, back)


def test_a_window_stays_within_its_room_however_many_keys_come() -> None:
    slots = Slots("top_k")
    for start in range(0, 50_000, 1_000):
        slots.add([f"k{i}" for i in range(start, start + 1_000)])
        assert len(slots.saved()["top_k:field.counts.codes"]) // 8 <= ROOM
    assert slots.figures.nbytes < 2_000_000
