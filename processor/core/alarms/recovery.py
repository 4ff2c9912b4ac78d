"""When an open alarm is over, and how long it stays quiet afterwards."""

from __future__ import annotations

import numpy as np

from processor.detectors.base import Params, Wave
from processor.model import Bools, Floats, Rows, State


def on_windows(
    params: Params, alarms: State, rows: Rows, calm: Bools, scores: Floats, wave: Wave
) -> Bools:
    """Count calm windows in a row, of open alarms; bool[n]: which are over."""
    if params.recover_below is not None:
        calm = calm & (scores < params.recover_below)
    before = alarms["calm"][rows]
    was_judged = ~np.isnan(scores)
    alarms["calm"][rows] = np.where(
        calm, before + np.uint32(1), np.where(was_judged, np.uint32(0), before)
    )
    alarms["calm_since_ms"][rows[calm & (before == 0)]] = wave.start_ms
    over: Bools = alarms["calm"][rows] >= params.recover_after
    return over


def is_cooled(params: Params, alarms: State, rows: Rows, scores: Floats, wave: Wave) -> Bools:
    """Which may open again: the cool-down is over, or the score worse than all of the last one."""
    until_ms = alarms["shut_ms"][rows] + params.cool_down * (wave.end_ms - wave.start_ms)
    cooled: Bools = (wave.start_ms >= until_ms) | (scores > alarms["worst_score"][rows])
    return cooled


def note_worst(alarms: State, rows: Rows, values: Floats, scores: Floats) -> None:
    is_worse = scores > alarms["worst_score"][rows]  # never where the score is NaN
    alarms["worst"][rows[is_worse]] = values[is_worse]
    alarms["worst_score"][rows[is_worse]] = scores[is_worse]
