"""`sum`: the exact sum of a field, rounded once; the order of records never shows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from processor.aggregators import limbs
from processor.model import Column, Floats, Rows, State


class Sum:
    kind: ClassVar[str] = "sum"
    needs_field: ClassVar[bool] = True
    empty: ClassVar[float] = 0.0
    columns: ClassVar[tuple[Column, ...]] = limbs.columns("s", 4)

    def update(self, state: State, slots: Rows, values: Floats) -> None:
        limbs.add_batched(limbs.named(state, "s", 4), slots, values, limbs.cut_values)

    def merge(self, state: State, into: Rows, other: State, slots: Rows) -> None:
        limbs.merge(state, into, other, slots, prefix="s", limbs=4)

    def result(self, state: State, slots: Rows) -> npt.NDArray[Any]:
        return limbs.rounded(limbs.named(state, "s", 4), slots)
