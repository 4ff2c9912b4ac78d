"""Counted units: (key, unit) → a slot of figures, and the memory that windows are made of.

A unit is named by its ordinal (see `grid`). Slots are used again when a unit is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from msgspec import Struct

from processor.core.columns import SlotMap
from processor.core.figures import Figures, Readings
from processor.core.windows.base import NO_SAMPLE, NOBODY, Panes, Sample, SampleOf
from processor.core.windows.grid import Grid
from processor.model import AggregateSpec, Bools, Column, Hashes, Ints, Rows

# 40 bits of ordinal: units of a second until the year 36,800. 24 bits of key: 16 million.
_ORDINAL_BITS = 40
_ORDINAL_MASK = np.uint64(2**_ORDINAL_BITS - 1)
_KEYS_MAX = 2**24


class Saved(Struct, frozen=True):
    """A snapshot, or what was taken out: slots in order of (key, unit)."""

    codes: bytes
    columns: dict[str, bytes]
    samples: list[Sample]


class WindowTable:
    """The figures of n keys in open units. `own` columns are kept beside them, for the caller."""

    def __init__(self, grid: Grid, aggregates: Sequence[AggregateSpec], own: Sequence[Column] = ()):
        self.grid = grid
        self._made_of = (aggregates, own)
        self.figures = Figures(aggregates, (Column("key", "<i4"), Column("n", "<i8"), *own))
        self._slots = SlotMap()
        self._open: dict[int, list[Rows]] = {}  # ordinal → slots
        self._free: Rows = NOBODY
        self._made = 0
        self.samples: dict[int, Sample] = {}

    def fresh(self) -> WindowTable:
        """An empty one of the same rule."""
        return WindowTable(self.grid, *self._made_of)

    def bare(self) -> WindowTable:
        """An empty one of the same rule, without the caller's columns: what shards tell."""
        aggregates, _ = self._made_of
        return WindowTable(self.grid, aggregates)

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<WindowTable {len(self)} slots in {len(self._open)} open units>"

    @property
    def open(self) -> list[int]:
        """Ordinals of units that hold records, ascending."""
        return sorted(self._open)

    def ended(self, watermark_ms: int) -> list[int]:
        """Ordinals of open units that end there or before, ascending."""
        ordinals = np.array(self.open, dtype=np.int64)
        found: list[int] = ordinals[self.grid.unit_ends(ordinals) <= watermark_ms].tolist()
        return found

    def add(self, keys: Rows, readings: Readings, sample_of: SampleOf | None) -> tuple[Rows, Rows]:
        """Count n records, of keys intp[n], each in its unit.

        `sample_of(i)` is asked for the first record of each new slot, if given. Gives the slots
        that were made, and for each the record that made it.
        """
        if not len(keys):
            return NOBODY, NOBODY
        ordinals = self.grid.units(readings.times)
        slots, made, firsts = self._slots_of(_codes(keys, ordinals), ordinals)
        if sample_of is not None:
            self._note(made, firsts, sample_of)
        np.add.at(self.figures.arrays["n"], slots, 1)
        self.figures.update(slots, readings)
        return made, firsts

    def open_keys(self) -> Rows:
        """Keys that have a unit open, each once."""
        _, slots = self._slots.items()
        return np.unique(self.keys(slots))

    def of(self, ordinal: int) -> Rows:
        """The slots of a unit, in no order."""
        parts = self._open.get(ordinal)
        return NOBODY if parts is None else np.concatenate(parts)

    def keys(self, slots: Rows) -> Rows:
        found: Rows = self.figures.arrays["key"][slots].astype(np.intp)
        return found

    def panes(self, slots: Rows, start_ms: int, end_ms: int, name: str) -> Panes:
        """What windows that lie in one slot each tell for good, in order of key."""
        keys = self.keys(slots)
        order = np.argsort(keys)
        slots, keys = slots[order], keys[order]
        return Panes(
            keys,
            np.full(len(keys), start_ms),
            self.figures.arrays["n"][slots],
            self.figures.results(slots, end_ms - start_ms),
            [self.samples.get(slot, NO_SAMPLE) for slot in slots.tolist()]
            if self.samples
            else [NO_SAMPLE] * len(slots),
            [name] * len(slots),
            [True] * len(slots),
        )

    # ---- slots ------------------------------------------------------------------------------

    def scratch(self, n: int) -> Rows:
        """Slots of no unit, to be given back by `free`."""
        left = max(0, len(self._free) - n)
        reused, self._free = self._free[left:], self._free[:left]
        fresh = np.arange(self._made, self._made + n - len(reused), dtype=np.intp)
        self._made += len(fresh)
        self.figures.ensure(self._made)
        return np.concatenate((reused, fresh))

    def free(self, slots: Rows) -> None:
        """Give back slots that no unit has."""
        if self.samples:
            for slot in slots.tolist():
                self.samples.pop(slot, None)
        self.figures.reset(slots)
        self._free = np.concatenate((self._free, slots))

    def drop(self, ordinal: int, slots: Rows) -> None:
        """Forget slots of a unit: all, or some of them."""
        held = self.of(ordinal)
        if len(slots) == len(held):
            self._open.pop(ordinal, None)
        else:
            self._open[ordinal] = [held[~np.isin(held, slots)]]
        keys = self.figures.arrays["key"][slots]
        self._slots.remove(_codes(keys, np.full(len(keys), ordinal)))
        self.free(slots)

    def _slots_of(self, codes: Hashes, ordinals: Ints) -> tuple[Rows, Rows, Rows]:
        slots = self._slots.get(codes)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            return slots, NOBODY, NOBODY
        new, first, which = np.unique(codes[missing], return_index=True, return_inverse=True)
        made = self._make(new, ordinals[missing][first])
        slots[missing] = made[which]
        return slots, made, missing[first]

    def _make(self, codes: Hashes, ordinals: Ints) -> Rows:
        """Slots for codes that have none, each once."""
        slots = self.scratch(len(codes))
        self._slots.add(codes, slots)
        self.figures.arrays["key"][slots] = (codes >> np.uint64(_ORDINAL_BITS)).astype(np.int32)
        order = np.argsort(ordinals, kind="stable")
        found, starts = np.unique(ordinals[order], return_index=True)
        parts = np.split(slots[order], starts[1:])  # one also of nothing
        for ordinal, part in zip(found.tolist(), parts, strict=False):
            self._open.setdefault(ordinal, []).append(part)
        return slots

    def _note(self, slots: Rows, firsts: Rows, sample_of: SampleOf) -> None:
        self.samples.update(zip(slots.tolist(), map(sample_of, firsts.tolist()), strict=True))

    # ---- bytes ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        return self._saved(*self._slots.items())

    def take_out(self, ordinals: Sequence[int]) -> Saved:
        """These units of all keys; they are gone here."""
        parts = [(ordinal, self.of(ordinal)) for ordinal in ordinals]
        codes = [_codes(self.keys(slots), np.full(len(slots), o)) for o, slots in parts]
        all_codes = np.concatenate([np.zeros(0, np.uint64), *codes])
        all_slots = np.concatenate([NOBODY, *(slots for _, slots in parts)])
        order = np.argsort(all_codes)
        saved = self._saved(all_codes[order], all_slots[order])
        for ordinal, slots in parts:
            if len(slots):
                self.drop(ordinal, slots)
        return saved

    def _saved(self, codes: Hashes, slots: Rows) -> Saved:
        samples = [NO_SAMPLE] * len(slots)
        if self.samples:
            samples = [self.samples.get(slot, NO_SAMPLE) for slot in slots.tolist()]
        return Saved(codes.tobytes(), self.figures.take(slots), samples)

    def adopt(self, saved: Saved, heirs: Ints) -> Rows:
        """Take over the units of the keys that have an heir: its index, -1 for none; int64[n].
        Gives their slots.

        No heir may have units here yet. Raises ValueError where it is no table of n keys.
        """
        codes, keys = _read(saved, heirs)
        new_keys = heirs[keys]
        chosen = new_keys >= 0
        ordinals = _ordinals(codes)[chosen]
        slots = self._make(_codes(new_keys[chosen], ordinals), ordinals)
        self._put(slots, saved, keys, chosen)
        self.figures.arrays["key"][slots] = new_keys[chosen]
        return slots

    def all_slots(self) -> tuple[Rows, Ints]:
        """Every slot and its unit, in order of (key, unit)."""
        codes, slots = self._slots.items()
        return slots.astype(np.intp), _ordinals(codes)

    def merge(self, other: WindowTable) -> Rows:
        """Add all that another table of this rule holds, by its keys; gives the slots that were
        made for it."""
        theirs, ordinals = other.all_slots()
        into, made, firsts = self._slots_of(_codes(other.keys(theirs), ordinals), ordinals)
        pairs = zip(made.tolist(), theirs[firsts].tolist(), strict=True)
        self.samples.update((m, other.samples[t]) for m, t in pairs if t in other.samples)
        self.figures.arrays["n"][into] += other.figures.arrays["n"][theirs]
        self.figures.merge(into, other.figures, theirs)
        return made

    def _put(self, slots: Rows, saved: Saved, keys: Rows, chosen: Bools) -> None:
        self.figures.put(slots, saved.columns, chosen)
        if (self.figures.arrays["key"][slots] != keys[chosen]).any():
            raise ValueError("windows of one key, columns of another")
        if len(saved.samples) != len(keys):
            raise ValueError(f"{len(keys)} windows, samples of {len(saved.samples)}")
        for slot, sample in zip(
            slots.tolist(), compress(saved.samples, chosen.tolist()), strict=True
        ):
            if tuple(sample) != NO_SAMPLE:
                self.samples[slot] = (sample[0], sample[1])


def _read(saved: Saved, heirs: Ints) -> tuple[Hashes, Rows]:
    """Codes, and their keys."""
    codes = np.frombuffer(saved.codes, np.uint64)
    keys = codes >> np.uint64(_ORDINAL_BITS)
    if (codes[1:] <= codes[:-1]).any() or (keys >= len(heirs)).any():
        raise ValueError(f"windows out of order or of other keys than the {len(heirs)} known")
    return codes, keys.astype(np.intp)


def _ordinals(codes: Hashes) -> Ints:
    return (codes & _ORDINAL_MASK).astype(np.int64) - 1


def _codes(keys: Rows, ordinals: Ints) -> Hashes:
    """(key, unit) as one number; + 1, as an offset may put the first unit before 1970."""
    assert not len(keys) or int(keys.max()) < _KEYS_MAX, "more keys than a slot's code can hold"
    high = keys.astype(np.uint64) << np.uint64(_ORDINAL_BITS)
    return high | (ordinals + 1).astype(np.uint64)
