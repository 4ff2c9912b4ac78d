"""Which windows a record belongs to: those of a grid, or its key's session.

Gridded   the windows of `grid`, the same for all keys
Sessions  of one key, records less than a gap apart; a session ends a gap after its last record
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from processor.core.columns import SlotMap
from processor.core.windows.base import Batch
from processor.core.windows.grid import Grid
from processor.core.windows.ledger import OPEN, SHUT, TOLD, Ledger
from processor.model import Bools, Hashes, Ints, Rows

# 40 bits of a window's number, 24 of its key.
_NUMBER_BITS = 40
_KEYS_MAX = 2**24


class Pairs(NamedTuple):
    """Records and the windows that they are in: n pairs, in order of record."""

    records: Rows  # intp[n], ascending
    rows: Rows  # intp[n]


class Finder(Protocol):
    """Knows the rows of a ledger by key and time."""

    windows_max: int  # that hold one record
    dropped: int  # records that windows lost which were told for good

    def late(self, times: Ints, watermarks: Ints, lateness_ms: int) -> Bools:
        """Which records no window can hold any more."""

    def first_ends(self, times: Ints) -> Ints:
        """The end of the first window that holds each record, by itself."""

    def ends(self, batch: Batch) -> Ints:
        """The ends that windows may get from these records."""

    def find(self, ledger: Ledger, batch: Batch, lateness_ms: int) -> Pairs:
        """The windows of each record, made where there was none; none that is past its lateness."""

    def know(self, ledger: Ledger, rows: Rows) -> None:
        """Rows that a snapshot brought."""

    def forget(self, ledger: Ledger, rows: Rows) -> None:
        """Rows that are about to be freed."""

    def fresh(self) -> Finder:
        """One that knows nothing yet."""

    def kept_ms(self) -> int:
        """How long after its end and lateness a window that is SHUT may still meet a record."""


class Gridded:
    def __init__(self, grid: Grid):
        self.grid = grid
        self.windows_max = grid.windows_max
        self.dropped = 0
        self._rows = SlotMap()

    def fresh(self) -> Gridded:
        return Gridded(self.grid)

    def late(self, times: Ints, watermarks: Ints, lateness_ms: int) -> Bools:
        return watermarks > self.grid.last_ends(times) + lateness_ms

    def first_ends(self, times: Ints) -> Ints:
        return self.grid.first_ends(times)

    def ends(self, batch: Batch) -> Ints:
        if self.windows_max == 1:
            return np.unique(self.grid.last_ends(batch.times))
        return np.unique(self.grid.ends(np.unique(batch.times))[1])

    def find(self, ledger: Ledger, batch: Batch, lateness_ms: int) -> Pairs:
        records, ends = self.grid.ends(batch.times)
        held = batch.judged[records] <= ends + lateness_ms
        records, ends = records[held], ends[held]
        codes = self._codes(batch.keys[records], ends)
        rows = self._rows.get(codes)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            new, first, which = np.unique(codes[missing], return_index=True, return_inverse=True)
            at = missing[first]
            starts = self.grid.starts_of(ends[at])
            made = ledger.make(batch.keys[records[at]], starts, ends[at])
            self._rows.add(new, made)
            rows[missing] = made[which]
        return Pairs(records, rows)

    def know(self, ledger: Ledger, rows: Rows) -> None:
        codes = self._codes_of(ledger, rows)
        if len(np.unique(codes)) != len(codes) or (self._rows.get(codes) >= 0).any():
            raise ValueError("one window of a key twice")
        self._rows.add(codes, rows)

    def forget(self, ledger: Ledger, rows: Rows) -> None:
        self._rows.remove(self._codes_of(ledger, rows))

    def kept_ms(self) -> int:
        return 0

    def _codes_of(self, ledger: Ledger, rows: Rows) -> Hashes:
        return self._codes(ledger.column("key")[rows], ledger.column("end_ms")[rows])

    def _codes(self, keys: Rows, ends: Ints) -> Hashes:
        assert not len(keys) or int(keys.max()) < _KEYS_MAX, "more keys than a code can hold"
        high = keys.astype(np.uint64) << np.uint64(_NUMBER_BITS)
        return high | self.grid.numbers(ends).astype(np.uint64)


class Sessions:
    windows_max = 1

    def fresh(self) -> Sessions:
        return Sessions(self._gap)

    def __init__(self, gap_ms: int):
        self._gap = gap_ms
        self.dropped = 0
        self._of: dict[int, list[int]] = {}  # key → rows, in order of time

    def late(self, times: Ints, watermarks: Ints, lateness_ms: int) -> Bools:
        return watermarks > times + (self._gap + lateness_ms)

    def first_ends(self, times: Ints) -> Ints:
        return times + self._gap

    def ends(self, batch: Batch) -> Ints:
        """Not of a record that another one follows within the gap, before the watermark can have
        passed that gap: such a page would be counted record by record."""
        if not len(batch.keys):  # all were refused
            return batch.times
        order = np.lexsort((batch.times, batch.keys))
        keys, times = batch.keys[order], batch.times[order]
        follows = (keys[1:] == keys[:-1]) & (times[1:] - times[:-1] < self._gap)
        is_open = batch.judged[order[1:]] < times[:-1] + self._gap
        is_last = np.append(~(follows & is_open), True)
        return np.unique(times[is_last] + self._gap)

    def find(self, ledger: Ledger, batch: Batch, lateness_ms: int) -> Pairs:
        order = np.lexsort((batch.times, batch.keys))
        keys, times = batch.keys[order], batch.times[order]
        breaks = (keys[1:] != keys[:-1]) | (times[1:] - times[:-1] >= self._gap)
        firsts = np.flatnonzero(np.concatenate(([True], breaks)))
        lasts = np.append(firsts[1:], len(order)) - 1
        ends = (times[lasts] + self._gap).tolist()
        runs = list(zip(keys[firsts].tolist(), times[firsts].tolist(), ends, strict=True))
        for run in runs:
            self._join(ledger, *run)
        # Only now: a run may have brought together sessions that others were counted in.
        rows = [self._at(ledger, key, start) for key, start, _ in runs]
        found = np.empty(len(order), dtype=np.intp)
        found[order] = np.repeat(np.array(rows, dtype=np.intp), lasts - firsts + 1)
        return Pairs(np.arange(len(order)), found)

    def _join(self, ledger: Ledger, key: int, start: int, end: int) -> None:
        """Have one session that holds [start, end): a new one, or all that it meets."""
        known = self._of.setdefault(key, [])
        starts, ends = ledger.column("start_ms"), ledger.column("end_ms")
        met = [row for row in known if starts[row] < end and ends[row] > start]
        if not met:
            known += ledger.make(*(np.array([each]) for each in (key, start, end))).tolist()
        else:
            self._merge(ledger, met, start, end)
            gone = set(met[1:])
            self._of[key] = known = [each for each in known if each not in gone]
        starts = ledger.column("start_ms")
        known.sort(key=lambda each: int(starts[each]))

    def _merge(self, ledger: Ledger, met: list[int], start: int, end: int) -> None:
        """The first of these sessions becomes all of them, and [start, end)."""
        row, others = met[0], np.array(met[1:], dtype=np.intp)
        everyone = np.array(met)
        state = ledger.column("state")
        start = min(start, int(ledger.column("start_ms")[everyone].min()))
        end = max(end, int(ledger.column("end_ms")[everyone].max()))
        if (state[everyone] == SHUT).any():
            # One told for good takes the others with it: they are one session now.
            self.dropped += int(ledger.column("since")[everyone].sum())
            ledger.empty(everyone)
            ledger.column("since")[everyone] = 0
            ledger.free(others)
            ledger.column("state")[row] = SHUT
        else:
            was_told = bool((state[everyone] == TOLD).any())
            ledger.merge(row, others)
            ledger.column("state")[row] = TOLD if was_told else OPEN
        ledger.column("start_ms")[row], ledger.column("end_ms")[row] = start, end

    def _at(self, ledger: Ledger, key: int, time: int) -> int:
        starts, ends = ledger.column("start_ms"), ledger.column("end_ms")
        return next(row for row in self._of[key] if starts[row] <= time < ends[row])

    def know(self, ledger: Ledger, rows: Rows) -> None:
        keys = ledger.column("key")[rows].tolist()
        ends = ledger.column("end_ms")
        for key, row in zip(keys, rows.tolist(), strict=True):  # in order of start
            known = self._of.setdefault(key, [])
            if known and ends[known[-1]] > ledger.column("start_ms")[row]:
                raise ValueError("sessions of a key that overlap")
            known.append(row)

    def forget(self, ledger: Ledger, rows: Rows) -> None:
        for key, row in zip(ledger.column("key")[rows].tolist(), rows.tolist(), strict=True):
            self._of[key].remove(row)
            if not self._of[key]:
                del self._of[key]

    def kept_ms(self) -> int:
        return self._gap
