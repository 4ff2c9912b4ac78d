"""Latency recorders: percentiles, bounds, and sums over workers."""

import random

import pytest
from hdrh.histogram import HdrHistogram

from processor.observe.latency import DIGITS, HIGHEST_US, LOWEST_US, LatencyRecorder, merged


def recorded(*seconds: float) -> LatencyRecorder:
    recorder = LatencyRecorder()
    for value in seconds:
        recorder.record(value)
    return recorder


def test_percentiles_are_true_to_three_digits() -> None:
    told = recorded(*(ms / 1_000 for ms in range(1, 1_001))).summary()
    assert told.count == 1_000
    assert told.p50_ms == pytest.approx(500, rel=1e-3)
    assert told.p90_ms == pytest.approx(900, rel=1e-3)
    assert told.p99_ms == pytest.approx(990, rel=1e-3)
    assert told.p999_ms == pytest.approx(999, rel=1e-3)
    assert told.max_ms == pytest.approx(1_000, rel=1e-3)


def test_nothing_recorded_is_zero_everywhere_and_can_be_merged() -> None:
    told = LatencyRecorder().summary()
    assert (told.count, told.p50_ms, told.p999_ms, told.max_ms) == (0, 0, 0, 0)
    assert merged([told.histogram]).count == 0
    assert merged([]).count == 0


def test_what_is_out_of_bounds_is_clamped_and_still_counts() -> None:
    told = recorded(-3.0, 0.0, 1e-9, 7_200.0, 1e12).summary()
    assert told.count == 5
    assert told.p50_ms == 0.001
    assert told.max_ms == 3_600_000


def test_a_microsecond_and_an_hour_are_told_apart_from_their_neighbours() -> None:
    assert recorded(1e-6).summary().max_ms == 0.001
    assert recorded(2e-6).summary().max_ms == 0.002
    assert recorded(3_590.0).summary().max_ms == pytest.approx(3_590_000, rel=1e-3)


def test_n_at_once_equals_one_by_one() -> None:
    once = LatencyRecorder()
    once.record(0.25, 40)
    assert once.summary() == recorded(*[0.25] * 40).summary()


def test_the_sum_of_two_workers_equals_one_that_saw_it_all() -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(-3, 2) for _ in range(2_000)]
    halves = [recorded(*values[:700]).summary(), recorded(*values[700:]).summary()]
    assert merged([half.histogram for half in halves]) == recorded(*values).summary()


def test_the_histogram_is_in_microseconds_and_anybody_can_decode_it() -> None:
    decoded = HdrHistogram.decode(recorded(0.25).summary().histogram)
    assert decoded.get_value_at_percentile(50) == pytest.approx(250_000, rel=1e-3)
    bounds = (decoded.lowest_trackable_value, decoded.highest_trackable_value)
    assert bounds == (LOWEST_US, HIGHEST_US)
    assert decoded.significant_figures == DIGITS
