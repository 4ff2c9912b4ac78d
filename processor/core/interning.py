"""Tuples of texts and integers → numbers, many at a time.

A dict of tuples builds and hashes a tuple a record, and misses the cache once there are thousands.
Here each field has a small dict of its own, and two numbers at a time are folded into one: for
keys of two fields that takes less than half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from processor.core.columns import SlotMap
from processor.model import Hashes, Ints

_UNKNOWN = -1
_HALF = np.uint64(32)  # a number of each field and of each fold stays below 2^32: memory ends first
# Below so many tuples that were removed, what they leave in the fields' dicts is not worth a sweep.
_LEFT_MIN = 1_024


class Interner:
    """Remembers tuples of `n_fields` values and the number of each."""

    def __init__(self, n_fields: int):
        self._n_fields = n_fields
        self._fields: list[dict[Any, int]] = [{} for _ in range(max(1, n_fields))]
        self._folds = [SlotMap() for _ in range(n_fields - 1)]
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
            missing = (numbers < 0) | (other < 0)
            numbers = fold.get(_pairs(numbers, other))
            numbers[missing] = _UNKNOWN
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
            code = _dense(fold, _pairs(code, other))
        self._folds[-1].add(_pairs(code, others[-1]), numbers)

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
            code = fold.get(_pairs(code, other))
        self._folds[-1].remove(_pairs(code, others[-1]))
        self._left += n

    @property
    def is_worn(self) -> bool:
        """Whether it is better made anew: more may be left of what was removed than is in use."""
        return self._left > max(_LEFT_MIN, len(self))


def _pairs(high: Ints, low: Ints) -> Hashes:
    return (high.astype(np.uint64) << _HALF) | low.astype(np.uint64)


def _dense(fold: SlotMap, pairs: Hashes) -> Ints:
    """Each pair's number; new ones get the next."""
    distinct = np.unique(pairs)
    new = distinct[fold.get(distinct) < 0]
    fold.add(new, np.arange(len(fold), len(fold) + len(new)))
    return fold.get(pairs)
