"""`mean`: the exact sum of a field over the number of records."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators import limbs
from processor.aggregators.base import Inputs, Plain, State
from processor.model import Column, Rows


class Mean(Plain):
    kind: ClassVar[str] = "mean"

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("n", "<i8"), *limbs.columns("s", 4))

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        np.add.at(state["n"], slots, 1)
        limbs.add_batched(limbs.named(state, "s", 4), slots, inputs.numbers, limbs.cut_values)

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]
        limbs.merge(state, into, other, slots, prefix="s", limbs=4)

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        n = state["n"][slots]
        total = limbs.rounded(limbs.named(state, "s", 4), slots)
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)
