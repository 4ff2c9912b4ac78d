"""Seasonal novelty: a value unlike anything that the series has shown at this hour, or at any.

From each value the mean of its hour of day is taken; what remains is compared with a bounded memory
of such remainders (`_memory`). Regular spikes, nightly jobs and known incidents are remembered and
stay quiet; no distribution is assumed, and one threshold serves all series. It speaks up on
escalation only: when the score passes the threshold and everything in the last 100 to 200 windows.

The score does not change with the scale and offset of the values.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from processor.detectors import _memory
from processor.detectors._memory import Singles
from processor.detectors.base import (
    HOURS,
    Params,
    Verdict,
    Wave,
    Windows,
    back_to_normal,
    figure,
    hour_of_day,
    judgeable,
    silence,
)
from processor.model import Bools, Column, Floats, Rows, State

Direction = Literal["above", "below", "both"]

SENSITIVITY = {"high": 2.0, "medium": 2.2, "low": 2.4}
PROFILE_GAIN = 0.005  # an exponential mean over the last 200 or so windows of that hour
PROFILE_FULL = 200  # = 1 / PROFILE_GAIN; fits the uint8 that counts up to it
POINT = 2.30  # the novelty at which a single value scores 2, fitted on NAB
BLOCK = 100  # windows; two blocks of maxima tell the peak of the last 100 to 200
YOUTH_MS = 7 * 86_400_000  # until a series has seen a week, much is new and little is strange
YOUTH_WEIGHT = 0.4  # of the decimal logarithm of (a week / age), off the score
UNBORN = -(2**63)


class NoveltyParams(Params, frozen=True, kw_only=True):
    """`threshold`, where given, overrides `sensitivity`; `min_delta` is in the value's own unit."""

    sensitivity: Literal["high", "medium", "low"] = "medium"
    threshold: Annotated[float, Meta(gt=0)] | None = None
    direction: Direction = "both"
    min_delta: Annotated[float, Meta(ge=0)] = 0.0
    warm_up: Windows = 100

    def __post_init__(self) -> None:
        for name in ("threshold", "min_delta"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name}: found {number}; give a finite number")


