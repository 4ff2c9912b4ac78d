"""`mean`: the exact sum of a field over the number of records."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators import limbs
from processor.model import Column, Floats, Rows, State


class Mean:
    kind: ClassVar[str] = "mean"
    needs_field: ClassVar[bool] = True
    empty: ClassVar[float] = np.nan
    columns: ClassVar[tuple[Column, ...]] = (Column("n", "<i8"), *limbs.columns("s", 4))

    def update(self, state: State, slots: Rows, values: Floats) -> None:
        np.add.at(state["n"], slots, 1)
        limbs.add_batched(limbs.named(state, "s", 4), slots, values, limbs.cut_values)

    def merge(self, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]
        limbs.merge(state, into, other, slots, prefix="s", limbs=4)

    def result(self, state: State, slots: Rows) -> npt.NDArray[Any]:
        n = state["n"][slots]
        total = limbs.rounded(limbs.named(state, "s", 4), slots)
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)
