"""Open windows: (key, window) → a dense slot, and the columns of its aggregates.

Tumbling windows `[start, end)` of integer milliseconds, aligned to the epoch plus an offset. A
window is named by its ordinal, `(time − offset) // size`. Slots are recycled when a window closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from msgspec import Struct

from processor.core.columns import SlotMap
from processor.core.figures import Figures, Readings
from processor.model import (
    AggregateSpec,
    Bools,
    Column,
    Hashes,
    Ints,
    Rows,
    WindowSpec,
)

Sample = tuple[str | None, str | None]  # correlation id and traceparent of a window's first record
SampleOf = Callable[[int], Sample]
NO_SAMPLE: Sample = (None, None)

# 40 bits of ordinal: windows of a second until the year 36,800. 24 bits of key: 16 million.
_ORDINAL_BITS = 40
_KEYS_MAX = 2**24


class Closed(Struct, frozen=True):
    """One window of the n keys that had records in it."""

    keys: Rows  # intp[n], ascending
    counts: Ints  # int64[n]
    values: Mapping[str, Any]  # aggregate name → int64[n] or float64[n]
    samples: list[Sample]


class Saved(Struct, frozen=True):
    """A snapshot: slots in order of (key, window)."""

    codes: bytes
    columns: dict[str, bytes]
    samples: list[Sample]


class WindowTable:
    """The open windows of one rule on one shard."""

    def __init__(self, window: WindowSpec, aggregates: Sequence[AggregateSpec]):
        self.window = window
        self._aggregates = aggregates
        self._figures = Figures(aggregates, (Column("key", "<i4"), Column("n", "<i8")))
        self._slots = SlotMap()
        self._open: dict[int, list[Rows]] = {}  # ordinal → slots
        self._free: list[int] = []
        self._made = 0
        self._samples: dict[int, Sample] = {}

    def fresh(self) -> WindowTable:
        """An empty one of the same rule."""
        return WindowTable(self.window, self._aggregates)

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<WindowTable {len(self)} slots in {len(self._open)} open windows>"

    def ends_ms(self) -> list[int]:
        """Ends of the windows that hold records, ascending."""
        return [self.start_ms(ordinal + 1) for ordinal in sorted(self._open)]

    def start_ms(self, ordinal: int) -> int:
        return ordinal * self.window.size_ms + self.window.offset_ms

    def ordinals(self, times: Ints) -> Ints:
        return (times - self.window.offset_ms) // self.window.size_ms

    def add(
        self,
        keys: Rows,
        readings: Readings,
        sample_of: SampleOf | None,
    ) -> None:
        """Count n records: key indices intp[n], and what is read of each.

        `sample_of(i)` is asked for the first record of each new window, if given.
        """
        if not len(keys):
            return
        ordinals = self.ordinals(readings.times)
        slots = self._slots_of(_codes(keys, ordinals), ordinals, sample_of)
        np.add.at(self._figures.arrays["n"], slots, 1)
        self._figures.update(slots, readings)

    def close(self, end_ms: int, only: Bools | None = None) -> Closed:
        """Take out the window that ends there: its results, its slots free again.

        `only`: of which keys, bool[n_keys]; the others' windows stay open.
        """
        ordinal = (end_ms - self.window.offset_ms) // self.window.size_ms - 1
        slots = np.concatenate(self._open.pop(ordinal, [np.zeros(0, dtype=np.intp)]))
        if only is not None:
            chosen = only[self._figures.arrays["key"][slots]]
            if not chosen.all():
                self._open[ordinal] = [slots[~chosen]]
            slots = slots[chosen]
        keys = self._figures.arrays["key"][slots]
        order = np.argsort(keys)
        slots, keys = slots[order], keys[order].astype(np.intp)
        closed = Closed(
            keys,
            self._figures.arrays["n"][slots],
            self._figures.results(slots, self.window.size_ms),
            [self._samples.pop(slot, NO_SAMPLE) for slot in slots.tolist()],
        )
        self._slots.remove(_codes(keys, np.full(len(keys), ordinal)))
        self._figures.reset(slots)
        self._free.extend(slots.tolist())
        return closed

    def open_keys(self) -> Rows:
        """Keys that have a window open, each once."""
        _, slots = self._slots.items()
        return np.unique(self._figures.arrays["key"][slots]).astype(np.intp)

    def take_out(self, ordinals: Sequence[int]) -> Saved:
        """These windows of all keys; they are gone here."""
        parts = [(o, np.concatenate(self._open.pop(o, [np.zeros(0, np.intp)]))) for o in ordinals]
        keys = self._figures.arrays["key"]
        codes = np.concatenate(
            [np.zeros(0, np.uint64), *(_codes(keys[s], np.full(len(s), o)) for o, s in parts)]
        )
        slots = np.concatenate([np.zeros(0, np.intp), *(s for _, s in parts)])
        order = np.argsort(codes)
        saved = self._saved(codes[order], slots[order])
        self._slots.remove(codes)
        self._figures.reset(slots)
        self._free.extend(slots.tolist())
        for slot in slots.tolist():
            self._samples.pop(slot, None)
        return saved

    def merge(self, saved: Saved, heirs: Ints) -> None:
        """Add what was taken out of a table of n keys to the windows of their heirs, int64[n].
        Raises ValueError where it is none of this rule."""
        other = self.fresh()
        other.adopt(saved, np.where(heirs >= 0, np.arange(len(heirs)), -1))
        codes, theirs = other._slots.items()
        ordinals = (codes & np.uint64(2**_ORDINAL_BITS - 1)).astype(np.int64) - 1
        keys = heirs[(codes >> np.uint64(_ORDINAL_BITS)).astype(np.intp)]
        samples = [other._samples.get(slot, NO_SAMPLE) for slot in theirs.tolist()]
        slots = self._slots_of(_codes(keys, ordinals), ordinals, samples.__getitem__)
        self._figures.arrays["n"][slots] += other._figures.arrays["n"][theirs]
        self._figures.merge(slots, other._figures, theirs)

    def snapshot(self) -> Saved:
        return self._saved(*self._slots.items())

    def _saved(self, codes: Hashes, slots: Rows) -> Saved:
        samples = [NO_SAMPLE] * len(slots)
        if self._samples:
            samples = [self._samples.get(slot, NO_SAMPLE) for slot in slots.tolist()]
        return Saved(codes.tobytes(), self._figures.take(slots), samples)

    def restore(self, saved: Saved, n_keys: int) -> None:
        """Into an empty table; raises ValueError where it is no table of n keys."""
        self.adopt(saved, np.arange(n_keys))

    def adopt(self, saved: Saved, heirs: Ints) -> None:
        """Take over the windows of the keys that have an heir: its index, -1 for none; int64[n].

        No heir may have windows here yet. Raises ValueError where it is no table of n keys.
        """
        codes = np.frombuffer(saved.codes, np.uint64)
        keys = codes >> np.uint64(_ORDINAL_BITS)
        if (codes[1:] <= codes[:-1]).any() or (keys >= len(heirs)).any():
            raise ValueError(f"windows out of order or of other keys than the {len(heirs)} known")
        new_keys = heirs[keys.astype(np.intp)]
        chosen = new_keys >= 0
        ordinals = (codes & np.uint64(2**_ORDINAL_BITS - 1)).astype(np.int64) - 1
        slots = self._make(_codes(new_keys[chosen], ordinals[chosen]), ordinals[chosen])
        self._figures.put(slots, saved.columns, chosen)
        if (self._figures.arrays["key"][slots] != keys[chosen]).any():
            raise ValueError("windows of one key, columns of another")
        self._figures.arrays["key"][slots] = new_keys[chosen]
        if len(saved.samples) != len(codes):
            raise ValueError(f"{len(codes)} windows, samples of {len(saved.samples)}")
        samples = compress(saved.samples, chosen.tolist())
        for slot, sample in zip(slots.tolist(), samples, strict=True):
            self._samples[slot] = (sample[0], sample[1])

    def _slots_of(self, codes: Hashes, ordinals: Ints, sample_of: SampleOf | None) -> Rows:
        slots = self._slots.get(codes)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            return slots
        new, first, which = np.unique(codes[missing], return_index=True, return_inverse=True)
        made = self._make(new, ordinals[missing][first])
        slots[missing] = made[which]
        if sample_of is not None:
            firsts = missing[first].tolist()
            self._samples.update(zip(made.tolist(), map(sample_of, firsts), strict=True))
        return slots

    def _make(self, codes: Hashes, ordinals: Ints) -> Rows:
        """Slots for codes that have none, each once."""
        slots = self._allocate(len(codes))
        self._slots.add(codes, slots)
        self._figures.arrays["key"][slots] = (codes >> np.uint64(_ORDINAL_BITS)).astype(np.int32)
        order = np.argsort(ordinals, kind="stable")
        found, starts = np.unique(ordinals[order], return_index=True)
        parts = np.split(slots[order], starts[1:])  # one also of nothing
        for ordinal, part in zip(found.tolist(), parts, strict=False):
            self._open.setdefault(ordinal, []).append(part)
        return slots

    def _allocate(self, n: int) -> Rows:
        reused = [self._free.pop() for _ in range(min(n, len(self._free)))]
        fresh = range(self._made, self._made + n - len(reused))
        self._made = fresh.stop
        self._figures.ensure(self._made)
        return np.array([*reused, *fresh], dtype=np.intp)


def _codes(keys: Rows, ordinals: Ints) -> Hashes:
    """(key, window) as one number; + 1, as an offset may put the first window before 1970."""
    assert not len(keys) or int(keys.max()) < _KEYS_MAX, "more keys than a slot's code can hold"
    high = keys.astype(np.uint64) << np.uint64(_ORDINAL_BITS)
    return high | (ordinals + 1).astype(np.uint64)
