"""Memory: arrays for the columns that plug-ins declare, and a hash table from 64-bit keys to slots.

Both are plain arrays, so growth, recycling, snapshot and restore are written once, here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from processor.model import Bools, Column, Hashes, Ints, Rows

_ROWS_MIN = 64


class Columns:
    """One array a declared column, a row an index; `width` > 1 makes it two-dimensional.

    `arrays[name]` is replaced when the table grows: look it up at each use, don't keep it.
    """

    def __init__(self, specs: Sequence[Column]):
        assert len({spec.name for spec in specs}) == len(specs), "two columns of one name"
        self.specs = tuple(specs)
        self.rows = 0
        self.arrays: dict[str, npt.NDArray[Any]] = {spec.name: _fresh(spec, 0) for spec in specs}

    def __repr__(self) -> str:
        return f"<Columns {len(self.specs)} × {self.rows} rows, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def ensure(self, n: int) -> None:
        """Have at least n rows; new ones are fresh. Doubles, so that growth is cheap a row."""
        if n <= self.rows:
            return
        rows = max(n, 2 * self.rows, _ROWS_MIN)
        for spec in self.specs:
            grown = _fresh(spec, rows)
            grown[: self.rows] = self.arrays[spec.name]
            self.arrays[spec.name] = grown
        self.rows = rows

    def reset(self, rows: Rows) -> None:
        """Make these rows fresh again."""
        for spec in self.specs:
            self.arrays[spec.name][rows] = spec.fill

    def take(self, rows: Rows) -> dict[str, bytes]:
        """The bytes of these rows, by column."""
        return {name: array[rows].tobytes() for name, array in self.arrays.items()}

    def put(self, rows: Rows, saved: Mapping[str, bytes], chosen: Bools | None = None) -> None:
        """The inverse of `take`; raises ValueError where the bytes don't fit the columns.

        `chosen`: which of the saved rows to put, as many as `rows`; without it all of them.
        """
        self._check_names(saved)
        n = len(rows) if chosen is None else len(chosen)
        for spec in self.specs:
            shape = (n, spec.width) if spec.width > 1 else (n,)
            column = np.frombuffer(saved[spec.name], spec.dtype).reshape(shape)
            self.arrays[spec.name][rows] = column if chosen is None else column[chosen]

    def _check_names(self, saved: Mapping[str, bytes]) -> None:
        if saved.keys() != self.arrays.keys():
            raise ValueError(f"columns {sorted(saved)}, expected {sorted(self.arrays)}")

    def snapshot(self, n: int) -> dict[str, bytes]:
        """The first n rows, as views of live memory: encode them before anything changes."""
        return {
            name: cast(bytes, array[:n].reshape(-1).view(np.uint8).data)
            for name, array in self.arrays.items()
        }

    def restore(self, saved: Mapping[str, bytes], n: int) -> None:
        """Into the first n rows; raises ValueError where the bytes don't fit the columns."""
        for _ in self.restoring(saved, n):
            pass

    def restoring(self, saved: Mapping[str, bytes], n: int) -> Iterator[None]:
        """`restore` in turns of a column; to be taken to the end."""
        if self.rows > n:
            self.put(np.arange(n), saved)
            return
        self._check_names(saved)
        for spec in self.specs:  # copied, for to write into fresh rows is to write them twice
            shape = (n, spec.width) if spec.width > 1 else (n,)
            column = np.frombuffer(saved[spec.name], spec.dtype)
            self.arrays[spec.name] = column.reshape(shape).copy()
            yield
        self.rows = n


def _fresh(spec: Column, rows: int) -> npt.NDArray[Any]:
    shape = (rows, spec.width) if spec.width > 1 else (rows,)
    return np.full(shape, spec.fill, dtype=spec.dtype)


_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing (Knuth, TAOCP 6.4)
_CELLS_MIN = 1024
_LOAD_MAX = 0.25  # past that, the longest walk of a batch, which all wait for, grows quickly
_ROOM = 1.25  # of a new table: a quarter as many keys may come before it is made anew
_BATCH = 16_384  # so many keys are removed at a time: of all of a window they are many arrays
_NO_KEYS, _NO_VALUES = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
_FREE = np.int64(-1)
_GONE = np.int64(-2)


