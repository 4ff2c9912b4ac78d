"""One contract for every aggregator: order, batches and splits change no bit, and figures are true.

A test drives an aggregator as the window table does, through `Figures`: updates in batches in
which slots repeat, merges, results. The reference is plain Python on exact fractions.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import aggregators
from processor.core.figures import Figures, Readings
from processor.model import AggregateSpec, Column

SLOTS = 5
KINDS = aggregators.kinds()
# Options of those that can't do without, or whose defaults would leave the test nothing to see.
OPTIONS: Mapping[str, Mapping[str, Any]] = {"quantile": {"q": 0.9}, "top_k": {"k": 3}}
PRESENT_MS = 1_700_000_000_000


class Addition(NamedTuple):
    """A record, as far as aggregators read it; times are exactly as different as records."""

    slot: int
    number: float
    time: int = PRESENT_MS
    key: str | int = "a"


Truth = Callable[[Sequence[Addition]], Any]


def of_numbers(truth: Callable[[Sequence[Fraction]], Any]) -> Truth:
    return lambda records: truth([Fraction(record.number) for record in records])


def nearest_rank(values: Sequence[Fraction]) -> Fraction | None:
    """The 0.9-quantile as SQL's percentile_disc has it."""
    return sorted(values)[math.ceil(Fraction(9, 10) * len(values)) - 1] if values else None


def top_three(records: Sequence[Addition]) -> list[dict[str, Any]]:
    counted = Counter(record.key for record in records).items()
    first = sorted(counted, key=lambda each: (-each[1], isinstance(each[0], str), each[0]))[:3]
    return [{"key": key, "count": count} for key, count in first]


# What each figure is, of a window's records; None where it is not defined.
TRUTH: Mapping[str, Truth] = {
    "count": len,
    "sum": of_numbers(lambda values: sum(values, Fraction(0))),
    "mean": of_numbers(lambda values: statistics.mean(values) if values else None),
    "variance": of_numbers(lambda values: statistics.variance(values) if len(values) > 1 else None),
    "stddev": of_numbers(
        lambda values: root(statistics.variance(values)) if len(values) > 1 else None
    ),
    "min": of_numbers(lambda values: min(values, default=None)),
    "max": of_numbers(lambda values: max(values, default=None)),
    "first": lambda records: min(records, key=TIME).number if records else None,
    "last": lambda records: max(records, key=TIME).number if records else None,
    "quantile": of_numbers(nearest_rank),
    "distinct": lambda records: len({record.key for record in records}),
    "top_k": top_three,
}
TIME = attrgetter("time")


def root(value: Fraction) -> Fraction:
    """To some 300 bits."""
    return Fraction(math.isqrt(value.numerator * value.denominator << 600), value.denominator) / (
        1 << 300
    )


