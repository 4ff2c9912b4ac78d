"""What the options that all detectors share do to what is told.

The detector's score is the value itself here, and it raises above 1. In diagrams a letter is a
window: o(pened), e(scalated), r(esolved).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from processor import detectors
from processor.core.alarms.control import Uncontrolled
from processor.detectors.base import Params, SensitiveParams
from processor.model import DetectSpec
from tests.core.alarms.support import NAN, Rule, scored, threshold


def told(values: list[float | None], **options) -> str:
    return Rule(scored(**options)).told(values)


# ---- n of m ---------------------------------------------------------------------------------


def test_n_of_the_last_m_windows_must_be_beyond():
    assert told([2, 0, 2, 0, 0, 2, 0, 2, 2], n_of_m=[3, 5]) == ". . . . . . . . o"


def test_windows_that_could_not_be_judged_are_none_of_the_m():
    assert told([2, NAN, NAN, NAN, 2], n_of_m=[2, 2]) == ". . . . o"


def test_the_windows_of_an_alarm_that_is_over_make_no_other_one():
    assert told([2, 2, 0, 2, 2], n_of_m=[2, 3], recover_after=1) == ". o r . o"


def test_64_windows_are_looked_back_on():
    values = [2.0] + [0.0] * 62 + [2.0]
    assert told(values, n_of_m=[2, 64]).endswith("o")
    assert not told([*values[:1], 0.0, *values[1:]], n_of_m=[2, 64]).endswith("o")


# ---- escalation only ------------------------------------------------------------------------


def test_on_escalation_only_what_comes_again_is_told_once():
    values: list[float | None] = [2, 0, 2, 0, 3, 0]
    assert told(values, recover_after=1) == "o r o r o r"
    assert told(values, recover_after=1, escalation_only=True) == "o r . . o r"


def test_what_is_more_than_200_windows_ago_counts_as_new():
    for calm, last in ((98, "."), (150, "."), (200, "o")):
        values = [2.0] + [0.0] * calm + [2.0]
        assert told(values, recover_after=1, escalation_only=True)[-1] == last


def test_one_of_the_m_windows_must_be_an_escalation():
    options = {"n_of_m": [2, 3], "recover_after": 1, "escalation_only": True}
    assert told([2, 2, 0, 2, 2, 0, 3, 2], **options) == ". o r . . . o ."


# ---- recovery and cool-down -----------------------------------------------------------------


def test_an_alarm_recovers_below_a_threshold_of_its_own():
    assert told([2, 0.9, 0.8, 0.4, 0.3], recover_after=1) == "o r . . ."
    assert told([2, 0.9, 0.8, 0.4, 0.3], recover_after=2, recover_below=0.5) == "o . . . r"


def test_after_an_alarm_none_opens_in_the_cool_down():
    assert told([2, 0, 2, 2, 2, 2], recover_after=1, cool_down=3) == "o r . . . o"


def test_what_is_worse_than_all_of_the_last_alarm_opens_one_in_the_cool_down():
    assert told([2, 0, 2, 2.1], recover_after=1, cool_down=9) == "o r . o"
    assert told([2, 3, 0, 2.1, 3.1], recover_after=1, cool_down=9) == "o . r . o"


def test_the_cool_down_counts_windows_without_records_too():
    assert told([2, 0, None, None, 2], recover_after=1, cool_down=2) == "o r . . o"


# ---- which differences count ----------------------------------------------------------------


def novel(values: list[float], **options) -> Rule:
    """A week of noise about 100, so that all hours are known."""
    rule = Rule(DetectSpec("n", "novelty", "failed", {"recover_after": 1, **options}))
    rng = np.random.default_rng(1)
    for value in rng.normal(100, 0.5, 24 * 14):
        rule.see({0: float(value)})
    return rule


@pytest.mark.parametrize(
    ("options", "value", "is_told"),
    [
        ({}, 120, True),
        ({}, 80, True),
        ({"direction": "above"}, 120, True),
        ({"direction": "above"}, 80, False),
        ({"direction": "below"}, 120, False),
        ({"direction": "below"}, 80, True),
        ({"min_delta": 19}, 120, True),
        ({"min_delta": 21}, 120, False),
        ({"min_delta_relative": 0.19}, 80, True),
        ({"min_delta_relative": 0.21}, 80, False),
        ({"only_above": 119}, 120, True),
        ({"only_above": 120}, 120, False),
        ({"only_above": 119}, 80, False),
        ({"only_below": 81}, 80, True),
        ({"only_below": 80}, 80, False),
        ({"only_above": 119, "only_below": 81}, 120, True),
        ({"only_above": 119, "only_below": 81}, 80, True),
        ({"clamp_max": 101}, 120, False),
        ({"clamp_min": 99}, 80, False),
        ({"clamp_min": 0, "clamp_max": 500}, 120, True),
    ],
)
def test_only_differences_that_were_asked_for_are_told(options, value, is_told):
    alarms = novel([], **options).see({0: float(value)})
    assert [alarm.state for alarm in alarms] == ["opened"] * is_told


def test_where_nothing_is_expected_the_least_difference_is_from_the_bound():
    assert told([1.4, 1.6], min_delta=0.5) == ". o"
    assert Rule(threshold(above=10, min_delta_relative=0.2)).told([11.9, 12.1]) == ". o"


def test_a_clamped_value_is_what_is_judged_and_told():
    rule = Rule(scored(clamp_max=5))
    (alarm,) = rule.see({0: 1e300})
    assert (alarm.value, alarm.score) == (5.0, 5.0)


def test_what_was_not_asked_for_lets_an_alarm_recover():
    rule = Rule(threshold(above=10, below=0, only_above=10, recover_after=1))
    assert rule.told([20, -5]) == "o r"


# ---- missing windows, warm-up ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "aggregate", "letters"),
    [
        ("default", "count", ". o"),
        ("default", "failed", ". ."),
        ("zero", "failed", ". o"),
        ("skip", "count", ". ."),
        ("breach", "failed", ". o"),
        ("breach", "count", ". o"),
    ],
)
def test_a_window_without_records_is_what_the_options_say(missing, aggregate, letters):
    rule = Rule(threshold("few", aggregate, below=1, missing=missing))
    assert rule.told([5, None]) == letters


def test_a_missing_window_that_counts_as_beyond_says_so_and_is_one_of_m():
    rule = Rule(threshold("few", "count", below=1, missing="breach", n_of_m=[2, 3]))
    assert rule.told([5, None, 5]) == ". . ."
    (alarm,) = rule.see({0: NAN}, 0)
    assert (alarm.value, alarm.score, alarm.direction) == (None, None, "below")
    assert alarm.sentence == (
        "no records for count, and a missing window counts as an anomaly; so were 2 of the last 3"
        " windows"
    )


def test_a_missing_window_that_counts_as_beyond_starts_recovery_anew():
    assert told([2, 0, None, 0, 0], missing="breach", recover_after=2) == "o . . . r"
    assert told([2, 0, None, 0], missing="skip", recover_after=2) == "o . . r"


def test_a_missing_window_that_counts_as_beyond_is_not_learnt():
    columns = []
    for values in ([5.0] * 6, [5.0, None, 5.0, 5.0, None, None, 5.0, 5.0]):
        rule = Rule(DetectSpec("n", "novelty", "count", {"missing": "breach", "warm_up": 99}))
        rule.told(values)  # type: ignore[arg-type]
        saved = rule.scorer.snapshot(1)
        columns.append({n: bytes(saved[n]) for n in saved if "point.prototypes" in n})
    assert columns[0] == columns[1]


def test_no_alarm_opens_in_the_warm_up():
    assert told([2, 2, 2, 2], warm_up=3) == ". . . o"
    assert told([2, NAN, None, 2, 2], warm_up=2) == ". . . . o"


# ---- severity -------------------------------------------------------------------------------


def test_an_alarm_whose_severity_rises_is_told_as_escalated_once_a_level():
    rule = Rule(scored(severity={"warning": 2.0, "critical": 3.0}))
    said = [
        (alarm.state, alarm.severity)
        for value in (1.5, 1.6, 2.5, 2.9, 2.0, 5.0, 9.0, 0, 0, 0)
        for alarm in rule.see({0: value})
    ]
    assert said == [
        ("opened", "info"),
        ("escalated", "warning"),
        ("escalated", "critical"),
        ("resolved", "critical"),
    ]


def test_an_escalation_says_so():
    rule = Rule(scored(severity={"critical": 3.0}))
    (opened,), (escalated,) = rule.see({0: 2.0}), rule.see({0: 4.0})
    assert (opened.severity, escalated.severity) == ("warning", "critical")
    assert (
        escalated.sentence == "now critical: failed is 4, above the bound of 1 for 2 h (2 windows)"
    )
    assert (escalated.value, escalated.opened_ms) == (4.0, opened.opened_ms)


def test_an_alarm_of_a_high_score_opens_at_the_top():
    (alarm,) = Rule(scored(severity={"warning": 2.0, "critical": 3.0})).see({0: 7.0})
    assert (alarm.state, alarm.severity) == ("opened", "critical")


# ---- what an alarm says ---------------------------------------------------------------------


def test_an_alarm_says_how_far_it_is_from_what_was_expected_and_how_much_that_stands_on():
    (alarm,) = novel([]).see({0: 150.0})
    assert alarm.expected == pytest.approx(100, abs=1)
    assert alarm.difference == pytest.approx(150 - alarm.expected, rel=1e-4)
    assert alarm.difference_percent == pytest.approx(
        100 * alarm.difference / alarm.expected, rel=1e-4
    )
    assert alarm.confidence == pytest.approx(0.76, abs=0.03)  # a fortnight of hours, 100 to warm up
    assert alarm.bin == "00:00–01:00"
    assert alarm.part in detectors.get("novelty").parts


def test_an_alarm_about_silence_has_no_difference_of_values():
    rule = Rule(DetectSpec("absence", "absence", "count"))
    rule.told([7.0] * 300)
    (alarm,) = [alarm for _ in range(5) for alarm in rule.see({0: NAN}, 0)]
    assert (alarm.difference, alarm.difference_percent) == (None, None)
    assert alarm.expected == pytest.approx(1, abs=0.01)


def test_a_difference_from_nothing_has_no_percentage():
    rule = Rule(DetectSpec("n", "novelty", "failed"))
    rule.told([0.0] * 400)
    (alarm,) = rule.see({0: 5.0})
    assert (alarm.expected, alarm.difference, alarm.difference_percent) == (0.0, 5.0, None)


# ---- control --------------------------------------------------------------------------------


class Strict(Uncontrolled):
    """A raised bar, and key 1 muted."""

    def bar(self, series):
        return 1.5

    def muted(self, series, rows, wave):
        return rows == 1

    def expected_every(self, series, score):
        return 1000 * score


def test_a_raised_bar_and_a_mute_keep_alarms_untold_and_the_event_says_how_rare_it_is():
    rule = Rule(scored(), control=Strict())
    alarms = rule.see({0: 1.4, 1: 9.0, 2: 1.6})
    assert [alarm.row for alarm in alarms] == [2]
    assert (alarms[0].raised_bar, alarms[0].expected_every) == (1.5, 1600.0)


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("novelty", {"n_of_m": [3, 2]}, "at most 2"),
        ("novelty", {"n_of_m": [1, 65]}, "64"),
        ("novelty", {"clamp_min": 2, "clamp_max": 1}, "larger maximum"),
        ("novelty", {"only_above": 1, "only_below": 2}, "swap them"),
        ("novelty", {"only_above": math.inf}, "finite"),
        ("novelty", {"recover_below": 9}, "at most the threshold, 2.2"),
        ("novelty", {"recover_below": 0}, "recover_below"),
        ("novelty", {"only_above": 5, "clamp_max": 5}, "larger clamp_max"),
        ("novelty", {"only_below": 5, "clamp_min": 6}, "smaller clamp_min"),
        ("threshold", {"above": 1, "for": 3, "escalation_only": True}, r"n_of_m: \[3, 3\]"),
        ("novelty", {"severity": {}}, "scores by name"),
        ("novelty", {"severity": {"warning": 3, "critical": 2}}, "give critical the higher"),
        ("novelty", {"severity": {"warning": math.nan}}, "finite"),
        ("novelty", {"missing": "none"}, "missing"),
        ("threshold", {"above": 1, "direction": "above"}, "`above` and `below` say the side"),
        ("absence", {"min_delta": 1}, "no value"),
        ("absence", {"missing": "zero"}, "leave it out"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_what_to_do(kind, options, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(options, detectors.get(kind).params)


@pytest.mark.parametrize("kind", detectors.kinds())
def test_all_that_says_when_to_speak_up_is_tunable_and_all_that_shapes_learning_is_not(kind):
    params: type[Params] = detectors.get(kind).params
    names = {field.encode_name for field in msgspec.structs.fields(params)}
    assert params.tunable <= names
    assert params.tunable.isdisjoint({"min_count", "missing", "clamp_min", "clamp_max"})
    assert params.refused.keys() <= names
    if issubclass(params, SensitiveParams):
        assert params.tunable >= {"sensitivity", "threshold"}
        assert params.levels["high"] < params.levels["medium"] < params.levels["low"]
