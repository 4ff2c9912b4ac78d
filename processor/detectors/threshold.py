"""Threshold: a value above or below a bound that somebody has set, for some windows in a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import msgspec
import numpy as np

from processor.detectors.base import (
    Params,
    Verdict,
    Wave,
    Windows,
    back_to_normal,
    duration,
    figure,
    judgeable,
    silence,
)
from processor.model import Bools, Column, Floats, Rows, State


class ThresholdParams(Params, frozen=True, kw_only=True):
    """At least one bound. The bounds themselves are still calm: `above: 5` speaks up at 5.1."""

    tunable: ClassVar[frozenset[str]] = Params.tunable | {"above", "below", "for"}
    volatile: ClassVar[frozenset[str]] = frozenset({"run"})
    refused: ClassVar[Mapping[str, str]] = {
        "direction": "leave it out, `above` and `below` say the side",
    }

    above: float | None = None
    below: float | None = None
    for_windows: Windows = msgspec.field(default=1, name="for")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.above is None and self.below is None:
            raise ValueError("found neither `above` nor `below`; give at least one bound")
        for bound in (self.above, self.below):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"found a bound of {bound}; give a finite number")
        if self.above is not None and self.below is not None and self.below > self.above:
            raise ValueError(
                f"below: {self.below:g} is larger than above: {self.above:g}, so that every value "
                "would be an anomaly; swap them"
            )
        if self.escalation_only and self.for_windows > 1:
            n = self.for_windows
            raise ValueError(
                f"found escalation_only with for: {n}; what lasts does not rise, so that hardly "
                f"anything would raise: give n_of_m: [{n}, {n}] instead of `for`"
            )


class Threshold:
    """Score: 1 on the bound, and 1 more for each time the bound's own size beyond it."""

    kind: ClassVar[str] = "threshold"
    is_scale_free: ClassVar[bool] = False
    params: ClassVar[type[Params]] = ThresholdParams
    parts: ClassVar[tuple[str, ...]] = ("value",)

    def columns(self, params: ThresholdParams) -> tuple[Column, ...]:
        return (Column("run", "<u4"),)  # judged windows in a row beyond a bound

    def threshold(self, params: ThresholdParams) -> float:
        return 1.0

    def judge(self, params: ThresholdParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = judgeable(params, wave)
        values = wave.values[judged]
        score = _score(params, values)
        run = np.where(
            _is_beyond(params, values), state["run"][rows[judged]].astype(np.int64) + 1, 0
        )
        state["run"][rows[judged]] = run
        verdict.score[judged] = score
        verdict.run[judged] = run
        verdict.raised[judged] = run >= params.for_windows
        verdict.calm[judged] = run == 0
        if params.below is not None:
            verdict.lower[judged] = params.below
        if params.above is not None:
            verdict.upper[judged] = params.above
        return verdict

    def sentence(
        self, params: ThresholdParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        value, run = wave.values[i], int(verdict.run[i])
        is_above = params.above is not None and value > params.above
        bound = params.above if is_above else params.below
        assert bound is not None
        lasted = duration(run * (wave.end_ms - wave.start_ms))
        windows = "" if run == 1 else f" for {lasted} ({run} windows)"
        side = "above" if is_above else "below"
        return f"{aggregate} is {figure(value)}, {side} the bound of {figure(bound)}{windows}"

    def bin(self, params: ThresholdParams, wave: Wave) -> str:
        return ""

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)


def _is_beyond(params: ThresholdParams, values: Floats) -> Bools:
    beyond = np.zeros(len(values), dtype=np.bool_)
    if params.above is not None:
        beyond |= values > params.above
    if params.below is not None:
        beyond |= values < params.below
    return beyond


def _score(params: ThresholdParams, values: Floats) -> Floats:
    score = np.zeros(len(values))
    if params.above is not None:
        score = np.maximum(score, 1 + (values - params.above) / _size(params.above))
    if params.below is not None:
        score = np.maximum(score, 1 + (params.below - values) / _size(params.below))
    return score


def _size(bound: float) -> float:
    """Beyond a bound of (next to) nothing, distance counts in the value's own unit."""
    return abs(bound) if abs(bound) >= 1e-9 else 1.0
