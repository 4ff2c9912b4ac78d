"""Sparse memory does what a dict of (slot, cell) does, in a fraction of its room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.cells import Cells, Combine, KeyedCells

SLOTS = 6
Entry = tuple[int, int, int]  # (slot, cell, value)
Known = dict[tuple[int, int], int]

entries = st.lists(
    st.tuples(
        st.integers(0, SLOTS - 1),
        st.one_of(st.integers(0, 8), st.just(2**40 - 1)),
        st.integers(0, 2**40),
    ),
    max_size=30,
)


def bytewise(one: int, other: int) -> int:
    pairs = zip(one.to_bytes(8, "little"), other.to_bytes(8, "little"), strict=True)
    return int.from_bytes(bytes(max(pair) for pair in pairs), "little")


TRUTH: dict[Combine, Callable[[int, int], int]] = {
    "add": lambda one, other: one + other,
    "max": max,
    "bytes": bytewise,
}


def arrays(batch: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = np.array(batch, dtype=np.int64).reshape(-1, 3).T
    return columns[0].astype(np.intp), columns[1], columns[2]


def update(cells: Cells, known: Known, batch: Sequence[Entry]) -> None:
    """Both alike; what is told to be new must be."""
    new = {(slot, cell) for slot, cell, _ in batch} - known.keys()
    told = cells.update(*arrays(batch))
    assert sorted(told.tolist()) == sorted(slot for slot, _ in new)
    for slot, cell, value in batch:
        before = known.get((slot, cell))
        known[slot, cell] = value if before is None else TRUTH[cells.combine](before, value)


def content(cells: Cells, slots: Sequence[int] = range(SLOTS)) -> list[Entry]:
    places, found, values = cells.of(np.array(slots, dtype=np.intp))
    return list(zip(places.tolist(), found.tolist(), values.tolist(), strict=True))


def listed(known: Known) -> list[Entry]:
    return [(slot, cell, value) for (slot, cell), value in sorted(known.items())]


steps = st.lists(st.one_of(entries, st.sets(st.integers(0, SLOTS - 1))), max_size=12)


@pytest.mark.parametrize("combine", TRUTH)
@settings(deadline=None)
@given(steps)
def test_they_do_what_a_dict_does(combine: Combine, all_: list[list[Entry] | set[int]]) -> None:
    cells, known = Cells(combine), Known()
    for step in all_:
        if isinstance(step, set):
            cells.reset(np.array(sorted(step), dtype=np.intp))
            known = {at: value for at, value in known.items() if at[0] not in step}
        else:
            update(cells, known, step)
        assert content(cells) == listed(known)
        assert len(cells) == len(known)
        assert cells.slots().tolist() == sorted({slot for slot, _ in known})


@settings(deadline=None)
@given(entries, st.lists(st.integers(0, SLOTS - 1), unique=True))
def test_slots_come_in_the_order_asked_for(batch: list[Entry], asked: list[int]) -> None:
    cells, known = Cells("add"), Known()
    update(cells, known, batch)
    wanted = [
        (place, cell, value)
        for place, slot in enumerate(asked)
        for at, cell, value in listed(known)
        if at == slot
    ]
    assert content(cells, asked) == wanted


@settings(deadline=None)
@given(entries, entries, st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS))
def test_what_was_taken_can_be_put_whole_or_in_part(
    first: list[Entry], second: list[Entry], chosen: list[bool]
) -> None:
    one, other = Cells("add"), Cells("add")
    update(one, Known(), first + second)
    for half in (second, first):
        update(other, Known() if half is second else dict.fromkeys(_pairs(second), 0), half)
    saved = one.take(np.arange(SLOTS))
    assert other.take(np.arange(SLOTS)) == saved, "history must not show"
    heir = Cells("add")
    heir.put(np.arange(sum(chosen)) + 10, saved, np.array(chosen))
    kept = [slot for slot in range(SLOTS) if chosen[slot]]
    assert content(heir, range(10, 10 + len(kept))) == content(one, kept)


def _pairs(batch: list[Entry]) -> list[tuple[int, int]]:
    return [(slot, cell) for slot, cell, _ in batch]


def test_a_hundred_thousand_slots_take_sixteen_bytes_a_cell_and_give_them_back() -> None:
    cells, n = Cells("add"), 100_000
    for start in range(0, n, 1_000):
        slots = np.repeat(np.arange(start, start + 1_000), 10)
        cells.update(slots, np.tile(np.arange(10), 1_000), np.ones(10_000, dtype=np.int64))
    assert cells.nbytes == 16 * 10 * n
    for start in range(0, n, 1_000):
        cells.reset(np.arange(start, start + 1_000))
    assert len(cells) == 0
    assert cells.nbytes < 200_000


@pytest.mark.parametrize(
    ("codes", "values"),
    [
        ([2, 1], [1, 1]),
        ([1, 1], [1, 1]),
        ([7 << 40], [1]),
        ([1], [-1]),
        ([1], []),
    ],
)
def test_bytes_that_are_no_cells_are_refused(codes: list[int], values: list[int]) -> None:
    saved = {
        "codes": np.array(codes, dtype=np.uint64).tobytes(),
        "values": np.array(values, dtype=np.int64).tobytes(),
    }
    for cells in (Cells("add"), KeyedCells("add")):
        keys = {"keys": b"\x93\x01\x02\x03"} if isinstance(cells, KeyedCells) else {}
        with pytest.raises(ValueError, match=r"cells|values"):
            cells.put(np.arange(7), saved | keys)


KEYS: list[str | int] = ["a", "b", "1", 1, -1, 2**63 - 1, ""]
keyed = st.lists(
    st.tuples(st.integers(0, SLOTS - 1), st.sampled_from(KEYS), st.integers(0, 9)), max_size=30
)


def count(cells: KeyedCells, batch: list[tuple[int, str | int, int]]) -> KeyedCells:
    slots = np.array([slot for slot, _, _ in batch], dtype=np.intp)
    values = np.array([value for _, _, value in batch], dtype=np.int64)
    cells.update(slots, [key for _, key, _ in batch], values)
    return cells


@settings(deadline=None)
@given(keyed, keyed)
def test_keys_are_kept_apart_and_history_never_shows(
    batch: list[tuple[int, str | int, int]], before: list[tuple[int, str | int, int]]
) -> None:
    cells, known = count(KeyedCells("add"), batch), dict[tuple[int, str | int], int]()
    for slot, key, value in batch:
        known[slot, key] = known.get((slot, key), 0) + value
    places, keys, values = cells.of(np.arange(SLOTS))
    found = zip(places.tolist(), keys, values.tolist(), strict=True)
    assert {(slot, key): value for slot, key, value in found} == known
    other = count(KeyedCells("add"), before)
    other.reset(np.arange(SLOTS))
    count(other, list(reversed(batch)))
    assert other.take(np.arange(SLOTS)) == cells.take(np.arange(SLOTS))
    heir = KeyedCells("add")
    heir.put(np.arange(SLOTS), cells.take(np.arange(SLOTS)))
    assert heir.take(np.arange(SLOTS)) == cells.take(np.arange(SLOTS))


def test_keys_that_no_slot_counts_any_more_are_dropped() -> None:
    cells = KeyedCells("add")
    for start in range(0, 100_000, 1_000):
        keys = [f"key {i}" for i in range(start, start + 1_000)]
        slots = np.zeros(1_000, dtype=np.intp)
        cells.update(slots, keys, np.ones(1_000, dtype=np.int64))
        cells.reset(np.array([0]))
        assert cells.nbytes < 2_000_000
    assert len(cells) == 0
