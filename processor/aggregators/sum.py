"""`sum`: the exact sum of a field, rounded once; the order of records never shows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from processor.aggregators import limbs
from processor.aggregators.base import Inputs, Plain, State
from processor.model import Column, Rows


class Sum(Plain):
    kind: ClassVar[str] = "sum"
    empty: ClassVar[float] = 0.0

    def columns(self, params: Any) -> tuple[Column, ...]:
        return limbs.columns("s", 4)

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        limbs.add_batched(limbs.named(state, "s", 4), slots, inputs.numbers, limbs.cut_values)

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        limbs.merge(state, into, other, slots, prefix="s", limbs=4)

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        return limbs.rounded(limbs.named(state, "s", 4), slots)
