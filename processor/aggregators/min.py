"""`min`: the smallest value of a field."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from processor.model import Column, Floats, Rows, State


class Min:
    kind: ClassVar[str] = "min"
    needs_field: ClassVar[bool] = True
    empty: ClassVar[float] = np.nan
    columns: ClassVar[tuple[Column, ...]] = (Column("v", "<f8", np.inf),)

    def update(self, state: State, slots: Rows, values: Floats) -> None:
        # + 0.0: of 0.0 and -0.0, which are equal, the first or the last would be kept.
        np.minimum.at(state["v"], slots, values + 0.0)

    def merge(self, state: State, into: Rows, other: State, slots: Rows) -> None:
        state["v"][into] = np.minimum(state["v"][into], other["v"][slots])

    def result(self, state: State, slots: Rows) -> npt.NDArray[Any]:
        found = state["v"][slots]
        return np.where(np.isinf(found), np.nan, found)
