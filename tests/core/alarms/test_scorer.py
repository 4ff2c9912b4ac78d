"""When an alarm opens and resolves, and what it says."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from processor.core.alarms.alarm import Alarm
from processor.core.alarms.control import Uncontrolled
from processor.core.alarms.watch import Heard, Watch
from processor.detectors.base import Wave, silence
from processor.model import DetectSpec
from tests.core.alarms.support import EMPTIES, HOUR, NAN, Rule, threshold


def test_an_alarm_opens_once_and_resolves_after_calm_windows_in_a_row():
    """
    bound 0.2      .1   .5   .5   .1   .1   .5   .1   .1   .1   .1   .5
                       open ────────────────────────────── shut      open
    """
    rule = Rule(threshold(above=0.2))
    assert rule.see_all([0.1, 0.5, 0.5, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.5]) == [
        [],
        ["opened"],
        *[[]] * 6,
        ["resolved"],
        [],
        ["opened"],
    ]


def test_what_opened_says_all_there_is_to_say():
    rule = Rule(threshold(above=0.2, severity="critical"))
    rule.see({0: 0.1, 1: 0.1})
    (alarm,) = rule.see({0: 0.1, 1: 0.5})
    assert alarm == Alarm(
        row=1,
        detect=threshold(above=0.2, severity="critical"),
        state="opened",
        value=0.5,
        expected=None,
        lower=None,
        upper=0.2,
        score=2.5,
        threshold=1.0,
        direction="above",
        severity="critical",
        opened_ms=HOUR,
        sentence="failed is 0.5, above the bound of 0.2",
        difference=0.3,  # from the bound, as nothing is expected
    )


def test_what_resolved_says_how_long_it_lasted_and_the_worst_value():
    rule = Rule(threshold(above=0.2))
    for value in (0.3, 0.9, 0.4, 0.1, 0.1):
        rule.see({0: value})
    (alarm,) = rule.see({0: 0.15})
    assert alarm.state == "resolved"
    assert alarm.sentence == "failed is back to normal after 3 h; at worst it was 0.9"
    assert (alarm.value, alarm.opened_ms, alarm.direction) == (0.15, 0, "above")


def test_an_alarm_about_windows_in_a_row_lasts_from_the_first_of_them():
    rule = Rule(threshold(**{"above": 0.2, "for": 3, "recover_after": 1}))
    assert rule.see_all([0.3, 0.3, 0.3]) == [[], [], ["opened"]]
    (alarm,) = rule.see({0: 0.1})
    assert alarm.sentence.startswith("failed is back to normal after 3 h;")
    assert alarm.opened_ms == 2 * HOUR


def test_the_direction_of_a_resolved_alarm_is_that_of_what_opened_it():
    rule = Rule(threshold(above=9, below=1, recover_after=1))
    assert [alarm.direction for alarm in rule.see({0: 0})] == ["below"]
    assert [alarm.direction for alarm in rule.see({0: 5})] == ["below"]
    assert [alarm.direction for alarm in rule.see({0: 10})] == ["above"]


def test_a_value_below_what_is_expected_is_told_as_below_also_past_a_band_that_ends_lower():
    """As where `novelty` finds it in a gap, with what is next to it below."""
    verdict = silence(1)
    verdict.expected[0], verdict.lower[0], verdict.upper[0] = 50, 4, 27
    watch = Watch(threshold(above=1), "0", EMPTIES, Uncontrolled())
    watch.alarms.ensure(1)
    one, yes = np.zeros(1, dtype=np.intp), np.ones(1, dtype=np.bool_)
    wave = Wave(0, HOUR, 0, np.array([30.0]), np.array([9]))
    watch._open(one, yes, Heard(wave, verdict, yes, ~yes, yes))
    assert not watch.alarms.arrays["is_above"][0]


def test_a_zero_is_told_without_a_sign():
    (alarm,) = Rule(threshold(below=1.0, clamp_min=-0.0)).see({0: -0.0})
    assert math.copysign(1, alarm.value or 0.0) == 1
    assert alarm.sentence == "failed is 0, below the bound of 1"


def test_a_window_that_cannot_be_judged_is_neither_calm_nor_strange():
    rule = Rule(threshold(above=0.2, recover_after=2))
    assert rule.see_all([0.5, 0.1, NAN, NAN, NAN]) == [["opened"], [], [], [], []]
    assert rule.see_all([0.1]) == [["resolved"]]


def test_a_missing_count_is_zero_and_a_missing_mean_is_nothing():
    rule = Rule(threshold("few", "count", below=1), threshold("low", "failed", below=1))
    (alarm,) = rule.see({0: NAN}, counts=0)
    assert (alarm.detect.name, alarm.value) == ("few", 0.0)


def test_alarms_come_by_detector_and_then_in_the_order_of_rows():
    rule = Rule(threshold("a", above=1), threshold("b", "count", above=1))
    told = rule.see({3: 5.0, 0: 0.0, 2: 5.0, 1: 5.0})
    assert [(alarm.detect.name, alarm.row) for alarm in told] == [
        *[("a", 3), ("a", 2), ("a", 1)],
        *[("b", 3), ("b", 2), ("b", 1)],
    ]


def test_keys_have_alarms_of_their_own():
    rule = Rule(threshold(above=1, recover_after=1))
    assert len(rule.see({0: 5.0, 1: 0.0})) == 1
    assert [(a.row, a.state) for a in rule.see({0: 0.0, 1: 5.0})] == [
        (0, "resolved"),
        (1, "opened"),
    ]


def outage() -> tuple[Rule, list[Alarm]]:
    rule = Rule(DetectSpec("absence", "absence", "count"), keys=1)
    told: list[Alarm] = []
    for hour in range(400):
        silent = 372 <= hour < 376
        told += rule.see({0: NAN if silent else 7.0}, counts=0 if silent else 7)
    return rule, told


def test_silence_opens_and_the_first_record_resolves_it():
    opened, resolved = outage()[1]
    assert (opened.state, opened.value, opened.direction) == ("opened", 0.0, "below")
    assert opened.sentence.startswith("no records for ")
    assert opened.expected == pytest.approx(1, abs=0.01)
    assert (opened.lower, opened.upper) == (None, None)
    assert (resolved.state, resolved.opened_ms) == ("resolved", opened.opened_ms)
    assert resolved.sentence == "records are back after 4 h without any"


def test_no_figure_of_an_alarm_is_nan_and_none_has_more_than_six_digits():
    detects = [DetectSpec(kind, kind, "count") for kind in ("novelty", "absence")]
    rule = Rule(*detects, threshold("few", "failed", above=999))
    rng = np.random.default_rng(4)
    told: list[Alarm] = []
    for hour in range(500):
        value = 1_000.0 if hour == 450 else float(rng.poisson(9))
        told += rule.see({0: NAN if 470 < hour < 480 else value}, 0 if 470 < hour < 480 else 9)
    assert {alarm.detect.kind for alarm in told} == {"novelty", "absence", "threshold"}
    for alarm in told:
        for figure in (alarm.value, alarm.expected, alarm.lower, alarm.upper, alarm.score):
            assert figure is None or math.isfinite(figure)
        for figure in (alarm.expected, alarm.lower, alarm.upper, alarm.score):
            assert figure is None or figure == float(f"{figure:.6g}")


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 7, 9])
def test_restored_equals_never_stopped(stop):
    values = [0.1, 0.5, 0.7, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1]
    detects = (threshold(above=0.2), DetectSpec("novelty", "novelty", "failed"))
    straight, before, after = Rule(*detects), Rule(*detects), Rule(*detects)
    expected = [straight.see({0: value, 2: 0.3}) for value in values]
    told = [before.see({0: value, 2: 0.3}) for value in values[:stop]]
    after.scorer.restore(before.scorer.snapshot(4), 4)
    after.now_ms = before.now_ms
    told += [after.see({0: value, 2: 0.3}) for value in values[stop:]]
    assert told == expected
    assert after.scorer.snapshot(4) == straight.scorer.snapshot(4)


def test_a_key_moves_with_its_open_alarm():
    giver, taker = Rule(threshold(above=0.2)), Rule(threshold(above=0.2))
    giver.see({3: 0.5})
    taker.scorer.put(np.array([1]), giver.scorer.take(np.array([3])))
    taker.now_ms = giver.now_ms
    told = [alarm for _ in range(3) for alarm in taker.see({1: 0.1})]
    assert [(alarm.row, alarm.state) for alarm in told] == [(1, "resolved")]


def test_a_forgotten_key_begins_anew():
    rule = Rule(threshold(above=0.2))
    fresh = rule.scorer.snapshot(4)
    rule.see({0: 0.5})
    rule.scorer.reset(np.array([0]))
    assert rule.scorer.snapshot(4) == fresh


def test_a_snapshot_of_other_detectors_is_refused():
    with pytest.raises(ValueError, match="expected"):
        Rule(threshold(above=1)).scorer.restore(Rule().scorer.snapshot(4), 4)


def test_options_that_a_detector_does_not_know_are_refused():
    with pytest.raises(msgspec.ValidationError, match="abvoe"):
        Rule(threshold(abvoe=1))


def test_a_rule_without_detectors_tells_nothing():
    assert Rule().see({0: 5.0}) == []
