"""CUSUM: small deviations that add up, such as a level that has shifted or drifts.

Page's two-sided cumulative sum (Continuous inspection schemes, 1954) of standardised deviations
from a moving mean: what exceeds one deviation adds to the sum of its side, and the sum forgets a
tenth with each window, so that it tells of the last ten or twenty and rhythms don't carry it away.
How large a sum is too large comes from the series' own tail (`_tail`). After a raise it starts
again, from the level of the windows that led to it: a shift is told once, and is then the usual.
Across a gap nothing adds up: after maintenance, and where history ends, sums start again too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from processor.detectors import _band, _tail
from processor.detectors.base import (
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    duration,
    figure,
    judgeable,
    silence,
)
from processor.model import Bools, Column, Floats, Rows, State

WINDOWS_MAX = 333  # the mean reaches back so far
SLACK = 1.0  # deviations a window that don't count
KEPT = 0.9  # of a sum, from window to window
RUN_MAX = 2**16 - 1
SIDES = (("up", 1.0), ("down", -1.0))
SUMS = tuple(f"{side}{what}" for side, _ in SIDES for what in ("", "_moved", "_run"))


class CusumParams(SensitiveParams, frozen=True, kw_only=True):
    """What all detectors with a sensitivity take."""

    passing: ClassVar[frozenset[str]] = frozenset(SUMS)
    # Sums start again after each raise, so false alarms are rarer at the same score than elsewhere.
    levels: ClassVar[Mapping[Sensitivity, float]] = {"high": 2.8, "medium": 3.3, "low": 4.0}


class Cusum:
    """Expected: the moving mean. Band: where a value leaves the sums small enough."""

    kind: ClassVar[str] = "cusum"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = CusumParams
    parts: ClassVar[tuple[str, ...]] = ("value",)

    def columns(self, params: CusumParams) -> tuple[Column, ...]:
        sides = [
            (
                Column(side, "<f4"),  # the sum
                Column(f"{side}_moved", "<f8"),  # deviations that led to it, in the value's unit
                Column(f"{side}_run", "<u2"),  # windows that led to it
            )
            for side, _ in SIDES
        ]
        level = (Column("mean", "<f8"), Column("variance", "<f8"), Column("seen", "<u2"))
        return (*level, *sides[0], *sides[1], *_tail.COLUMNS)

    def threshold(self, params: CusumParams) -> float:
        return params.limit

    def judge(self, params: CusumParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        is_old = state["seen"][rows[judged]] >= _band.YOUNG
        at = judged[is_old]
        sums = _on_values(state, rows[at], wave.values[at])
        most = np.maximum(sums.up, sums.down)
        score = _tail.score(state, rows[at], most)
        raised = score >= params.limit
        _band.fill(verdict, at, score, raised)
        _fill_band(params, state, rows[at], at, sums, verdict)
        side_run = np.where(
            sums.up >= sums.down, state["up_run"][rows[at]], state["down_run"][rows[at]]
        )
        verdict.run[at] = np.where(raised, np.maximum(side_run, 1), 0)
        _tail.learn(state, rows[at], most)
        _band.learn_moments(state, rows[judged], wave.values[judged], WINDOWS_MAX)
        _restart(state, rows[at[raised]], (sums.up >= sums.down)[raised])
        return verdict

    def sentence(
        self, params: CusumParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        value, expected, run = wave.values[i], verdict.expected[i], int(verdict.run[i])
        side = "above" if value > expected else "below"
        lasted = duration(run * (wave.end_ms - wave.start_ms))
        windows = "1 window" if run == 1 else f"{run} windows"
        return (
            f"{aggregate} has shifted: now {figure(value)}, {figure(abs(value - expected))} {side} "
            f"the {figure(expected)} that was its mean until {lasted} ago ({windows})"
        )

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def bin(self, params: Any, wave: Wave) -> str:
        return ""

    def pause(self, params: CusumParams, state: State, rows: Rows) -> None:
        _clear(state, rows)


class _Sums(NamedTuple):
    """Of n series, after a window; `*_before` what was left of the sums before it."""

    up: Floats
    down: Floats
    up_before: Floats
    down_before: Floats
    mean: Floats
    deviation: Floats


def _on_values(state: State, rows: Rows, values: Floats) -> _Sums:
    mean, deviation = state["mean"][rows], np.sqrt(state["variance"][rows])
    away = values - mean
    far = _band.away_of(away, deviation) * np.sign(away)
    sums, before = {}, {}
    for side, sign in SIDES:
        before[side] = KEPT * state[side][rows].astype(np.float64)
        total = np.maximum(before[side] + sign * far - SLACK, 0.0).astype(np.float32)
        moved = np.where(total > 0, state[f"{side}_moved"][rows] + away, 0.0)
        run = np.minimum(state[f"{side}_run"][rows], RUN_MAX - 1) + np.uint16(1)
        state[side][rows] = total
        state[f"{side}_moved"][rows] = moved
        state[f"{side}_run"][rows] = np.where(total > 0, run, 0)
        sums[side] = total.astype(np.float64)
    return _Sums(sums["up"], sums["down"], before["up"], before["down"], mean, deviation)


def _fill_band(
    params: CusumParams, state: State, rows: Rows, at: Rows, sums: _Sums, verdict: Verdict
) -> None:
    needed = _tail.reach(state, rows, params.limit) + SLACK
    verdict.expected[at] = sums.mean
    for bound, before, sign in (
        (verdict.upper, sums.up_before, 1.0),
        (verdict.lower, sums.down_before, -1.0),
    ):
        room = _band.unscaled(np.maximum(needed - before, 0.0), sums.deviation)
        bound[at] = sums.mean + sign * room


def _restart(state: State, rows: Rows, is_up: Bools) -> None:
    """From the mean of the windows that led to a raise."""
    run = np.where(is_up, state["up_run"][rows], state["down_run"][rows])
    moved = np.where(is_up, state["up_moved"][rows], state["down_moved"][rows])
    # The mean has followed a little meanwhile; that is forgotten, the moves are from where it was.
    state["mean"][rows] += moved / np.maximum(run, 1)
    _clear(state, rows)


def _clear(state: State, rows: Rows) -> None:
    for name in SUMS:
        state[name][rows] = 0
