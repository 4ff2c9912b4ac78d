"""Values unlike anything remembered."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from processor.core.columns import Columns
from processor.detectors import _memory, _season
from processor.detectors.base import Wave, silence
from processor.detectors.novelty import Novelty, NoveltyParams
from tests.detectors.support import TEN_MIN, Series

PER_DAY = 144


def orders(days: int, seed: int = 1) -> list[float]:
    """Some 7 a window, with a daily rhythm."""
    hours = np.arange(days * PER_DAY) / 6
    rate = 7 * (1 + 0.6 * np.sin(2 * np.pi * (hours - 8) / 24))
    return [float(x) for x in np.random.default_rng(seed).poisson(rate)]


def test_a_value_four_times_the_usual_raises_and_says_what_is_known():
    series = Series("novelty", sensitivity="low")
    said = series.see_all(orders(9))
    assert not any(one.raised for one in said[-PER_DAY:])
    spike = series.see(40)
    assert spike.raised
    assert spike.score >= 2.4
    assert spike.lower < spike.expected < spike.upper < 40
    assert spike.sentence == (
        f"orders is 40, above the {spike.expected:.3g} expected at this hour; "
        f"up to {spike.upper:.3g} would be nothing new"
    )


def test_what_is_expected_is_the_mean_without_the_value_itself():
    series = Series("novelty", size_ms=3_600_000)
    series.see_all([10.0] * (24 * 10))
    assert series.see(1_000).expected == 10.0


def test_what_happens_each_night_is_remembered():
    values = np.array(orders(14))
    values[6::PER_DAY] = 200.0  # 1:00, each night
    said = Series("novelty").see_all(values)
    assert not any(one.raised for one in said[7 * PER_DAY :])


def test_a_value_in_a_gap_between_two_modes_is_new():
    """0 10 0 10 0 10 5: no bound from above or below could find it."""
    rng = np.random.default_rng(3)
    values = np.tile([0.0, 10.0], 9 * PER_DAY // 2) + rng.normal(0, 0.1, 9 * PER_DAY)
    series = Series("novelty")
    series.see_all(values)
    said = series.see(5)
    assert said.raised
    assert not said.lower <= 5 <= said.upper


def test_a_value_in_a_gap_is_told_by_what_is_remembered_next_to_it_whatever_its_side():
    """It lies far above what is expected, and below all that is near."""
    values = np.where(np.arange(9 * PER_DAY) % 10 == 9, 100.0, 0.0)
    values += np.random.default_rng(3).normal(0, 0.1, len(values))
    series = Series("novelty", level="lite")
    series.see_all(values)
    said = series.see(70)
    assert said.raised
    assert said.expected < 70 < said.lower < said.upper
    told, nearest = said.sentence.split(" expected at this hour; the nearest value remembered is ")
    assert told == f"orders is 70, above the {said.expected:.3g}"
    assert float(nearest) == pytest.approx(100, abs=15), "but for what the hour's mean moved"


def test_a_value_that_is_new_only_with_those_before_it_says_so_and_names_no_bound():
    verdict = silence(1)
    verdict.expected[0], verdict.lower[0], verdict.upper[0], verdict.run[0] = 50, 20, 80, 1
    wave = Wave(0, TEN_MIN, 0, np.array([75.0]), np.array([1]))
    assert Novelty().sentence(NoveltyParams(), "orders", verdict, 0, wave) == (
        "orders is 75, above the 50 expected at this hour; "
        "together with the windows before, it is unlike anything remembered"
    )


def test_the_same_again_does_not_raise_again():
    series = Series("novelty")
    series.see_all(orders(9))
    assert [one.raised for one in series.see_all([40, 40, 40])] == [True, False, False]


def test_what_is_less_strange_than_what_was_just_told_is_not_told():
    values = orders(9)
    series, other = Series("novelty"), Series("novelty")
    for one in (series, other):
        one.see_all(values)
    assert other.see(60).raised, "by itself it would be told"
    assert series.see(400).raised
    series.see_all(values[-PER_DAY:][:20])
    said = series.see(60)
    assert said.score >= 2.2, "it is strange all the same"
    assert not said.raised


def test_an_escalation_raises_again():
    series = Series("novelty")
    series.see_all(orders(9))
    first, second = series.see(30), series.see(3_000)
    assert first.raised
    assert second.raised
    assert second.score > first.score


def test_it_is_not_calm_while_the_value_stays_where_it_jumped_to():
    series = Series("novelty")
    series.see_all(orders(9))
    assert not any(one.calm for one in series.see_all([40] * 20))
    assert any(one.calm for one in series.see_all(orders(1)))


def test_the_band_ends_where_values_begin_to_raise():
    for seed in range(20):
        series = Series("novelty")
        series.see_all(orders(9, seed))
        said = series.see(12 + seed)
        assert (said.score >= 2.2) == (not said.lower <= 12 + seed <= said.upper)


@pytest.mark.parametrize(("direction", "value"), [("below", 40), ("above", -40)])
def test_the_other_direction_is_ignored(direction, value):
    series = Series("novelty", direction=direction)
    series.see_all(orders(9))
    assert not series.see(value).raised
    assert series.see(-value).raised


def test_a_difference_below_min_delta_is_ignored():
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(0, 0.001, 9 * PER_DAY)
    for min_delta, raised in ((0, True), (2, False)):
        series = Series("novelty", min_delta=min_delta)
        series.see_all(values)
        assert series.see(101).raised is raised


def test_nothing_is_said_in_the_warm_up():
    series = Series("novelty", warm_up=300)
    values = orders(3)[:280]
    values[250] = 1e6
    assert not any(one.raised for one in series.see_all(values))


def test_a_young_series_must_be_stranger_to_raise():
    def score_at(day: int) -> float:
        series = Series("novelty")
        series.see_all(orders(day))
        return series.see(1e6).score

    assert score_at(1) < score_at(3) < score_at(7)
    assert score_at(7) == pytest.approx(score_at(12), abs=0.02)


def test_the_first_value_of_all_is_only_learnt():
    first = Series("novelty", warm_up=1).see(1e6)
    assert np.isnan(first.expected)
    assert np.isnan(first.score)


def test_an_hour_never_seen_is_expected_to_go_on_as_the_hour_before():
    series = Series("novelty", size_ms=3_600_000)
    series.see_all([10.0, 12.0])
    assert series.see(50).expected == 12.0


def test_what_was_not_met_for_4000_windows_is_new_again():
    series = Series("novelty", size_ms=TEN_MIN)
    rng = np.random.default_rng(0)
    series.see_all(rng.normal(0, 1, 1_000))
    assert series.see(40).raised
    series.see_all(rng.normal(0, 1, 3_000))
    assert not series.see(40).raised  # met 3,000 windows ago, and now refreshed
    series.see_all(rng.normal(0, 1, _memory.FORGET_AFTER + _memory.SWEEP_EVERY))
    assert series.see(40).raised


def test_a_batch_over_several_chunks_equals_one_by_one():
    detector, params = Novelty(), NoveltyParams(warm_up=1)
    n = _memory.CHUNK + 37
    picked = np.array([0, 1, _memory.CHUNK - 1, _memory.CHUNK, n - 1])
    values = np.random.default_rng(5).normal(0, 1, (12, n))
    values[::3, ::5] = np.nan
    batch, alone = (Columns(detector.columns(params)) for _ in range(2))
    batch.ensure(n)
    alone.ensure(n)
    for i in range(12):
        wide = _judge(detector, params, batch, np.arange(n), values[i], i)
        for row in picked:
            narrow = _judge(detector, params, alone, np.array([row]), values[i, row : row + 1], i)
            assert narrow.score.tobytes() == wide.score[row : row + 1].tobytes()
    assert alone.take(picked) == batch.take(picked)


def _judge(detector, params, columns, rows, values, i):
    start_ms = i * TEN_MIN
    wave = Wave(start_ms, start_ms + TEN_MIN, start_ms, values, np.ones(len(rows), dtype=np.int64))
    return detector.judge(params, columns.arrays, rows, wave)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sensitivity": "extreme"}, "sensitivity"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": float("inf")}, "finite"),
        ({"min_delta": -1}, "min_delta"),
        ({"treshold": 2}, "unknown field `treshold`"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_reason(options, sentence):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(options, NoveltyParams)


def drift(seed: int) -> np.ndarray:
    """Eleven days as ever, then two days in which the rate grows threefold."""
    hours = np.arange(13 * PER_DAY) / 6
    rate = 7 * (1 + 0.6 * np.sin(2 * np.pi * (hours - 8) / 24))
    rate[11 * PER_DAY :] *= np.linspace(1, 3, 2 * PER_DAY)
    return np.random.default_rng(seed).poisson(rate).astype(np.float64)


def test_a_slow_drift_shows_in_the_run_before_any_single_window_is_new():
    first = {}
    for level in ("lite", "standard"):
        series = Series("novelty", sensitivity="low", level=level)
        said = series.see_all(drift(0))[11 * PER_DAY :]
        first[level] = next((i, one) for i, one in enumerate(said) if one.raised)
    assert first["standard"][0] < first["lite"][0]
    told = first["standard"][1]
    assert told.run == 3
    assert "; the last 30 min together are unlike anything remembered" in told.sentence


def test_an_uneven_day_of_values_seen_before_is_told_as_a_day():
    """One value in ten is wild; then, for a day, all are."""
    rng = np.random.default_rng(2)
    wild = rng.uniform(-4, 4, 17 * PER_DAY)
    values = 20 + np.where(rng.random(len(wild)) < 0.1, wild, wild / 8)
    values[16 * PER_DAY :] = 20 + wild[16 * PER_DAY :]
    said = {}
    for level in ("lite", "full"):
        series = Series("novelty", level=level)
        said[level] = series.see_all(values)[16 * PER_DAY :]
    assert not any(one.raised for one in said["lite"])
    told = next(one for one in said["full"] if one.raised)
    assert told.run == PER_DAY
    assert "; the last 1 d together are unlike anything remembered" in told.sentence


def test_an_alarm_names_its_part_and_the_value_remembered_next_to_it_with_its_time():
    values = orders(9)
    values[-10] = 60
    detector, params = Novelty(), NoveltyParams(level="lite")
    columns = Columns(detector.columns(params))
    columns.ensure(1)
    for i, value in enumerate(values):
        _judge(detector, params, columns, np.array([0]), np.array([value]), i)
    said = _judge(detector, params, columns, np.array([0]), np.array([300.0]), len(values))
    assert detector.parts[said.part[0]] == "point"
    assert said.nearest[0] == pytest.approx(60, abs=5), "by what differs from the hour's mean"
    assert said.nearest_ms[0] == (len(values) - 10) * TEN_MIN


@pytest.mark.parametrize("level", ["lite", "standard", "full"])
def test_what_a_person_expects_is_kept_and_raises_no_more(level):
    detector, params = Novelty(), NoveltyParams(level=level)
    columns = Columns(detector.columns(params))
    columns.ensure(2)
    both = np.array([0, 1])
    values = orders(9)
    for i, value in enumerate(values):
        _judge(detector, params, columns, both, np.array([value, value]), i)
    start_ms = len(values) * TEN_MIN
    wave = Wave(start_ms, start_ms + TEN_MIN, start_ms, np.zeros(1), np.ones(1, dtype=np.int64))
    before = columns.take(np.array([1]))
    detector.expect(params, columns.arrays, np.array([0]), np.array([60.0]), wave)
    assert columns.take(np.array([1])) == before
    said = _judge(detector, params, columns, both, np.array([60.0, 60.0]), len(values))
    assert said.score[0] < said.score[1]
    if level == "lite":
        assert said.raised.tolist() == [False, True]


@pytest.mark.parametrize(("level", "most"), [("lite", 824), ("standard", 1_712), ("full", 3_176)])
def test_memory_a_series_grows_with_the_level(level, most):
    columns = Columns(Novelty().columns(NoveltyParams(level=level)))
    columns.ensure(1_000)
    assert columns.nbytes / columns.rows <= most


def test_a_mean_far_from_where_its_series_began_has_all_its_digits():
    columns = Columns(Novelty().columns(NoveltyParams()))
    columns.ensure(1)
    state, row = columns.arrays, np.array([0])
    _season.on_birth(state, row, np.array([0.0]))
    _season.on_profile(state, row, 8, np.array([1e9]))
    _season.follow(state, row, 8)
    for hour in (8, 9):
        for _ in range(2_000):
            _season.on_profile(state, row, hour, np.array([1e9 + 0.125]))
        assert _season.expected(state, row, hour)[0] == pytest.approx(1e9 + 0.125, abs=1e-4, rel=0)


def test_a_base_that_follows_leaves_means_as_they_are_and_hours_never_met_unknown():
    columns = Columns(Novelty().columns(NoveltyParams()))
    columns.ensure(1)
    state, row = columns.arrays, np.array([0])
    _season.on_birth(state, row, np.array([10.0]))
    for hour, value in ((8, 10.0), (9, 25.0), (10, 40.0)):
        _season.on_profile(state, row, hour, np.array([value]))
    _season.follow(state, row, 9)
    said = [float(_season.expected(state, row, hour)[0]) for hour in (8, 9, 10, 11)]
    assert said[:3] == [10.0, 25.0, 40.0]
    assert np.isnan(said[3])
    assert state["base"][0] == 25.0


def test_after_a_gap_the_windows_before_it_are_no_part_of_a_run():
    detector, params = Novelty(), NoveltyParams()
    columns = Columns(detector.columns(params))
    columns.ensure(2)
    both = np.array([0, 1])
    values = [*orders(9), 40.0, 40.0]
    for i, value in enumerate(values):
        _judge(detector, params, columns, both, np.array([value, value]), i)
    for spec in columns.specs:
        if spec.name in params.passing:
            columns.arrays[spec.name][1] = spec.fill
    said = _judge(detector, params, columns, both, np.array([7.0, 7.0]), len(values) + PER_DAY)
    assert said.score[1] < said.score[0] - 0.1
