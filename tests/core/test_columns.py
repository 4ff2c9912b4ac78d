"""Memory: the slot map is a dict, whatever keys and order do; columns keep and give back rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from processor.core.columns import Columns, SlotMap
from processor.model import Column

_MIX = 0x9E3779B97F4A7C15
_UNMIX = pow(_MIX, -1, 2**64)


def colliding(i: int) -> int:
    """Keys that all have the last cell as their home, so that every one of them probes on."""
    return ((2**64 - 1 - i) * _UNMIX) % 2**64


def array(keys: Any) -> Any:
    return np.array(list(keys), dtype=np.uint64)


SOURCES = {
    "small": lambda i: i,
    "as windows have them": lambda i: (i % 7 << 40) | (i // 7 + 1),
    "all of one home": colliding,
    "spread": lambda i: (i * 0xDEADBEEFCAFEF00D + 1) % 2**64,
    "from the top": lambda i: 2**64 - 1 - i,
}


class SlotMapMachine(RuleBasedStateMachine):
    """Against a dict; keys by the number that makes them, so that small numbers come back."""

    numbers = st.sets(st.integers(0, 400), max_size=50)

    @initialize(source=st.sampled_from(sorted(SOURCES)))
    def begin(self, source: str) -> None:
        self.key = SOURCES[source]
        self.map = SlotMap()
        self.model: dict[int, int] = {}
        self.next = 0

    def keys(self, numbers: set[int]) -> set[int]:
        return {self.key(i) for i in numbers}

    def values(self, n: int) -> Any:
        self.next += n
        return np.arange(self.next - n, self.next, dtype=np.int64)

    @rule(numbers=numbers)
    def add(self, numbers: set[int]) -> None:
        self._add(sorted(self.keys(numbers) - self.model.keys()))

    @rule(n=st.integers(300, 1_500), base=st.integers(1, 9))
    def add_many(self, n: int, base: int) -> None:
        if self.key is not colliding:  # each would walk past all before it
            made = {self.key(base * 100_000 + i) for i in range(n)}
            self._add(sorted(made - self.model.keys()))

    def _add(self, new: list[int]) -> None:
        values = self.values(len(new))
        self.map.add(array(new), values)
        self.model |= dict(zip(new, values.tolist(), strict=True))

    @rule(numbers=numbers)
    def set(self, numbers: set[int]) -> None:
        known = sorted(self.keys(numbers) & self.model.keys())
        values = self.values(len(known))
        self.map.set(array(known), values)
        self.model |= dict(zip(known, values.tolist(), strict=True))

    @rule(numbers=numbers)
    def remove(self, numbers: set[int]) -> None:
        known = sorted(self.keys(numbers) & self.model.keys())
        self.map.remove(array(known))
        for key in known:
            del self.model[key]

    @rule()
    def remove_all(self) -> None:
        self.map.remove(array(self.model))
        self.model.clear()

    @rule(least=st.integers(0, 60))
    def keep_from(self, least: int) -> None:
        self.map.keep_from(least)
        self.model = {key: v for key, v in self.model.items() if v >= least}

    @rule(numbers=numbers)
    def get(self, numbers: set[int]) -> None:
        asked = [self.key(i) for i in numbers] * 2
        assert self.map.get(array(asked)).tolist() == [self.model.get(key, -1) for key in asked]

    @invariant()
    def items_are_those_of_the_dict_in_order(self) -> None:
        keys, values = self.map.items()
        assert list(zip(keys.tolist(), values.tolist(), strict=True)) == sorted(self.model.items())
        assert len(self.map) == len(self.model)


TestSlotMap = SlotMapMachine.TestCase
TestSlotMap.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_a_key_that_comes_and_goes_for_ever_takes_no_more_memory() -> None:
    slots = SlotMap()
    for i in range(5_000):
        key = array([i])
        slots.add(key, np.array([i]))
        slots.remove(key)
    assert slots.nbytes <= 1_024 * 16
    assert len(slots) == 0


def test_a_table_that_was_large_is_small_again_after_it_has_been_emptied() -> None:
    slots = SlotMap()
    slots.add(np.arange(100_000, dtype=np.uint64), np.arange(100_000))
    large = slots.nbytes
    slots.keep_from(100_000)
    assert slots.nbytes < large // 100


def test_absent_keys_can_be_neither_set_nor_removed() -> None:
    slots = SlotMap()
    with pytest.raises(AssertionError, match="absent key"):
        slots.set(array([1]), np.array([1]))
    with pytest.raises(AssertionError, match="absent key"):
        slots.remove(array([1]))


# ---- columns --------------------------------------------------------------------------------

SPECS = (Column("n", "<i8"), Column("lowest", "<f8", np.inf), Column("profile", "<f4", 2, width=3))


def filled(n: int) -> Columns:
    columns = Columns(SPECS)
    columns.ensure(n)
    columns.arrays["n"][:n] = np.arange(n)
    columns.arrays["lowest"][:n] = np.arange(n) / 2
    columns.arrays["profile"][:n] = np.arange(3 * n).reshape(n, 3)
    return columns


def test_a_fresh_row_holds_what_its_columns_say() -> None:
    columns = Columns(SPECS)
    columns.ensure(1)
    assert columns.arrays["n"][0] == 0
    assert columns.arrays["lowest"][0] == np.inf
    assert columns.arrays["profile"][0].tolist() == [2, 2, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_growth_keeps_old_rows_and_makes_fresh_ones(sizes: list[int]) -> None:
    columns, filled_to = Columns(SPECS), 0
    for size in sizes:
        columns.ensure(size)
        assert columns.rows >= size
        assert columns.arrays["n"][:filled_to].tolist() == list(range(filled_to))
        assert set(columns.arrays["lowest"].tolist()) == ({np.inf} if columns.rows else set())
        columns.arrays["n"][filled_to:size] = np.arange(filled_to, max(size, filled_to))
        filled_to = max(size, filled_to)


def test_a_reset_row_is_fresh_and_its_neighbours_stay() -> None:
    columns = filled(5)
    columns.reset(np.array([1, 3]))
    assert columns.arrays["n"][:5].tolist() == [0, 0, 2, 0, 4]
    assert columns.arrays["lowest"][:3].tolist() == [0, np.inf, 1]
    assert columns.arrays["profile"][3].tolist() == [2, 2, 2]


@settings(deadline=None)
@given(st.permutations(range(8)), st.integers(0, 8))
def test_rows_that_are_taken_and_put_elsewhere_are_the_same_to_the_bit(
    order: list[int], n: int
) -> None:
    columns, other = filled(8), filled(8)
    rows = np.array(order[:n], dtype=np.intp)
    saved = columns.take(rows)
    places = np.arange(n)
    other.put(places, saved)
    assert other.take(places) == saved


def test_of_saved_rows_some_can_be_put_elsewhere() -> None:
    saved, other = filled(8).snapshot(8), filled(3)
    chosen = np.isin(np.arange(8), [2, 5])
    other.put(np.array([2, 0]), saved, chosen)
    assert other.arrays["n"][:3].tolist() == [5, 1, 2]
    assert other.take(np.array([2, 0])) == filled(8).take(np.array([2, 5]))
    with pytest.raises(ValueError, match=r".+"):
        other.put(np.array([2, 0]), saved, chosen[:7])


def test_restored_is_as_never_stopped() -> None:
    columns, successor = filled(100), Columns(SPECS)
    successor.restore(columns.snapshot(100), 100)
    assert successor.snapshot(100) == columns.snapshot(100)
    assert successor.arrays["n"].flags.writeable


@pytest.mark.parametrize(
    "damage",
    [
        {"n": b""},
        {"n": bytes(79)},
        {"n": bytes(88)},
        {"profile": bytes(4)},
        {"more": bytes(80)},
        {"lowest": None},
    ],
)
def test_bytes_that_do_not_fit_the_columns_are_refused(damage: dict[str, bytes | None]) -> None:
    saved: dict[str, Any] = filled(10).snapshot(10) | damage
    with pytest.raises(ValueError, match=r".+"):
        Columns(SPECS).restore({name: b for name, b in saved.items() if b is not None}, 10)


def test_two_columns_of_one_name_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="two columns"):
        Columns((Column("n", "<i8"), Column("n", "<f8")))
