"""What is left of a value when the season is taken off, and what the last windows make of it.

- `point`: the value less the mean of its hour of day;
- `run`: the mean of the last three of those;
- `day`: how far the last day strayed from the same hours of the week, as a root mean square.

Profiles are learnt per series after they were asked. All but one base a series is float32, being
differences: of an hour's mean to the base, of values to means. The base follows the series, so
neither an offset nor a level that moved far away costs digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from processor.detectors.base import HOUR_MS, HOURS, Wave
from processor.model import Bools, Column, Floats, Rows, State

Singles = npt.NDArray[np.float32]

PROFILE_FULL = 200  # windows of its hour that a mean reaches back: the gain ends at 0.005
HOURS_A_WEEK = 7 * HOURS
WEEK_GAIN = 0.2
FOLLOW_EVERY = 256  # windows
DAY_MS = HOURS * HOUR_MS

PROFILE = (
    Column("base", "<f8"),
    Column("profile", "<f4", 0, HOURS),  # means, less the base
    Column("profile_windows", "<u1", 0, HOURS),  # saturates at PROFILE_FULL
)
# One window ago, two windows ago; NaN where there was none just before.
RUN = (Column("rest_1", "<f4", math.nan), Column("rest_2", "<f4", math.nan))
DAY = (
    Column("week", "<f4", math.nan, HOURS_A_WEEK),  # means of remainders
    Column("strayed", "<f8"),  # mean square
)
_THREE = np.float32(3)


def on_profile(state: State, at: Any, hour: int, values: Floats) -> tuple[Floats, Bools | None]:
    """Learn the mean of the hour; gives it as it was before, and whether there was one (None: of
    all). `at`: the rows, or a slice.

    An hour's first value is compared with the hour before.
    """
    windows, difference = state["profile_windows"][at, hour], state["profile"][at, hour]
    new = np.flatnonzero(windows == 0)
    last = expected(state, _chosen(at, new), hour - 1) if len(new) else None
    before: Floats = state["base"][at] + difference
    after = np.minimum(windows, PROFILE_FULL - 1) + np.uint8(1)
    # The first value differs from a profile of 0 by itself, at a gain of 1.
    state["profile"][at, hour] = difference + (values - before) / after
    state["profile_windows"][at, hour] = after
    if last is None:
        return before, None
    before[new] = last
    return before, np.isfinite(before)


def on_birth(state: State, rows: Rows, values: Floats) -> None:
    """The first values of series: their base."""
    state["base"][rows] = values


def follow(state: State, rows: Rows, hour: int) -> None:
    """Move the base to the mean of this hour."""
    moved = state["profile"][rows, hour].astype(np.float64)
    state["base"][rows] += moved
    is_known = state["profile_windows"][rows] > 0
    differences = state["profile"][rows] - moved[:, None]
    state["profile"][rows] = np.where(is_known, differences, 0.0)


def expected(state: State, rows: Rows, hour: int) -> Floats:
    """The mean of an hour of day; NaN where there is none."""
    means = state["base"][rows] + state["profile"][rows, hour]
    known: Floats = np.where(state["profile_windows"][rows, hour] > 0, means, np.nan)
    return known


def on_run(state: State, at: Any, rest: Singles) -> Singles:
    """The mean of the last three remainders.

    Of as many as there were, after a gap or at first: less than their mean then, so that by chance
    it is no further out than a mean of three.
    """
    one, two = state["rest_1"][at], state["rest_2"][at]
    mean: Singles = (rest + one + two) / _THREE
    few = np.flatnonzero(np.isnan(mean))
    if len(few):
        last = np.stack((rest[few], one[few], two[few]))
        n = np.isfinite(last).sum(axis=0)
        mean[few] = np.nansum(last, axis=0) / np.sqrt(3 * n)
    state["rest_2"][at] = one
    state["rest_1"][at] = rest
    return mean


def on_day(state: State, at: Any, rest: Singles, windows: npt.NDArray[Any], wave: Wave) -> Singles:
    """How far the last day strayed; a mean that decays over 24 h, plain while it is younger."""
    hour = wave.local_ms // HOUR_MS % HOURS_A_WEEK
    week = state["week"][at, hour]
    away = rest - week
    new = np.flatnonzero(np.isnan(away))
    learnt = week + np.float32(WEEK_GAIN) * away
    if len(new):
        learnt[new] = away[new] = rest[new]
    state["week"][at, hour] = learnt
    gain = np.maximum(1.0 / (windows + 1.0), -math.expm1((wave.start_ms - wave.end_ms) / DAY_MS))
    strayed = state["strayed"][at]
    strayed = strayed + (np.square(away, dtype=np.float64) - strayed) * gain
    state["strayed"][at] = strayed
    root: Singles = np.sqrt(strayed).astype(np.float32)
    return root


def _chosen(at: Any, places: Rows) -> Rows:
    """Some of the rows `at`."""
    rows: Rows = places + at.start if isinstance(at, slice) else at[places]
    return rows
