"""Bounds that somebody has set."""

from __future__ import annotations

import msgspec
import pytest

from processor.detectors.threshold import ThresholdParams
from tests.detectors.support import Series


def test_a_value_above_the_bound_raises_and_the_bound_itself_does_not():
    series = Series("threshold", above=0.2)
    assert not series.see(0.2).raised
    said = series.see(0.5)
    assert said.raised
    assert said.sentence == "orders is 0.5, above the bound of 0.2"
    assert said.upper == 0.2
    assert said.score == pytest.approx(2.5)


def test_a_value_below_the_bound_raises():
    series = Series("threshold", below=10)
    said = series.see(4)
    assert said.raised
    assert said.sentence == "orders is 4, below the bound of 10"
    assert said.score == pytest.approx(1.6)


def test_the_least_step_beyond_a_bound_is_beyond_it():
    assert Series("threshold", above=1e9).see(1e9 + 2e-7).raised
    assert Series("threshold", above=0).see(5e-324).raised


def test_it_waits_for_as_many_windows_in_a_row_as_were_asked_for():
    """bound 5, for 3:   6  7  4  6  7  8  9"""
    series = Series("threshold", **{"above": 5, "for": 3})
    said = series.see_all([6, 7, 4, 6, 7, 8, 9])
    assert [one.raised for one in said] == [False, False, False, False, False, True, True]
    assert said[5].sentence == "orders is 8, above the bound of 5 for 30 min (3 windows)"


def test_a_missing_window_neither_breaks_nor_lengthens_the_row():
    series = Series("threshold", **{"above": 5, "for": 2})
    assert [series.see(value).raised for value in (6, float("nan"), 6)] == [False, False, True]


def test_windows_with_few_records_are_not_judged():
    series = Series("threshold", above=0.2, min_count=20)
    assert not series.see(1.0, count=19).raised
    assert series.see(1.0, count=20).raised


def test_both_bounds_make_a_band():
    series = Series("threshold", above=9, below=1)
    assert [one.raised for one in series.see_all([0.5, 1, 5, 9, 9.5])] == [
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "neither `above` nor `below`"),
        ({"above": 1, "below": 2}, "swap them"),
        ({"above": float("inf")}, "finite"),
        ({"above": 1, "for": 0}, "for"),
        ({"above": 1, "for_windows": 2}, "unknown field `for_windows`"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_reason(options, sentence):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(options, ThresholdParams)
