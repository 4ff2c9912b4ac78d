"""Quantiles within one per cent, of any sign and size, with buckets that no logarithm decides."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.aggregators import quantile
from processor.core.figures import Figures, Readings
from processor.model import AggregateSpec
from tests.aggregators.support import Slots

numbers = st.one_of(
    st.floats(-(2.0**53), 2.0**53),
    st.floats(-1, 1),
    st.integers(-100, 100).map(float),
    st.sampled_from([0.0, -0.0, 2.0**53, -(2.0**53), 2.0**-1022, -(2.0**-1022), 5e-324]),
)
shares = st.sampled_from([0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999999, 1]).map(float)


def exact(values: list[float], q: float) -> float:
    rank = max(1, math.ceil(Fraction(str(q)) * len(values)))
    return sorted(values)[rank - 1]


@settings(deadline=None, max_examples=300)
@given(st.lists(numbers, min_size=1, max_size=80), shares)
def test_it_is_within_one_per_cent_of_the_value_of_that_rank(values: list[float], q: float) -> None:
    found = Slots("quantile", q=q).add(values).result()
    truth = exact(values, q)
    if abs(truth) < 2.0**-1022:
        assert found == 0
    else:
        assert abs(found - truth) <= 0.0097 * abs(truth)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("shape", ["lognormal", "normal", "pareto", "uniform"])
def test_it_agrees_with_numpy_on_a_hundred_thousand_values(q: float, shape: str) -> None:
    rng = np.random.default_rng(3)
    draw = {
        "lognormal": lambda: rng.lognormal(3, 2, 100_000),
        "normal": lambda: rng.normal(0, 50, 100_000),
        "pareto": lambda: rng.pareto(1.5, 100_000),
        "uniform": lambda: rng.uniform(-1, 3, 100_000),
    }
    values = draw[shape]()
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    assert Slots("quantile", q=q).add(values.tolist()).result() == pytest.approx(truth, rel=0.01)


@given(st.lists(numbers, min_size=2, max_size=50))
def test_buckets_are_in_the_order_of_their_values(values: list[float]) -> None:
    found = quantile.buckets(np.array(sorted(values)))
    assert (np.diff(found) >= 0).all()
    middles = quantile.middles(found)
    assert (np.diff(middles) >= 0).all()
    assert (quantile.buckets(middles) == found).all()


def test_a_value_at_the_edge_of_a_bucket_is_in_the_upper_one() -> None:
    edges = quantile._BOUNDS[:-1]
    below = np.nextafter(edges, 0)
    assert (quantile.buckets(edges) - quantile.buckets(below) == 1).all()


def test_every_bucket_is_narrow_enough() -> None:
    lows, highs = quantile._BOUNDS[:-1], quantile._BOUNDS[1:]
    for ends in (lows, highs):
        assert float((np.abs(quantile._MIDDLES - ends) / ends).max()) < 0.0097


def test_two_quantiles_of_one_field_share_their_buckets() -> None:
    def figures(*shares: float) -> Figures:
        made = Figures(
            [AggregateSpec(f"p{q}", "quantile", "latency", options={"q": q}) for q in shares]
        )
        made.ensure(1)
        values = np.arange(1.0, 1_001.0)
        made.update(np.zeros(1_000, dtype=np.intp), Readings(np.arange(1_000), {"latency": values}))
        return made

    both = figures(0.5, 0.99)
    assert both.take(np.array([0])) == figures(0.5).take(np.array([0]))
    found = both.results(np.array([0]), 1_000)
    assert found["p0.5"][0] == pytest.approx(500, rel=0.01)
    assert found["p0.99"][0] == pytest.approx(990, rel=0.01)


def test_the_smallest_and_the_largest_are_those_of_the_slot_itself() -> None:
    for q, expected in ((0.0, [5.0, 1.0]), (1.0, [8.0, 3.0])):
        slots = Slots("quantile", q=q).add([8.0, 5.0], slot=0).add([2.0, 1.0, 3.0], slot=1)
        found = slots.figures.results(np.array([0, 1]), 1_000)["figure"]
        assert found == pytest.approx(expected, rel=0.01)


def test_slots_are_told_apart_and_one_without_values_has_no_quantile() -> None:
    slots = Slots("quantile", q=0.5).add([1.0, 2.0, 3.0], slot=2).add([100.0], slot=0)
    found = slots.figures.results(np.array([2, 1, 0, 4]), 1_000)["figure"]
    assert found[[0, 2]] == pytest.approx([2.0, 100.0], rel=0.01)
    assert np.isnan(found[[1, 3]]).all()
