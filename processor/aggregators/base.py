"""What an aggregator is: declared columns and two functions on arrays.

An aggregator keeps no state of its own. It names the columns that it needs; the window table owns,
grows, recycles, saves and restores them, and hands them back as `state[name]`, indexed by slot.
Results must not depend on the order of updates, nor on how they were batched.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from processor.model import Column, Floats, Rows, State


class Aggregator(Protocol):
    """One statistic. Registered by name in `processor.aggregators`."""

    kind: ClassVar[str]
    needs_field: ClassVar[bool]
    empty: ClassVar[float]  # what a window without records is worth to a detector; NaN: nothing
    columns: ClassVar[tuple[Column, ...]]

    def update(self, state: State, slots: Rows, values: Floats) -> None:
        """Add `values[i]` to slot `slots[i]`, for all i; slots may repeat.

        `slots`: intp[n]; `values`: float64[n], finite and at most 2^53 in size (zeros where no
        field is read).
        """

    def merge(self, state: State, into: Rows, other: State, slots: Rows) -> None:
        """Add slots `slots` of `other` to slots `into`; `into` holds each slot once."""

    def result(self, state: State, slots: Rows) -> npt.NDArray[Any]:
        """One figure a slot: int64[n] or float64[n]; NaN where it is not defined."""