# Rounded once to float64. A mean's sum is rounded before it is divided, a variance before its root.
ROUNDINGS = {"mean": 2, "stddev": 2, "quantile": 2**53 // 100}
# What a value or its square holds below 2^-104 is rounded; some 60 values make this of it.
CUT = Fraction(1, 2**98)
EXACT = ("count", "min", "max", "first", "last", "distinct")

WHOLE = [0.0, -0.0, 1.0, -1.0, 2.0**53, -(2.0**53), 2.0**53 - 1]
BROKEN = [0.1, -0.1, 1 / 3, 1e15 + 0.3, 4503599627370495.5, -(2.0**-52)]
TINY = [2.0**-104, 2.0**-105, 1e-300, -1e-300, 5e-324]
values = st.one_of(
    st.sampled_from(WHOLE + BROKEN + TINY),
    st.floats(-(2.0**53), 2.0**53),
    st.floats(-1e-20, 1e-20),
    st.integers(-(2**53), 2**53).map(float),
)
keys = st.one_of(st.sampled_from(["", "a", "b", "1", 1, 0, -1, 2**63 - 1]), st.integers(0, 20))
additions = st.lists(st.tuples(st.integers(0, SLOTS - 1), values, keys), max_size=60).map(
    lambda all_: [
        Addition(slot, number, PRESENT_MS + i, key) for i, (slot, number, key) in enumerate(all_)
    ]
)


def spec(kind: str) -> AggregateSpec:
    field = None if aggregators.get(kind).reads == "nothing" else "field"
    return AggregateSpec("figure", kind, field, options=OPTIONS.get(kind, {}))


def columns_of(kind: str) -> Iterable[Column]:
    aggregator = aggregators.get(kind)
    return aggregator.columns(msgspec.convert(OPTIONS.get(kind, {}), aggregator.params))


class Windows:
    """A few slots of one aggregator."""

    def __init__(self, kind: str):
        self.aggregator = aggregators.get(kind)
        self.figures = Figures([spec(kind)])
        self.figures.ensure(SLOTS)

    def add(self, batch: Sequence[Addition]) -> Windows:
        slots = np.array([each.slot for each in batch], dtype=np.intp)
        numbers = np.array([each.number for each in batch], dtype=np.float64)
        times = np.array([each.time for each in batch], dtype=np.int64)
        keys = [each.key for each in batch]
        before = slots.tobytes(), numbers.tobytes(), times.tobytes(), keys.copy()
        self.figures.update(slots, Readings(times, {"field": numbers}, {"field": keys}))
        after = slots.tobytes(), numbers.tobytes(), times.tobytes(), keys
        assert after == before, "inputs must stay as they are"
        return self

    def merge(self, other: Windows, into: Sequence[int] = range(SLOTS)) -> Windows:
        """Slot i of `other` goes to slot `into[i]`."""
        before = other.saved()
        self.figures.merge(np.array(into, dtype=np.intp), other.figures, np.arange(len(into)))
        assert other.saved() == before, "what is merged must stay as it is"
        return self

    def saved(self) -> dict[str, bytes]:
        return self.figures.take(np.arange(SLOTS))

    def results(self, slots: Iterable[int] = range(SLOTS)) -> list[Any]:
        before, chosen = self.saved(), np.array(list(slots), dtype=np.intp)
        found = self.figures.results(chosen, 1_000)["figure"]
        types = (np.int64, np.float64) if self.aggregator.is_number else (np.object_,)
        assert found.dtype in types
        assert self.saved() == before, "a result must change nothing"
        found[:] = 7
        assert self.saved() == before, "a result is no view of the state"
        return self.figures.results(chosen, 1_000)["figure"].tolist()


def bits(windows: Windows) -> tuple[dict[str, bytes], str]:
    """State and results, where 0.0 is not -0.0."""
    return windows.saved(), repr(windows.results())


def batches(all_: Sequence[Addition], cuts: Iterable[int]) -> list[Sequence[Addition]]:
    at = sorted({0, len(all_), *(cut for cut in cuts if cut < len(all_))})
    return [all_[a:b] for a, b in pairwise(at)]


def in_batches(kind: str, all_: Sequence[Addition], cuts: Iterable[int] = ()) -> Windows:
    windows = Windows(kind)
    for batch in batches(all_, cuts):
        windows.add(batch)
    return windows


def test_every_aggregator_has_its_truth_here() -> None:
    assert TRUTH.keys() == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_little_endian_so_that_snapshots_travel(kind: str) -> None:
    assert all(column.dtype.startswith("<") for column in columns_of(kind))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data(), all_=additions, cuts=st.sets(st.integers(0, 60)))
def test_neither_order_nor_batches_change_a_bit(
    kind: str, data: st.DataObject, all_: list[Addition], cuts: set[int]
) -> None:
    other = data.draw(st.permutations(all_))
    assert bits(in_batches(kind, other, cuts)) == bits(in_batches(kind, all_))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(all_=additions, owners=st.lists(st.integers(0, 2), min_size=60, max_size=60))
def test_split_over_others_and_merged_again_changes_no_bit(
    kind: str, all_: list[Addition], owners: list[int]
) -> None:
    parts = [
        in_batches(kind, [a for a, owner in zip(all_, owners, strict=False) if owner == part])
        for part in range(3)
    ]
    assert bits(parts[2].merge(parts[0]).merge(parts[1])) == bits(in_batches(kind, all_))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(all_=additions, into=st.permutations(range(SLOTS)))
def test_a_merge_finds_its_slots(kind: str, all_: list[Addition], into: list[int]) -> None:
    moved = [each._replace(slot=into[each.slot]) for each in all_]
    assert bits(Windows(kind).merge(in_batches(kind, all_), into)) == bits(in_batches(kind, moved))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=200)
@given(all_=additions)
def test_figures_are_those_of_plain_fractions(kind: str, all_: list[Addition]) -> None:
    for slot, found in enumerate(in_batches(kind, all_).results()):
        records = [each for each in all_ if each.slot == slot]
        expected = TRUTH[kind](records)
        if expected is None:
            assert math.isnan(found)
        elif isinstance(expected, list):
            assert found == expected
        else:
            rounding = ROUNDINGS.get(kind, 1) * abs(expected) * Fraction(2**50 + 1, 2**103)
            assert abs(Fraction(found) - Fraction(expected)) <= rounding + cut(kind, records)


