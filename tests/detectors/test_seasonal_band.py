"""Values outside what is usual at this hour of day or week."""

from __future__ import annotations

import numpy as np
import pytest

from tests.detectors.support import DAY, HOUR, TEN_MIN, Series

MONDAY = 4 * DAY + 2_814 * 7 * DAY  # the epoch began on a Thursday


def daily(days: int, seed: int = 0, size_ms: int = TEN_MIN) -> np.ndarray:
    hours = np.arange(days * DAY // size_ms) * size_ms / HOUR
    rhythm = 100 + 60 * np.sin(2 * np.pi * hours / 24)
    return rhythm + np.random.default_rng(seed).normal(0, 3, len(hours))


def weekly(weeks: int, seed: int = 0) -> np.ndarray:
    """From a Monday on."""
    values = daily(7 * weeks, seed)
    weekend = np.arange(len(values)) // 144 % 7 >= 5
    return np.where(weekend, values / 3, values)


def openings(said: list) -> int:
    return sum(one.raised for one in said)


def test_a_daily_rhythm_is_quiet():
    series = Series("seasonal_band", start_ms=MONDAY)
    said = series.see_all(daily(28))
    assert openings(said) <= 2
    assert openings(said[3 * 144 :]) <= 1


def test_weekends_are_known_after_two_weeks():
    series = Series("seasonal_band", start_ms=MONDAY)
    said = series.see_all(weekly(8))
    assert openings(said[15 * 144 :]) == 0
    assert said[-1].expected == pytest.approx(weekly(8)[-1], rel=0.2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.random.default_rng(0).normal(100, 3, 28 * 144), "that is its mean of late"),
        (daily(28), "usual at 00:00–01:00"),
        (weekly(6), "usual on Mon 00:00–01:00"),
    ],
    ids=["none", "day", "week"],
)
def test_the_season_shows_by_itself_and_the_sentence_names_it(values, words):
    series = Series("seasonal_band", start_ms=MONDAY)
    series.see_all(values)
    assert words in series.see(900).sentence


def test_what_is_usual_at_noon_is_found_at_night():
    series = Series("seasonal_band", start_ms=MONDAY)
    series.see_all(daily(28))
    series.see_all(daily(1)[: 18 * 6])
    said = series.see(150)  # at 6:00 it would be nothing
    assert said.raised
    assert said.expected == pytest.approx(40, abs=8)
    assert said.upper < 150


def test_a_season_may_be_prescribed():
    free = Series("seasonal_band", start_ms=MONDAY)
    fixed = Series("seasonal_band", start_ms=MONDAY, season="none")
    free.see_all(daily(14))
    fixed.see_all(daily(14))
    narrow, wide = free.see(100), fixed.see(100)
    assert wide.upper - wide.lower > 2 * (narrow.upper - narrow.lower)


def test_an_hour_that_scatters_more_has_a_wider_band():
    hours = np.arange(28 * 144) // 6 % 24
    values = np.random.default_rng(0).normal(0, np.where(hours < 12, 30, 3)) + 100
    series = Series("seasonal_band", start_ms=MONDAY)
    series.see_all(values)
    night = series.see(100)
    series.see_all(values[1 : 13 * 6])
    day = series.see(100)
    assert night.upper - night.lower > 1.3 * (day.upper - day.lower)


def test_windows_of_a_day_have_a_season_of_a_week():
    values = np.tile([100.0, 101, 99, 100, 102, 20, 18], 40) + np.random.default_rng(0).normal(
        0, 1, 280
    )
    series = Series("seasonal_band", DAY, MONDAY)
    said = series.see_all(values)
    assert openings(said[60:]) == 0
    assert series.see(20).score > 3.5
