"""Against the same time a day or a week before."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.support import DAY, HOUR, TEN_MIN, Series


def daily(days: int, seed: int = 0, size_ms: int = TEN_MIN) -> np.ndarray:
    hours = np.arange(days * DAY // size_ms) * size_ms / HOUR
    rhythm = 100 + 60 * np.sin(2 * np.pi * hours / 24)
    return rhythm + np.random.default_rng(seed).normal(0, 3, len(hours))


def test_a_daily_rhythm_is_quiet():
    said = Series("change").see_all(daily(28))
    assert sum(one.raised for one in said) <= 1


@pytest.mark.parametrize(("against", "days"), [("day", 1), ("week", 7)])
def test_it_expects_what_was_a_day_or_a_week_before(against, days):
    series = Series("change", HOUR, against=against)
    values = daily(30, size_ms=HOUR)
    if against == "week":  # 30 minute slots, so that an hour stands in every other of them
        assert len(values) == 720
    said = series.see_all(values)
    assert said[-1].expected == pytest.approx(values[-1 - days * 24], rel=1e-4)


def test_a_value_of_another_hour_is_found():
    series = Series("change")
    series.see_all(daily(14))
    series.see_all(daily(1)[: 6 * 18])
    said = series.see(150)
    assert said.raised
    assert said.expected == pytest.approx(40, abs=15)
    assert "at this time a day before" in said.sentence


def test_without_a_window_a_day_before_it_does_not_judge():
    series = Series("change")
    series.see_all(daily(3))
    series.now_ms += DAY  # a day without anything
    said = series.see_all(daily(2))
    assert all(np.isnan(one.score) for one in said[:144])
    assert not any(np.isnan(one.score) for one in said[144:])


def test_short_windows_share_a_slot_and_are_compared_with_its_mean():
    series = Series("change", 60_000)
    values = np.tile([10.0, 20, 30, 40, 50], 2 * 288)
    said = series.see_all(values)
    assert {round(one.expected, 4) for one in said[1_440 + 20 :]} == {30.0}


def test_an_incident_is_not_the_measure_of_the_next_day():
    series = Series("change")
    series.see_all(daily(14))
    series.see_all(np.full(6, 1e5))
    series.see_all(daily(1, seed=1)[6:])
    assert series.see(100).expected < 200


def test_its_memory_is_bounded_whatever_the_window():
    for against, most in (("day", 2_000), ("week", 2_300)):
        assert Series("change", against=against).columns.nbytes <= 64 * most
