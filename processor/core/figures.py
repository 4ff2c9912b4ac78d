"""The figures of a rule's windows, by slot: all their memory, and what is done with it.

    update   records into slots             merge    slots into other slots
    results  the figures of slots           take, put, reset    slots as bytes, back, and fresh

Whoever names slots (the window table) decides what one stands for. Figures that differ only in how
their result is read, such as two quantiles of one field, share memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from processor import aggregators, derived
from processor.aggregators.base import NO_NUMBERS, Aggregator, Inputs, Params, Reads, State
from processor.core.cells import BYTES_A_CELL, BYTES_A_KEY, Cells, KeyedCells
from processor.core.columns import Columns
from processor.core.versions import filter_id, memory_ids
from processor.model import AggregateSpec, Bools, CellSpec, Column, Floats, Ints, Rows


class Readings(Struct, frozen=True):
    """What figures read of n records: a column a field in use, and which records a filter takes.

    A record that a figure's filter does not take may lack its field: NaN, or anything for a key.
    """

    times: Ints  # int64[n]
    numbers: Mapping[str, Floats] = {}  # float64[n] a field
    keys: Mapping[str, Sequence[Any]] = {}  # n texts or integers a field
    masks: Mapping[str, Bools] = {}  # bool[n] a filter, by `versions.filter_id`

    def __len__(self) -> int:
        return len(self.times)

    def part(self, where: slice | Rows) -> Readings:
        """Those of some of the records."""
        return Readings(
            self.times[where],
            {field: column[where] for field, column in self.numbers.items()},
            {field: some(column, where) for field, column in self.keys.items()},
            {name: mask[where] for name, mask in self.masks.items()},
        )


class FieldUse(NamedTuple):
    """A figure reads this field of the records that `filter` takes; None: of all."""

    field: str
    reads: Reads
    filter: str | None


def field_uses(aggregates: Iterable[AggregateSpec]) -> tuple[FieldUse, ...]:
    """What a rule's figures read, each use once."""
    uses = [
        FieldUse(a.field, aggregators.get(a.kind).reads, filter_id(a.where) if a.where else None)
        for a in aggregates
        if a.field is not None
    ]
    return tuple(dict.fromkeys(uses))


def with_derived(
    aggregates: Iterable[AggregateSpec], found: Mapping[str, npt.NDArray[Any]], lengths_ms: Ints
) -> dict[str, npt.NDArray[Any]]:
    """All figures of n windows in the rule's order, of those that are counted.

    `lengths_ms`: int64[n], of the windows; 0 where one has no length.
    """
    return {
        spec.name: _derived(spec, found, lengths_ms) if spec.of else found[spec.name]
        for spec in aggregates
    }


def _derived(
    spec: AggregateSpec, found: Mapping[str, npt.NDArray[Any]], lengths_ms: Ints
) -> Floats:
    plugin = derived.get(spec.kind)
    params = msgspec.convert(dict(spec.options), plugin.params)
    return plugin.result(params, [found[name].astype(np.float64) for name in spec.of], lengths_ms)


def is_number(spec: AggregateSpec) -> bool:
    """Whether its results are numbers, which detectors can watch."""
    return bool(spec.of) or aggregators.get(spec.kind).is_number


def empties(aggregates: Sequence[AggregateSpec]) -> dict[str, float]:
    """By name, what a window without records is worth to a detector; NaN: nothing."""
    found = {a.name: np.array([aggregators.get(a.kind).empty]) for a in aggregates if not a.of}
    whole = with_derived(aggregates, found, np.ones(1, dtype=np.int64))
    return {name: float(value[0]) for name, value in whole.items()}


def nothing(aggregates: Sequence[AggregateSpec]) -> dict[str, int | list[Any] | None]:
    """By name, what is told of a window without records, beside an alarm about it."""
    worth = empties(aggregates)
    numbers = {name: None if np.isnan(value) else int(value) for name, value in worth.items()}
    return numbers | {spec.name: [] for spec in aggregates if not is_number(spec)}


class Footprint(NamedTuple):
    """Bytes of one figure in one open window of one group: always, usually and at most."""

    least: int
    usual: int
    most: int


def bytes_per_group(spec: AggregateSpec) -> Footprint:
    """What one figure costs a group and open window; a derived one costs nothing.

    `usual` is for many records of a common kind, see `cells_a_slot`, and without the texts of keys,
    as each is kept once a rule; `most` is with texts of a dozen characters that no groups share.
    """
    if spec.of:
        return Footprint(0, 0, 0)
    unit = _unit("", spec)
    columns = unit.aggregator.columns(unit.params)
    fixed = sum(np.dtype(column.dtype).itemsize * column.width for column in columns)
    cells = unit.aggregator.cells_a_slot(unit.params)
    is_keyed = any(cell.is_keyed for cell in unit.aggregator.cells(unit.params))
    a_key = BYTES_A_KEY + "a dozen text".__sizeof__() if is_keyed else 0
    usual, most = BYTES_A_CELL * cells.usual, (BYTES_A_CELL + a_key) * cells.most
    return Footprint(fixed, fixed + usual, fixed + most)


class _Unit(NamedTuple):
    """What one or several figures share."""

    name: str
    spec: AggregateSpec
    aggregator: Aggregator
    params: Params
    filter: str | None

    def inputs(self, readings: Readings, taken: Bools | None) -> Inputs:
        """Of the records that its filter takes; None: of all."""
        field, reads = self.spec.field, self.aggregator.reads
        numbers = readings.numbers[field] if field and reads == "numbers" else NO_NUMBERS
        keys = readings.keys[field] if field and reads == "keys" else ()
        if taken is None:
            return Inputs(numbers, readings.times, keys)
        return Inputs(
            numbers[taken] if len(numbers) else numbers,
            readings.times[taken],
            list(compress(keys, taken.tolist())),
        )


