"""What detectors of a band have in common: a value, what was expected, and a scale of surprise.

A deviation counts in scales, `away = |d| / (scale + 0.02 |d|)`: next to proportional where noise
is, and 50 at most, so that a series without any noise has a finite score, too. How far is too far
comes from the series' own tail (`_tail`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processor.detectors import _tail
from processor.detectors.base import SensitiveParams, Verdict, Wave, figure
from processor.model import Bools, Floats, Rows, State

OWN_SHARE = 0.02
CLIP = 5.0  # scales: what is learnt of values beyond, so that an incident does not become the usual
SIZE_CLIP = 40.0  # … and of sizes, so that one window of 40 that is not zero keeps a scale alive
YOUNG = 20  # windows until a scale is worth to judge and to clip by


class Seen(NamedTuple):
    """Some series of a wave: their places in it, their rows, and columns of the same length."""

    at: Rows
    rows: Rows
    values: Floats
    expected: Floats
    scale: Floats  # >= 0, in the value's unit


def judge(params: SensitiveParams, state: State, seen: Seen, verdict: Verdict) -> None:
    """Score, fill in the verdict, and learn the tail; the rest is the detector's to learn."""
    away = away_of(seen.values - seen.expected, seen.scale)
    score = _tail.score(state, seen.rows, away)
    room = unscaled(_tail.reach(state, seen.rows, params.limit), seen.scale)
    fill(verdict, seen.at, score, score >= params.limit)
    verdict.expected[seen.at] = seen.expected
    verdict.lower[seen.at] = seen.expected - room
    verdict.upper[seen.at] = seen.expected + room
    _tail.learn(state, seen.rows, away)


def fill(verdict: Verdict, at: Rows, score: Floats, raised: Bools) -> None:
    verdict.score[at] = score
    verdict.raised[at] = raised
    verdict.calm[at] = ~raised
    verdict.run[at] = raised


def away_of(difference: Floats, scale: Floats) -> Floats:
    """Deviations in scales, 0 to 50; 0 where there is none."""
    size = np.abs(difference)
    whole = scale + OWN_SHARE * size
    away: Floats = np.divide(size, whole, out=np.zeros(len(size)), where=whole > 0)
    return away


def unscaled(away: Floats, scale: Floats) -> Floats:
    """The inverse of `away_of`; NaN where no deviation is as large as that."""
    is_near = away < 1 / OWN_SHARE
    room: Floats = np.where(
        is_near, away * scale / np.where(is_near, 1 - OWN_SHARE * away, 1), np.nan
    )
    return room


def clipped(difference: Floats, scale: Floats, windows: npt.NDArray[Any]) -> Floats:
    """What is to be learnt of a difference, once there is a scale to say what is too far."""
    most = CLIP * np.where(scale > 0, scale, OWN_SHARE * np.abs(difference))
    learnt: Floats = np.where(windows < YOUNG, difference, np.clip(difference, -most, most))
    return learnt


def size_clipped(
    difference: Floats, scale: Floats, windows: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Of a difference's size, what a mean of sizes is to learn: more than a mean of values does,
    for of a series that is mostly zero all that makes up the mean lies far beyond it."""
    size = np.abs(difference)
    most = np.where(scale > 0, SIZE_CLIP * scale, OWN_SHARE * size)
    learnt: Floats = np.where(windows < YOUNG, size, np.minimum(size, most))
    return learnt


def learn_moments(state: State, rows: Rows, values: Floats, windows_max: int) -> None:
    """Exponentially weighted `mean` and `variance`, plain while there are few windows `seen`."""
    mean, variance, windows = (state[name][rows] for name in ("mean", "variance", "seen"))
    # The first value differs from a mean of 0 by itself, at a gain of 1.
    gain = 1.0 / np.minimum(windows + 1.0, windows_max)
    moved = clipped(values - mean, np.sqrt(variance), windows)
    state["mean"][rows] = mean + gain * moved
    state["variance"][rows] = (1.0 - gain) * (variance + gain * moved * moved)
    state["seen"][rows] = np.minimum(windows, windows_max - 1) + np.uint16(1)


def sentence(aggregate: str, verdict: Verdict, i: int, wave: Wave, usual: str) -> str:
    """`usual`: what the expected value is, such as `usual lately`."""
    value, expected = float(wave.values[i]), float(verdict.expected[i])
    is_above = value > expected
    side, end = ("above", "up") if is_above else ("below", "down")
    bound = float((verdict.upper if is_above else verdict.lower)[i])
    said = (
        f"{aggregate} is {figure(value)}, {figure(abs(value - expected))} {side} the "
        f"{figure(expected)} {usual}"
    )
    return said if np.isnan(bound) else f"{said}; {end} to {figure(bound)} would be within its band"
