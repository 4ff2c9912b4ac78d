"""`count`: how many records a window holds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators.base import Inputs, Plain, Reads, State
from processor.model import Column, Ints, Rows


class Count(Plain):
    kind: ClassVar[str] = "count"
    reads: ClassVar[Reads] = "nothing"
    empty: ClassVar[float] = 0.0

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("n", "<i8"),)

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        np.add.at(state["n"], slots, 1)

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        found: Ints = state["n"][slots]
        return found
