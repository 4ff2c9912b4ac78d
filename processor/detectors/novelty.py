"""Seasonal novelty: values unlike anything that the series has shown at this hour, or at any.

From each value the mean of its hour of day is taken (`_season`); what remains is compared with a
bounded memory of such remainders (`_memory`). Regular spikes, nightly jobs and known incidents are
remembered and stay quiet; no distribution is assumed, and one threshold serves all series. Up to
three looks at a series are fused, each with a memory of its own.

The score does not change with the scale and offset of the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from processor.detectors import _memory, _season
from processor.detectors._memory import NEWNESS_MIN, Cells, Counts, Recall, Singles
from processor.detectors.base import (
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    duration,
    figure,
    hour_of_day,
    hours,
    judgeable,
    silence,
)
from processor.model import Bools, Column, Floats, Ints, Rows, State

Level = Literal["lite", "standard", "full"]
Look = Literal["point", "run", "day"]

LEVELS: dict[Level, tuple[Look, ...]] = {
    "lite": ("point",),
    "standard": ("point", "run"),
    "full": ("point", "run", "day"),
}
# Prototypes of each look.
KEPT: dict[Level, int] = {
    "lite": _memory.FEW,
    "standard": _memory.PROTOTYPES,
    "full": _memory.PROTOTYPES,
}
# Novelty that scores 2. Between the looks as is best for NAB, over halves of its series; all three
# so that at 2.2 clean series of many kinds raise once in 10,000 windows.
LOOKS: dict[Look, float] = {"point": 2.17, "run": 2.12, "day": 1.97}
COLUMNS: dict[Look, tuple[Column, ...]] = {"point": (), "run": _season.RUN, "day": _season.DAY}
POINT, RUN, DAY = range(3)  # places in `LOOKS`
DAY_MS = _season.DAY_MS
# What comes off the score of a young series: so much for each power of ten that its age is below so
# many days. Until it has seen a week, much is new and little is strange; at first, all is.
YOUTH = ((0.6, 7 * DAY_MS), (0.5, 2.5 * DAY_MS))
# How uneven a day is can be told when the hours of a week are known, and is known after some weeks.
DAY_KNOWN_MS = 8 * DAY_MS
DAY_YOUTH = ((0.4, 28 * DAY_MS),)
GROWN_MS = 28 * DAY_MS  # the longest of these
MINUTE_MS = 60_000
UNBORN = -(2**31)
FOLLOW_AT = 255  # of `_season.FOLLOW_EVERY` windows; not with the first one


class NoveltyParams(SensitiveParams, frozen=True, kw_only=True):
    """`level` says how much is looked at: single windows (`lite`), the last three as well
    (`standard`), and how uneven the last day was (`full`). Each step adds as much memory and time.
    """

    levels: ClassVar[Mapping[Sensitivity, float]] = {"high": 2.0, "medium": 2.2, "low": 2.4}

    passing: ClassVar[frozenset[str]] = frozenset({"rest_1", "rest_2"})

    level: Level = "standard"


class Novelty:
    """Expected: the mean of the hour. Band: up to where a value would reach the threshold."""

    kind: ClassVar[str] = "novelty"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = NoveltyParams
    parts: ClassVar[tuple[str, ...]] = tuple(LOOKS)

    def columns(self, params: NoveltyParams) -> tuple[Column, ...]:
        looks = LEVELS[params.level]
        return (
            *_season.PROFILE,
            Column("born_min", "<i4", UNBORN),  # minutes since the epoch
            *(spec for look in looks for spec in COLUMNS[look]),
            *_memory.columns(len(looks), KEPT[params.level]),
        )

    def threshold(self, params: NoveltyParams) -> float:
        return params.limit

    def judge(self, params: NoveltyParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        room = _memory.scratch(state, len(LEVELS[params.level]), len(judged))
        for first in range(0, len(judged), _memory.CHUNK):
            chunk = _chunk(state, judged[first : first + _memory.CHUNK], rows, wave)
            if len(chunk.rows):
                _judge(params, state, chunk, wave, room, verdict)
        return verdict

    def expect(
        self, params: NoveltyParams, state: State, rows: Rows, values: Floats, wave: Wave
    ) -> None:
        """Keep `values` (float64[n]) in memory as met just now, alone and three in a row."""
        rest = values - _season.expected(state, rows, hour_of_day(wave))
        known = np.flatnonzero(np.isfinite(rest))
        looks = len(LEVELS[params.level])
        memory = _memory.cells(state, rows[known], rows[known], looks)
        windows = np.repeat(state["windows"][rows[known]], looks)
        is_kept = np.arange(len(windows)) % looks != DAY
        values_kept = np.repeat(rest[known], looks).astype(np.float32)[is_kept]
        kept = memory._replace(rows=memory.rows[is_kept], at=memory.rows[is_kept])
        room = _memory.scratch(state, looks, len(known))
        _memory.keep(kept, values_kept, windows[is_kept], room)

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
        side = "above" if is_above else "below"
        usual = f"{side} the {figure(expected)} expected at this hour"
        return f"{aggregate} is {figure(value)}, {usual}; {_known(verdict, i, value, is_above)}"

    def bin(self, params: NoveltyParams, wave: Wave) -> str:
        return hours(wave)

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)


class _Chunk(NamedTuple):
    """Some series of a wave: where they stand in it, their rows, values and expected values."""

    at: Any  # a slice where they stand side by side
    rows: Rows
    span: Any  # `rows` as a slice, likewise
    values: Floats
    expected: Floats


class _Seen(NamedTuple):
    """What the looks at a chunk say; of looks side by side, float64[n, looks]."""

    looks: tuple[Look, ...]
    memory: Cells
    recall: Recall
    strange: Floats

    def of(self, column: npt.NDArray[Any], look: int) -> npt.NDArray[Any]:
        """One look's part of a column that has one entry a cell."""
        return column[look :: len(self.looks)]


