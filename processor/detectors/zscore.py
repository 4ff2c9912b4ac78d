"""Z-score: values far from a moving mean, in moving standard deviations.

Mean and variance are exponentially weighted (Finch, Incremental calculation of weighted mean and
variance, 2009, section 9). No distribution is assumed: how far is too far comes from the series'
own tail (`_tail`). There is no season in it, so a rhythm widens the band.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from processor.detectors import _band, _tail
from processor.detectors.base import (
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    judgeable,
    silence,
)
from processor.model import Column, Rows, State

WINDOWS_MAX = 333  # the mean reaches back so far: a gain of 0.003 (best on NAB of 0.001 to 0.05)


class ZscoreParams(SensitiveParams, frozen=True, kw_only=True):
    """What all detectors with a sensitivity take."""

    levels: ClassVar[Mapping[Sensitivity, float]] = _tail.LEVELS


class Zscore:
    """Expected: the moving mean. Band: up to where a value would reach the threshold."""

    kind: ClassVar[str] = "zscore"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = ZscoreParams
    parts: ClassVar[tuple[str, ...]] = ("value",)

    def columns(self, params: ZscoreParams) -> tuple[Column, ...]:
        return (
            Column("mean", "<f8"),
            Column("variance", "<f8"),
            Column("seen", "<u2"),  # windows, up to WINDOWS_MAX
            *_tail.COLUMNS,
        )

    def threshold(self, params: ZscoreParams) -> float:
        return params.limit

    def judge(self, params: ZscoreParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        at = judged[state["seen"][rows[judged]] >= _band.YOUNG]
        mean, deviation = state["mean"][rows[at]], np.sqrt(state["variance"][rows[at]])
        _band.judge(
            params, state, _band.Seen(at, rows[at], wave.values[at], mean, deviation), verdict
        )
        _band.learn_moments(state, rows[judged], wave.values[judged], WINDOWS_MAX)
        return verdict

    def sentence(
        self, params: ZscoreParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        return _band.sentence(aggregate, verdict, i, wave, "that is its mean of late")

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def bin(self, params: Any, wave: Wave) -> str:
        return ""