def cut(kind: str, records: Sequence[Addition]) -> Fraction:
    """What may be missing of a figure besides its last rounding."""
    if kind in EXACT:
        return Fraction(0)
    largest = max((abs(Fraction(record.number)) for record in records), default=Fraction(0))
    if kind == "stddev":
        return root(CUT * (1 + largest))
    return CUT * (1 + largest) if kind == "variance" else CUT


@pytest.mark.parametrize("kind", ["sum", "mean", "min", "max", "first", "last"])
@settings(deadline=None)
@given(st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 1024), min_size=1, max_size=50))
def test_figures_of_moderate_numbers_are_exact(kind: str, numbers: list[float]) -> None:
    records = [Addition(0, number, PRESENT_MS + i) for i, number in enumerate(numbers)]
    [found] = in_batches(kind, records).results([0])
    expected = TRUTH[kind](records)
    assert found == float(expected)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(all_=additions, rest=additions)
def test_restored_is_as_never_stopped_to_the_bit(
    kind: str, all_: list[Addition], rest: list[Addition]
) -> None:
    steady, successor = in_batches(kind, all_), Windows(kind)
    successor.figures.put(np.arange(SLOTS), steady.saved())
    assert bits(successor.add(rest)) == bits(steady.add(rest))


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_that_was_reset_is_as_new(kind: str) -> None:
    windows = Windows(kind).add([Addition(0, 3.5), Addition(1, -7.0)])
    windows.figures.reset(np.array([0, 1]))
    assert bits(windows) == bits(Windows(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [2.0**53, -(2.0**53), 0.1, -1e-300, 0.0])
def test_one_slot_takes_ten_thousand_values_in_one_batch(kind: str, number: float) -> None:
    """Limbs must be carried in time: 10,000 times 2^53 overflows an int64 a thousand times."""
    n = 10_000
    whole = in_batches(kind, [Addition(0, number)] * n)
    assert bits(whole) == bits(in_batches(kind, [Addition(0, number)] * n, range(0, n, 311)))
    [found] = whole.results([0])
    expected = TRUTH[kind]([Addition(0, number)] * n)
    if isinstance(expected, list):
        assert found == expected
    else:
        off = ROUNDINGS.get(kind, 1) * 2.0**-53
        least = math.sqrt(n * 2.0**-104) if kind == "stddev" else n * 2.0**-104
        assert found == pytest.approx(float(expected), rel=2 * off, abs=least)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(number=values, n=st.integers(2, 40))
def test_a_constant_series_has_no_spread_and_one_extreme(kind: str, number: float, n: int) -> None:
    [found] = in_batches(kind, [Addition(0, number)] * n).results([0])
    constant = {"variance": 0.0, "min": number, "max": number, "count": n, "distinct": 1}
    constant |= {"first": number, "last": number}
    if kind in constant:
        # The square of what a value holds below 2^-104 is cut, which is all that may be left.
        assert found == pytest.approx(constant[kind], rel=0, abs=2.0**-100 * (1 + abs(number)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sign_of_zero_never_shows(kind: str) -> None:
    for numbers in ([-0.0], [0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0, 0.0]):
        windows = in_batches(kind, [Addition(0, number) for number in numbers], range(3))
        plain = in_batches(kind, [Addition(0, 0.0) for _ in numbers])
        assert bits(windows) == bits(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_window_is_worth_what_the_aggregator_says_or_nothing(kind: str) -> None:
    aggregator = aggregators.get(kind)
    [found] = Windows(kind).results([0])
    if not aggregator.is_number:
        assert found == []
        return
    assert found == aggregator.empty or (math.isnan(found) and math.isnan(aggregator.empty))


@pytest.mark.parametrize("kind", KINDS)
def test_no_records_and_no_slots_are_nothing_special(kind: str) -> None:
    assert bits(Windows(kind).add([])) == bits(Windows(kind))
    assert Windows(kind).results([]) == []
    assert bits(Windows(kind).merge(Windows(kind), [])) == bits(Windows(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_slots_do_not_touch_each_other(kind: str) -> None:
    windows = Windows(kind).add([Addition(0, 1.0), Addition(4, 2.0), Addition(0, 3.0)])
    alone = Windows(kind).add([Addition(0, 1.0), Addition(0, 3.0)])
    assert repr(windows.results([0, 1, 2, 3])) == repr(alone.results([0, 1, 2, 3]))
