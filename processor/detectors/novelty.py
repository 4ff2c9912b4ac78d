"""Seasonal novelty: values unlike anything that the series has shown at this hour, or at any.

From each value the mean of its hour of day is taken (`_season`); what remains is compared with a
bounded memory of such remainders (`_memory`). Regular spikes, nightly jobs and known incidents are
remembered and stay quiet; no distribution is assumed, and one threshold serves all series. Up to
three looks at a series are fused, each with a memory of its own.

The score does not change with the scale and offset of the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from processor.detectors import _memory, _season
from processor.detectors._memory import Recall, Singles
from processor.detectors.base import (
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    duration,
    figure,
    hours,
    judgeable,
    silence,
)
from processor.model import Column, Floats, Rows, State

Look = Literal["point", "run", "day"]

LOOKS: dict[Look, float] = {"point": 2.30, "run": 2.36, "day": 1.97}  # novelty that scores 2 (NAB)
COLUMNS: dict[Look, tuple[Column, ...]] = {"point": (), "run": _season.RUN, "day": _season.DAY}
YOUTH_MS = 7 * 86_400_000  # until a series has seen a week, much is new and little is strange
YOUTH_WEIGHT = 0.4  # of the decimal logarithm of (a week / age), off the score
UNBORN = -(2**63)


class NoveltyParams(SensitiveParams, frozen=True, kw_only=True):
    """`look_at` says how far: at single windows (`point`), at the last three as well (`run`), and
    at how uneven the last day was (`day`). Each step doubles the memory and adds as much time
    again.
    """

    levels: ClassVar[Mapping[Sensitivity, float]] = {"high": 2.0, "medium": 2.2, "low": 2.4}

    look_at: Look = "point"


class Novelty:
    """Expected: the mean of the hour. Band: up to where a value would reach the threshold."""

    kind: ClassVar[str] = "novelty"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = NoveltyParams
    parts: ClassVar[tuple[str, ...]] = tuple(LOOKS)

    def columns(self, params: NoveltyParams) -> tuple[Column, ...]:
        return (
            *_season.PROFILE,
            Column("born_ms", "<i8", UNBORN),
            *(spec for look in _looks(params) for spec in COLUMNS[look] + _memory.columns(look)),
        )

    def threshold(self, params: NoveltyParams) -> float:
        return params.limit

    def judge(self, params: NoveltyParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        room = _memory.scratch(len(judged))
        for first in range(0, len(judged), _memory.CHUNK):
            at = judged[first : first + _memory.CHUNK]
            _on_birth(state, rows[at], wave)
            expected, is_known = _season.on_profile(state, rows[at], wave, wave.values[at])
            at, expected = at[is_known], expected[is_known]  # an hour's first value is only learnt
            chunk = _Chunk(at, rows[at], wave.values[at], expected)
            _judge(params, state, chunk, wave, room, verdict)
        return verdict

    def sentence(
        self, params: NoveltyParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        value, expected, run = wave.values[i], verdict.expected[i], int(verdict.run[i])
        if run > 1:
            lasted = duration(run * (wave.end_ms - wave.start_ms))
            return (
                f"{aggregate} is {figure(value)}, with {figure(expected)} expected at this hour; "
                f"the last {lasted} together are unlike anything remembered"
            )
        is_above = value > expected
        side, end = ("above", "up") if is_above else ("below", "down")
        known = verdict.upper[i] if is_above else verdict.lower[i]
        return (
            f"{aggregate} is {figure(value)}, {side} the {figure(expected)} expected at this hour; "
            f"{end} to {figure(known)} would be nothing new"
        )

    def bin(self, params: NoveltyParams, wave: Wave) -> str:
        return hours(wave)

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)


class _Chunk(NamedTuple):
    """Some series of a wave: where they stand in it, their rows, values and expected values."""

    at: Rows
    rows: Rows
    values: Floats
    expected: Floats


def _judge(
    params: NoveltyParams, state: State, chunk: _Chunk, wave: Wave, room: Singles, verdict: Verdict
) -> None:
    """Score and learn one chunk."""
    at, rows, values, expected = chunk
    rest = (values - expected).astype(np.float32)
    windows = state["point.windows"][rows]
    looks: dict[Look, Singles] = {"point": rest}
    if "run" in (wanted := _looks(params)):
        looks["run"] = _season.on_run(state, rows, rest, windows)
    if "day" in wanted:
        looks["day"] = _season.on_day(state, rows, rest, windows, wave)
    seen = {
        look: _memory.recall(state, look, rows, seen_at, params.warm_up, room)
        for look, seen_at in looks.items()
    }
    youth = _youth(state, rows, wave)
    score = _score(seen, youth)
    threshold = params.limit
    raised = score >= threshold
    for look, seen_at in looks.items():
        _memory.learn(state, look, rows, seen_at, seen[look])

    point = seen["point"]
    reach = _memory.reach(point.scale, threshold + youth + LOOKS["point"] - 2.0)
    verdict.expected[at] = expected
    verdict.lower[at], verdict.upper[at] = _band(point, rest, reach, expected, values)
    verdict.score[at] = score
    verdict.raised[at] = raised
    verdict.calm[at] = (score < threshold) & point.is_usual
    verdict.run[at] = np.where(raised, _windows_meant(seen, wave), 0)


def _looks(params: NoveltyParams) -> tuple[Look, ...]:
    looks = tuple(LOOKS)
    return looks[: looks.index(params.look_at) + 1]


def _on_birth(state: State, rows: Rows, wave: Wave) -> None:
    born_ms = state["born_ms"][rows]
    state["born_ms"][rows] = np.where(born_ms == UNBORN, wave.start_ms, born_ms)


def _youth(state: State, rows: Rows, wave: Wave) -> Floats:
    """What comes off the score of a series younger than a week."""
    age_ms = np.maximum(wave.end_ms - state["born_ms"][rows], 1)
    youth: Floats = YOUTH_WEIGHT * np.log10(np.maximum(YOUTH_MS / age_ms, 1.0))
    return youth


def _score(seen: Mapping[Look, Recall], youth: Floats) -> Floats:
    """A soft maximum of the looks; rounded to float32, as peaks are kept.

    2 where one look of a grown series is as new as `LOOKS` says and the others are not.
    """
    excess = [recall.novelty - LOOKS[look] for look, recall in seen.items()]
    fused = excess[0] if len(excess) == 1 else np.log10(sum(100.0**e for e in excess)) / 2
    score = np.maximum(fused + 2.0 - youth, 0.0)
    return score.astype(np.float32).astype(np.float64)


def _windows_meant(seen: Mapping[Look, Recall], wave: Wave) -> Rows:
    """How many windows the look that says most is about."""
    lengths = {"point": 1, "run": 3, "day": max(_season.DAY_MS // (wave.end_ms - wave.start_ms), 1)}
    excess = np.stack([recall.novelty - LOOKS[look] for look, recall in seen.items()])
    meant: Rows = np.array([lengths[look] for look in seen])[excess.argmax(axis=0)]
    return meant


def _band(
    seen: Recall, rest: Singles, reach: Floats, expected: Floats, values: Floats
) -> tuple[Floats, Floats]:
    """From where to where nothing is novel, on the side of the value.

    The remembered range, widened by `reach`; where the value lies in a gap between remembered ones,
    the end on its side is `reach` past the nearest of them.
    """
    is_novel = seen.distance > reach
    lower = np.where(is_novel & (rest < seen.nearest), seen.nearest, seen.lowest) - reach + expected
    upper = (
        np.where(is_novel & (rest > seen.nearest), seen.nearest, seen.highest) + reach + expected
    )
    # The range fades faster than the memory: what is not novel is inside all the same.
    lower = np.where(is_novel, lower, np.minimum(lower, values))
    upper = np.where(is_novel, upper, np.maximum(upper, values))
    return lower, upper
