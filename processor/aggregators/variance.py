"""`variance`: the sample variance (n − 1) of a field, from exact sums of values and squares.

Running means (Welford) show the order of records in their last bits, so squares are kept as
limbs and the one division is rounded once. NaN below two records.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.aggregators import limbs
from processor.aggregators.base import Inputs, Plain, State
from processor.model import Column, Rows


class Variance(Plain):
    kind: ClassVar[str] = "variance"

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (
            Column("n", "<i8"),
            *limbs.columns("s", 4),
            *limbs.columns("q", 5),
        )

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        np.add.at(state["n"], slots, 1)
        limbs.add_batched(limbs.named(state, "s", 4), slots, inputs.numbers, limbs.cut_values)
        limbs.add_batched(limbs.named(state, "q", 5), slots, inputs.numbers, limbs.cut_squares)

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["n"][into] += other["n"][slots]
        limbs.merge(state, into, other, slots, prefix="s", limbs=4)
        limbs.merge(state, into, other, slots, prefix="q", limbs=5)

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        counts = state["n"][slots].tolist()
        sums = limbs.totals(limbs.named(state, "s", 4), slots)
        squares = limbs.totals(limbs.named(state, "q", 5), slots)
        return np.array([_variance(*each) for each in zip(counts, sums, squares, strict=True)])


def _variance(n: int, total: int, squares: int) -> float:
    """(n Σv² − (Σv)²) / (n (n − 1)), in integers; sums in units of 2^-104."""
    if n < 2:
        return np.nan
    unit = 1 << limbs.SCALE_BITS
    # Rounding below 2^-104 could leave a constant series a hair under zero.
    return max(0, n * squares * unit - total * total) / (n * (n - 1) * unit * unit)
