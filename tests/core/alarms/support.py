"""A scorer and its clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from processor.core.alarms.alarm import Alarm
from processor.core.alarms.control import Control
from processor.core.alarms.scorer import Scorer
from processor.model import DetectSpec

HOUR = 3_600_000
DAY = 24 * HOUR
NAN = float("nan")
EMPTIES = {"failed": NAN, "count": 0.0}


def threshold(name: str = "high", aggregate: str = "failed", **options: Any) -> DetectSpec:
    return DetectSpec(name, "threshold", aggregate, options)


def scored(**options: Any) -> DetectSpec:
    """A detector whose score is the value itself, and whose threshold is 1."""
    return threshold(above=1.0, **options)


class Rule:
    """Hourly windows, one after the other; `values` of both aggregates by key."""

    def __init__(self, *detects: DetectSpec, keys: int = 4, control: Control | None = None):
        self.scorer = Scorer(detects, EMPTIES, control=control)
        self.scorer.ensure(keys)
        self.now_ms = 0

    def see(self, values: dict[int, float], counts: int | list[int] = 9) -> list[Alarm]:
        """One window."""
        rows = np.array(list(values), dtype=np.intp)
        numbers = np.array(list(values.values()))
        many = np.broadcast_to(np.array(counts, dtype=np.int64), len(rows)).copy()
        start_ms, self.now_ms = self.now_ms, self.now_ms + HOUR
        pending = self.scorer.judge(
            start_ms, self.now_ms, rows, many, {"failed": numbers, "count": numbers}
        )
        alarms = [each.make() for each in pending]
        assert [(each.row, each.state) for each in pending] == [(a.row, a.state) for a in alarms]
        return alarms

    def see_all(self, values: list[float]) -> list[list[str]]:
        """The states told in each window of key 0."""
        return [[alarm.state for alarm in self.see({0: value})] for value in values]

    def told(self, values: list[float | None]) -> str:
        """A letter a window of key 0: o(pened), e(scalated), r(esolved), or a point. None: a
        window without records."""
        letters = []
        for value in values:
            states = self.see({0: NAN if value is None else value}, 0 if value is None else 9)
            letters.append("".join(alarm.state[0] for alarm in states) or ".")
        return " ".join(letters)
