"""`distinct`: how many different texts or integers a field has; exact up to 512, then within 2 %.

The keys' hashes are kept while there are few. From the 513th on they make 4,096 registers, eight to
a cell: HyperLogLog with a standard error of 1.6 %, estimated after Ertl, "New cardinality
estimation algorithms for HyperLogLog sketches" (2017), algorithm 6, which needs no table of
corrections. Both take at most 512 cells, so registers never cost more than what they replace.

Which of the two it is depends on the set of keys only, and so does every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xxhash

from processor.aggregators.base import CellCount, Inputs, Plain, Reads, State
from processor.model import Bools, CellSpec, Column, Floats, Hashes, Ints, Rows

REGISTER_BITS = 12
REGISTERS = 1 << REGISTER_BITS
A_CELL = 8  # registers
EXACT_MAX = REGISTERS // A_CELL
_REST_BITS = 64 - REGISTER_BITS  # of a hash: these make the rank
_RANK_MAX = _REST_BITS + 1
# A key's cell is what a cell's number holds of its hash, less one bit that marks registers. Of two
# keys that agree in 39 bits the larger rank stays, as it would in their register.
_KEY_BITS = 39
_DENSE = np.int64(1 << _KEY_BITS)
_IS_DENSE = -1  # in place of the number of keys
_ALPHA = 1 / (2 * np.log(2))


class Distinct(Plain):
    kind: ClassVar[str] = "distinct"
    reads: ClassVar[Reads] = "keys"
    empty: ClassVar[float] = 0.0

    def columns(self, params: Any) -> tuple[Column, ...]:
        return (Column("n", "<i4"),)  # keys, or _IS_DENSE

    def cells(self, params: Any) -> tuple[CellSpec, ...]:
        return (CellSpec("sketch", "bytes"),)

    def cells_a_slot(self, params: Any) -> CellCount:
        return CellCount(EXACT_MAX, EXACT_MAX)

    def update(self, params: Any, state: State, slots: Rows, inputs: Inputs) -> None:
        hashed = hashes(inputs.keys)
        cells = (hashed >> np.uint64(64 - _KEY_BITS)).astype(np.int64)
        _add(state, slots, cells, _ranks(hashed))

    def merge(self, params: Any, state: State, into: Rows, other: State, slots: Rows) -> None:
        _densify(state, into[(other["n"][slots] == _IS_DENSE) & (state["n"][into] != _IS_DENSE)])
        places, cells, values = other["sketch"].of(slots)
        _add(state, into[places], cells, values)

    def result(self, params: Any, state: State, slots: Rows) -> npt.NDArray[Any]:
        found: Ints = state["n"][slots].astype(np.int64)
        dense = np.flatnonzero(found == _IS_DENSE)
        if len(dense):
            found[dense] = np.rint(estimates(_histogram(state, slots[dense]))).astype(np.int64)
        return found


def hashes(keys: Sequence[str | int]) -> Hashes:
    """uint64[n]; 1 and "1" are two keys, and so is every other text."""
    try:
        found = list(map(xxhash.xxh3_64_intdigest, map(str.encode, keys)))  # type: ignore[arg-type]
    except TypeError:
        found = [_hash(key) for key in keys]
    return np.array(found, dtype=np.uint64)


def _hash(key: str | int) -> int:
    if isinstance(key, str):
        return xxhash.xxh3_64_intdigest(key.encode())
    return xxhash.xxh3_64_intdigest(repr(key).encode(), seed=1)


def _ranks(hashed: Hashes) -> Ints:
    """How many zeros lead what a hash has after its register's bits, + 1."""
    rest = (hashed & np.uint64((1 << _REST_BITS) - 1)).astype(np.float64)  # exact: 52 bits
    return _REST_BITS + 1 - np.frexp(rest)[1].astype(np.int64)


def _add(state: State, slots: Rows, cells: Ints, values: Ints) -> None:
    """Cells of keys, or of registers where a slot is dense already."""
    is_dense = state["n"][slots] == _IS_DENSE
    cells, values = _as_registers(cells, values, is_dense)
    made = state["sketch"].update(slots, cells, values)
    np.add.at(state["n"], made[state["n"][made] != _IS_DENSE], 1)
    touched = np.unique(made)
    _densify(state, touched[state["n"][touched] > EXACT_MAX])


def _densify(state: State, slots: Rows) -> None:
    """From keys to registers; slots that are not dense, each once."""
    if not len(slots):
        return
    places, cells, values = state["sketch"].of(slots)
    state["sketch"].reset(slots)
    state["n"][slots] = _IS_DENSE
    everywhere = np.ones(len(cells), dtype=np.bool_)
    state["sketch"].update(slots[places], *_as_registers(cells, values, everywhere))


def _as_registers(cells: Ints, values: Ints, wanted: Bools) -> tuple[Ints, Ints]:
    """The wanted ones that are cells of keys as cells of registers; the others as they are."""
    wanted = wanted & (cells < _DENSE)
    registers = cells >> (_KEY_BITS - REGISTER_BITS)
    as_cells = _DENSE + registers // A_CELL
    shifted = values << (registers % A_CELL * 8)
    return np.where(wanted, as_cells, cells), np.where(wanted, shifted, values)


def _histogram(state: State, slots: Rows) -> Ints:
    """How many registers of each dense slot hold each rank: int64[n, _RANK_MAX + 1]."""
    places, _, values = state["sketch"].of(slots)
    ranks = values.astype("<i8").view(np.uint8)
    spots = np.repeat(places, A_CELL) * (_RANK_MAX + 1) + ranks
    counts = np.bincount(spots, minlength=len(slots) * (_RANK_MAX + 1))
    by_rank = counts.reshape(len(slots), _RANK_MAX + 1)
    by_rank[:, 0] += REGISTERS - by_rank.sum(axis=1)  # registers of cells that are not there
    return by_rank


def estimates(by_rank: Ints) -> Floats:
    """How many keys filled registers so: Ertl's algorithm 6, for n sketches at once.

    Without his correction for full registers, which it takes 2^62 keys to have.
    """
    z = np.zeros(len(by_rank))
    for rank in range(_RANK_MAX, 0, -1):
        z = 0.5 * (z + by_rank[:, rank])
    z = z + REGISTERS * _sigma(by_rank[:, 0] / REGISTERS)
    found: Floats = _ALPHA * REGISTERS * REGISTERS / z
    return found


def _sigma(x: Floats) -> Floats:
    """x + Σ x^(2^k) 2^(k−1), for 0 ≤ x < 1: no dense sketch is empty."""
    total, power, weight = x.copy(), x, 1.0
    while True:
        power = power * power
        more = total + power * weight
        if (more == total).all():
            return total
        total, weight = more, 2 * weight
