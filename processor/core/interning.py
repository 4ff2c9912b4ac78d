"""Tuples of texts and integers → numbers, many at a time.

A dict of tuples builds and hashes a tuple a record, and misses the cache once there are thousands.
Here each field has a small dict of its own, and two numbers at a time are folded into one: by a
table of all pairs where that is small, else by hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from processor.core.columns import SlotMap
from processor.model import Hashes, Ints

Cells = npt.NDArray[np.int32]

_UNKNOWN = -1
_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)  # a number of each field and of each fold stays below 2^32: memory ends first
# Below so many tuples that were removed, what they leave in the fields' dicts is not worth a sweep.
_LEFT_MIN = 1_024
# A table of all pairs takes 4 bytes each: up to there it stays in the cache, about.
_PAIRS_MAX = 2**19


class Fold:
    """Pairs of numbers ≥ 0 → a number ≥ 0, many at a time.

    The hash table knows all of them. The table of pairs, [low, high], is a copy of it for as long
    as it is small; a look-up there is one index where hashing takes eight steps.
    """

    def __init__(self) -> None:
        self._known = SlotMap()
        self._table: Cells | None = np.full((1, 1), _UNKNOWN, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, high: Ints, low: Ints) -> Ints:
        """-1 where a pair is not known, or a number of it is -1."""
        if not len(high):
            return high
        if self._table is not None:
            n_low, n_high = self._table.shape
            if int(high.max()) < n_high and int(low.max()) < n_low:
                # -1 is the last line or column, which is kept free.
                return self._table[low, high].astype(np.int64)
        missing = (high < 0) | (low < 0)
        numbers = self._known.get(_pairs(high, low))
        numbers[missing] = _UNKNOWN
        return numbers

    def add(self, high: Ints, low: Ints, numbers: Ints) -> None:
        """Pairs that are not known yet, each once."""
        self._known.add(_pairs(high, low), numbers)
        self._set(high, low, numbers)

    def remove(self, high: Ints, low: Ints) -> None:
        """Pairs that are known, each once."""
        self._known.remove(_pairs(high, low))
        self._set(high, low, np.full(len(high), _UNKNOWN))

    def dense(self, high: Ints, low: Ints) -> Ints:
        """Each pair's number; new ones get the next."""
        found = self.get(high, low)
        new = np.unique(_pairs(high[found < 0], low[found < 0]))
        at_high, at_low = (new >> _HALF).astype(np.int64), (new & _LOW).astype(np.int64)
        self.add(at_high, at_low, np.arange(len(self), len(self) + len(new)))
        return self.get(high, low) if len(new) else found

    def _set(self, high: Ints, low: Ints, numbers: Ints) -> None:
        if self._table is None or not len(high):
            return
        n_low, n_high = self._table.shape
        wanted = _doubled(n_low, int(low.max())), _doubled(n_high, int(high.max()))
        if wanted[0] * wanted[1] > _PAIRS_MAX:
            self._table = None
            return
        if wanted != self._table.shape:
            table = np.full(wanted, _UNKNOWN, dtype=np.int32)
            table[: n_low - 1, : n_high - 1] = self._table[:-1, :-1]
            self._table = table
        self._table[low, high] = numbers


class Interner:
    """Remembers tuples of `n_fields` values and the number of each."""

    def __init__(self, n_fields: int):
        self._n_fields = n_fields
        self._fields: list[dict[Any, int]] = [{} for _ in range(max(1, n_fields))]
        self._folds = [Fold() for _ in range(n_fields - 1)]
        self._left = 0  # tuples that were removed, whose parts are still in the dicts

    def __len__(self) -> int:
        return len(self._folds[-1]) if self._folds else len(self._fields[0])

    def get(self, columns: Sequence[Sequence[Any]], n: int) -> Ints:
        """The number of each of n tuples, -1 where it is not known; a column a field."""
        if not self._n_fields:
            columns = [[()] * n]
        numbers, *others = (
            np.fromiter(map(known.get, column, repeat(_UNKNOWN)), np.int64, n)
            for known, column in zip(self._fields, columns, strict=True)
        )
        for fold, other in zip(self._folds, others, strict=True):
            numbers = fold.get(numbers, other)
        return numbers

    def add(self, columns: Sequence[Sequence[Any]], numbers: Ints) -> None:
        """Tuples that are not known yet, each once, with their numbers ≥ 0."""
        if not len(numbers):
            return
        if not self._folds:
            values = columns[0] if self._n_fields else [()]
            self._fields[0].update(zip(values, numbers.tolist(), strict=True))
            return
        code, *others = (
            np.array([known.setdefault(value, len(known)) for value in column], dtype=np.int64)
            for known, column in zip(self._fields, columns, strict=True)
        )
        for fold, other in zip(self._folds[:-1], others, strict=False):
            code = fold.dense(code, other)
        self._folds[-1].add(code, others[-1], numbers)

    def remove(self, columns: Sequence[Sequence[Any]], n: int) -> None:
        """Forget n tuples that are known, each once."""
        if not n:
            return
        if not self._folds:
            for value in columns[0] if self._n_fields else [()]:
                del self._fields[0][value]
            return
        code, *others = (
            np.fromiter(map(known.__getitem__, column), np.int64, n)
            for known, column in zip(self._fields, columns, strict=True)
        )
        for fold, other in zip(self._folds[:-1], others, strict=False):
            code = fold.get(code, other)
        self._folds[-1].remove(code, others[-1])
        self._left += n

    @property
    def is_worn(self) -> bool:
        """Whether it is better made anew: more may be left of what was removed than is in use."""
        return self._left > max(_LEFT_MIN, len(self))


def _pairs(high: Ints, low: Ints) -> Hashes:
    return (high.astype(np.uint64) << _HALF) | low.astype(np.uint64)


def _doubled(n: int, highest: int) -> int:
    """Room for numbers up to `highest` and, at the end, for none."""
    while n < highest + 2:
        n *= 2
    return n
