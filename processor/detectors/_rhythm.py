"""What a series usually is: its mean, its mean at this hour of day, and at this hour of week.

Each of the three forecasts every window before it learns it, and keeps its mean absolute error. The
one with the least error speaks for the series; a season must be worth its bins, so it has to be 5 %
better than what is simpler. A bin that has not been met yet leaves the word to the simpler one.

Profiles are kept as differences from the series' first value in float32: what a series moves from
there, not its offset, is what they are precise to (1 part in 10 million).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from processor.detectors import _band
from processor.detectors.base import HOUR_MS, HOURS, Wave, hour_of_day, hours
from processor.model import Column, Floats, Rows, State

HOURS_A_WEEK = 7 * HOURS
WINDOWS_MAX = 333  # of the mean and the errors: a gain of 0.003
DAY_MAX, WEEK_MAX = 50, 10  # windows of its bin that a profile reaches back
BETTER = 1.05  # by how much a season must beat what is simpler
TO_DEVIATION = 1.25  # sqrt(pi / 2): of a normal series, the deviation by the mean absolute error
SPREAD_GAIN = 0.02
WEEKDAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")  # 1970 began on a Thursday
FORECASTS = ("mean", "day", "week")

COLUMNS = (
    Column("first", "<f8", math.nan),
    Column("mean", "<f8"),  # less the first value, as all of these
    Column("day", "<f4", 0, HOURS),
    Column("day_seen", "<u1", 0, HOURS),
    Column("week", "<f4", 0, HOURS_A_WEEK),
    Column("week_seen", "<u1", 0, HOURS_A_WEEK),
    Column("errors", "<f8", 0, len(FORECASTS)),
    Column("spread", "<f4", 0, HOURS),  # mean absolute error at the hour, of what spoke then
    Column("seen", "<u2"),  # windows, up to WINDOWS_MAX
)


class Forecast(NamedTuple):
    """Of n series: what each of the three says, which one speaks, and the scale of its error."""

    all: Floats  # float64[n, 3], less the first value
    chosen: Rows  # intp[n]: index in FORECASTS
    expected: Floats  # float64[n], in the value's unit
    scale: Floats


def forecast(state: State, rows: Rows, wave: Wave, season: int | None) -> Forecast:
    """`season`: the index in FORECASTS that is to speak where it can; None: the best."""
    hour, of_week = hour_of_day(wave), hour_of_week(wave)
    mean = state["mean"][rows]
    has_day, has_week = state["day_seen"][rows, hour] > 0, state["week_seen"][rows, of_week] > 0
    day = np.where(has_day, state["day"][rows, hour], mean)
    week = np.where(has_week, state["week"][rows, of_week], day)
    said = np.stack([mean, day, week], axis=1)
    errors = state["errors"][rows]
    if season is None:
        chosen = (errors * np.array([1.0, BETTER, BETTER**2])).argmin(axis=1)
    else:
        chosen = np.full(len(rows), season)
    chosen = np.where((chosen == 2) & ~has_week, 1, chosen)
    chosen = np.where((chosen == 1) & ~has_day, 0, chosen)
    mine = np.arange(len(rows))
    error = errors[mine, chosen]
    spread = state["spread"][rows, hour].astype(np.float64)
    scale = TO_DEVIATION * np.where(spread > 0, (error + spread) / 2, error)
    return Forecast(said, chosen, state["first"][rows] + said[mine, chosen], scale)


def learn(state: State, rows: Rows, values: Floats, wave: Wave, seen: Forecast) -> None:
    """`values` are those that `seen` was the forecast of."""
    windows = state["seen"][rows]
    first = np.where(windows == 0, values, state["first"][rows])
    state["first"][rows] = first
    away = (values - first)[:, None] - np.where(windows == 0, 0.0, seen.all.T).T
    errors = state["errors"][rows]
    away = _band.clipped(away, TO_DEVIATION * errors, windows[:, None])
    gain = 1.0 / np.minimum(windows + 1.0, WINDOWS_MAX)
    state["mean"][rows] += gain * away[:, 0]
    state["errors"][rows] = errors + gain[:, None] * (np.abs(away) - errors)
    _learn_bin(state, "day", rows, hour_of_day(wave), seen.all[:, 1] + away[:, 1], DAY_MAX)
    _learn_bin(state, "week", rows, hour_of_week(wave), seen.all[:, 2] + away[:, 2], WEEK_MAX)
    mine = np.abs(away[np.arange(len(rows)), seen.chosen])
    spread = state["spread"][rows, hour_of_day(wave)].astype(np.float64)
    learnt = np.where(spread > 0, spread + SPREAD_GAIN * (mine - spread), mine)
    state["spread"][rows, hour_of_day(wave)] = learnt
    state["seen"][rows] = np.minimum(windows, WINDOWS_MAX - 1) + np.uint16(1)


def _learn_bin(state: State, name: str, rows: Rows, at: int, values: Floats, most: int) -> None:
    windows = state[f"{name}_seen"][rows, at]
    before = state[name][rows, at].astype(np.float64)
    gain = 1.0 / np.minimum(windows + 1.0, most)
    state[name][rows, at] = before + gain * (values - before)
    state[f"{name}_seen"][rows, at] = np.minimum(windows, most - 1) + np.uint8(1)


def hour_of_week(wave: Wave) -> int:
    """0 to 167; 0 is Thursday, 0:00, as 1970 began."""
    return wave.local_ms // HOUR_MS % HOURS_A_WEEK


def hours_of_week(wave: Wave) -> str:
    """The window's hour of week in words: `Mon 08:00–09:00`."""
    return f"{WEEKDAYS[hour_of_week(wave) // HOURS]} {hours(wave)}"
