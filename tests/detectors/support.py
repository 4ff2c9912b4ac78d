"""A series through a detector, window by window."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np

from processor import detectors
from processor.core.columns import Columns
from processor.detectors.base import Verdict, Wave

TEN_MIN = 600_000
HOUR = 3_600_000
DAY = 24 * HOUR
MIDNIGHT = 19_700 * DAY


class Said(NamedTuple):
    """A verdict on one series, as plain figures."""

    expected: float
    lower: float
    upper: float
    score: float
    raised: bool
    calm: bool
    run: int
    sentence: str  # where it raised


class Series:
    """One series of one detector, fed by hand."""

    def __init__(self, kind: str, size_ms: int = TEN_MIN, start_ms: int = MIDNIGHT, **options: Any):
        self.detector = detectors.get(kind)
        self.params = msgspec.convert(options, self.detector.params)
        self.columns = Columns(self.detector.columns(self.params))
        self.columns.ensure(1)
        self.size_ms, self.now_ms = size_ms, start_ms

    def see(self, value: float, count: int = 1) -> Said:
        wave = Wave(
            self.now_ms,
            self.now_ms + self.size_ms,
            self.now_ms,
            np.array([float(value)]),
            np.array([count]),
        )
        self.now_ms += self.size_ms
        verdict = self.detector.judge(self.params, self.columns.arrays, np.array([0]), wave)
        raised = bool(verdict.raised[0])
        sentence = self.detector.sentence(self.params, "orders", verdict, 0, wave) if raised else ""
        return _said(verdict, sentence)

    def see_all(self, values: Any) -> list[Said]:
        return [self.see(value) for value in values]


def _said(verdict: Verdict, sentence: str) -> Said:
    return Said(
        *(float(getattr(verdict, name)[0]) for name in ("expected", "lower", "upper", "score")),
        raised=bool(verdict.raised[0]),
        calm=bool(verdict.calm[0]),
        run=int(verdict.run[0]),
        sentence=sentence,
    )
