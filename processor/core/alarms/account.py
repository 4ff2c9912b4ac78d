"""What an alarm says: its figures as people can use them, and a sentence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from processor.core.alarms import hush, n_of_m, wanted
from processor.core.alarms.alarm import Alarm, AlarmState
from processor.core.alarms.control import Control
from processor.detectors.base import SEVERITIES, Detector, Params, Verdict, Wave, duration
from processor.model import DetectSpec, State


class Subject(NamedTuple):
    """Whom it is about."""

    spec: DetectSpec
    series: str
    detector: Detector
    params: Params
    control: Control


class Place(NamedTuple):
    """Where in memory and in a wave."""

    row: int
    i: int
    alarms: State
    wave: Wave  # as the detector saw it
    verdict: Verdict
    late: int = hush.TOLD  # why it was not told before


def told(subject: Subject, state: AlarmState, place: Place) -> Alarm:
    detector, params = subject.detector, subject.params
    row, i, alarms, wave, verdict, _ = place
    away = _difference(detector, verdict, wave, i)
    expected, score = float(verdict.expected[i]), _rounded(verdict.score[i])
    bar, seen_ms = subject.control.bar(subject.series), int(verdict.nearest_ms[i])
    every = None if score is None else subject.control.expected_every(subject.series, score)
    return Alarm(
        row=row,
        detect=subject.spec,
        state=state,
        value=float(wave.values[i]) + 0.0 if math.isfinite(wave.values[i]) else None,
        expected=_rounded(expected),
        lower=_rounded(verdict.lower[i]),
        upper=_rounded(verdict.upper[i]),
        difference=_rounded(away),
        difference_percent=_rounded(100 * away / abs(expected)) if expected else None,
        score=score,
        threshold=_rounded(detector.threshold(params)),
        raised_bar=_rounded(bar) if bar > 0 else None,
        confidence=confidence(int(alarms["windows"][row]), params.warm_up),
        expected_every=None if every is None else _rounded(every),
        part=_part(subject, int(verdict.part[i])),
        nearest=_rounded(verdict.nearest[i]),
        nearest_ms=seen_ms if seen_ms and math.isfinite(verdict.nearest[i]) else None,
        bin=detector.bin(params, wave),
        direction="above" if alarms["is_above"][row] else "below",
        severity=SEVERITIES[alarms["severity"][row]],
        opened_ms=int(alarms["opened_ms"][row]),
        sentence=_sentence(subject, state, place),
    )


def confidence(windows: int, warm_up: int) -> float:
    """How much it stands on, 0 to 1: a half where only the warm-up was seen, nine tenths after
    nine times as many windows more; 1 where there is nothing to learn."""
    return round(windows / (windows + warm_up), 2) if windows else 1.0 * (warm_up == 0)


def _part(subject: Subject, nth: int) -> str:
    """What spoke: of several figures, the name of one."""
    if hasattr(subject.detector, "figures_max"):
        return (subject.spec.aggregate, *subject.spec.others)[nth]
    return subject.detector.parts[nth]


def _difference(detector: Detector, verdict: Verdict, wave: Wave, i: int) -> float:
    if not getattr(detector, "expects_values", True):
        return math.nan
    return float(wanted.difference(verdict, wave.values, np.array([i]))[0])


def _sentence(subject: Subject, state: AlarmState, place: Place) -> str:
    row, i, alarms, wave, verdict, late = place
    aggregate, params = subject.spec.aggregate, subject.params
    if state == "resolved" and late == hush.EXPECTED:
        return f"{aggregate}: somebody marked this as expected"
    if state == "opened" and late in hush.REASONS:
        lasted = duration(wave.end_ms - int(alarms["began_ms"][row]))
        return f"{aggregate} has been unusual for {lasted}: {hush.REASONS[late]}"
    if state == "resolved":
        lasted = duration(int(alarms["calm_since_ms"][row] - alarms["began_ms"][row]))
        return subject.detector.farewell(aggregate, lasted, float(alarms["worst"][row]))
    if verdict.raised[i]:
        sentence = subject.detector.sentence(params, aggregate, verdict, i, wave)
    else:
        sentence = f"no records for {aggregate}, and a missing window counts as an anomaly"
    m = params.n_of_m[1]
    if m > 1 and state == "opened":
        many = int(n_of_m.beyond_of(alarms, np.array([row]))[0])
        sentence += f"; so were {many} of the last {m} windows" if many > 1 else ""
    if state == "escalated":
        sentence = f"now {SEVERITIES[alarms['severity'][row]]}: {sentence}"
    return sentence


def _rounded(number: float) -> float | None:
    """Six digits: what a person can use, and the last bits are no two processors' business. Zero
    without a sign, as above."""
    return float(f"{number:.6g}") + 0.0 if math.isfinite(number) else None
