"""Values far from a moving mean."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.support import Series


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, n)


def openings(series: Series, values: np.ndarray) -> int:
    return sum(one.raised for one in series.see_all(values))


def test_noise_is_quiet():
    assert sum(openings(Series("zscore"), noise(2_000, seed)) for seed in range(5)) <= 1


@pytest.mark.parametrize("value", [200.0, 0.0])
def test_a_spike_or_dip_is_found_at_once(value):
    series = Series("zscore")
    assert openings(series, noise(1_000)) == 0
    said = series.see(value)
    assert said.raised
    assert said.expected == pytest.approx(100, abs=3)
    assert said.lower < 90 < 110 < said.upper
    assert not said.lower <= value <= said.upper


def test_the_band_is_where_the_threshold_lies():
    series = Series("zscore")
    series.see_all(noise(1_000))
    before = series.columns.snapshot(1)
    before = {name: bytes(column) for name, column in before.items()}
    upper = series.see(100).upper
    for value, is_beyond in ((upper * 1.0001, True), (upper * 0.9999, False)):
        series.columns.restore(before, 1)
        assert (series.see(value).score >= 3.5) == is_beyond


def test_a_series_with_fat_tails_has_a_wider_band_than_one_without():
    thin, fat = Series("zscore"), Series("zscore")
    thin.see_all(noise(3_000))
    fat.see_all(100 + 10 * np.random.default_rng(0).standard_t(3, 3_000))
    width = [one.upper - one.lower for one in (thin.see(100), fat.see(100))]
    assert width[1] > 2 * width[0]


def test_spikes_that_come_every_day_are_quiet_after_some_days():
    series = Series("zscore")
    values = noise(30 * 144)
    values[70::144] += 400
    said = series.see_all(values)
    assert not any(one.raised for one in said[15 * 144 :])


def test_an_incident_is_not_taken_for_the_usual_at_once():
    series = Series("zscore")
    series.see_all(noise(1_000))
    before = series.see(100)
    series.see_all(np.full(6, 1e6))
    after = series.see(100)
    assert after.expected < before.upper


def test_a_shift_that_lasts_is_told_once_and_becomes_the_usual():
    series = Series("zscore")
    series.see_all(noise(1_000))
    said = series.see_all(noise(2_000, seed=1) + 150)
    assert sum(one.raised for one in said) <= 3
    assert said[0].raised
    assert series.see(250).expected == pytest.approx(250, abs=10)


def test_a_constant_that_steps_is_found():
    series = Series("zscore")
    assert openings(series, np.full(500, 3.0)) == 0
    assert series.see(3.5).raised


def test_its_sentence_says_by_how_much_and_what_would_be_usual():
    series = Series("zscore")
    series.see_all(np.tile([90.0, 110.0], 500))
    assert series.see(300).sentence.startswith("orders is 300, 200 above the 100 that is its mean")
