"""Sparse memory: (slot, cell) → a number, for figures whose state grows with what a window sees.

Pairs are codes of 64 bits, kept in sorted runs, each several times as long as the next: 16 bytes a
pair where a hash table that is probed many at a time needs 64, and all cells of a slot lie side by
side. A code is in one run only. What is there already is changed in place; what is new makes a
short run, and short runs are merged into longer ones as they come (a log-structured merge tree
without deletions). A pair that was reset stays as a gap until the next merge, or its return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

from processor.model import Bools, Hashes, Ints, Rows

# As in a window's code: 24 bits of slot, 16 million; 40 bits of cell.
CELL_BITS = 40
SLOTS_MAX = 2**24 - 1
BYTES_A_CELL = 16  # code and value
# Of a key besides its text: its entry in a dict that is half full on average (65), its number as an
# object (32), its place in a list (8).
BYTES_A_KEY = 105
_CELL_MASK = np.uint64(2**CELL_BITS - 1)
_GONE = np.int64(-1)
# With 4 a pair is moved some log4(n / page) times, and a look-up goes through as many runs.
_RUN_RATIO = 4
_GAPS_MIN = 4096  # fewer are not worth a sweep
_UNKNOWN = -1

Combine = Literal["add", "max", "bytes"]
Key = str | int


class _Run(NamedTuple):
    codes: Hashes  # ascending
    values: Ints  # _GONE where there is a gap


class Cells:
    """(slot, cell) → int64 ≥ 0, many at a time; see `aggregators.base.Cells`."""

    PARTS: ClassVar[frozenset[str]] = frozenset({"codes", "values"})  # of what `take` gives

    def __init__(self, combine: Combine):
        self.combine = combine
        self._runs: list[_Run] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Cells {self.count} in {len(self._runs)} runs, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        return sum(run.codes.nbytes + run.values.nbytes for run in self._runs)

    def update(self, slots: Rows, cells: Ints, values: Ints) -> Rows:
        """Combine `values[i]` into (slots[i], cells[i]), for all i; pairs may repeat.

        Gives the slot of each pair that was not there, ascending.
        """
        if not len(slots):
            return np.zeros(0, dtype=np.intp)
        codes, sums = _distinct(_codes(slots, cells), values, self.combine)
        returned = []
        for run in self._runs:
            if not len(codes):
                break
            at = np.minimum(np.searchsorted(run.codes, codes), len(run.codes) - 1)
            is_there = run.codes[at] == codes
            hits = at[is_there]
            before = run.values[hits]
            was_gone = before == _GONE
            both = _combined(self.combine, before, sums[is_there])
            run.values[hits] = np.where(was_gone, sums[is_there], both)
            returned.append(codes[is_there][was_gone])
            codes, sums = codes[~is_there], sums[~is_there]
        if len(codes):
            self._append(_Run(codes, sums))
        made = np.sort(np.concatenate([*returned, codes]))
        self.count += len(made)
        return (made >> np.uint64(CELL_BITS)).astype(np.intp)

    def of(self, slots: Rows) -> tuple[Rows, Ints, Ints]:
        """All cells of `slots` (each once) as (places, cells, values), in order of (place, cell);
        a place is an index of `slots`."""
        codes, values = self._taken(slots)
        return (codes >> np.uint64(CELL_BITS)).astype(np.intp), _cells_of(codes), values

    def reset(self, slots: Rows) -> None:
        """Forget all cells of these slots, each once."""
        for run in self._runs:
            at, _ = _ranges(run, slots)
            self.count -= int((run.values[at] != _GONE).sum())
            run.values[at] = _GONE
        held = sum(len(run.codes) for run in self._runs)
        if held > 2 * self.count + _GAPS_MIN:
            whole = _joined(self._runs)
            self._runs = [whole] if len(whole.codes) else []

    def has(self, slots: Rows, cells: Ints) -> Bools:
        """Whether each pair is there: bool[n]; pairs may repeat."""
        codes = _codes(slots, cells)
        found = np.zeros(len(codes), dtype=np.bool_)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run.codes, codes), len(run.codes) - 1)
            found |= (run.codes[at] == codes) & (run.values[at] != _GONE)
        return found

    def slots(self) -> Rows:
        """Those that have cells, ascending."""
        live = [run.codes[run.values != _GONE] >> np.uint64(CELL_BITS) for run in self._runs]
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *live])).astype(np.intp)

    def take(self, slots: Rows) -> dict[str, bytes]:
        """The bytes of these slots' cells; the same cells give the same bytes."""
        codes, values = self._taken(slots)
        return {"codes": codes.tobytes(), "values": values.tobytes()}

    def put(self, slots: Rows, saved: Mapping[str, bytes], chosen: Bools | None = None) -> None:
        """The inverse of `take`, into slots without cells; raises ValueError as `Columns.put`.

        `chosen`: which of the saved slots to put, as many as `slots`; without it all of them.
        """
        self.update(*_read(slots, saved, chosen))

    def _taken(self, slots: Rows) -> tuple[Hashes, Ints]:
        """Codes with places for slots, ascending, and their values."""
        codes, values = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
        for run in self._runs:
            at, places = _ranges(run, slots)
            found = run.values[at]
            live = found != _GONE
            at, places = at[live], places[live]
            codes.append(_codes(places, _cells_of(run.codes[at])))
            values.append(found[live])
        all_codes, all_values = np.concatenate(codes), np.concatenate(values)
        order = np.argsort(all_codes, kind="stable")
        return all_codes[order], all_values[order]

    def _append(self, run: _Run) -> None:
        self._runs.append(run)
        while len(self._runs) > 1:
            longer, shorter = self._runs[-2:]
            if len(shorter.codes) * _RUN_RATIO <= len(longer.codes):
                break
            self._runs[-2:] = [_joined((longer, shorter))]


