"""A rule's figures by slot: filters, derived ones, shared memory, and all of it as bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from processor.core import figures
from processor.core.figures import Figures, Readings
from processor.core.versions import filter_id
from processor.model import AggregateSpec, Column

FAILED = {"status": ["failed"]}
SPECS = (
    AggregateSpec("orders", "count"),
    AggregateSpec("failed", "count", where=FAILED),
    AggregateSpec("lost", "sum", "amount", where=FAILED),
    AggregateSpec("failure_ratio", "ratio", of=("failed", "orders")),
    AggregateSpec("per_minute", "rate", of=("orders",), options={"per_ms": 60_000}),
    AggregateSpec("users", "distinct", "user"),
    AggregateSpec("top", "top_k", "user", options={"k": 2}),
    AggregateSpec("p50", "quantile", "amount", where=FAILED, options={"q": 0.5}),
)
OWN = (Column("key", "<i4"),)
Record = tuple[int, float, str, bool]  # (slot, amount, user, has failed)


def made(n: int = 4) -> Figures:
    fresh = Figures(SPECS, OWN)
    fresh.ensure(n)
    return fresh


def readings(records: list[Record]) -> Readings:
    """The amount of one that has not failed is absent."""
    return Readings(
        np.arange(len(records)),
        {"amount": np.array([amount if failed else np.nan for _, amount, _, failed in records])},
        {"user": [user for _, _, user, _ in records]},
        {filter_id(FAILED): np.array([failed for *_, failed in records], dtype=np.bool_)},
    )


def add(to: Figures, records: list[Record]) -> Figures:
    to.update(np.array([slot for slot, *_ in records], dtype=np.intp), readings(records))
    return to


def told(of: Figures, slot: int, length_ms: int = 30_000) -> dict[str, Any]:
    found = of.results(np.array([slot]), length_ms)
    return {name: column.tolist()[0] for name, column in found.items()}


SOME: list[Record] = [
    (0, 5.0, "ann", True),
    (1, 9.0, "bob", False),
    (0, 7.0, "bob", False),
    (0, 3.0, "bob", True),
    (0, 1.0, "cat", False),
]


def test_a_figure_counts_only_records_that_its_filter_takes() -> None:
    found = told(add(made(), SOME), 0)
    assert list(found) == [spec.name for spec in SPECS], "in the order of the rule"
    assert (found["orders"], found["failed"], found["lost"]) == (4, 2, 8.0)
    assert found["users"] == 3
    assert found["top"] == [{"key": "bob", "count": 2}, {"key": "ann", "count": 1}]
    assert found["p50"] == pytest.approx(3, rel=0.01)


def test_derived_figures_follow_from_the_others() -> None:
    found = told(add(made(), SOME), 0)
    assert (found["failure_ratio"], found["per_minute"]) == (0.5, 8.0)


def test_a_window_of_no_length_has_no_rate_and_one_over_nothing_no_ratio() -> None:
    found = told(made(), 2, length_ms=0)
    assert math.isnan(found["failure_ratio"])
    assert math.isnan(found["per_minute"])


def test_each_window_has_the_rate_of_its_own_length() -> None:
    both = add(made(), [(0, 1.0, "a", True), (1, 1.0, "a", True)])
    found = both.results(np.array([0, 1]), np.array([60_000, 1_000]))
    assert found["per_minute"].tolist() == [1.0, 60.0]


def test_detectors_are_told_what_a_window_without_records_is_worth() -> None:
    worth = figures.empties(SPECS)
    assert list(worth) == [spec.name for spec in SPECS]
    assert {name: value for name, value in worth.items() if value == 0} == dict.fromkeys(
        ["orders", "failed", "lost", "per_minute", "users"], 0.0
    )


def test_an_alarm_about_silence_tells_zeros_nothing_and_empty_lists() -> None:
    told_of = figures.nothing(SPECS)
    assert list(told_of) == [spec.name for spec in SPECS]
    assert (told_of["orders"], told_of["p50"], told_of["top"]) == (0, None, [])


def test_only_lists_are_no_numbers() -> None:
    assert [spec.name for spec in SPECS if not figures.is_number(spec)] == ["top"]


def test_some_records_are_those_records_whether_by_places_or_by_a_slice() -> None:
    whole = readings(SOME)
    for where in (slice(1, 4), np.array([1, 2, 3])):
        part = whole.part(where)
        assert len(part) == 3
        assert part.times.tolist() == [1, 2, 3]
        assert part.keys["user"] == ["bob", "bob", "bob"]
        assert part.masks[filter_id(FAILED)].tolist() == [False, False, True]
        assert part.numbers["amount"][2] == 3.0


def test_slots_taken_and_put_elsewhere_are_the_same_own_columns_included() -> None:
    steady = add(made(), SOME)
    steady.arrays["key"][:2] = [41, 42]
    saved = steady.take(np.array([0, 1]))
    heir = made()
    heir.put(np.array([3]), saved, np.array([True, False]))
    assert told(heir, 3) == told(steady, 0)
    assert heir.arrays["key"].tolist()[3] == 41
    rest: list[Record] = [(0, 2.0, "dan", True)]
    add(steady, rest)
    add(heir, [(3, *record[1:]) for record in rest])
    assert heir.take(np.array([3])) == steady.take(np.array([0]))


def test_slots_merge_with_those_of_others_and_with_their_own_neighbours() -> None:
    whole = add(made(), [(0, *record[1:]) for record in SOME])
    one, other = add(made(), SOME[:2]), add(made(), SOME[2:])
    one.merge(np.array([2]), other, np.array([0]))
    one.merge(np.array([2]), one, np.array([0]))
    one.merge(np.array([2]), one, np.array([1]))
    assert told(one, 2) == told(whole, 0)


def test_a_slot_that_was_reset_is_as_new_and_growth_keeps_the_others() -> None:
    both = add(made(), SOME)
    before = told(both, 0)
    both.ensure(1_000)
    assert told(both, 0) == before
    both.reset(np.array([0]))
    assert both.take(np.array([0])) == made().take(np.array([0]))


def test_bytes_of_other_figures_are_refused() -> None:
    saved = add(made(), SOME).take(np.array([0]))
    for name in saved:
        less = {other: part for other, part in saved.items() if other != name}
        with pytest.raises(ValueError, match=r"expected|no "):
            made().put(np.array([0]), less)
    with pytest.raises(ValueError, match="expected"):
        made().put(np.array([0]), saved | {"more": b""})


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_memory_of_a_group_is_what_is_said(spec: AggregateSpec) -> None:
    """With a slot full of different keys, and of values over six powers of ten."""
    said = figures.bytes_per_group(spec)
    assert said.least <= said.usual <= said.most
    if spec.of:
        assert said == (0, 0, 0)
        return
    alone = Figures([spec])
    alone.ensure(64)
    assert alone.nbytes == 64 * said.least
    n = 2_000
    full = Readings(
        np.arange(n),
        {"amount": np.geomspace(1, 1e6, n)},
        {"user": [f"user {i}" for i in range(n)]},
        {filter_id(FAILED): np.ones(n, dtype=np.bool_)},
    )
    alone.update(np.zeros(n, dtype=np.intp), full)
    cells = sum(len(of) for name, of in alone.take(np.array([0])).items() if "codes" in name) * 2
    assert cells <= said.most - said.least
    assert cells <= 2.1 * (said.usual - said.least)
