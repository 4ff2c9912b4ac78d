"""How many different keys: exact while there are few, near enough for a million, never by luck."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.aggregators import distinct
from tests.aggregators.support import Slots

SOME = distinct.EXACT_MAX


def keys(n: int, prefix: str = "user") -> list[str]:
    return [f"{prefix}-{i}" for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 100, SOME - 1, SOME])
def test_few_keys_are_counted_exactly(n: int) -> None:
    assert Slots("distinct").add(keys(n)).add(keys(n)).result() == n


def test_a_text_and_the_integer_that_it_spells_are_two_keys() -> None:
    assert Slots("distinct").add(["1", 1, "1", 1, "one", -1]).result() == 4


@pytest.mark.parametrize("n", [SOME + 1, 600, 1_000, 5_000, 20_000, 100_000, 1_000_000])
@pytest.mark.parametrize("prefix", ["user", "session", "10.0.0"])
def test_many_keys_are_counted_within_five_percent(n: int, prefix: str) -> None:
    found = Slots("distinct").add(keys(n, prefix)).result()
    assert found == pytest.approx(n, rel=0.05)


def test_the_error_over_many_sketches_is_the_one_that_theory_gives() -> None:
    """1.04 / √4096 = 1.6 %, and none is favoured: the mean of 200 is within four of its own."""
    rng = np.random.default_rng(7)
    errors = []
    for n in (3_000, 30_000):
        for _ in range(100):
            hashed = rng.integers(0, 2**64, n, dtype=np.uint64)
            sketch = np.zeros(distinct.REGISTERS, dtype=np.int64)
            np.maximum.at(sketch, hashed >> np.uint64(52), distinct._ranks(hashed))
            by_rank = np.bincount(sketch, minlength=54)[None, :]
            errors.append(distinct.estimates(by_rank)[0] / n - 1)
    assert float(np.std(errors)) < 0.02
    assert abs(float(np.mean(errors))) < 4 * 0.0163 / np.sqrt(200)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 1_500), min_size=1, max_size=4),
    st.lists(st.integers(0, 1_500), max_size=4),
)
def test_neither_cuts_nor_merges_show_where_keys_become_registers(
    mine: list[int], theirs: list[int]
) -> None:
    """Two windows of overlapping keys, each in parts, merged: as if one had seen all."""

    def fill(slots: Slots, ends: list[int]) -> Slots:
        for a, b in pairwise([0, *ends]):
            slots.add(keys(1_500)[min(a, b) : max(a, b)])
        return slots

    one, other = fill(Slots("distinct"), mine), fill(Slots("distinct"), theirs)
    whole = Slots("distinct").add(keys(max([0, *mine, *theirs])))
    assert one.merge(0, other, 0).saved() == whole.saved()
    assert one.result() == whole.result()


def test_a_window_never_takes_more_than_512_cells() -> None:
    slots = Slots("distinct")
    most = 0
    for start in range(0, 40_000, 500):
        slots.add([f"k{i}" for i in range(start, start + 500)])
        most = max(most, len(slots.saved()["distinct:field.sketch.codes"]) // 8)
    assert most == SOME


def test_zeros_in_a_hash_are_ranked_as_they_lead() -> None:
    hashed = np.array([1 << 51, 1 << 50, 1, 0, 2**52, 2**64 - 1], dtype=np.uint64)
    assert distinct._ranks(hashed).tolist() == [1, 2, 52, 53, 53, 1]
