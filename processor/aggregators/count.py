"""`count`: how many records a window holds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.model import Column, Floats, Rows, State


class Count:
    kind: ClassVar[str] = "count"
    needs_field: ClassVar[bool] = False
    empty: ClassVar[float] = 0.0
    columns: ClassVar[tuple[Column, ...]] = (Column("n", "<i8"),)

    def update(self, state: State, slots: Rows, values: Floats) -> None:
        np.add.at(state["n"], slots, 1)

    def merge(self, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]

    def result(self, state: State, slots: Rows) -> npt.NDArray[Any]:
        return state["n"][slots]
