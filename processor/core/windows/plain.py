"""Windows that are told once, when the watermark reaches their end: the fast way.

A page is counted whole and then closed whole, which is the same as record by record: a record that
would come after its window's closing is late by the watermark before it. There are two exceptions.
Where windows overlap, a record may be late for some of its windows only: before it, these are
closed. And a record may come while the watermark stands exactly at its window's end. It is not late
yet (that is only past its end); if its key was not told at that end, the record makes a late pane
of its own, and is the last one to do so. For that, the keys that were told at an end are kept for
as long as the watermark stands there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from processor.core.windows import table
from processor.core.windows.base import (
    FOREVER_MS,
    NEVER_MS,
    NO_SAMPLE,
    NOBODY,
    ON_TIME,
    Batch,
    Moment,
    Panes,
    Told,
)
from processor.core.windows.grid import Grid
from processor.core.windows.table import WindowTable
from processor.model import AggregateSpec, Bools, Column, Ints, Rows


class Saved(Struct, frozen=True, tag="plain"):
    """A snapshot; `told`: by end, the keys that were told at it, int64 each."""

    table: table.Saved
    passed_ms: Moment
    told: dict[Moment, bytes]


class Plain:
    """See `base.Windows`."""

    def __init__(self, grid: Grid, aggregates: Sequence[AggregateSpec]):
        self.grid = grid
        self._aggregates = aggregates
        # Of a unit that several windows share: windows that end up to there don't count it.
        own = (Column("told_ms", "<i8", NEVER_MS),) if grid.windows_max > 1 else ()
        self.table = WindowTable(grid, aggregates, own)
        self.dropped = 0
        self.late_at: list[Rows] = []
        self._passed_ms = NEVER_MS
        self._told: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"<Plain {self.table!r}>"

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        return watermarks > self.grid.last_ends(times)

    def first_ends(self, times: Ints) -> Ints:
        return self.grid.first_ends(times)

    def take(self, batch: Batch | None, after: Ints, watermark_ms: int) -> Iterator[Told]:
        if batch is not None:
            done = 0
            for place in self._cuts(batch, after):
                start, stop = np.searchsorted(batch.at, (place, place + 1)).tolist()
                self._add(batch.part(slice(done, start)))
                if place:
                    yield from self._close_to(int(after[place - 1]), after)
                yield from self._on_edge(batch.part(slice(start, stop)), place)
                done = stop
            self._add(batch.part(slice(done, None)) if done else batch)
        yield from self._close_to(watermark_ms, after)

    def is_due(self, watermark_ms: int) -> bool:
        return bool(self.due_ends(watermark_ms))

    def due_ends(self, watermark_ms: int) -> list[int]:
        """Ends up to the watermark of windows that hold records, ascending."""
        times = self.grid.unit_times(np.array(self.table.open, dtype=np.int64))
        return self.grid.ends_within(times, self._passed_ms, watermark_ms)

    @property
    def next_end_ms(self) -> int | None:
        """The first end of a window that holds records; None where none does."""
        times = self.grid.unit_times(np.array(self.table.open, dtype=np.int64))
        ends = self.grid.first_ends(times)
        last_ms = int(self.grid.last_ends(times).max(initial=NEVER_MS))
        if last_ms <= self._passed_ms:
            return None
        first_ms = int(ends.min())
        while first_ms <= self._passed_ms:
            first_ms = self.grid.next_end(first_ms)
        return first_ms

    def fresh(self) -> Plain:
        """Empty ones of the same rule."""
        return Plain(self.grid, self._aggregates)

    def finish(self, only: Bools) -> Iterator[Told]:
        for end_ms in self.due_ends(FOREVER_MS):
            panes = self.close(end_ms, only)
            if len(panes):
                yield Told(0, end_ms, False, panes)
        gone = set(np.flatnonzero(only).tolist())
        self._told = {end_ms: told - gone for end_ms, told in self._told.items()}

    def holds(self, n_keys: int) -> Bools:
        """Which of n keys have records in an open window, or were told at the watermark's place."""
        held = np.zeros(n_keys, dtype=np.bool_)
        for ordinal in self.table.open:
            held[self.table.keys(self.table.of(ordinal))] = True
        for told in self._told.values():
            held[list(told)] = True
        return held

    # ---- counting ---------------------------------------------------------------------------

    def merge(self, parts: WindowTable, judged_ms: int) -> Iterator[Told]:
        """See `base.Windows`."""
        slots, ordinals = parts.all_slots()
        last_ends = self.grid.last_ends(self.grid.unit_times(ordinals))
        is_late = last_ends <= max(judged_ms, self._passed_ms)
        self.dropped += int(parts.figures.arrays["n"][slots[is_late]].sum())
        parts.take_out(np.unique(ordinals[is_late]).tolist())
        made = self.table.merge(parts)
        if self.grid.windows_max > 1:
            self.table.figures.arrays["told_ms"][made] = judged_ms
        return iter(())

    def _add(self, batch: Batch) -> None:
        made, firsts = self.table.add(batch.keys, batch.readings, batch.sample_of)
        if self.grid.windows_max > 1:
            self.table.figures.arrays["told_ms"][made] = batch.judged[firsts]

    def _cuts(self, batch: Batch, after: Ints) -> list[int]:
        """Places before whose records windows have to be closed, ascending."""
        past, is_edge = self._past(batch)
        places, edges = batch.at[past], batch.at[past[is_edge]]
        if self.grid.windows_max == 1:
            firsts = NOBODY
        else:
            # Too late for some of its windows only: they are to be told before it is counted. One
            # such place is enough for as long as the watermark passes no further end.
            before = np.where(places > 0, after[places - 1], self._passed_ms)
            firsts = np.unique(self.grid.first_ends(before), return_index=True)[1]
        found: list[int] = np.unique(np.concatenate((edges, places[firsts]))).tolist()
        return found

    def _past(self, batch: Batch) -> tuple[Rows, Bools]:
        """Records for which the watermark is past an end of one of their windows, or at one; and
        which of these come while it stands there."""
        past = np.flatnonzero(batch.judged >= self.grid.first_ends(batch.times))
        return past, self.grid.are_ends(batch.judged[past])

    def _on_edge(self, batch: Batch, place: int) -> Iterator[Told]:
        """Count records of one place in a page, of which some are at the edge."""
        past, is_edge = self._past(batch)
        edges = past[is_edge]
        is_told = np.ones(len(batch.keys), dtype=np.bool_)
        for end_ms in np.unique(batch.judged[edges]).tolist():
            known = self._told.setdefault(end_ms, set())
            these = edges[batch.judged[edges] == end_ms]
            fresh = these[[key not in known for key in batch.keys[these].tolist()]]
            is_told[these] = False
            is_told[fresh] = True
            if len(fresh):
                known.update(batch.keys[fresh].tolist())
                yield Told(place, end_ms, False, self._alone(batch.part(fresh), end_ms))
        more = self.grid.last_ends(batch.times) > batch.judged
        tardy = batch.at[~more & ~is_told]
        self.dropped += len(tardy)
        self.late_at += [tardy] if len(tardy) else []
        self._add(batch.part(np.flatnonzero(more)))

    def _alone(self, batch: Batch, end_ms: int) -> Panes:
        """The late pane of windows that hold only these records."""
        keys, which = np.unique(batch.keys, return_inverse=True)
        figures, scratch = self.table.figures, self.table.scratch(len(keys))
        figures.arrays["key"][scratch] = keys
        np.add.at(figures.arrays["n"], scratch[which], 1)
        figures.update(scratch[which], batch.readings)
        if batch.sample_of is not None:
            firsts = np.unique(which, return_index=True)[1].tolist()
            samples = map(batch.sample_of, firsts)
            self.table.samples.update(zip(scratch.tolist(), samples, strict=True))
        panes = self.table.panes(scratch, self.grid.start_of(end_ms), end_ms, "late:0")
        self.table.free(scratch)
        return panes

    # ---- closing ----------------------------------------------------------------------------

    def _close_to(self, watermark_ms: int, after: Ints) -> Iterator[Told]:
        for end_ms in self.due_ends(watermark_ms):
            record = int(np.searchsorted(after, end_ms))
            panes = self.close(end_ms)
            if not len(panes):  # of heirs whose parent told it already
                continue
            reached_ms = int(after[record]) if record < len(after) else watermark_ms
            if reached_ms == end_ms:
                self._told.setdefault(end_ms, set()).update(panes.keys.tolist())
            yield Told(record, end_ms, True, panes)
        self._passed_ms = max(self._passed_ms, watermark_ms)
        for end_ms in [end for end in self._told if end < watermark_ms]:
            del self._told[end_ms]

    def close(self, end_ms: int, only: Bools | None = None) -> Panes:
        """Take out the window that ends there, of all keys or of some, bool[n_keys]."""
        start_ms = self.grid.start_of(end_ms)
        ordinals = self.grid.units_of(end_ms)
        if len(ordinals) == 1:
            slots = self._wanted(ordinals[0], end_ms, only)
            panes = self.table.panes(slots, start_ms, end_ms, ON_TIME)
        else:
            panes = self._merged(ordinals, start_ms, end_ms, only)
        for ordinal in ordinals:
            slots = self._wanted(ordinal, end_ms, only, is_last=True)
            if len(slots):
                self.table.drop(ordinal, slots)
        return panes

    def _wanted(
        self, ordinal: int, end_ms: int, only: Bools | None, *, is_last: bool = False
    ) -> Rows:
        """A unit's slots that a window counts; `is_last`: none where a later window needs them."""
        slots = self.table.of(ordinal)
        if not len(slots):
            return slots
        if only is not None:
            slots = slots[only[self.table.keys(slots)]]
        if self.grid.windows_max == 1:
            return slots
        if is_last:
            last = self.grid.last_ends(self.grid.unit_times(np.array([ordinal])))
            return slots if int(last[0]) <= end_ms else NOBODY
        return slots[self.table.figures.arrays["told_ms"][slots] < end_ms]

    def _merged(
        self, ordinals: Sequence[int], start_ms: int, end_ms: int, only: Bools | None
    ) -> Panes:
        """What a window of several units tells."""
        parts = [self._wanted(ordinal, end_ms, only) for ordinal in ordinals]
        parts = [part for part in parts if len(part)]
        keys = np.unique(np.concatenate([NOBODY, *(self.table.keys(part) for part in parts)]))
        scratch = self.table.scratch(len(keys))
        figures, samples = self.table.figures, self.table.samples
        figures.arrays["key"][scratch] = keys
        for part in parts:
            into = scratch[np.searchsorted(keys, self.table.keys(part))]
            figures.arrays["n"][into] += figures.arrays["n"][part]
            figures.merge(into, figures, part)
            if samples:
                for mine, theirs in zip(into.tolist(), part.tolist(), strict=True):
                    samples.setdefault(mine, samples.get(theirs, NO_SAMPLE))
        panes = self.table.panes(scratch, start_ms, end_ms, ON_TIME)
        self.table.free(scratch)
        return panes

    # ---- bytes ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        told = {
            end_ms: np.array(sorted(keys), dtype=np.int64).tobytes()
            for end_ms, keys in sorted(self._told.items())
        }
        return Saved(self.table.snapshot(), self._passed_ms, told)

    def restore(self, saved: Any, n_keys: int) -> None:
        """Into empty ones; raises ValueError where it is no table of n keys."""
        self._adopt(_checked(saved), np.arange(n_keys))
        self._passed_ms = saved.passed_ms

    def adopt(self, saved: Any, heirs: Ints) -> None:
        """Take over the windows of the keys that have an heir: its index, -1 for none; int64[n].

        No heir may have windows here yet. Raises ValueError where it is no table of n keys.
        """
        slots = self._adopt(_checked(saved), heirs)
        if self.grid.windows_max > 1:  # what this parent told already is not told again
            told_ms = self.table.figures.arrays["told_ms"]
            told_ms[slots] = np.maximum(told_ms[slots], saved.passed_ms)

    def _adopt(self, saved: Saved, heirs: Ints) -> Rows:
        slots = self.table.adopt(saved.table, heirs)
        for end_ms, raw in saved.told.items():
            keys = np.frombuffer(raw, np.int64)
            if len(keys) and not 0 <= keys.min() <= keys.max() < len(heirs):
                raise ValueError(f"keys told that are none of the {len(heirs)} known")
            mine = heirs[keys]
            self._told.setdefault(end_ms, set()).update(mine[mine >= 0].tolist())
        return slots


def _checked(saved: Any) -> Saved:
    if not isinstance(saved, Saved):
        raise ValueError("windows of a rule that told more than once")
    return saved
