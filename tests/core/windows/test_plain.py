"""Open windows: each (key, window) has its own slot, whatever was closed and recycled before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.figures import Readings
from processor.core.intake import TIME_MAX_MS
from processor.core.windows import NO_SAMPLE, Batch, Panes, Plain, Sample, SampleOf, grid
from processor.model import AggregateSpec, Rows, WindowSpec

SIZE_MS = 10
BEFORE_MS = -(2**62)  # no watermark yet
AGGREGATES = (
    AggregateSpec("n", "count"),
    AggregateSpec("total", "sum", "amount"),
    AggregateSpec("top", "max", "amount"),
    AggregateSpec("cost", "sum", "price"),
)
Record = tuple[int, int, int]  # (key, time, amount); its price is twice the amount


def table(size_ms: int = SIZE_MS, offset_ms: int = 0) -> Plain:
    return Plain(grid.of(WindowSpec(size_ms, offset_ms), {}), AGGREGATES)


def add(windows: Plain, records: Sequence[Record], first: int = 0) -> Plain:
    """Record i of all has the sample `r<i>`; `first` is the index of the first one here."""
    amounts = np.array([float(amount) for _, _, amount in records])

    def sample_of(i: int) -> Sample:
        return f"r{first + i}", None

    times = np.array([time for _, time, _ in records], dtype=np.int64)
    readings = Readings(times, {"amount": amounts, "price": 2 * amounts})
    keys = np.array([key for key, _, _ in records], dtype=np.intp)
    take(windows, keys, readings, sample_of)
    return windows


def take(windows: Plain, keys: Rows, readings: Readings, sample_of: SampleOf | None) -> None:
    """Count records before there is a watermark."""
    n = len(keys)
    before = np.full(n, BEFORE_MS)
    batch = Batch(keys, readings, np.arange(n), before, sample_of)
    assert list(windows.take(batch, before, BEFORE_MS)) == []


def ends_of(windows: Plain) -> list[int]:
    return windows.due_ends(2**62)


def rows(closed: Panes) -> list[tuple[int, int, float, float, float, Sample]]:
    """(key, records, total, top, cost, sample), by key."""
    values = closed.values
    assert list(values) == [spec.name for spec in AGGREGATES]
    assert values["n"].tolist() == closed.counts.tolist()
    return list(
        zip(
            closed.keys.tolist(),
            closed.counts.tolist(),
            values["total"].tolist(),
            values["top"].tolist(),
            values["cost"].tolist(),
            closed.samples,
            strict=True,
        )
    )


def naive(records: Sequence[Record], size_ms: int, offset_ms: int) -> dict[int, list[object]]:
    """By window's end what `rows` must be, worked out with a dict."""
    slots: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, (key, time, amount) in enumerate(records):
        end = (time - offset_ms) // size_ms * size_ms + offset_ms + size_ms
        slots.setdefault((end, key), []).append((i, amount))
    found: dict[int, list[object]] = {}
    for (end, key), counted in sorted(slots.items()):
        amounts = [float(amount) for _, amount in counted]
        total = sum(amounts)
        row = (key, len(counted), total, max(amounts), 2 * total, (f"r{counted[0][0]}", None))
        found.setdefault(end, []).append(row)
    return found


records = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 80), st.integers(-5, 5)), min_size=1, max_size=50
)
places = st.sets(st.integers(0, 50))


def parts(n: int, cuts: Iterable[int]) -> list[tuple[int, int]]:
    return list(pairwise(sorted({0, n, *cuts} & set(range(n + 1)))))


@settings(deadline=None)
@given(records, places, st.sampled_from([(10, 0), (10, 3), (10, 9), (7, 2), (1, 0), (100, 50)]))
def test_each_window_holds_its_records_however_they_came(
    all_: list[Record], cuts: set[int], shape: tuple[int, int]
) -> None:
    windows = table(*shape)
    for start, stop in parts(len(all_), cuts):
        add(windows, all_[start:stop], start)
    expected = naive(all_, *shape)
    assert ends_of(windows) == sorted(expected)
    assert {end: rows(windows.close(end)) for end in ends_of(windows)} == expected
    assert len(windows) == 0


@settings(deadline=None)
@given(records, records, places)
def test_a_recycled_slot_remembers_nothing(
    first: list[Record], second: list[Record], closes: set[int]
) -> None:
    windows = add(table(), first)
    closed = [end for i, end in enumerate(ends_of(windows)) if i in closes]
    for end in closed:
        windows.close(end)
    later = [(key, time + 1_000, amount) for key, time, amount in second]
    add(windows, later, len(first))
    both = naive([*first, *later], SIZE_MS, 0)
    expected = {end: found for end, found in both.items() if end not in closed}
    assert {end: rows(windows.close(end)) for end in ends_of(windows)} == expected


@settings(deadline=None)
@given(records, places, places)
def test_restored_is_as_never_stopped_and_cuts_leave_no_trace(
    all_: list[Record], cuts: set[int], others: set[int]
) -> None:
    steady, moved = table(), table()
    for start, stop in parts(len(all_), others):
        add(steady, all_[start:stop], start)
    for start, stop in parts(len(all_), cuts):
        add(moved, all_[start:stop], start)
        successor = table()
        successor.restore(moved.snapshot(), 5)
        moved = successor
    assert moved.snapshot() == steady.snapshot()
    for end in ends_of(steady):
        assert rows(moved.close(end)) == rows(steady.close(end))
    assert moved.snapshot() == steady.snapshot() == table().snapshot()


