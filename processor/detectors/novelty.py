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
    hour_of_day,
    hours,
    judgeable,
    silence,
)
from processor.model import Column, Floats, Ints, Rows, State

Level = Literal["lite", "standard", "full"]
Look = Literal["point", "run", "day"]

LEVELS: dict[Level, tuple[Look, ...]] = {
    "lite": ("point",),
    "standard": ("point", "run"),
    "full": ("point", "run", "day"),
}
# Novelty that scores 2. Between the looks as is best for NAB, over halves of its series; all three
# so that at 2.2 clean series of many kinds raise once in 10,000 windows.
LOOKS: dict[Look, float] = {"point": 2.17, "run": 2.12, "day": 1.97}
COLUMNS: dict[Look, tuple[Column, ...]] = {"point": (), "run": _season.RUN, "day": _season.DAY}
DAY_MS = _season.DAY_MS
# What comes off the score of a young series: so much for each power of ten that its age is below so
# many days. Until it has seen a week, much is new and little is strange; at first, all is.
YOUTH = ((0.6, 7 * DAY_MS), (0.5, 2.5 * DAY_MS))  # day one: 0.1 alarms a series instead of 0.3
# How uneven a day is can be told when the hours of a week are known, and is known after some weeks:
# 30 in 10,000 windows instead of 100 are false alarms of an autoregressive series in its second.
DAY_KNOWN_MS = 8 * DAY_MS
DAY_YOUTH = ((0.4, 28 * DAY_MS),)
UNBORN = -(2**63)


class NoveltyParams(SensitiveParams, frozen=True, kw_only=True):
    """`level` says how much is looked at: single windows (`lite`), the last three as well
    (`standard`), and how uneven the last day was (`full`). Each step adds as much memory and time.
    """

    levels: ClassVar[Mapping[Sensitivity, float]] = {"high": 2.0, "medium": 2.2, "low": 2.4}

    level: Level = "standard"


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
            *(
                spec
                for look in LEVELS[params.level]
                for spec in COLUMNS[look] + _memory.columns(look)
            ),
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
            if not is_known.all():  # a series' first value is only learnt
                at, expected = at[is_known], expected[is_known]
            chunk = _Chunk(at, rows[at], wave.values[at], expected)
            _judge(params, state, chunk, wave, room, verdict)
        return verdict

    def expect(
        self, params: NoveltyParams, state: State, rows: Rows, values: Floats, wave: Wave
    ) -> None:
        """Keep `values` (float64[n]) in memory as met just now, alone and three in a row."""
        rest = values - _season.expected(state, rows, hour_of_day(wave))
        known = np.flatnonzero(np.isfinite(rest))
        for look in LEVELS[params.level][:2]:
            _memory.keep(state, look, rows[known], rest[known].astype(np.float32))

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
    looks = _looked_at(params, state, rows, rest, wave)
    seen = {
        look: _memory.recall(state, look, rows, looked_at, params.warm_up, room)
        for look, looked_at in looks.items()
    }
    age_ms = np.maximum(wave.end_ms - state["born_ms"][rows], 1)
    youth = _youth(age_ms, YOUTH)
    strange = _strangeness(seen, age_ms)
    score = _score(strange, youth)
    raised = score >= params.limit
    told = np.flatnonzero(raised)
    _explain(chunk, told, state, seen, [each[told] for each in strange], wave, verdict)
    for look, looked_at in looks.items():
        _memory.learn(state, look, rows, looked_at, seen[look])

    point = seen["point"]
    reach = _memory.reach(point.scale, params.limit + LOOKS["point"] - 2.0, youth)
    verdict.expected[at] = expected
    verdict.lower[at], verdict.upper[at] = _band(point, rest, reach, expected, values)
    verdict.score[at] = score
    verdict.raised[at] = raised
    verdict.calm[at] = ~raised & _memory.is_usual(point)


def _looked_at(
    params: NoveltyParams, state: State, rows: Rows, rest: Singles, wave: Wave
) -> dict[Look, Singles]:
    """What each look sees of the remainders."""
    windows = state["point.windows"][rows]
    looks: dict[Look, Singles] = {"point": rest}
    if "run" in (wanted := LEVELS[params.level]):
        looks["run"] = _season.on_run(state, rows, rest, windows)
    if "day" in wanted:
        looks["day"] = _season.on_day(state, rows, rest, windows, wave)
    return looks


def _on_birth(state: State, rows: Rows, wave: Wave) -> None:
    born_ms = state["born_ms"][rows]
    state["born_ms"][rows] = np.where(born_ms == UNBORN, wave.start_ms, born_ms)


def _youth(age_ms: Ints, weights: tuple[tuple[float, float], ...]) -> Floats:
    """What comes off the score of a young series, float64[n]."""
    youth = np.zeros(len(age_ms))
    for weight, grown_ms in weights:
        young = np.flatnonzero(age_ms < grown_ms)
        if len(young):
            youth[young] += weight * np.log10(grown_ms / age_ms[young])
    return youth


def _strangeness(seen: Mapping[Look, Recall], age_ms: Ints) -> list[Floats]:
    """What each look makes of it: 1 where it is as new as `LOOKS` says. Newness in other units:
    to take logarithms and powers of each look would take half as long as all the rest."""
    strange = [recall.newness * 10.0 ** (3.0 - LOOKS[look]) for look, recall in seen.items()]
    if "day" in seen:
        youth = _youth(age_ms, DAY_YOUTH)
        if youth.any():
            strange[-1] *= np.where(age_ms < DAY_KNOWN_MS, 0.0, 10.0**-youth)
    return strange


def _score(strange: list[Floats], youth: Floats) -> Floats:
    """A soft maximum of the looks; rounded to float32, as peaks are kept.

    2 where one look of a grown series is as new as `LOOKS` says and the others are not.
    """
    fused = strange[0]
    if len(strange) > 1:
        fused = np.sqrt(sum(each * each for each in strange))
    score = np.maximum(np.log10(fused) + 2.0 - youth, 0.0)
    return score.astype(np.float32).astype(np.float64)


def _explain(
    chunk: _Chunk,
    told: Rows,
    state: State,
    seen: Mapping[Look, Recall],
    strange: list[Floats],
    wave: Wave,
    verdict: Verdict,
) -> None:
    """Of the series `told` of a chunk: which look says most, and what it remembers next to it."""
    if not len(told):
        return
    at, rows, size_ms = chunk.at[told], chunk.rows[told], wave.end_ms - wave.start_ms
    part = np.stack(strange).argmax(axis=0)
    verdict.part[at] = part
    for i, (look, recall) in enumerate(seen.items()):
        of = np.flatnonzero(part == i)
        place = recall.place[told[of]]
        verdict.run[at[of]] = _windows_of(look, size_ms)
        ages = _memory.ages(state, look, rows[of], place)
        verdict.nearest_ms[at[of]] = wave.start_ms - ages * size_ms
        if look != "day":  # of which nothing is remembered in the value's own unit
            nearest = recall.nearest[told[of]] + chunk.expected[told[of]]
            verdict.nearest[at[of]] = nearest


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
