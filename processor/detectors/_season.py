"""What is left of a value when the season is taken off, and what the last windows make of it.

- `point`: the value less the mean of its hour of day;
- `run`: the mean of the last three of those;
- `day`: how far the last day strayed from the same hours of the week, as a root mean square.

Profiles are learnt per series after they were asked. What is learnt from remainders instead of
values needs no more than float32, whatever the offset of the series.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from processor.detectors.base import HOUR_MS, HOURS, Wave, hour_of_day
from processor.model import Bools, Column, Floats, Rows, State

Singles = npt.NDArray[np.float32]

PROFILE_FULL = 200  # windows of its hour that a mean reaches back: the gain ends at 0.005
HOURS_A_WEEK = 7 * HOURS
WEEK_GAIN = 0.2
DAY_MS = HOURS * HOUR_MS

PROFILE = (
    Column("profile", "<f8", 0, HOURS),
    Column("profile_windows", "<u1", 0, HOURS),  # saturates at PROFILE_FULL
)
RUN = (Column("rest_1", "<f4"), Column("rest_2", "<f4"))  # one window ago, two windows ago
DAY = (
    Column("week", "<f4", math.nan, HOURS_A_WEEK),  # means of remainders
    Column("strayed", "<f8"),  # mean square
)


def on_profile(state: State, rows: Rows, wave: Wave, values: Floats) -> tuple[Floats, Bools]:
    """Learn the mean of the hour; gives it as it was before, and whether there was one.

    An hour's first value is compared with the hour before, which is worth 1.8 points on NAB over
    leaving it out.
    """
    hour = hour_of_day(wave)
    windows = state["profile_windows"][rows, hour]
    before: Floats = state["profile"][rows, hour]
    after = np.minimum(windows, PROFILE_FULL - 1) + np.uint8(1)
    # The first value differs from a profile of 0 by itself, at a gain of 1.
    state["profile"][rows, hour] = before + (values - before) / after
    state["profile_windows"][rows, hour] = after
    new = np.flatnonzero(windows == 0)
    is_known = np.ones(len(rows), dtype=np.bool_)
    if len(new):
        last = expected(state, rows[new], hour - 1)
        is_known[new] = np.isfinite(last)
        before[new] = last
    return before, is_known


def expected(state: State, rows: Rows, hour: int) -> Floats:
    """The mean of an hour of day; NaN where there is none."""
    known: Floats = np.where(
        state["profile_windows"][rows, hour] > 0, state["profile"][rows, hour], np.nan
    )
    return known


def on_run(state: State, rows: Rows, rest: Singles, windows: npt.NDArray[Any]) -> Singles:
    """The mean of the last three remainders, or of as many as there were; `windows` before."""
    one, two = state["rest_1"][rows], state["rest_2"][rows]
    state["rest_1"][rows], state["rest_2"][rows] = rest, one
    # Before there were any, the columns hold zeros.
    mean: Singles = (rest + one + two) / (np.minimum(windows, 2) + 1).astype(np.float32)
    return mean


def on_day(
    state: State, rows: Rows, rest: Singles, windows: npt.NDArray[Any], wave: Wave
) -> Singles:
    """How far the last day strayed; a mean that decays over 24 h, plain while it is younger."""
    hour = wave.local_ms // HOUR_MS % HOURS_A_WEEK
    week = state["week"][rows, hour]
    is_new = np.isnan(week)
    away = (rest - np.where(is_new, np.float32(0), week)).astype(np.float64)
    learnt = week + np.float32(WEEK_GAIN) * (rest - week)
    state["week"][rows, hour] = np.where(is_new, rest, learnt)
    gain = np.maximum(1.0 / (windows + 1.0), -math.expm1((wave.start_ms - wave.end_ms) / DAY_MS))
    strayed = state["strayed"][rows]
    strayed = strayed + (away * away - strayed) * gain
    state["strayed"][rows] = strayed
    return np.sqrt(strayed).astype(np.float32)
