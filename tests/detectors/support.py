"""A series through a detector, window by window."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from processor.core.alarms.control import Uncontrolled
from processor.core.alarms.watch import Watch
from processor.detectors.base import Verdict, Wave
from processor.model import DetectSpec

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
    raised: bool  # as the options want it: enough for an alarm, were none open
    calm: bool
    run: int
    sentence: str  # where it raised


class Series:
    """One series of one detector, fed by hand."""

    def __init__(self, kind: str, size_ms: int = TEN_MIN, start_ms: int = MIDNIGHT, **options: Any):
        empties = {"orders": float("nan")}
        self.watch = Watch(DetectSpec(kind, kind, "orders", options), "0", empties, Uncontrolled())
        self.detector, self.params = self.watch.detector, self.watch.params
        self.columns = self.watch.state
        self.columns.ensure(1)
        self.watch.alarms.ensure(1)
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
        heard = self.watch.hear(np.array([0]), wave, {"orders": wave.values})
        raised, verdict = bool(heard.speaks[0]), heard.verdict
        sentence = self.detector.sentence(self.params, "orders", verdict, 0, wave) if raised else ""
        return _said(verdict, raised, sentence)

    def see_all(self, values: Any) -> list[Said]:
        return [self.see(value) for value in values]


def _said(verdict: Verdict, raised: bool, sentence: str) -> Said:
    return Said(
        *(float(getattr(verdict, name)[0]) for name in ("expected", "lower", "upper", "score")),
        raised=raised,
        calm=bool(verdict.calm[0]),
        run=int(verdict.run[0]),
        sentence=sentence,
    )
