"""Absence: a key that always has records at this hour has gone silent.

Each hour of day has a probability p that a window is not empty, learnt as a mean of its last 200 or
so windows. A run of empty windows scores −Σ log10(1 − p): the improbability, in decimal digits, of
silence by chance. So a series that was always on speaks up after 2 windows, one with records in
80 % of its windows after 6, one with 30 % after 25.

What keeps it quiet where it knows little (`_certainty`):

- p is the smaller of two estimates, the hour's share of full windows shrunk towards that of all
  hours with the weight of 1 window and of 10. Where hours differ, as with a shop that closes at
  night, the first is right and the second too high; where they are alike, it is the other way
  round. The weight of 1 keeps the sum over the hours of a night below 3: it is at most
  24 q (1 - q) / ln 10 for a share q of open hours.
- The empty windows of the present run count as seen: each makes the next less of a surprise.
- Hours never met count nothing, and a key must have been there for a day.

The empty windows of a run are learnt when it ends, and only if it was not declared an outage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from processor.detectors.base import (
    HOUR_MS,
    HOURS,
    Params,
    Verdict,
    Wave,
    Windows,
    duration,
    hour_of_day,
    hours,
    silence,
)
from processor.model import Column, Floats, Rows, State

CERTAIN = 0.99  # nobody is surer than that of a next record; two windows then make 4 digits
HOUR_WINDOWS_MAX = 200.0  # how far back an hour remembers, in windows
ALL_WINDOWS_MAX = 2_000.0
DOUBT = 2.0  # windows without records that everybody starts with, so that nobody begins certain
WARM_UP_MS = HOURS * HOUR_MS  # no hour says anything before it has come round once
WEIGHT_APART, WEIGHT_ALIKE = 1.0, 10.0  # windows; see above
UNBORN = -(2**63)
PENDING_MAX = 2**16 - 1  # months of silence that nobody minded; more would be no news

Figures = npt.NDArray[Any]


class AbsenceParams(Params, frozen=True, kw_only=True):
    """`warm_up`: windows; and a day in any case. `recover_after`: the first record ends silence."""

    tunable: ClassVar[frozenset[str]] = Params.tunable | {"threshold", "warm_up"}
    passing: ClassVar[frozenset[str]] = frozenset({"pending", "run", "score"})

    threshold: Annotated[float, Meta(gt=0, le=1_000)] = 3.99  # 2 windows at p = 0.99, with a margin
    warm_up: Annotated[int, Meta(ge=1, le=int(ALL_WINDOWS_MAX))] = 24
    recover_after: Windows = 1

    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("min_count", "missing"), "absence judges windows without records, so leave it out"
        ),
        **dict.fromkeys(
            (
                *("clamp_min", "clamp_max", "only_above", "only_below"),
                *("direction", "min_delta", "min_delta_relative"),
            ),
            "absence looks at no value, so leave it out",
        ),
        "recover_below": "the first record ends silence, so leave it out",
    }


class Absence:
    """Expected: p, the share of windows at this hour that have records. There is no band."""

    kind: ClassVar[str] = "absence"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = AbsenceParams
    parts: ClassVar[tuple[str, ...]] = ("value",)
    expects_values: ClassVar[bool] = False

    def columns(self, params: AbsenceParams) -> tuple[Column, ...]:
        return (
            Column("born_ms", "<i8", UNBORN),  # start of the first window with records
            Column("full", "<f4", 0, HOURS),  # windows with records at that hour, fading
            Column("total", "<f4", 0, HOURS),  # … and all windows
            Column("all_full", "<f4"),
            Column("all_total", "<f4"),
            Column("pending", "<u2", 0, HOURS),  # empty windows of the present run, not yet learnt
            Column("run", "<u4"),
            Column("score", "<f8"),  # of the present run
        )

    def threshold(self, params: AbsenceParams) -> float:
        return params.threshold

    def judge(self, params: AbsenceParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        is_full = wave.counts > 0
        _on_birth(state, rows[is_full], wave)
        born = np.flatnonzero(state["born_ms"][rows] != UNBORN)
        rows, is_full = rows[born], is_full[born]
        hour = hour_of_day(wave)
        verdict.expected[born] = _usual(state, rows, hour)
        _on_records(params, state, rows[is_full], hour)
        _on_silence(params, state, rows[~is_full], wave)
        verdict.score[born] = state["score"][rows]
        verdict.run[born] = state["run"][rows]
        verdict.raised[born] = state["score"][rows] >= params.threshold
        verdict.calm[born] = is_full
        return verdict

    def sentence(
        self, params: AbsenceParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        run = int(verdict.run[i])
        lasted = duration(run * (wave.end_ms - wave.start_ms))
        windows = "1 window" if run == 1 else f"{run} windows"
        share = f"{100 * verdict.expected[i]:.0f} %"
        return (
            f"no records for {lasted} ({windows}); "
            f"usually {share} of windows at this hour have some"
        )

    def bin(self, params: AbsenceParams, wave: Wave) -> str:
        return hours(wave)

    def pause(self, params: AbsenceParams, state: State, rows: Rows) -> None:
        state["pending"][rows] = 0
        state["run"][rows] = 0
        state["score"][rows] = 0.0

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return f"records are back after {lasted} without any"


def _on_birth(state: State, rows: Rows, wave: Wave) -> None:
    born_ms = state["born_ms"][rows]
    state["born_ms"][rows] = np.where(born_ms == UNBORN, wave.start_ms, born_ms)


def _usual(state: State, rows: Rows, hour: int) -> Floats:
    """The share of windows with records at this hour, for people."""
    full = state["full"][rows, hour].astype(np.float64)
    share: Floats = (full + _overall(state, rows)) / (state["total"][rows, hour] + 1.0)
    return share


def _certainty(state: State, rows: Rows, hour: int) -> Floats:
    """p of each series at this hour, for judging; 0 where the hour is new to it."""
    overall = _overall(state, rows)
    full = state["full"][rows, hour].astype(np.float64)
    total = state["total"][rows, hour].astype(np.float64)
    seen = total + state["pending"][rows, hour]
    p = np.minimum(
        (full + WEIGHT_APART * overall) / (seen + WEIGHT_APART),
        (full + WEIGHT_ALIKE * overall) / (seen + WEIGHT_ALIKE),
    )
    return np.where(total > 0, np.minimum(p, CERTAIN), 0.0)


def _overall(state: State, rows: Rows) -> Floats:
    total = state["all_total"][rows].astype(np.float64) + state["run"][rows]
    share: Floats = state["all_full"][rows] / (total + DOUBT)
    return share


def _on_records(params: AbsenceParams, state: State, rows: Rows, hour: int) -> None:
    """A window with records: it ends a run of empty ones, and is learnt after that run."""
    ended = rows[state["run"][rows] > 0]
    _learn_run(state, ended[state["score"][ended] < params.threshold])
    state["pending"][ended] = 0
    state["run"][ended] = 0
    state["score"][ended] = 0.0
    for full, total, at, most in (
        ("full", "total", (rows, hour), HOUR_WINDOWS_MAX),
        ("all_full", "all_total", rows, ALL_WINDOWS_MAX),
    ):
        state[full][at], state[total][at] = _fade(
            state[full][at] + np.float32(1), state[total][at] + np.float32(1), most
        )


def _on_silence(params: AbsenceParams, state: State, rows: Rows, wave: Wave) -> None:
    hour = hour_of_day(wave)
    is_warm = (wave.start_ms - state["born_ms"][rows] >= WARM_UP_MS) & (
        state["all_total"][rows] >= params.warm_up
    )
    digits = -np.log10(1.0 - _certainty(state, rows, hour))
    state["score"][rows] += np.where(is_warm, digits, 0.0)
    state["run"][rows] += np.uint32(1)
    state["pending"][rows, hour] = np.minimum(state["pending"][rows, hour], PENDING_MAX - 1) + 1


def _learn_run(state: State, rows: Rows) -> None:
    """The empty windows of a run that was chance, each at its hour."""
    if not len(rows):
        return
    pending = state["pending"][rows]
    state["full"][rows], state["total"][rows] = _fade(
        state["full"][rows], state["total"][rows] + pending, HOUR_WINDOWS_MAX
    )
    # Integers, so the sum over hours is exact in any order.
    everything = state["all_total"][rows] + pending.sum(axis=1, dtype=np.int64)
    state["all_full"][rows], state["all_total"][rows] = _fade(
        state["all_full"][rows], everything, ALL_WINDOWS_MAX
    )


def _fade(full: Figures, total: Figures, most: float) -> tuple[Figures, Figures]:
    """Shrink both so that `total` is at most `most`: older windows weigh less and less."""
    kept = np.minimum(most / np.maximum(total, most), 1.0)
    return full * kept, total * kept