class Novelty:
    """Expected: the mean of the hour. Band: up to where a value would reach the threshold."""

    kind: ClassVar[str] = "novelty"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = NoveltyParams

    def columns(self, params: NoveltyParams) -> tuple[Column, ...]:
        return (
            Column("profile", "<f8", 0, HOURS),
            Column("profile_windows", "<u1", 0, HOURS),
            Column("born_ms", "<i8", UNBORN),
            Column("peak", "<f4"),  # of the scores in this block of windows
            Column("peak_before", "<f4"),  # … and in the one before
            *_memory.columns("point"),
        )

    def threshold(self, params: NoveltyParams) -> float:
        return threshold_of(params)

    def judge(self, params: NoveltyParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        room = _memory.scratch(len(judged))
        for first in range(0, len(judged), _memory.CHUNK):
            at = judged[first : first + _memory.CHUNK]
            _judge(params, state, rows[at], wave, at, verdict, room)
        return verdict

    def sentence(
        self, params: NoveltyParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        value, expected = wave.values[i], verdict.expected[i]
        is_above = value > expected
        side, end = ("above", "up") if is_above else ("below", "down")
        known = verdict.upper[i] if is_above else verdict.lower[i]
        return (
            f"{aggregate} is {figure(value)}, {side} the {figure(expected)} expected at this hour; "
            f"{end} to {figure(known)} would be nothing new"
        )

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)


def _judge(
    params: NoveltyParams,
    state: State,
    rows: Rows,
    wave: Wave,
    at: Rows,
    verdict: Verdict,
    room: Singles,
) -> None:
    """Score and learn one chunk; `at` says where its rows stand in wave and verdict."""
    values = wave.values[at]
    expected, is_known = _on_profile(state, rows, hour_of_day(wave), values)
    _on_birth(state, rows, wave)
    if not is_known.all():  # the first value at an hour is only learnt
        rows, at, values, expected = (
            rows[is_known],
            at[is_known],
            values[is_known],
            expected[is_known],
        )
    rest = (values - expected).astype(np.float32)
    seen = _memory.recall(state, "point", rows, rest, params.warm_up, room)
    youth = _youth(state, rows, wave)
    score = _score(seen, youth)
    score[~_counts(params, values - expected)] = 0.0
    threshold = threshold_of(params)
    verdict.raised[at] = _on_score(state, rows, score) & (score >= threshold)
    _memory.learn(state, "point", rows, rest, seen)

    verdict.score[at] = score
    verdict.calm[at] = (score < threshold) & seen.is_usual
    verdict.run[at] = verdict.raised[at]
    verdict.expected[at] = expected
    reach = _memory.reach(seen.scale, threshold + youth + POINT - 2.0)
    verdict.lower[at], verdict.upper[at] = _band(seen, rest, reach, expected, values)


def threshold_of(params: NoveltyParams) -> float:
    return SENSITIVITY[params.sensitivity] if params.threshold is None else params.threshold


def _on_profile(state: State, rows: Rows, hour: int, values: Floats) -> tuple[Floats, Bools]:
    """Learn the mean of the hour; gives it as it was before, and whether there was one."""
    windows = state["profile_windows"][rows, hour]
    expected: Floats = state["profile"][rows, hour]
    after = np.minimum(windows, PROFILE_FULL - 1) + np.uint8(1)
    # The gain is 1 for the first value: its difference to nothing is the value itself.
    state["profile"][rows, hour] = expected + (values - expected) / after
    state["profile_windows"][rows, hour] = after
    return expected, windows > 0


def _on_birth(state: State, rows: Rows, wave: Wave) -> None:
    born_ms = state["born_ms"][rows]
    state["born_ms"][rows] = np.where(born_ms == UNBORN, wave.start_ms, born_ms)


def _on_score(state: State, rows: Rows, score: Floats) -> Bools:
    """Keep the peaks of two blocks of windows; says where `score` is above both."""
    is_full = state["point.windows"][rows] % BLOCK == 0
    peak, before = state["peak"][rows], state["peak_before"][rows]
    before = np.where(is_full, peak, before)
    peak = np.where(is_full, np.float32(0), peak)
    state["peak_before"][rows] = before
    state["peak"][rows] = np.maximum(peak, score)
    return score > np.maximum(peak, before)


def _youth(state: State, rows: Rows, wave: Wave) -> Floats:
    """What comes off the score of a series younger than a week."""
    age_ms = np.maximum(wave.end_ms - state["born_ms"][rows], 1)
    youth: Floats = YOUTH_WEIGHT * np.log10(np.maximum(YOUTH_MS / age_ms, 1.0))
    return youth


def _score(seen: _memory.Recall, youth: Floats) -> Floats:
    """2 at the novelty `POINT` of a grown series; rounded to float32, as peaks are kept."""
    score = np.maximum(seen.novelty - POINT + 2.0 - youth, 0.0)
    return score.astype(np.float32).astype(np.float64)


def _counts(params: NoveltyParams, away: Floats) -> Bools:
    """Whether a difference to the expected value is one that was asked for."""
    wanted: Bools = np.abs(away) >= params.min_delta
    if params.direction == "above":
        wanted &= away > 0
    if params.direction == "below":
        wanted &= away < 0
    return wanted


def _band(
    seen: _memory.Recall, rest: Singles, reach: Floats, expected: Floats, values: Floats
) -> tuple[Floats, Floats]:
    """From where to where nothing is novel, on the side of the value.

    The remembered range, widened by `reach`; where the value lies in a gap between remembered ones,
    the end on its side is `reach` past the nearest of them.
    """
    is_novel = seen.distance > reach
    lower = np.where(is_novel & (rest < seen.nearest), seen.nearest, seen.lowest) - reach + expected
    upper = (
        np.where(is_novel & (rest > seen.nearest), seen.nearest, seen.highest) + reach + expected
    )
    # The range fades faster than the memory: what is not novel is inside all the same.
    lower = np.where(is_novel, lower, np.minimum(lower, values))
    upper = np.where(is_novel, upper, np.maximum(upper, values))
    return lower, upper
