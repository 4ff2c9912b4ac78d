"""`min`: the smallest value of a field."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators.base import Inputs, Plain, State
from processor.model import Column, Rows


class Min(Plain):
    kind: ClassVar[str] = "min"

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("v", "<f8", np.inf),)

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        # + 0.0: of 0.0 and -0.0, which are equal, the first or the last would be kept.
        np.minimum.at(state["v"], slots, inputs.numbers + 0.0)

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["v"][into] = np.minimum(state["v"][into], other["v"][slots])

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        found = state["v"][slots]
        return np.where(np.isinf(found), np.nan, found)
