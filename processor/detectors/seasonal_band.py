"""Seasonal band: values outside what is usual at this hour of day or of week.

Whether a series has a season, and which, shows by itself: `_rhythm`. The band is as wide as the
series' own tail says (`_tail`), and wider at hours that scatter more. Hours are those of the rule's
time zone, so a change to summer time moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from processor.detectors import _band, _rhythm, _tail
from processor.detectors.base import (
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    hours,
    judgeable,
    silence,
)
from processor.model import Column, Rows, State

SEASONS = {"auto": None, "none": 0, "day": 1, "week": 2}  # as `_rhythm.FORECASTS`


class SeasonalBandParams(SensitiveParams, frozen=True, kw_only=True):
    """`season`: what to compare with, where a bin has been met; `auto` chooses for each series."""

    tunable: ClassVar[frozenset[str]] = SensitiveParams.tunable | {"season"}
    levels: ClassVar[Mapping[Sensitivity, float]] = _tail.LEVELS

    season: Literal["auto", "none", "day", "week"] = "auto"


class SeasonalBand:
    """Expected: the mean, or that of the hour of day or week, whichever forecasts the series best.

    Band: up to where a value would reach the threshold.
    """

    kind: ClassVar[str] = "seasonal_band"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = SeasonalBandParams
    parts: ClassVar[tuple[str, ...]] = _rhythm.FORECASTS  # which of them gave the expected value

    def columns(self, params: SeasonalBandParams) -> tuple[Column, ...]:
        return (*_rhythm.COLUMNS, *_tail.COLUMNS)

    def threshold(self, params: SeasonalBandParams) -> float:
        return params.limit

    def judge(self, params: SeasonalBandParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        all_rows, values = rows[judged], wave.values[judged]
        said = _rhythm.forecast(state, all_rows, wave, SEASONS[params.season])
        old = state["seen"][all_rows] >= _band.YOUNG
        at = judged[old]
        seen = _band.Seen(at, rows[at], values[old], said.expected[old], said.scale[old])
        _band.judge(params, state, seen, verdict)
        verdict.part[at] = said.chosen[old]
        _rhythm.learn(state, all_rows, values, wave, said)
        return verdict

    def sentence(
        self, params: SeasonalBandParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        usual = (
            "that is its mean of late",
            f"usual at {hours(wave)}",
            f"usual on {self.bin(params, wave)}",
        )[int(verdict.part[i])]
        return _band.sentence(aggregate, verdict, i, wave, usual)

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def bin(self, params: Any, wave: Wave) -> str:
        """Hour and day of the week, whichever of them the series goes by."""
        return _rhythm.hours_of_week(wave)
