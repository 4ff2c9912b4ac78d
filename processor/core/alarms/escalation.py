"""Escalation only: a score that passes everything of the last 100 to 200 windows."""

from __future__ import annotations

import numpy as np

from processor.model import Bools, Floats, Ints, Rows, State

BLOCK = 100  # windows; two blocks of maxima tell the peak of the last 100 to 200


def on_scores(alarms: State, rows: Rows, windows: Ints, scores: Floats) -> Bools:
    """Keep the peaks; bool[n]: which scores are above them.

    `windows`: judged before this one; `scores`: NaN where it was not judged. Compared as float32,
    as peaks are kept.
    """
    singles = scores.astype(np.float32)
    begins = rows[(windows % BLOCK == 0) & ~np.isnan(singles)]
    alarms["peak_before"][begins] = alarms["peak"][begins]
    alarms["peak"][begins] = 0
    higher = np.flatnonzero(singles > alarms["peak"][rows])
    passes = np.zeros(len(rows), dtype=np.bool_)
    passes[higher] = singles[higher] > alarms["peak_before"][rows[higher]]
    alarms["peak"][rows[higher]] = singles[higher]
    return passes