@settings(deadline=None)
@given(records, st.sets(st.integers(0, 4)))
def test_of_some_keys_a_window_closes_and_stays_open_for_the_others(
    all_: list[Record], some: set[int]
) -> None:
    windows, only = add(table(), all_), np.isin(np.arange(5), list(some))
    for end, expected in naive(all_, SIZE_MS, 0).items():
        found = rows(windows.close(end, only)) + rows(windows.close(end))
        assert sorted(found) == expected
        assert {row[0] for row in found[: sum(row[0] in some for row in found)]} <= some
    assert len(windows) == 0


@settings(deadline=None)
@given(records, records, st.permutations(range(5)), st.integers(0, 5))
def test_heirs_go_on_with_the_windows_of_their_keys(
    first: list[Record], then: list[Record], order: list[int], n_heirs: int
) -> None:
    """Key k of the parent is key heirs[k] of the child, where it has an heir."""
    parent, child = add(table(), first), table()
    heirs = np.array([key if key < n_heirs else -1 for key in order])
    child.adopt(parent.snapshot(), heirs)
    assert child.snapshot() == _again(child)
    mine = [(int(heirs[key]), time, amount) for key, time, amount in then if heirs[key] >= 0]
    add(child, mine, len(first))
    had = [(int(heirs[key]), time, amount) for key, time, amount in first]
    expected = naive([*had, *mine], SIZE_MS, 0)
    for end in ends_of(child):
        closed = rows(child.close(end))
        assert [row[:5] for row in closed] == [
            row[:5]
            for row in expected[end]
            if row[0] >= 0  # type: ignore[index]
        ]


def _again(windows: Plain) -> object:
    """Its snapshot, by way of another table."""
    saved, other = windows.snapshot(), table()
    other.restore(saved, 5)
    return other.snapshot()


def test_a_window_takes_its_start_and_not_its_end() -> None:
    """
    time     |0 . . . . . . . . 9|10 . . . . . . . 19|20
                              ^9  ^10              ^19 ^20
    """
    windows = add(table(), [(0, 9, 1), (0, 10, 1), (0, 19, 1), (0, 20, 1)])
    assert ends_of(windows) == [10, 20, 30]
    assert [len(rows(windows.close(end))) for end in (10, 20, 30)] == [1, 1, 1]


def test_an_offset_moves_all_windows_also_the_one_that_begins_before_1970() -> None:
    """
    offset 3     |-7 … 2|3 … 12|13 … 22|
    """
    windows = add(table(offset_ms=3), [(0, 0, 1), (0, 2, 1), (0, 3, 1), (0, 12, 1), (0, 13, 1)])
    assert ends_of(windows) == [3, 13, 23]
    assert [rows(windows.close(end))[0][1] for end in (3, 13, 23)] == [2, 2, 1]


def test_windows_of_a_second_reach_from_1970_to_the_year_10000() -> None:
    windows = add(table(1_000), [(2**24 - 1, TIME_MAX_MS, 1), (0, 0, 2), (2**24 - 1, 0, 3)])
    ends = ends_of(windows)
    assert ends == [1_000, TIME_MAX_MS + 1_000]
    successor = table(1_000)
    successor.restore(windows.snapshot(), 2**24)
    assert [row[:3] for row in rows(successor.close(ends[0]))] == [(0, 1, 2.0), (2**24 - 1, 1, 3.0)]
    assert [row[:3] for row in rows(successor.close(ends[1]))] == [(2**24 - 1, 1, 1.0)]


def test_more_keys_than_a_slots_code_can_hold_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="more keys"):
        add(table(), [(2**24, 0, 1)])


def test_a_window_without_records_closes_empty() -> None:
    windows = add(table(), [(1, 5, 1)])
    assert rows(windows.close(50)) == []
    assert len(windows) == 1


def test_no_records_and_no_samples_are_nothing_special() -> None:
    windows = add(table(), [])
    assert ends_of(windows) == []
    none = np.zeros(1)
    take(windows, np.array([3]), Readings(np.array([4]), {"amount": none, "price": none}), None)
    assert rows(windows.close(10)) == [(3, 1, 0.0, 0.0, 0.0, NO_SAMPLE)]


def test_a_page_may_open_thousands_of_windows() -> None:
    windows = add(table(), [(0, SIZE_MS * i, i) for i in reversed(range(5_000))])
    assert ends_of(windows) == [SIZE_MS * (i + 1) for i in range(5_000)]
    assert rows(windows.close(SIZE_MS * 4_001))[0][2] == 4_000.0


@pytest.mark.parametrize("damage", ["order", "twice", "key", "column", "cut", "samples", "foreign"])
def test_what_is_no_snapshot_of_such_a_table_is_refused(damage: str) -> None:
    whole = add(table(), [(0, 5, 1), (1, 5, 2), (0, 15, 3)]).snapshot()
    saved = whole.table
    codes, columns = saved.codes, saved.columns
    damaged = {
        "order": replace(saved, codes=codes[8:16] + codes[:8] + codes[16:]),
        "twice": replace(saved, codes=codes[:8] + codes[:8] + codes[16:]),
        "key": replace(saved, codes=codes[:16] + codes[20:24] + b"\xff" * 4),
        "column": replace(saved, columns=columns | {"key": bytes(len(columns["key"]))}),
        "cut": replace(saved, columns=columns | {"sum:amount.s0": columns["sum:amount.s0"][:-8]}),
        "samples": replace(saved, samples=saved.samples[1:]),
        "foreign": replace(saved, columns={**columns, "more": b""}),
    }
    with pytest.raises(ValueError, match=r".+"):
        table().restore(replace(whole, table=damaged[damage]), 2)
