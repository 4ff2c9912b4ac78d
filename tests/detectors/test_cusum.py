"""Deviations that add up."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.support import Series


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, n)


def raised(said: list) -> list[int]:
    return [i for i, one in enumerate(said) if one.raised]


def test_noise_is_quiet():
    assert sum(len(raised(Series("cusum").see_all(noise(2_000, seed)))) for seed in range(5)) <= 2


@pytest.mark.parametrize("by", [30.0, -30.0])
def test_a_shift_is_found_that_no_window_shows_alone(by):
    series = Series("cusum")
    series.see_all(noise(1_000))
    said = series.see_all(noise(100, seed=1) + by)
    first = raised(said)[0]
    assert first <= 10
    assert said[first].run > 1
    assert "has shifted" in said[first].sentence


def test_a_drift_of_a_deviation_in_ten_windows_is_found():
    series = Series("cusum")
    series.see_all(noise(1_000))
    assert raised(series.see_all(noise(100, seed=1) + np.linspace(0, 100, 100)))


def test_a_lasting_shift_is_told_once_and_is_then_the_usual():
    series = Series("cusum")
    series.see_all(noise(1_000))
    said = series.see_all(noise(1_000, seed=1) + 50)
    assert 1 <= len(raised(said)) <= 2
    assert said[raised(said)[0] + 1].expected == pytest.approx(150, abs=15)


def test_after_a_raise_it_starts_again():
    series = Series("cusum")
    series.see_all(noise(1_000))
    next(one for one in series.see_all(noise(50, seed=1) + 60) if one.raised)
    series = Series("cusum")
    series.see_all(noise(1_000))
    while not series.see(160).raised:
        pass
    state = series.columns.arrays
    assert [float(state[name][0]) for name in ("up", "up_run", "up_moved", "down")] == [0, 0, 0, 0]


def test_a_value_at_the_bound_makes_the_sum_too_large():
    series = Series("cusum")
    series.see_all([*noise(1_000), 120, 120])
    saved = {name: bytes(column) for name, column in series.columns.snapshot(1).items()}
    upper = series.see(100).upper
    for value, is_beyond in ((upper + 0.01, True), (upper - 0.01, False)):
        series.columns.restore(saved, 1)
        assert (series.see(value).score >= series.params.limit) == is_beyond


@pytest.mark.parametrize("how", ["maintenance", "the end of history"])
def test_nothing_adds_up_across_a_gap(how):
    series = Series("cusum")
    series.see_all(noise(1_000))
    series.see_all([120] * 3)
    state, rows = series.columns.arrays, np.array([0])
    assert state["up"][0] > 1
    mean = float(state["mean"][0])
    if how == "maintenance":
        series.watch.pass_over(rows)
    else:
        series.watch.shut(rows, is_gap=True)
    assert [float(state[name][0]) for name in ("up", "up_moved", "up_run", "down")] == [0] * 4
    assert series.see(120).expected == pytest.approx(mean)  # what was learnt stays
    assert state["up_run"][0] == 1
