"""Values far from a moving median."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.support import Series


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, n)


def openings(series: Series, values: np.ndarray) -> int:
    return sum(one.raised for one in series.see_all(values))


def test_noise_is_quiet():
    assert sum(openings(Series("mad"), noise(2_000, seed)) for seed in range(5)) <= 1


@pytest.mark.parametrize("value", [250.0, -50.0])
def test_a_spike_or_dip_is_found_at_once(value):
    series = Series("mad")
    assert openings(series, noise(1_000)) == 0
    said = series.see(value)
    assert said.raised
    assert said.expected == pytest.approx(100, abs=4)
    assert not said.lower <= value <= said.upper


def test_it_expects_the_median_where_the_mean_is_elsewhere():
    series = Series("mad")
    values = np.where(np.random.default_rng(0).random(4_000) < 0.2, 1_000.0, noise(4_000))
    series.see_all(values)
    assert series.see(100).expected == pytest.approx(np.median(values), abs=5)


def test_no_value_moves_the_median_further_than_a_step():
    far, near = Series("mad"), Series("mad")
    far.see_all([*noise(1_000), 1e12])
    near.see_all([*noise(1_000), 1e3])
    medians = [one.columns.arrays["median"][0] for one in (far, near)]
    assert medians[0] == medians[1]


def test_counts_that_are_mostly_zero_are_quiet():
    counts = np.random.default_rng(0).poisson(0.1, 5_000).astype(float)
    series = Series("mad")
    openings(series, counts[:2_000])
    assert openings(series, counts[2_000:]) <= 1
    assert series.see(40).raised


def test_its_sentence_names_the_median():
    series = Series("mad")
    series.see_all(np.tile([90.0, 110.0], 500))
    assert "that is its median of late" in series.see(900).sentence