class Figures:
    """The memory of a rule's figures; a row of `arrays`, and cells, a slot."""

    def __init__(self, aggregates: Sequence[AggregateSpec], own: Sequence[Column] = ()):
        """`own`: columns that whoever names the slots keeps beside them."""
        names = memory_ids(aggregates)
        figures = {spec.name: _unit(names[spec.name], spec) for spec in aggregates if not spec.of}
        self._figures = figures
        self._specs = tuple(aggregates)
        self._units = list({unit.name: unit for unit in figures.values()}.values())
        self._columns = Columns([*own, *_columns(self._units)])
        self._cells: dict[str, Cells | KeyedCells] = {
            f"{unit.name}.{spec.name}": _fresh(spec)
            for unit in self._units
            for spec in unit.aggregator.cells(unit.params)
        }
        self._views = self._look()

    def __repr__(self) -> str:
        return f"<Figures {', '.join(self._figures)}: {self.rows} slots, {self.nbytes} bytes>"

    @property
    def rows(self) -> int:
        return self._columns.rows

    @property
    def nbytes(self) -> int:
        return self._columns.nbytes + sum(cells.nbytes for cells in self._cells.values())

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """As those of `Columns`; by their names those of `own`."""
        return self._columns.arrays

    def ensure(self, n: int) -> None:
        """Have at least n slots; new ones are fresh."""
        if n > self._columns.rows:
            self._columns.ensure(n)
            self._views = self._look()

    def update(self, slots: Rows, readings: Readings) -> None:
        """Add n records, in the order of the stream, to `slots`: intp[n], which may repeat."""
        for unit in self._units:
            if unit.filter is None:
                chosen, taken = slots, None
            else:
                taken = readings.masks[unit.filter]
                chosen = slots[taken]
            if len(chosen):
                view = self._views[unit.name]
                inputs = unit.inputs(readings, taken)
                unit.aggregator.update(unit.params, view, chosen, inputs)

    def merge(self, into: Rows, other: Figures, slots: Rows) -> None:
        """Add slots `slots` of `other`, figures of the same rule, to `into`, each there once.

        Columns of `own` stay as they are. `other` may be these figures themselves.
        """
        for unit in self._units:
            mine, theirs = self._views[unit.name], other._views[unit.name]
            unit.aggregator.merge(unit.params, mine, into, theirs, slots)

    def results(self, slots: Rows, lengths_ms: int | Ints) -> dict[str, npt.NDArray[Any]]:
        """By name, in the rule's order: int64[n], float64[n] with NaN where not defined, or
        object[n]. `lengths_ms`: of the slots' windows, one for all or int64[n]."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, unit in self._figures.items():
            view = self._views[unit.name]
            found[name] = unit.aggregator.result(unit.params, view, slots)
        return with_derived(self._specs, found, np.broadcast_to(lengths_ms, len(slots)))

    def reset(self, slots: Rows) -> None:
        """Make these slots fresh again, `own` columns too."""
        self._columns.reset(slots)
        for cells in self._cells.values():
            cells.reset(slots)

    def take(self, slots: Rows) -> dict[str, bytes]:
        """All that is known of these slots, `own` columns too; the same gives the same bytes."""
        taken = self._columns.take(slots)
        for name, cells in self._cells.items():
            taken |= {f"{name}.{part}": of for part, of in cells.take(slots).items()}
        return taken

    def put(self, slots: Rows, saved: Mapping[str, bytes], chosen: Bools | None = None) -> None:
        """The inverse of `take`, into fresh slots; raises ValueError where the bytes don't fit.

        `chosen`: which of the saved slots to put, as many as `slots`; without it all of them.
        """
        rest = dict(saved)
        wanted = {f"{name}.{part}" for name, cells in self._cells.items() for part in cells.PARTS}
        if not wanted <= rest.keys():
            raise ValueError(f"no {sorted(wanted - rest.keys())} among {sorted(rest)}")
        for name, cells in self._cells.items():
            parts = {part: rest.pop(f"{name}.{part}") for part in cells.PARTS}
            cells.put(slots, parts, chosen)
        self._columns.put(slots, rest, chosen)

    def _look(self) -> dict[str, State]:
        """Each unit's memory under its own names; anew whenever the columns grew."""
        views: dict[str, State] = {}
        for unit in self._units:
            columns = unit.aggregator.columns(unit.params)
            cells = unit.aggregator.cells(unit.params)
            views[unit.name] = {
                **{c.name: self._columns.arrays[f"{unit.name}.{c.name}"] for c in columns},
                **{c.name: self._cells[f"{unit.name}.{c.name}"] for c in cells},
            }
        return views


def _unit(name: str, spec: AggregateSpec) -> _Unit:
    aggregator = aggregators.get(spec.kind)
    params = msgspec.convert(dict(spec.options), aggregator.params)
    return _Unit(name, spec, aggregator, params, filter_id(spec.where) if spec.where else None)


def _columns(units: Iterable[_Unit]) -> list[Column]:
    return [
        column._replace(name=f"{unit.name}.{column.name}")
        for unit in units
        for column in unit.aggregator.columns(unit.params)
    ]


def _fresh(spec: CellSpec) -> Cells | KeyedCells:
    return KeyedCells(spec.combine) if spec.is_keyed else Cells(spec.combine)


def some(column: Sequence[Any], where: slice | Rows) -> Sequence[Any]:
    return column[where] if isinstance(where, slice) else [column[i] for i in where.tolist()]
