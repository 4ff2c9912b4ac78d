"""MAD: values far from a moving median, in moving median absolute deviations.

Median and MAD follow the series by stochastic approximation (Robbins and Monro 1951; Tierney, A
space-efficient recursive procedure for estimating a quantile of an incremental sample, 1983): each
value moves them one step towards itself, of a size that neither its distance nor an outlier's
matters to. Two numbers instead of a window of hundreds, the same to the bit in any batch. Where
more than half of the values are equal the MAD is 0, so the mean absolute deviation has its share in
the scale. How far is too far comes from the series' own tail (`_tail`).
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
from processor.model import Column, Floats, Rows, State

WINDOWS_MAX = 667  # a gain of 0.0015: a step forgets about as much as a window of so many values
TO_DEVIATION = 1.4826  # of a normal series, the deviation by the MAD


class MadParams(SensitiveParams, frozen=True, kw_only=True):
    """What all detectors with a sensitivity take."""

    levels: ClassVar[Mapping[Sensitivity, float]] = _tail.LEVELS


class Mad:
    """Expected: the moving median. Band: up to where a value would reach the threshold."""

    kind: ClassVar[str] = "mad"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = MadParams
    parts: ClassVar[tuple[str, ...]] = ("value",)

    def columns(self, params: MadParams) -> tuple[Column, ...]:
        return (
            Column("median", "<f8"),
            Column("mad", "<f8"),
            Column("spread", "<f8"),  # mean absolute deviation from the median
            Column("seen", "<u2"),  # windows, up to WINDOWS_MAX
            *_tail.COLUMNS,
        )

    def threshold(self, params: MadParams) -> float:
        return params.limit

    def judge(self, params: MadParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        at = judged[state["seen"][rows[judged]] >= _band.YOUNG]
        median, mad = state["median"][rows[at]], state["mad"][rows[at]]
        scale = TO_DEVIATION * mad + state["spread"][rows[at]]
        seen = _band.Seen(at, rows[at], wave.values[at], median, scale)
        _band.judge(params, state, seen, verdict)
        _learn(state, rows[judged], wave.values[judged])
        return verdict

    def sentence(
        self, params: MadParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        return _band.sentence(aggregate, verdict, i, wave, "that is its median of late")

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def bin(self, params: Any, wave: Wave) -> str:
        return ""


def _learn(state: State, rows: Rows, values: Floats) -> None:
    mad, spread, windows = (state[name][rows] for name in ("mad", "spread", "seen"))
    median = np.where(windows == 0, values, state["median"][rows])
    away = values - median
    size = np.abs(away)
    gain = 1.0 / np.minimum(windows + 1.0, WINDOWS_MAX)
    spread = spread + gain * (_band.size_clipped(away, spread, windows) - spread)
    step = gain * np.maximum(mad, spread)  # 1 / density at the median, of about that size
    state["median"][rows] = median + np.clip(away, -step, step)
    state["mad"][rows] = mad + np.clip(size - mad, -step, step)
    state["spread"][rows] = spread
    state["seen"][rows] = np.minimum(windows, WINDOWS_MAX - 1) + np.uint16(1)
