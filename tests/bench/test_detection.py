"""The benchmark of detection: its series are what they claim, and a missed bar is a failure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.__main__ import main
from bench.detection import absent, command, families, judged, kinds, life, on_families, on_nab
from bench.detection.bars import Bar, Part, table
from bench.detection.families import ANOMALIES, DAY, FAMILIES, STEP_MS, Panel
from bench.detection.judged import Kind
from bench.detection.nab import File
from bench.harness import Table

LITE = kinds.novelty("lite")


def series_of(name: str, n_days: int = 14, k: int = 3) -> np.ndarray:
    return families.draw(name, 5, n_days * DAY, k)


def by_day(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, DAY, values.shape[1])


# Families


def test_there_are_eleven_families_and_eight_kinds_of_anomalies():
    assert len(FAMILIES) == 11
    assert len(ANOMALIES) == 8
    assert all(family.unfit <= ANOMALIES.keys() for family in FAMILIES.values())


def test_one_seed_gives_one_set_of_series_and_another_others():
    one, same, other = (families.injected(seed, 1, 8, 2) for seed in (1, 1, 2))
    assert np.array_equal(one.values, same.values)
    assert np.array_equal(one.onsets, same.onsets)
    assert not np.array_equal(one.values, other.values)


def test_a_seed_s_clean_series_do_not_change_with_how_many_days_are_drawn_of_others():
    assert families.clean(1, 2, 2).values.shape == (2 * DAY, 22)
    assert np.isfinite(families.clean(1, 2, 2).values).all()


@pytest.mark.parametrize("name", ["daily", "weekly", "counts", "on and off"])
def test_seasonal_families_repeat_from_day_to_day(name):
    days = by_day(series_of(name))[:5]
    usual = days.mean(axis=0)
    assert (usual.std(axis=0) > 2 * (days - usual).std(axis=(0, 1))).all()


@pytest.mark.parametrize("name", ["white noise", "heavy tail", "sparse counts"])
def test_families_without_memory_have_none(name):
    values = series_of(name)
    for column in values.T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.1


def test_the_others_are_what_they_are_called():
    assert np.ptp(series_of("constant"), axis=0).tolist() == [0, 0, 0]
    weekly = by_day(series_of("weekly"))
    assert (weekly[5:7].mean(axis=(0, 1)) < 0.6 * weekly[:5].mean(axis=(0, 1))).all()
    sparse = series_of("sparse counts")
    assert (np.median(sparse, axis=0) == 0).all()
    assert (np.round(sparse) == sparse).all()
    spikes = series_of("regular spikes")
    nights = spikes > np.quantile(spikes, 0.5, axis=0) * 3
    assert (by_day(nights).sum(axis=1) == 6).all()
    sluggish = series_of("sluggish", 60)
    assert np.corrcoef(sluggish[1:, 0], sluggish[:-1, 0])[0, 1] == pytest.approx(0.95, abs=0.02)
    steps = np.diff(series_of("random walk"), axis=0)
    assert (np.abs(np.corrcoef(steps[1:, 0], steps[:-1, 0])[0, 1]) < 0.05).all()
    heavy = series_of("heavy tail")
    assert (heavy.max(axis=0) > 5 * heavy.mean(axis=0)).all()


def test_an_anomaly_begins_at_its_onset_and_not_before():
    panel = families.injected(3, 2, 8, 4)
    for name in FAMILIES:
        for kind in set(ANOMALIES) - FAMILIES[name].unfit:
            chosen = [i for i, label in enumerate(panel.labels) if label == f"{name}/{kind}"]
            clean = draw_of(name, kind, panel)
            for column, i in enumerate(chosen):
                changed = np.flatnonzero(panel.values[:, i] != clean[:, column])
                assert panel.onsets[i] <= changed[0] < panel.ends[i], (name, kind)


def draw_of(name: str, kind: str, panel: Panel) -> np.ndarray:
    return families.draw(name, 3 + 1_000, len(panel.times_ms), 2, kind)


@pytest.mark.parametrize(
    ("kind", "is_above"), [("spike", True), ("up", True), ("dip", False), ("down", False)]
)
def test_spikes_and_shifts_go_where_they_are_said_to(kind, is_above):
    panel = families.injected(4, 2, 8, 4)
    for i, label in enumerate(panel.labels):
        name, of = label.split("/")
        if of == kind and name not in ("sparse counts",):
            onset, column = panel.onsets[i], panel.values[:, i]
            day = slice(onset, onset + (1 if kind in ("spike", "dip") else DAY))
            before = np.median(column[onset - DAY : onset])
            assert (np.median(column[day]) > before) == is_above, label


def test_nothing_is_zero_and_counts_stay_counts():
    panel = families.injected(4, 1, 8, 4)
    for i, label in enumerate(panel.labels):
        name, kind = label.split("/")
        if kind == "nothing":
            assert not panel.values[panel.onsets[i] : panel.ends[i], i].any()
        if FAMILIES[name].is_count:
            column = panel.values[:, i]
            assert (column >= 0).all()
            assert (np.round(column) == column).all()


@pytest.mark.parametrize(("name", "hour"), [("forward", 23), ("back", 25)])
def test_local_seasons_move_with_the_clocks(name, hour):
    panel = life.clock_change(name, 1, 1)
    assert panel.local_ms is not None
    shifts = (panel.local_ms - panel.times_ms) // 3_600_000
    assert sorted(set(shifts.tolist())) == [1, 2]
    days = (panel.local_ms - panel.local_ms[0]) // 86_400_000
    lengths = np.bincount(days)[:-1] // (DAY // 24)
    assert lengths[life.LEARN_DAYS] == hour
    assert set(lengths.tolist()) == {24, hour}


# Judging


def test_series_judged_apart_come_out_as_side_by_side_to_the_bit():
    panel = families.clean(1, 4, 1)
    kind = kinds.at(LITE, "high")
    together = judged.judge(kind, panel)
    apart = judged.judge_apart(
        kind,
        [
            (panel.times_ms + 52 * 7 * 86_400_000 * i, panel.values[:, i], STEP_MS)
            for i in range(11)
        ],
    )
    for i, one in enumerate(apart):
        for mine, others in zip(together, one, strict=True):
            assert np.array_equal(mine[:, i], others[:, 0], equal_nan=True)


def test_what_raises_wide_open_is_what_raises_at_each_threshold():
    panel = families.injected(1, 1, 8, 2)
    marks = judged.judge(kinds.wide_open(LITE), panel).marks
    at_medium = judged.judge(kinds.at(LITE, "medium"), panel)
    assert at_medium.raised.any()
    assert np.array_equal(at_medium.raised, marks >= kinds.threshold(LITE, "medium"))
    assert not (at_medium.opened & ~at_medium.raised).any()


def test_the_shared_threshold_lets_one_clean_window_in_10_000_through():
    marks = np.full((1_000, 100), np.nan)
    marks[:50, 0] = np.arange(50.0)
    threshold = on_families.shared_threshold(marks)
    assert (marks >= threshold).sum() == 10
    assert threshold > 39


def test_delays_count_from_the_onset_and_only_until_the_end():
    panel = Panel(
        np.arange(10), 1, np.zeros((10, 3)), onsets=np.array([4, 4, 4]), ends=np.array([6, 6, 6])
    )
    marks = np.full((10, 3), np.nan)
    marks[5, 0] = marks[3, 1] = marks[6, 1] = 3.0
    delays = on_families.delays_at(marks, panel, 2.0)
    assert delays[0] == 1
    assert np.isnan(delays[1:]).all()


def test_absence_finds_an_outage_of_what_was_always_there_in_two_windows():
    found = absent.outcome(1, 1.0, 2)
    assert found.delay == 2
    assert found.false_alarms == 0


def test_presence_has_the_share_that_it_is_drawn_with():
    there = ~np.isnan(absent.presence(1, 0.3, 50).values)
    assert there[: absent.LEARN_DAYS * DAY].mean() == pytest.approx(0.3, abs=0.01)
    assert not there[absent.LEARN_DAYS * DAY :].any()


def test_novelty_finds_a_spike_in_a_file_of_nab_s_kind():
    values = families.draw("daily", 1, 14 * DAY, 1)[:, 0]
    values[3_000:3_003] += 20 * values.std()
    times_ms = families.times(len(values))
    file = File("made/daily.csv", times_ms, values, ((2_900, 3_100),))
    found = on_nab.outcome([file], kinds.novelty("full"))
    assert found.best["standard"] > 60
    assert found.told["high"]["standard"] > 0


# The command


def options(tmp_path, *words: str):
    return command.parser().parse_args([*words, "--json", str(tmp_path / "found.json")])


def a_part(value: float) -> Part:
    figures = {"full": {"standard": value, "low_fp": 1.0, "low_fn": 2.0, "at_high": 3.0}}
    return Part(figures, [Table("t", ["a"], [["b"]])], [Bar("NAB full, standard", value, 76, True)])


def test_a_missed_bar_fails_and_a_reached_one_does_not(tmp_path, capsys):
    assert command.report({"nab": a_part(75.9)}, options(tmp_path)) == 1
    assert "MISS" in capsys.readouterr().out
    assert command.report({"nab": a_part(76.0)}, options(tmp_path)) == 0
    assert "1 of 1 bars reached" in capsys.readouterr().out


def test_a_figure_that_could_not_be_measured_misses_its_bar():
    assert not Bar("delay", None, 3).is_met
    assert not Bar("delay", float("nan"), 3).is_met
    assert Bar("delay", 3, 3).is_met
    assert "–" in table([Bar("delay", None, 3)]).rows[0]


def test_json_has_nab_s_three_profiles_at_its_top(tmp_path):
    command.report({"nab": a_part(76.5)}, options(tmp_path))
    found = json.loads((tmp_path / "found.json").read_bytes())
    assert found["standard"] == 76.5
    assert found["low_fp"] == 1.0
    assert found["low_fn"] == 2.0
    assert found["at_high"] == 3.0
    assert found["bars"][0]["is_met"] is True
    assert found["machine"]["python"]


def test_without_a_folder_nab_is_skipped_with_a_word(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert main(["detection", "--only", "nab", "--kind", "lite", "--json", str(file)]) == 0
    assert "NAB: skipped; --nab DIR says where its data is" in capsys.readouterr().out
    assert json.loads(file.read_bytes())["standard"] is None


def test_a_folder_without_nab_s_data_is_an_error_that_says_so(tmp_path, capsys):
    assert main(["detection", "--only", "nab", "--nab", str(tmp_path)]) == 1
    assert "give NAB's folder" in capsys.readouterr().err


def test_every_scored_detector_is_measured_under_its_own_name():
    names = [kind.name for kind in kinds.measured()]
    assert names[:3] == ["lite", "standard", "full"]
    assert len(set(names)) == len(names)
    assert not set(names) & kinds.UNSCORED
    for kind in kinds.measured():
        thresholds = [kinds.threshold(kind, level) for level in kinds.SENSITIVITIES]
        assert thresholds == sorted(thresholds)
        assert isinstance(kind, Kind)


def test_a_detector_that_does_not_run_here_is_told_and_left_out():
    assert kinds.why_not(LITE) is None
    reason = kinds.why_not(Kind("odd", "zscore", {"sensitivity": "extreme"}))
    assert reason is not None
    assert "extreme" in reason
    assert not set(kinds.unmeasured()) & {kind.name for kind in kinds.measured()}