def _chunk(state: State, at: Rows, rows: Rows, wave: Wave) -> _Chunk:
    """Learn the profiles of the series at these places; a series' first value is only learnt."""
    places = _memory.span(at)
    rows, values, hour = rows[places], wave.values[places], hour_of_day(wave)
    span = _memory.span(rows)
    born = np.flatnonzero(state["born_min"][span] == UNBORN)
    if len(born):
        state["born_min"][rows[born]] = wave.start_ms // MINUTE_MS
        _season.on_birth(state, rows[born], values[born])
    due = np.flatnonzero(state["windows"][span] % _season.FOLLOW_EVERY == FOLLOW_AT)
    if len(due):
        _season.follow(state, rows[due], hour)
    expected, is_known = _season.on_profile(state, span, hour, values)
    if is_known is not None and not is_known.all():
        places, rows, expected = at[is_known], rows[is_known], expected[is_known]
        span, values = _memory.span(rows), wave.values[places]
    return _Chunk(places, rows, span, values, expected)


def _judge(
    params: NoveltyParams, state: State, chunk: _Chunk, wave: Wave, room: Singles, verdict: Verdict
) -> None:
    """Score and learn one chunk."""
    at, rows, span, values, expected = chunk
    looks = LEVELS[params.level]
    rest = (values - expected).astype(np.float32)
    before = state["windows"][span]
    looked_at = _looked_at(looks, state, span, rest, before, wave)
    windows = np.repeat(before, len(looks))
    memory = _memory.cells(state, span, rows, len(looks))
    recall = _memory.recall(memory, looked_at, windows >= params.warm_up, room)
    age_ms = np.maximum(wave.end_ms - state["born_min"][span].astype(np.int64) * MINUTE_MS, 1)
    youth = _youth(age_ms, YOUTH)
    seen = _Seen(looks, memory, recall, _strangeness(looks, recall, age_ms))
    score = _score(seen.strange, youth)
    raised = score >= params.limit
    told = np.flatnonzero(raised)
    if len(told):
        _explain(chunk, told, seen, windows, wave, verdict)
    _band(params, chunk, seen, rest, youth, verdict)
    verdict.expected[at] = expected
    verdict.score[at] = score
    verdict.raised[at] = raised
    verdict.calm[at] = ~raised & _is_usual(seen)
    _memory.learn(memory, looked_at, windows, recall)
    state["windows"][span] += np.uint32(1)


def _looked_at(
    looks: tuple[Look, ...], state: State, at: Any, rest: Singles, windows: Counts, wave: Wave
) -> Singles:
    """What each look sees of the remainders, a series' looks side by side."""
    if len(looks) == 1:
        return rest
    seen = np.empty((len(rest), len(looks)), dtype=np.float32)
    seen[:, POINT] = rest
    seen[:, RUN] = _season.on_run(state, at, rest)
    if "day" in looks:
        seen[:, DAY] = _season.on_day(state, at, rest, windows, wave)
    return seen.reshape(-1)


def _youth(age_ms: Ints, weights: tuple[tuple[float, float], ...]) -> Floats | None:
    """What comes off the score of a young series, float64[n]; None where there is none."""
    youth = None
    for weight, grown_ms in weights:
        young = np.flatnonzero(age_ms < grown_ms)
        if len(young):
            youth = np.zeros(len(age_ms)) if youth is None else youth
            youth[young] += weight * np.log10(grown_ms / age_ms[young])
    return youth


@cache
def _units(looks: tuple[Look, ...]) -> Floats:
    return np.array([10.0 ** (3.0 - LOOKS[look]) for look in looks])


def _strangeness(looks: tuple[Look, ...], recall: Recall, age_ms: Ints) -> Floats:
    """What each look makes of it: 1 where it is as new as `LOOKS` says; float64[n, looks].
    Newness in other units: to take logarithms and powers of each would take half as long as all
    the rest."""
    strange: Floats = recall.newness.reshape(-1, len(looks)) * _units(looks)
    if "day" in looks and (youth := _youth(age_ms, DAY_YOUTH)) is not None:
        strange[:, DAY] *= np.where(age_ms < DAY_KNOWN_MS, 0.0, 10.0**-youth)
    return strange