class KeyedCells:
    """(slot, key) → int64 ≥ 0, where a key is a text or an integer; see `aggregators.base`.

    Each key is kept once, however many slots count it, and dropped some time after the last.
    """

    PARTS: ClassVar[frozenset[str]] = frozenset({"codes", "values", "keys"})

    def __init__(self, combine: Combine):
        self._cells = Cells(combine)
        self._numbers: dict[Key, int] = {}
        self._keys: list[Key] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._cells)

    def __repr__(self) -> str:
        return f"<KeyedCells {len(self._keys)} keys, {self._cells!r}>"

    @property
    def nbytes(self) -> int:
        """Of keys about."""
        return self._cells.nbytes + self._bytes

    def update(self, slots: Rows, keys: Sequence[Key], values: Ints) -> Rows:
        """As that of Cells."""
        return self._cells.update(slots, self._numbered(keys), values)

    def of(self, slots: Rows) -> tuple[Rows, list[Key], Ints]:
        """As that of Cells; the keys of a place in no order."""
        places, numbers, values = self._cells.of(slots)
        return places, [self._keys[number] for number in numbers.tolist()], values

    def has(self, slots: Rows, keys: Sequence[Key]) -> Bools:
        """As that of Cells."""
        known = self._numbers
        numbers = np.fromiter(map(known.get, keys, repeat(_UNKNOWN)), np.int64, len(keys))
        found = numbers >= 0
        found[found] = self._cells.has(slots[found], numbers[found])
        return found

    def reset(self, slots: Rows) -> None:
        """Forget all keys of these slots."""
        self._cells.reset(slots)
        if len(self._keys) > 2 * len(self._cells) + _GAPS_MIN:
            self._sweep()

    def take(self, slots: Rows) -> dict[str, bytes]:
        """The bytes of these slots' keys and values; the same ones give the same bytes."""
        places, numbers, values = self._cells.of(slots)
        used = np.unique(numbers)
        keys = [self._keys[number] for number in used.tolist()]
        order = sorted(range(len(keys)), key=lambda i: (isinstance(keys[i], str), keys[i]))
        rank = np.empty(len(keys), dtype=np.int64)
        rank[order] = np.arange(len(keys))
        codes = _codes(places, rank[np.searchsorted(used, numbers)])
        ascending = np.argsort(codes, kind="stable")
        return {
            "codes": codes[ascending].tobytes(),
            "values": values[ascending].tobytes(),
            "keys": msgspec.msgpack.encode([keys[i] for i in order]),
        }

    def put(self, slots: Rows, saved: Mapping[str, bytes], chosen: Bools | None = None) -> None:
        """The inverse of `take`, as that of Cells."""
        try:
            keys = msgspec.msgpack.decode(saved["keys"], type=list[Key])
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ValueError(f"keys of cells: {error}") from error
        into, ranks, values = _read(slots, saved, chosen)
        if len(set(keys)) != len(keys) or (ranks >= len(keys)).any():
            raise ValueError(f"cells of other keys than the {len(keys)} saved")
        self._cells.update(into, self._numbered(keys)[ranks], values)

    def _numbered(self, keys: Sequence[Key]) -> Ints:
        known = self._numbers
        numbers = np.fromiter(map(known.get, keys, repeat(_UNKNOWN)), np.int64, len(keys))
        for i in np.flatnonzero(numbers < 0).tolist():
            key = keys[i]
            number = known.get(key)
            if number is None:
                number = known[key] = len(self._keys)
                self._keys.append(key)
                self._bytes += _key_bytes(key)
            numbers[i] = number
        return numbers

    def _sweep(self) -> None:
        """Number anew the keys that are still counted."""
        slots = self._cells.slots()
        saved = self.take(slots)
        fresh = KeyedCells(self._cells.combine)
        fresh.put(slots, saved)
        self._cells, self._numbers = fresh._cells, fresh._numbers
        self._keys, self._bytes = fresh._keys, fresh._bytes


