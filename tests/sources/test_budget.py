"""Who may hold how much."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.model import Page
from processor.sources.budget import ByteBudget, held_bytes

MIB = 1024 * 1024


@pytest.mark.parametrize(("readers", "page_bytes"), [(0, 64 * MIB), (1, 64 * MIB), (128, MIB // 2)])
def test_half_of_it_is_shared_evenly_by_the_pages_that_are_being_read(readers, page_bytes):
    budget = ByteBudget(512 * MIB)
    for _ in range(readers):
        budget.join()
    assert budget.page_bytes() == page_bytes


def test_a_shard_that_leaves_makes_room_for_larger_pages():
    budget = ByteBudget(512 * MIB)
    budget.join()
    budget.join()
    budget.leave()
    assert budget.page_bytes() == 64 * MIB


def test_what_is_read_ahead_is_counted_with_the_objects_that_hold_it():
    page = Page([b"four", b"bytes"], ["1", "2"], ["", ""], np.zeros(2, np.int64), 0, 0)
    assert held_bytes(page) == 9 + 2 * 256


def test_nothing_can_be_given_back_twice():
    budget = ByteBudget(1000)
    assert budget.try_take(10)
    budget.give_back(10)
    with pytest.raises(AssertionError, match="more was given back"):
        budget.give_back(1)


@given(st.lists(st.integers(0, 400), max_size=30))
def test_reading_ahead_never_takes_more_than_the_other_half(amounts):
    budget = ByteBudget(2_000)
    taken = [amount for amount in amounts if budget.try_take(amount)]
    assert budget.ahead_bytes == sum(taken) <= 1_000
    for amount in taken:
        budget.give_back(amount)
    assert budget.try_take(1_000)
