"""What else has a say before people are told: a rule-wide budget, and what people asked for.

A watch asks it only about series with an alarm that opens or is open, but for `on_scores`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from processor.detectors.base import Wave
from processor.model import Bools, Floats, Rows


class Control(Protocol):
    """`series` is what a detector's columns are called in a snapshot."""

    def on_scores(self, series: str, scores: Floats, wave: Wave) -> None:
        """All scores of a wave, float64[n]; NaN where nothing was judged."""

    def on_openings(self, series: str, scores: Floats) -> None:
        """Alarms opened with these scores, muted ones excepted; NaN where there is none."""

    def bar(self, series: str) -> float:
        """The least score of an alarm that is told; 0 where the threshold is enough."""

    def muted(self, series: str, rows: Rows, wave: Wave) -> Bools:
        """bool[n]: of which keys nobody wants to hear now."""

    def on_untold(self, reason: str, n: int) -> None:
        """So many alarms opened, and are not told."""

    def expected_every(self, series: str, score: float) -> float | None:
        """In how many windows of this rule's series such a score comes once; None: unknown."""


class Uncontrolled:
    """Nobody has a say."""

    def on_scores(self, series: str, scores: Floats, wave: Wave) -> None:
        pass

    def on_openings(self, series: str, scores: Floats) -> None:
        pass

    def bar(self, series: str) -> float:
        return 0.0

    def muted(self, series: str, rows: Rows, wave: Wave) -> Bools:
        return np.zeros(len(rows), dtype=np.bool_)

    def on_untold(self, reason: str, n: int) -> None:
        pass

    def expected_every(self, series: str, score: float) -> float | None:
        return None