def _key_bytes(key: Key) -> int:
    return BYTES_A_KEY + key.__sizeof__()


def _codes(slots: Rows, cells: Ints) -> Hashes:
    assert not len(slots) or int(slots.max()) < SLOTS_MAX, "more slots than a code can hold"
    return (slots.astype(np.uint64) << np.uint64(CELL_BITS)) | cells.astype(np.uint64)


def _cells_of(codes: Hashes) -> Ints:
    return (codes & _CELL_MASK).astype(np.int64)


def _distinct(codes: Hashes, values: Ints, combine: Combine) -> tuple[Hashes, Ints]:
    """Each code once, ascending, with all its values combined."""
    order = np.argsort(codes, kind="stable")
    codes, values = codes[order], values[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    if len(starts) == len(codes):
        return codes, values
    if combine == "add":
        return codes[starts], np.add.reduceat(values, starts)
    if combine == "max":
        return codes[starts], np.maximum.reduceat(values, starts)
    return codes[starts], np.maximum.reduceat(_as_bytes(values), starts, axis=0).view("<i8")[:, 0]


def _combined(combine: Combine, one: Ints, other: Ints) -> Ints:
    if combine == "add":
        return one + other
    if combine == "max":
        return np.maximum(one, other)
    return np.maximum(_as_bytes(one), _as_bytes(other)).view("<i8")[:, 0]


def _as_bytes(values: Ints) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.ascontiguousarray(values, "<i8").view(np.uint8).reshape(-1, 8)


def _ranges(run: _Run, slots: Rows) -> tuple[Rows, Rows]:
    """Where in the run the cells of `slots` are, and the place in `slots` of each."""
    first = slots.astype(np.uint64) << np.uint64(CELL_BITS)
    starts = np.searchsorted(run.codes, first)
    lengths = np.searchsorted(run.codes, first | _CELL_MASK, side="right") - starts
    places = np.repeat(np.arange(len(slots)), lengths)
    offsets = starts - np.concatenate(([0], np.cumsum(lengths)[:-1]))[: len(slots)]
    return np.arange(len(places)) + offsets[places], places


def _joined(runs: Sequence[_Run]) -> _Run:
    """One run without gaps."""
    codes = np.concatenate([run.codes for run in runs])
    values = np.concatenate([run.values for run in runs])
    live = values != _GONE
    codes, values = codes[live], values[live]
    order = np.argsort(codes, kind="stable")  # timsort: runs are merged, not sorted
    return _Run(codes[order], values[order])


def _read(slots: Rows, saved: Mapping[str, bytes], chosen: Bools | None) -> tuple[Rows, Ints, Ints]:
    """Slots, cells and values of what was taken of n slots; raises ValueError."""
    n = len(slots) if chosen is None else len(chosen)
    codes = np.frombuffer(saved["codes"], np.uint64)
    values = np.frombuffer(saved["values"], np.int64)
    places = (codes >> np.uint64(CELL_BITS)).astype(np.intp)
    if len(values) != len(codes):
        raise ValueError(f"{len(codes)} cells, {len(values)} values")
    if (codes[1:] <= codes[:-1]).any() or (places >= n).any() or (values < 0).any():
        raise ValueError(f"cells out of order, or of more than {n} slots, or below 0")
    into = np.full(n, _UNKNOWN, dtype=np.intp)
    into[slice(None) if chosen is None else chosen] = slots
    wanted = into[places] >= 0
    return into[places[wanted]], _cells_of(codes[wanted]), values[wanted]
