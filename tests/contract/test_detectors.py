"""What must hold for every detector, over every registered one; a new one is taken in by itself."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import detectors
from processor.core.columns import Columns
from processor.detectors.base import Detector, Params, Verdict, Wave

# Detectors that can't do without options, and options that a kind's default would leave untried.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "change": [{}, {"against": "week"}],
    "threshold": [{"above": 20}, {"above": 20, "below": 1, "for": 3}],
    "novelty": [
        {},
        {"sensitivity": "high", "warm_up": 20, "level": "full"},
        {"direction": "below", "min_delta": 1, "level": "standard"},
    ],
}
CASES = [
    pytest.param(detectors.get(kind), options, id=f"{kind}-{i}")
    for kind in detectors.kinds()
    for i, options in enumerate(OPTIONS.get(kind, [{}]))
]
every_detector = pytest.mark.parametrize(("detector", "options"), CASES)
few = settings(max_examples=5, deadline=None, derandomize=True)  # each is hundreds of waves
seeds = st.integers(0, 2**32 - 1)

SIZE_MS = 1_800_000
WINDOWS = 240  # five days: past every warm-up
WEEKLY_MS = 12_600_000  # a week is as many windows as a day of SIZE_MS, so history has five of them
START_MS = 1_700_000_000_000 // SIZE_MS * SIZE_MS
FIGURES = tuple(field.name for field in msgspec.structs.fields(Verdict))


class History(NamedTuple):
    values: np.ndarray  # float64[windows, series]
    counts: np.ndarray  # int64[windows, series]


def history(seed: int, windows: int = WINDOWS) -> History:
    """Seven kinds of series, each with something strange in it, and gaps in most."""
    rng = np.random.default_rng(seed)
    hours = np.arange(windows) * SIZE_MS / 3_600_000
    rhythm = 1 + 0.6 * np.sin(2 * np.pi * hours / 24)
    counts = rng.poisson(np.stack([8 * rhythm, 8 * rhythm, 2 * rhythm, *[8 * rhythm] * 4], axis=1))
    values = counts.astype(np.float64)
    values[:, 1] = rng.normal(10, 3, windows)
    values[:, 3] = np.where(np.arange(windows) % 48 == 7, 100.0, values[:, 3])  # a nightly job
    values[:, 4] = 3.25
    values[windows // 2 :, 4] = 3.5  # a constant that steps
    values[:, 5] = rng.lognormal(0, 2, windows)
    strange = rng.integers(windows * 3 // 4, windows, 7)
    values[strange, np.arange(7)] += 90
    counts[windows * 9 // 10 :, 6] = 0
    values[:, 6][counts[:, 6] == 0] = np.nan
    values[rng.integers(0, windows, 9), rng.integers(0, 7, 9)] = rng.choice([np.nan, np.inf], 9)
    return History(values, counts.astype(np.int64))


class Run:
    """One detector over columns of its own."""

    def __init__(self, detector: Detector, options: dict[str, Any], series: int):
        self.detector = detector
        self.params: Params = msgspec.convert(options, detector.params)
        self.columns = Columns(detector.columns(self.params))
        self.columns.ensure(series)
        self.size_ms = WEEKLY_MS if options.get("against") == "week" else SIZE_MS

    def judge(self, i: int, rows: np.ndarray, values: np.ndarray, counts: np.ndarray) -> Verdict:
        for array in (rows, values, counts):
            array.setflags(write=False)  # no input is changed
        start_ms = START_MS + i * self.size_ms
        wave = Wave(start_ms, start_ms + self.size_ms, start_ms + 3_600_000, values, counts)
        verdict = self.detector.judge(self.params, self.columns.arrays, rows, wave)
        for at in np.flatnonzero(verdict.raised):
            sentence = self.detector.sentence(self.params, "orders", verdict, int(at), wave)
            assert sentence
            assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", sentence))
            assert 0 <= verdict.part[at] < len(self.detector.parts)
            assert isinstance(self.detector.bin(self.params, wave), str)
        return verdict

    def over(self, past: History, first: int = 0, end: int | None = None) -> list[Verdict]:
        rows = np.arange(past.values.shape[1])
        windows = range(first, len(past.values) if end is None else end)
        return [self.judge(i, rows, past.values[i].copy(), past.counts[i].copy()) for i in windows]

    def saved(self, series: int) -> dict[str, bytes]:
        return self.columns.snapshot(series)


def bits(verdicts: list[Verdict], at: Any = slice(None)) -> list[bytes]:
    """Every figure of every verdict, to the bit."""
    return [getattr(verdict, name)[at].tobytes() for verdict in verdicts for name in FIGURES]


@every_detector
@few
@given(seed=seeds)
def test_the_future_changes_no_past_score(detector, options, seed):
    past = history(seed)
    changed = history(seed)
    changed.values[150:] = changed.values[150:] * -3 + 1e6
    changed.counts[150:] = 0
    left, right = (Run(detector, options, 7).over(which) for which in (past, changed))
    assert bits(left[:150]) == bits(right[:150])


@every_detector
@few
@given(seed=seeds)
def test_a_batch_equals_one_by_one_to_the_bit(detector, options, seed):
    past = history(seed)
    batch = Run(detector, options, 7)
    verdicts = batch.over(past)
    for series in range(7):
        alone = Run(detector, options, 7)
        row = np.array([series])
        own = [
            alone.judge(i, row, past.values[i, row], past.counts[i, row]) for i in range(WINDOWS)
        ]
        assert bits(own) == bits(verdicts, slice(series, series + 1))
        assert alone.columns.take(row) == batch.columns.take(row)


@every_detector
@few
@given(seed=seeds, stop=st.integers(0, WINDOWS))
def test_restored_equals_never_stopped_to_the_bit(detector, options, seed, stop):
    past = history(seed)
    straight = Run(detector, options, 7)
    expected = straight.over(past)
    before, after = Run(detector, options, 7), Run(detector, options, 7)
    verdicts = before.over(past, end=stop)
    after.columns.restore(before.saved(7), 7)
    verdicts += after.over(past, first=stop)
    assert bits(verdicts) == bits(expected)
    assert after.saved(7) == straight.saved(7)


@every_detector
@few
@given(seed=seeds, order=st.permutations(range(7)))
def test_the_order_of_series_is_irrelevant(detector, options, seed, order):
    past = history(seed)
    straight, shuffled = Run(detector, options, 7), Run(detector, options, 7)
    expected = straight.over(past)
    rows = np.array(order)
    for i, verdict in enumerate(expected):
        other = shuffled.judge(i, rows, past.values[i][rows], past.counts[i][rows])
        assert bits([other]) == bits([verdict], rows)
    assert shuffled.saved(7) == straight.saved(7)


@every_detector
@few
@given(seed=seeds)
def test_series_outside_a_wave_stay_as_they_are(detector, options, seed):
    past = history(seed)
    run = Run(detector, options, 7)
    run.over(past, end=200)
    others, rows = np.array([1, 3, 5, 6]), np.array([0, 2, 4])
    before = run.columns.take(others)
    for i in range(200, WINDOWS):
        run.judge(i, rows, past.values[i][rows], past.counts[i][rows])
    assert run.columns.take(others) == before


@every_detector
@few
@given(seed=seeds)
def test_it_is_repeatable(detector, options, seed):
    left, right = Run(detector, options, 7), Run(detector, options, 7)
    assert bits(left.over(history(seed))) == bits(right.over(history(seed)))
    assert left.saved(7) == right.saved(7)


@every_detector
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 5.0, 0.0, -0.0])
def test_broken_constant_and_zero_series_do_not_alarm(detector, options, value):
    if options.get("below", -np.inf) > value:
        pytest.skip("this bound says that such a value is an anomaly")
    values = np.full((WINDOWS, 3), value)
    counts = np.stack([np.full(WINDOWS, n) for n in (1, 1_000, 0)], axis=1)
    for verdict in Run(detector, options, 3).over(History(values, counts)):
        assert not verdict.raised.any()


@every_detector
@few
@given(seed=seeds, value=st.sampled_from([np.nan, np.inf, -np.inf, 1e300]))
def test_a_window_that_cannot_be_judged_leaves_no_trace(detector, options, seed, value):
    if detector.kind == "absence":
        pytest.skip("absence looks at counts, never at values")
    run = Run(detector, options, 7)
    run.over(history(seed), end=200)
    before = run.saved(7)
    verdict = run.judge(200, np.arange(7), np.full(7, value), np.ones(7, dtype=np.int64))
    assert run.saved(7) == before
    assert np.isnan(verdict.score).all()
    assert not (verdict.raised | verdict.calm).any()


@every_detector
@few
@given(seed=seeds)
def test_a_window_with_too_few_records_leaves_no_trace(detector, options, seed):
    if detector.kind == "absence":
        pytest.skip("absence refuses min_count")
    run = Run(detector, {**options, "min_count": 5}, 7)
    past = history(seed)
    run.over(past, end=200)
    before = run.saved(7)
    verdict = run.judge(200, np.arange(7), np.full(7, 1e6), np.full(7, 4))
    assert run.saved(7) == before
    assert not (verdict.raised | verdict.calm).any()


@every_detector
@few
@given(seed=seeds, power=st.integers(-30, 30))
def test_scale_leaves_scores_as_they_are_where_that_is_claimed(detector, options, seed, power):
    if not detector.is_scale_free or "min_delta" in options:
        pytest.skip("not claimed")
    past = history(seed)
    scaled = History(past.values * 2.0**power, past.counts)
    left, right = (Run(detector, options, 7).over(which) for which in (past, scaled))
    assert [v.score.tobytes() for v in left] == [v.score.tobytes() for v in right]


@every_detector
@few
@given(seed=seeds, offset=st.sampled_from([-1e6, 1e3, 1e9]))
def test_offset_leaves_scores_as_they_are_where_that_is_claimed(detector, options, seed, offset):
    if not detector.is_scale_free:
        pytest.skip("not claimed")
    rng = np.random.default_rng(seed)
    past = History(rng.normal(0, 100, (WINDOWS, 7)), history(seed).counts)
    moved = History(past.values + offset, past.counts)
    left, right = (Run(detector, options, 7).over(which) for which in (past, moved))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one.score, other.score, atol=1e-3)


@every_detector
def test_each_finds_something_in_these_histories(detector, options):
    """Or the properties above would hold for a detector that is asleep."""
    raised = sum(
        int(verdict.raised.sum())
        for seed in range(3)
        for verdict in Run(detector, options, 7).over(history(seed))
    )
    if options.get("direction") != "below":  # all that is planted is above
        assert raised > 0


# ---- options that may change while state goes on --------------------------------------------


def option_names(detector: Detector) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(detector.params)}


# Another value than the default, and than those of OPTIONS.
OTHER: dict[str, Any] = {
    "recover_after": 5,
    "severity": "critical",
    "above": 30,
    "below": 2,
    "for": 2,
    "sensitivity": "low",
    "threshold": 2.5,
    "direction": "above",
    "min_delta": 2,
    "min_delta_relative": 0.1,
    "only_above": 3,
    "only_below": 9,
    "n_of_m": (2, 3),
    "escalation_only": False,
    "recover_below": 0.5,
    "cool_down": 7,
    "warm_up": 40,
    "season": "day",
}


@every_detector
def test_tunable_options_and_volatile_columns_are_there(detector, options):
    params = msgspec.convert(options, detector.params)
    assert detector.params.tunable <= option_names(detector)
    assert detector.params.tunable >= {"recover_after", "severity"}
    columns = {column.name for column in detector.columns(params)}
    assert detector.params.volatile <= columns
    assert detector.params.passing <= columns


TUNED = [
    pytest.param(case.values[0], case.values[1], name, id=f"{case.id}-{name}")
    for case in CASES
    for name in sorted(case.values[0].params.tunable - case.values[0].params.refused.keys())
]


@pytest.mark.parametrize(("detector", "options", "name"), TUNED)
def test_what_was_learnt_under_a_tunable_option_is_good_under_another_value(
    detector, options, name
):
    """The columns are the same, and it judges on by the new value, neither failing nor mute."""
    past = history(3)
    before = Run(detector, options, 7)
    before.over(past, 0, 150)
    after = Run(detector, options | {name: OTHER[name]}, 7)
    assert after.columns.specs == before.columns.specs
    after.columns.restore(before.saved(7), 7)
    steady = Run(detector, options, 7)
    steady.columns.restore(before.saved(7), 7)
    verdicts, as_before = after.over(past, 150), steady.over(past, 150)
    assert np.isfinite(np.concatenate([verdict.score for verdict in verdicts])).any()
    learnt = [np.isfinite(verdict.score) for verdict in verdicts]
    assert all((a == np.isfinite(b.score)).all() for a, b in zip(learnt, as_before, strict=True))
    limit = detector.threshold(after.params)
    if name in ("threshold", "sensitivity"):
        raised = np.concatenate([v.score[v.raised] for v in verdicts])
        assert (raised >= limit).all()
