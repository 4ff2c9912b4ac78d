"""What people said was to be expected: the like stays silent.

A series keeps how far its newest alarm went, signed, and how far above and below it may go without
a word: of several accepted differences of one sign the largest decides, so one each is kept. For
absence it is the length of a silence, counted as below.
"""

from __future__ import annotations

import numpy as np

from processor.core.alarms import wanted
from processor.detectors.base import Verdict, Wave
from processor.model import Bools, Floats, Rows, State

TOLERANCE = 1.15  # the same thing on another day is a little larger, or smaller
_BY_RUN = frozenset({"absence"})  # whose anomaly is as large as it is long
BELOW, ABOVE = 0, 1


def distances(kind: str, verdict: Verdict, wave: Wave, at: Rows) -> Floats:
    """float64[len(at)]: how far these places of a wave are from what is usual, signed."""
    if kind in _BY_RUN:
        return -verdict.run[at].astype(np.float64)
    return wanted.difference(verdict, wave.values, at)


def are_accepted(alarms: State, rows: Rows, away: Floats) -> Bools:
    """bool[n]: which of these distances have been accepted before."""
    accepted = alarms["accepted"][rows]
    above: Bools = (away > 0) & (away <= TOLERANCE * accepted[:, ABOVE])
    below: Bools = (away < 0) & (away >= TOLERANCE * accepted[:, BELOW])
    return above | below


def on_opened(alarms: State, rows: Rows, away: Floats) -> None:
    alarms["furthest"][rows] = np.where(np.isnan(away), 0.0, away)


def on_windows(alarms: State, rows: Rows, away: Floats) -> None:
    """Windows of open alarms: how far they went, on the side on which they began."""
    furthest = alarms["furthest"][rows]
    goes_on = (np.sign(away) == np.sign(furthest)) & (np.abs(away) > np.abs(furthest))
    alarms["furthest"][rows[goes_on]] = away[goes_on]


def accept(alarms: State, rows: Rows) -> None:
    """What the newest alarms of these series told was to be expected."""
    accepted, furthest = alarms["accepted"], alarms["furthest"][rows]
    accepted[rows, ABOVE] = np.maximum(accepted[rows, ABOVE], furthest)
    accepted[rows, BELOW] = np.minimum(accepted[rows, BELOW], furthest)


def forget(alarms: State, rows: Rows) -> None:
    alarms["accepted"][rows] = 0.0
