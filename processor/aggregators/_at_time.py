"""The value of the record with the smallest or largest event time: what `first` and `last` share.

Of records of one time the stream's order decides: the first comes first, the last comes last. Of
parts that are merged nobody knows which came first: at one time the smaller value is the first,
the larger the last, so that at least the order of merging does not show.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators.base import Inputs, Plain, State
from processor.model import Bools, Column, Ints, Rows

# Times are stored with their sign turned for `last`, so that the wanted one is always the smallest.
_NEVER = 2**62


class AtTime(Plain):
    sign: ClassVar[int]  # 1: the smallest time, -1: the largest

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("t", "<i8", _NEVER), Column("v", "<f8", np.nan))

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        times = self.sign * inputs.times
        before = state["t"][slots]
        np.minimum.at(state["t"], slots, times)
        wins = times == state["t"][slots]
        if self.sign > 0:
            wins &= times < before  # the stream's order: of equal times the older record stays
        won = np.flatnonzero(wins)
        # Where several win, the last one written stays.
        won = won[:: -self.sign]
        state["v"][slots[won]] = inputs.numbers[won] + 0.0  # no -0.0

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        times, values = other["t"][slots], other["v"][slots]
        wins = (times < state["t"][into]) | self._wins_tie(state, into, times, values)
        state["t"][into[wins]] = times[wins]
        state["v"][into[wins]] = values[wins]

    def _wins_tie(self, state: State, into: Rows, times: Ints, values: Any) -> Bools:
        is_better = self.sign * values < self.sign * state["v"][into]
        found: Bools = (times == state["t"][into]) & is_better
        return found

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = state["v"][slots]
        return found
