"""Change: a value unlike that of the same time a day, or a week, before.

A ring of slots holds the last day (288 slots of 5 minutes) or week (336 of 30): a window is
compared with the mean of its slot one turn ago, in the rule's time zone. Longer windows use fewer
slots, shorter ones share them. Where nothing was there a turn ago, the window is not judged; where
windows begin at another time each turn, nothing ever would be: such rules are refused. How large a
difference is too large comes from the series' own tail (`_tail`). What is kept of a value far off
is the edge of the usual, so that an incident is not the measure of the next day.

Slots are kept as differences from the series' first value in float32, precise to 1 part in
10 million of how far the series has moved from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

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
from processor.model import Bools, Column, Floats, Rows, State

WINDOWS_MAX = 333  # the mean difference reaches back so far
TURNS_MAX = 2**16 - 1  # numbers of days or weeks that a column tells apart
TO_DEVIATION = 1.25  # sqrt(pi / 2): of a normal series, the deviation by the mean difference
DAY_MS = 86_400_000


class Ring(NamedTuple):
    slots: int
    turn_ms: int

    @property
    def slot_ms(self) -> int:
        return self.turn_ms // self.slots


RINGS = {"day": Ring(288, DAY_MS), "week": Ring(336, 7 * DAY_MS)}


class ChangeParams(SensitiveParams, frozen=True, kw_only=True):
    """`against`: how long ago the window lies that one is compared with."""

    levels: ClassVar[Mapping[Sensitivity, float]] = _tail.LEVELS

    against: Literal["day", "week"] = "day"

    @property
    def ring(self) -> Ring:
        return RINGS[self.against]


class Change:
    """Expected: the value a day or a week ago. Band: up to where one would reach the threshold."""

    kind: ClassVar[str] = "change"
    is_scale_free: ClassVar[bool] = True
    params: ClassVar[type[Params]] = ChangeParams
    parts: ClassVar[tuple[str, ...]] = ("value",)

    def columns(self, params: ChangeParams) -> tuple[Column, ...]:
        return (
            Column("first", "<f8"),
            Column("is_born", "?"),
            Column("slots", "<f4", 0, params.ring.slots),  # less the first value
            Column("turns", "<u2", 0, params.ring.slots),  # in which each was written; 0: never
            Column("slot", "<i8"),  # that windows come into now, counted from the epoch
            Column("sum", "<f8"),  # … of their values, less the first
            Column("summed", "<u2"),  # … and how many there were
            Column("spread", "<f8"),  # mean absolute difference
            Column("seen", "<u2"),  # windows compared, up to WINDOWS_MAX
            *_tail.COLUMNS,
        )

    def threshold(self, params: ChangeParams) -> float:
        return params.limit

    def judge(self, params: ChangeParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        judged = np.flatnonzero(judgeable(params, wave))
        slot = wave.local_ms // params.ring.slot_ms
        _turn(params, state, rows[judged], slot)
        before, has_one = _before(params, state, rows[judged], slot)
        known, expected = judged[has_one], before[has_one]
        is_old = state["seen"][rows[known]] >= _band.YOUNG
        at, scale = known[is_old], TO_DEVIATION * state["spread"][rows[known]]
        seen = _band.Seen(at, rows[at], wave.values[at], expected[is_old], scale[is_old])
        _band.judge(params, state, seen, verdict)
        verdict.nearest[at] = expected[is_old]
        verdict.nearest_ms[at] = wave.start_ms - params.ring.turn_ms
        learnt = wave.values[judged]
        learnt[has_one] = expected + _compare(state, rows[known], wave.values[known] - expected)
        _add(state, rows[judged], learnt)
        return verdict

    def sentence(
        self, params: ChangeParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        ago = f"at this time a {params.against} before"
        return _band.sentence(aggregate, verdict, i, wave, ago)

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def window_fault(self, params: ChangeParams, every_ms: int) -> str | None:
        """What windows that begin every `every_ms` should be instead; None where they are good."""
        ring = params.ring
        if every_ms <= ring.slot_ms or ring.turn_ms % every_ms == 0:
            return None
        expected = f"windows that divide a {params.against}, as only these have one "
        expected += f"a {params.against} before to be compared with"
        week_ms = RINGS["week"].turn_ms
        if params.against == "day" and week_ms % every_ms == 0:
            expected += "; or `against: week`"
        return expected

    def bin(self, params: ChangeParams, wave: Wave) -> str:
        return hours(wave) if params.against == "day" else _rhythm.hours_of_week(wave)


def _turn(params: ChangeParams, state: State, rows: Rows, slot: int) -> None:
    """Put the means of slots that are over into the ring."""
    over = rows[(state["slot"][rows] != slot) & (state["summed"][rows] > 0)]
    done = state["slot"][over]
    state["slots"][over, done % params.ring.slots] = state["sum"][over] / state["summed"][over]
    state["turns"][over, done % params.ring.slots] = _turn_of(params, done)
    state["sum"][over] = 0.0
    state["summed"][over] = 0
    state["slot"][rows] = slot


def _before(params: ChangeParams, state: State, rows: Rows, slot: int) -> tuple[Floats, Bools]:
    """The value one turn ago, and whether there was one."""
    at = slot % params.ring.slots
    last = _turn_of(params, np.int64(slot - params.ring.slots))
    return state["first"][rows] + state["slots"][rows, at], state["turns"][rows, at] == last


def _turn_of(params: ChangeParams, slot: npt.NDArray[Any] | np.int64) -> Any:
    return slot // params.ring.slots % TURNS_MAX + 1


def _compare(state: State, rows: Rows, differences: Floats) -> Floats:
    """Learn how large differences are; gives what of them is to be kept of the value."""
    windows, spread = state["seen"][rows], state["spread"][rows]
    kept = _band.clipped(differences, TO_DEVIATION * spread, windows)
    size = _band.size_clipped(differences, spread, windows)
    gain = 1.0 / np.minimum(windows + 1.0, WINDOWS_MAX)
    state["spread"][rows] = spread + gain * (size - spread)
    state["seen"][rows] = np.minimum(windows, WINDOWS_MAX - 1) + np.uint16(1)
    return kept


def _add(state: State, rows: Rows, values: Floats) -> None:
    first = np.where(state["is_born"][rows], state["first"][rows], values)
    state["first"][rows] = first
    state["is_born"][rows] = True
    state["sum"][rows] += values - first
    state["summed"][rows] += np.uint16(1)
