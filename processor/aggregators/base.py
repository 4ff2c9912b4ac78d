"""What an aggregator is: parameters, declared memory, and three functions on arrays.

An aggregator keeps no state of its own. It names the memory that it needs a slot: columns, where
each slot has as much, and cells, where a slot has as many as its records made. The engine owns it,
grows, recycles, saves, ships and restores it, and hands it back as `state[name]`.

Results must not depend on the order of updates, nor on how they were batched or merged; what an
aggregator can't promise of that (ties, a bound on its memory) stands in its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from processor.model import Bools, CellSpec, Column, Floats, Ints, Rows

Reads = Literal["nothing", "numbers", "keys"]
# By name: an ndarray for a Column, a `Cells` or `KeyedCells` (below) for a CellSpec.
State = Mapping[str, Any]

NO_NUMBERS: Floats = np.zeros(0)
NO_TIMES: Ints = np.zeros(0, dtype=np.int64)


class Params(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an aggregator; each one's own derive from it.

    What is `tunable` is read by `result` only: figures that differ in nothing else share memory,
    and a rule keeps its state when it changes.
    """

    tunable: ClassVar[frozenset[str]] = frozenset()


class Inputs(Struct, frozen=True, gc=False):  # made in a quarter of a tuple's time
    """n records; what the aggregator does not read has length 0.

    `numbers`: float64[n], finite and at most 2^53 in size. `times`: int64[n], event times in ms.
    `keys`: n texts or integers of 64 bits; 1 and "1" are two keys.
    """

    numbers: Floats = NO_NUMBERS
    times: Ints = NO_TIMES
    keys: Sequence[str | int] = ()


class CellCount(NamedTuple):
    """How many cells a slot takes: with many records of a usual kind, and at the very most."""

    usual: int = 0
    most: int = 0


class Cells(Protocol):
    """Sparse memory: (slot, cell) → int64 ≥ 0; combined as its CellSpec says where it is there."""

    def update(self, slots: Rows, cells: Ints, values: Ints) -> Rows:
        """Combine `values[i]` into (slots[i], cells[i]), for all i; pairs may repeat.

        Cells are below 2^40. Gives the slot of each pair that was not there.
        """

    def of(self, slots: Rows) -> tuple[Rows, Ints, Ints]:
        """All cells of `slots` (each once) as (places, cells, values), in order of (place, cell);
        a place is an index of `slots`."""

    def reset(self, slots: Rows) -> None:
        """Forget all cells of these slots."""


class KeyedCells(Protocol):
    """The same, where a cell is a key: a text or an integer."""

    def update(self, slots: Rows, keys: Sequence[str | int], values: Ints) -> Rows:
        """As that of Cells."""

    def of(self, slots: Rows) -> tuple[Rows, Sequence[str | int], Ints]:
        """As that of Cells; the keys of a place in no order."""

    def has(self, slots: Rows, keys: Sequence[str | int]) -> Bools:
        """Whether each pair is there: bool[n]; pairs may repeat."""

    def reset(self, slots: Rows) -> None:
        """Forget all keys of these slots."""


class Aggregator(Protocol):
    """One statistic. Registered by name in `processor.aggregators`."""

    kind: ClassVar[str]
    params: ClassVar[type[Params]]
    reads: ClassVar[Reads]  # what of its field
    is_number: ClassVar[bool]  # its results are numbers: detectors and derived figures take them
    empty: ClassVar[float]  # what a window without records is worth to a detector; NaN: nothing

    def columns(self, params: Any) -> tuple[Column, ...]:
        """Memory of a slot, of fixed size."""

    def cells(self, params: Any) -> tuple[CellSpec, ...]:
        """Memory of a slot that grows with its records."""

    def cells_a_slot(self, params: Any) -> CellCount:
        """How much it grows."""

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        """Add record i to slot `slots[i]`, for all i, in the order of the stream; slots may repeat.

        `slots`: intp[n].
        """

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        """Add slots `slots` of `other` (which may be `state`) to slots `into`, each there once."""

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        """One figure a slot: int64[n] or float64[n], NaN where it is not defined; object[n] of
        plain JSON values where `is_number` is False."""


class Plain:
    """What most aggregators have in common: no options, a number of a field, columns only."""

    params: ClassVar[type[Params]] = Params
    reads: ClassVar[Reads] = "numbers"
    is_number: ClassVar[bool] = True
    empty: ClassVar[float] = np.nan

    def cells(self, params: Any) -> tuple[CellSpec, ...]:
        return ()

    def cells_a_slot(self, params: Any) -> CellCount:
        return CellCount()
