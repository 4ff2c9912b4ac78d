"""Tail calibration: how improbable a deviation is, by the deviations that the series has shown.

A detector measures how far a value is off in some unit of its own, `away` >= 0. What is far differs
from series to series: noise has thin tails, a queue's length fat ones, and one with a nightly job
is far off every night. So the tail of each series' own deviations is fitted, peaks over threshold
(Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, chapter 4), on y =
log(1 + away), in which an exponential tail stands for a power law: fat enough for what operations
see, and a single outlier moves the fit little.

- `bound` is the quantile of y that one window in 50 exceeds, by stochastic approximation
  (Robbins and Monro 1951) with the step that is best for an exponential tail.
- `excess` is the mean excess over it, learnt from the windows that exceed.
- P(more than y) = 0.02 exp(-(y - bound) / excess), and the score is -log10 of that: 4 means once in
  10,000 windows. Below the bound it falls in proportion to y.

Everything starts from a prior as of normal noise, a bit wider, that weighs as much as some windows.
"""

from __future__ import annotations

import math

import numpy as np

from processor.detectors.base import Sensitivity
from processor.model import Column, Floats, Rows, State

LEVELS: dict[Sensitivity, float] = {"high": 2.8, "medium": 3.5, "low": 4.2}  # of what scores so
SHARE = 0.02  # of windows beyond the bound
DIGITS = -math.log10(SHARE)
BOUND_FIRST = 1.25  # log(1 + 2.5): 2.3 deviations would be right for normal noise
EXCESS_FIRST = 0.18  # of normal noise it is 0.1
BOUND_MIN, EXCESS_MIN = 0.1, 0.08  # so that series without noise don't shout at the first of it
EXCESS_SHARE = 0.06  # of the bound, at least: of small counts, the next larger one is no news
PRIOR_WINDOWS, WINDOWS_MAX = 50, 2_000
PRIOR_BEYOND, BEYOND_MAX = 5, 40
CLIP = 6.0  # excesses beyond so many times the mean are learnt as that: an outage is not the usual

COLUMNS = (
    Column("bound", "<f4", BOUND_FIRST),
    Column("excess", "<f4", EXCESS_FIRST),
    Column("windows", "<u2"),  # learnt, up to WINDOWS_MAX
    Column("beyond", "<u1"),  # of those, up to BEYOND_MAX
)


def score(state: State, rows: Rows, away: Floats) -> Floats:
    """Decimal digits of improbability of deviations `away` >= 0, float64[n]."""
    y = np.log1p(away)
    bound, excess = _fit(state, rows)
    digits: Floats = DIGITS * np.minimum(y / bound, 1.0)
    digits += np.maximum(y - bound, 0.0) / (excess * math.log(10))
    return digits


def reach(state: State, rows: Rows, digits: float) -> Floats:
    """The deviation that scores `digits`: the inverse of `score`."""
    bound, excess = _fit(state, rows)
    below = bound * min(digits / DIGITS, 1.0)
    away: Floats = np.expm1(below + excess * (max(digits - DIGITS, 0.0) * math.log(10)))
    return away


def learn(state: State, rows: Rows, away: Floats) -> None:
    """Take in what was scored."""
    y = np.log1p(away)
    bound, excess = _fit(state, rows)
    windows, beyond = state["windows"][rows], state["beyond"][rows]
    is_beyond = y > bound
    step = excess / (windows.astype(np.float64) + PRIOR_WINDOWS)
    moved = bound + step * np.where(is_beyond, (1.0 - SHARE) / SHARE, -1.0)
    state["bound"][rows] = np.maximum(moved, BOUND_MIN)
    least = np.maximum(EXCESS_MIN, EXCESS_SHARE * bound)
    over = np.minimum(y - bound, CLIP * excess)
    learnt = excess + (over - excess) / (beyond.astype(np.float64) + PRIOR_BEYOND + 1)
    state["excess"][rows] = np.where(is_beyond, np.maximum(learnt, least), excess)
    state["windows"][rows] = np.minimum(windows, WINDOWS_MAX - 1) + np.uint16(1)
    state["beyond"][rows] = np.minimum(beyond + is_beyond, BEYOND_MAX)


def _fit(state: State, rows: Rows) -> tuple[Floats, Floats]:
    return state["bound"][rows].astype(np.float64), state["excess"][rows].astype(np.float64)
