"""NAB's scoring: its own tests' figures, its published ones, and what its paper promises.

Figures of NAB's data are checked where `NAB_DIR` names its folder; it is not part of this project.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from bench.detection import nab
from bench.detection.nab import File
from bench.detection.nab_score import PROFILES, Profile, curve, normalised, sigmoid, worths

STANDARD = PROFILES["standard"]


def a_file(n: int = 100, windows: tuple[tuple[int, int], ...] = ()) -> File:
    return File("made/file.csv", 300_000 * np.arange(n), np.zeros(n), windows)


def detections(n: int, *at: int) -> np.ndarray:
    scores = np.zeros(n)
    scores[list(at)] = 1.0
    return scores


def raw(file: File, *at: int, profile: Profile = STANDARD) -> float:
    return curve([file], [detections(len(file.values), *at)], profile).at(1.0).raw


@pytest.mark.parametrize(
    ("position", "worth"), [(-1.0, 0.98661), (-0.5, 0.84828), (0.0, 0.0), (1.0, -0.98661)]
)
def test_the_sigmoid_is_worth_what_nab_documents(position, worth):
    assert sigmoid(np.array([position]))[0] == pytest.approx(worth, abs=5e-6)


def test_from_three_window_lengths_on_a_false_alarm_costs_all():
    assert sigmoid(np.array([3.0, 7.0])).tolist() == [-1.0, -1.0]
    assert sigmoid(np.array([2.999]))[0] > -1.0


# Points after 2013-10-09 10:35 and their S(t)_standard in the results published for ARTime,
# results/ARTime/realAWSCloudwatch/ARTime_iio_us-east-1_i-a2eb1cd9_NetworkIn.csv: there two windows
# of 63 points begin at 0 and at 90.
PUBLISHED_WORTHS = {
    -1: -0.11,
    0: 1.0,
    1: 0.9988874626029411,
    9: 0.9860450714481678,
    33: 0.8419972189854174,
    42: 0.6915182473196357,
    62: 0.040199826265601785,
    63: -0.004433081533402593,
    89: -0.08760473821544514,
    90: 1.0,
    152: 0.040199826265601785,
    153: -0.004433081533402593,
    210: -0.10797220659921694,
}


@pytest.mark.parametrize("at", PUBLISHED_WORTHS)
def test_each_point_is_worth_what_nab_published_with_a_detector_s_scores(at):
    worth, inside = worths(a_file(400, ((100, 162), (190, 252))))
    weighted = worth * np.where(inside >= 0, STANDARD.hit, STANDARD.false_alarm)
    assert weighted[100 + at] == pytest.approx(PUBLISHED_WORTHS[at], abs=1e-12)


@pytest.mark.parametrize(
    ("n", "expected"), [(100, 15), (1_000, 150), (5_000, 750), (6_000, 750), (22_695, 750)]
)
def test_probation_is_a_share_of_the_file_up_to_750_points(n, expected):
    assert a_file(n).probation == expected


def test_points_in_windows_earn_and_others_cost():
    worth, inside = worths(a_file(100, ((30, 39), (75, 95))))
    assert (inside >= 0).sum() == 10 + 21
    assert (worth[inside >= 0] > 0).all()
    assert (worth[inside < 0] < 0).all()


def test_a_detection_at_a_window_s_first_point_earns_all_and_later_ones_nothing():
    file = a_file(100, ((30, 39),))
    assert raw(file, 30) == pytest.approx(1.0)
    assert raw(file, 30, 31, 39) == pytest.approx(1.0)
    assert 0 < raw(file, 38) < 0.5


def test_a_window_without_detection_costs_a_miss_and_a_far_false_alarm_its_weight():
    file = a_file(100, ((30, 39),))
    assert raw(file) == -1.0
    assert raw(file, profile=PROFILES["low_fn"]) == -2.0
    assert raw(file, 20) == pytest.approx(-1.11)
    assert raw(file, 20, profile=PROFILES["low_fp"]) == pytest.approx(-1.22)
    assert raw(file, 99) == pytest.approx(-1.11)


def test_detections_on_probation_neither_earn_nor_cost():
    assert raw(a_file(100), 14) == 0.0
    assert raw(a_file(100), 15) == pytest.approx(-0.11)


def test_an_example_of_nab_s_own_tests_comes_out_the_same():
    # testScoringAllMetrics2: first of two windows hit at its start, then a false alarm three points
    # behind it. There without probation, so the windows stand behind it here.
    profile = Profile(1.0, 1.0, 1.0)
    file = a_file(120, ((60, 64), (80, 84)))
    assert raw(file, 60, 61, 67, profile=profile) == pytest.approx(-0.9540, abs=5e-5)


def test_lowering_the_threshold_goes_through_the_outcomes_of_nab_s_own_test():
    # testCalcScoreByThresholdReturnsExpectedScores, with its worths: a miss costs 5; window A earns
    # 20 at score 0.2 and 10 at 0.3, window B 5 at 0.5; false alarms cost 3 at 0.5 and at 0.
    file = a_file(100, ((40, 41), (60, 60)))
    scores = np.full(100, np.nan)
    scores[[40, 41, 60, 70, 71]] = 0.2, 0.3, 0.5, 0.5, 0.0
    found = curve([file], [scores], STANDARD)
    assert found.thresholds[:5].tolist() == [math.inf, 0.5, 0.3, 0.2, 0.0]
    worth, _ = worths(file)
    steps = [-2.0, -1 + worth[60] + 0.11 * worth[70]]
    steps.append(steps[-1] + 1 + worth[41])
    steps.append(steps[-1] + worth[40] - worth[41])
    steps.append(steps[-1] + 0.11 * worth[71])
    assert found.raws[:5] == pytest.approx(steps)


def test_detecting_nothing_is_0_and_each_window_at_its_first_point_100():
    file = a_file(100, ((30, 39), (75, 95)))
    found = curve([file], [detections(100, 30, 75)], STANDARD)
    assert found.at(2.0).score == 0.0
    assert found.at(1.0).score == pytest.approx(100.0)
    assert found.best.threshold == 1.0


# Sums that NAB keeps in config/thresholds.json, over its 116 windows, and what its table says.
@pytest.mark.parametrize(
    ("sums", "table"),
    [
        ((57.66075157860638, 35.1572804170157, 47.66075157860638), (74.9, 65.2, 80.4)),  # ARTime
        ((46.634450197137596, 30.431072517124093, 26.634450197137568), (70.1, 63.1, 74.3)),  # HTM
        ((3.98356657241316, -27.003008629582606, -24.07429862443211), (51.7, 38.4, 59.7)),  # RCF
    ],
)
def test_published_sums_normalise_to_published_figures(sums, table):
    for profile, raw_sum, figure in zip(PROFILES.values(), sums, table, strict=True):
        (scaled,) = normalised(np.array([raw_sum]), 116, profile)
        assert scaled == pytest.approx(figure, abs=0.05)


def test_the_threshold_is_chosen_over_the_corpus_not_a_file():
    one, two = a_file(100, ((30, 39),)), a_file(100)
    scores = [detections(100, 30) * 0.5, detections(100, *range(20, 40)) * 0.7]
    assert curve(scores=scores[:1], files=[one], profile=STANDARD).best.threshold == 0.5
    assert curve([one, two], scores, STANDARD).best.threshold == math.inf


def test_of_equal_outcomes_the_highest_threshold_is_taken():
    assert curve([a_file(100)], [np.full(100, np.nan)], STANDARD).best.threshold == math.inf


def test_a_folder_without_data_or_labels_is_told_so(tmp_path):
    with pytest.raises(nab.UsageError, match="no files data/"):
        nab.load(tmp_path)
    write(tmp_path, "made/one.csv", 3)
    with pytest.raises(nab.UsageError, match="combined_windows"):
        nab.load(tmp_path)


def test_any_part_of_the_files_will_do_and_labels_of_others_are_ignored(tmp_path):
    write(tmp_path, "made/one.csv", 3)
    label(tmp_path, '{"made/one.csv": [["2014-01-01 00:05:00", "2014-01-01 00:10:00.000000"]],')
    (file,) = nab.load(tmp_path)
    assert file.name == "made/one.csv"
    assert file.windows == ((1, 2),)
    assert file.step_ms == 300_000


def test_a_label_that_names_no_point_is_refused_with_its_file(tmp_path):
    write(tmp_path, "made/one.csv", 3)
    label(tmp_path, '{"made/one.csv": [["2014-01-01 00:05:00", "2014-01-02 00:00:00"]],')
    with pytest.raises(nab.UsageError, match=r"made/one.csv: .*2014-01-02"):
        nab.load(tmp_path)


def write(folder: Path, name: str, n: int) -> None:
    path = folder / "data" / name
    path.parent.mkdir(parents=True)
    rows = [f"2014-01-01 00:{5 * i:02}:00,{i}" for i in range(n)]
    path.write_text("\n".join(["timestamp,value", *rows]) + "\n")


def label(folder: Path, start: str) -> None:
    (folder / "labels").mkdir()
    (folder / "labels" / "combined_windows.json").write_text(f'{start} "other/absent.csv": []}}')


# NAB's windowed Gaussian at its published threshold of 1.0, as results/windowedGaussian/
# windowedGaussian_standard_scores.csv has it: the score of each file.
WINDOWED_GAUSSIAN = {
    "artificialNoAnomaly/art_noisy.csv": 0.0,
    "artificialWithAnomaly/art_daily_nojump.csv": -1.0,
    "artificialWithAnomaly/art_load_balancer_spikes.csv": -0.6924446095227346,
    "realAWSCloudwatch/ec2_cpu_utilization_24ae8d.csv": -1.266678759349383,
    "realAWSCloudwatch/ec2_cpu_utilization_ac20cd.csv": 0.8606718242697022,
    "realAWSCloudwatch/ec2_cpu_utilization_c6585a.csv": -1.3200000000000003,
    "realAWSCloudwatch/ec2_cpu_utilization_fe7f93.csv": 0.6387577917723906,
    "realAWSCloudwatch/ec2_disk_write_bytes_c0d644.csv": -1.0959985303155564,
    "realAWSCloudwatch/ec2_network_in_257a54.csv": 0.8606718242697022,
    "realAWSCloudwatch/rds_cpu_utilization_cc0c53.csv": -0.13844919792440225,
    "realAdExchange/exchange-3_cpm_results.csv": 0.862098587352162,
    "realAdExchange/exchange-4_cpm_results.csv": 1.274710362684976,
    "realKnownCause/nyc_taxi.csv": -5.0,
    "realKnownCause/rogue_agent_key_hold.csv": -2.44,
    "realTraffic/occupancy_t4013.csv": 1.725221520228401,
    "realTweets/Twitter_volume_AMZN.csv": 1.5584829945714498,
    "realTweets/Twitter_volume_IBM.csv": -0.7991094792289368,
    "realTweets/Twitter_volume_PFE.csv": 0.26557999349038663,
}


@pytest.mark.skipif("NAB_DIR" not in os.environ, reason="NAB_DIR names no folder with NAB's data")
@pytest.mark.parametrize("name", WINDOWED_GAUSSIAN)
def test_nab_s_windowed_gaussian_gets_its_published_score(name):
    files = {file.name: file for file in nab.load(Path(os.environ["NAB_DIR"]))}
    if name not in files:
        pytest.skip(f"{name} is not in that folder")
    found = curve([files[name]], [windowed_gaussian(files[name].values)], STANDARD)
    assert found.at(1.0).raw == pytest.approx(WINDOWED_GAUSSIAN[name], abs=1e-9)


def windowed_gaussian(values: np.ndarray) -> np.ndarray:
    """Tail probability under the last 6,400 values, moved on by 100 (NAB's own detector); Python 2
    wrote scores with 12 digits, so what is closer to 1 was published as 1."""
    scores, window, waiting, mean, deviation = [], [], [], 0.0, 1.0
    for value in values.tolist():
        tail = 0.5 * math.erfc(abs(value - mean) / deviation / math.sqrt(2)) if window else 1.0
        scores.append(float(f"{1 - tail:.12g}"))
        if len(window) < 6_400:
            window.append(value)
        else:
            waiting.append(value)
            if len(waiting) < 100:
                continue
            window, waiting = window[100:] + waiting, []
        mean, deviation = np.mean(window), np.std(window) or 1e-6
    return np.array(scores)