def _score(strange: Floats, youth: Floats | None) -> Floats:
    """A soft maximum of the looks; rounded to float32, as peaks are kept.

    2 where one look of a grown series is as new as `LOOKS` says and the others are not.
    """
    if strange.shape[1] == 1:
        fused = strange[:, 0]
    else:
        squares = strange * strange
        fused = squares[:, POINT] + squares[:, RUN]
        if strange.shape[1] > DAY:
            fused += squares[:, DAY]
        np.sqrt(fused, out=fused)
    score = np.log10(fused)
    score += 2.0
    if youth is not None:
        score -= youth
    np.maximum(score, 0.0, out=score)
    return score.astype(np.float32).astype(np.float64)


def _explain(
    chunk: _Chunk, told: Rows, seen: _Seen, windows: Counts, wave: Wave, verdict: Verdict
) -> None:
    """Of the series `told` of a chunk: which look says most, and what it remembers next to it."""
    at = told + chunk.at.start if isinstance(chunk.at, slice) else chunk.at[told]
    size_ms = wave.end_ms - wave.start_ms
    part = seen.strange[told].argmax(axis=1)
    cells = told * len(seen.looks) + part
    ages = _memory.ages(seen.memory, seen.recall.spot[cells], windows[cells])
    verdict.part[at] = part
    verdict.run[at] = np.array([_windows_of(look, size_ms) for look in seen.looks])[part]
    verdict.nearest_ms[at] = wave.start_ms - ages * size_ms
    # Of a day nothing is remembered in the value's own unit.
    nearest = seen.recall.nearest[cells] + chunk.expected[told]
    verdict.nearest[at] = np.where(part == DAY, np.nan, nearest)


def _known(verdict: Verdict, i: int, value: float, is_above: bool) -> str:
    """What would be nothing new, on the side of the value that is towards what is expected."""
    lower, upper = float(verdict.lower[i]), float(verdict.upper[i])
    if is_above and value > upper:
        return f"up to {figure(upper)} would be nothing new"
    if not is_above and value < lower:
        return f"down to {figure(lower)} would be nothing new"
    if value > upper or value < lower:  # in a gap, the other end of which is nearer
        return f"the nearest value remembered is {figure(float(verdict.nearest[i]))}"
    return "together with the windows before, it is unlike anything remembered"


def _windows_of(look: Look, size_ms: int) -> int:
    """How many windows a look is about."""
    return {"point": 1, "run": 3, "day": max(DAY_MS // size_ms, 1)}[look]


def _is_usual(seen: _Seen) -> Bools:
    """Within the ordinary spread: not only met before, but every-day."""
    recall = seen.recall
    lowest, highest = seen.of(recall.lowest, POINT), seen.of(recall.highest, POINT)
    # For a normal distribution four times the mean deviation is 3.2 standard deviations.
    usual = np.float32(4) * seen.of(recall.spread, POINT) + np.float32(0.01) * (highest - lowest)
    is_usual: Bools = seen.of(recall.away, POINT) <= usual
    return is_usual


def _reach(params: NoveltyParams, scale: Singles, youth: Floats | None) -> Floats:
    """The distance at which a value by itself reaches the threshold, float64[n]."""
    newness = 10.0 ** (params.limit + LOOKS["point"] - 5.0)
    if youth is None:
        return scale * np.float64(max(newness - NEWNESS_MIN, 0.0))
    far: Floats = scale * np.maximum(newness * 10.0**youth - NEWNESS_MIN, 0.0)
    return far


def _band(
    params: NoveltyParams,
    chunk: _Chunk,
    seen: _Seen,
    rest: Singles,
    youth: Floats | None,
    verdict: Verdict,
) -> None:
    """From where to where nothing is novel, on the side of the value.

    The remembered range, widened by what is not far enough to raise. Where the value is novel in a
    gap between remembered ones, the end on its side is so much past the nearest of them.
    """
    point = [seen.of(column, POINT) for column in seen.recall[1:]]
    recall = Recall(seen.recall.spot, *point)
    reach = _reach(params, recall.scale, youth)
    lower = recall.lowest - reach + chunk.expected
    upper = recall.highest + reach + chunk.expected
    # The range fades faster than the memory: what is not novel is inside all the same.
    np.minimum(lower, chunk.values, out=lower)
    np.maximum(upper, chunk.values, out=upper)
    gap = np.flatnonzero(recall.distance > reach)
    if len(gap):
        nearest, lowest, highest = (c[gap] for c in (recall.nearest, recall.lowest, recall.highest))
        lowest = np.where(rest[gap] < nearest, nearest, lowest)
        highest = np.where(rest[gap] > nearest, nearest, highest)
        lower[gap] = lowest - reach[gap] + chunk.expected[gap]
        upper[gap] = highest + reach[gap] + chunk.expected[gap]
    verdict.lower[chunk.at] = lower
    verdict.upper[chunk.at] = upper