class SlotMap:
    """Open addressing over arrays: uint64 keys → int64 values ≥ 0, looked up many at a time.

    A lookup costs some 30 ns a key where a Python dict costs 60 and four times the memory. Linear
    probing; a removed cell stays as a tombstone until the table is next rebuilt.
    """

    def __init__(self) -> None:
        self._clear(_CELLS_MIN)

    def _clear(self, cells: int) -> None:
        self._keys, self._values = _NO_KEYS, _NO_VALUES  # not two tables at once
        # A key and its value lie side by side: one miss of the cache a look, not two.
        table = np.zeros((cells, 2), dtype=np.uint64)
        self._keys, self._values = table[:, 0], table[:, 1].view(np.int64)
        self._values[:] = _FREE
        self._shift = np.uint64(64 - (cells.bit_length() - 1))
        self._used = 0  # tombstones included
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<SlotMap {self.count} of {len(self._keys)} cells>"

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes

    def get(self, keys: Hashes) -> Ints:
        """The value of each key, -1 where there is none; keys may repeat."""
        cells = self._home(keys)
        values = self._values[cells]
        found = (self._keys[cells] == keys) & (values >= 0)
        if found.all():  # most are at home: the walk below is for the others
            return values
        result = np.where(found, values, _FREE)
        todo = np.flatnonzero(~found & (values != _FREE))
        self._walk(keys, cells, todo)
        result[todo] = np.where(cells[todo] >= 0, self._values[cells[todo]], _FREE)
        return result

    def add(self, keys: Hashes, values: Ints) -> None:
        """Keys that are not there yet, each once."""
        self._reserve(len(keys))
        mask = len(self._keys) - 1
        cells = self._home(keys)
        todo: Ints = np.arange(len(keys))
        while len(todo):
            # Of several that want one free cell, the last written has it; the others walk on.
            at = cells[todo]
            free = self._values[at] == _FREE
            winners, won = todo[free], at[free]
            self._keys[won] = keys[winners]
            self._values[won] = values[winners]
            todo = todo[~(free & (self._keys[at] == keys[todo]))]
            cells[todo] = (cells[todo] + 1) & mask
        self._used += len(keys)
        self.count += len(keys)

    def set(self, keys: Hashes, values: Ints) -> None:
        """New values for keys that are there."""
        cells = self._find(keys)
        assert bool((cells >= 0).all()), "set() of an absent key"
        self._values[cells] = values

    def remove(self, keys: Hashes) -> None:
        """Forget keys that are there, each once."""
        for start in range(0, len(keys), _BATCH):
            cells = self._find(keys[start : start + _BATCH])
            assert bool((cells >= 0).all()), "remove() of an absent key"
            self._values[cells] = _GONE
        self.count -= len(keys)

    def items(self) -> tuple[Hashes, Ints]:
        """All keys and values, in order of key: no trace of history."""
        keys, values = self._live()
        order = np.argsort(keys)
        return keys[order], values[order]

    def keep_from(self, value_min: int) -> None:
        """Keep the keys whose value is at least that."""
        keys, values = self._live()
        wanted = values >= value_min
        self._clear(_CELLS_MIN)
        self.add(keys[wanted], values[wanted])

    def _live(self) -> tuple[Hashes, Ints]:
        live = self._values >= 0
        return self._keys[live], self._values[live]

    def _home(self, keys: Hashes) -> Ints:
        return ((keys * _MIX) >> self._shift).astype(np.int64)

    def _find(self, keys: Hashes) -> Ints:
        """Each key's cell, or -1."""
        cells = self._home(keys)
        self._walk(keys, cells, np.arange(len(keys)))
        return cells

    def _walk(self, keys: Hashes, cells: Ints, todo: Ints) -> None:
        """From their `cells` on, lead the keys at `todo` to the cells that hold them, or to -1."""
        mask = len(self._keys) - 1
        while len(todo):
            at = cells[todo]
            values = self._values[at]
            found = (self._keys[at] == keys[todo]) & (values >= 0)
            absent = values == _FREE
            cells[todo[absent]] = _FREE
            todo = todo[~(found | absent)]
            cells[todo] = (cells[todo] + 1) & mask

    def _reserve(self, more: int) -> None:
        if self._used + more <= _LOAD_MAX * len(self._keys):
            return
        keys, values = self._live()
        cells = _CELLS_MIN
        while (len(keys) + more) * _ROOM > _LOAD_MAX * cells:
            cells *= 2
        self._clear(cells)
        self.add(keys, values)
