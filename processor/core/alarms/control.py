"""What else has a say before people are told: a rule-wide budget, and what people asked for.

A watch asks it only about series that are about to open or escalate, but for `on_scores`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from processor.detectors.base import Wave
from processor.model import Bools, Floats, Rows


class Control(Protocol):
    """`series` is what a detector's columns are called in a snapshot."""

    def on_scores(self, series: str, scores: Floats) -> None:
        """All scores of a wave, float64[n]; NaN where nothing was judged."""

    def bar(self, series: str) -> float:
        """By how much a score must pass the threshold, for an alarm to open; 0 as a rule."""

    def suppressed(self, series: str, rows: Rows, differences: Floats, wave: Wave) -> Bools:
        """bool[n]: which stay shut, or at their severity. `differences`: value less expected."""

    def expected_every(self, series: str, score: float) -> float | None:
        """In how many windows of this rule's series such a score comes once; None: unknown."""


class Uncontrolled:
    """Nobody has a say."""

    def on_scores(self, series: str, scores: Floats) -> None:
        pass

    def bar(self, series: str) -> float:
        return 0.0

    def suppressed(self, series: str, rows: Rows, differences: Floats, wave: Wave) -> Bools:
        return np.zeros(len(rows), dtype=np.bool_)

    def expected_every(self, series: str, score: float) -> float | None:
        return None
