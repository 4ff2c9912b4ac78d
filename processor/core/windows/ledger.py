"""Windows that tell more than once: their figures, and what each has told so far.

A row is one window of one key. Its state:

    OPEN ── told on time, or by a first record after its end ──→ TOLD      while late panes may come
      │                                                           │
      └──────────── the same, and no late pane can come ──→ SHUT  └─ `final` pane ─→ gone

A SHUT row holds no figures: it stays to say that a record comes too late for it, until no record of
its time can come any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from msgspec import Struct

from processor.core.figures import Figures
from processor.core.windows.base import NO_SAMPLE, NOBODY, Panes, Sample
from processor.model import AggregateSpec, Bools, Column, Ints, Rows

FREE, OPEN, TOLD, SHUT = range(4)
_NO_SAMPLE_MS = 2**62

OWN = (
    Column("key", "<i4"),
    Column("start_ms", "<i8"),
    Column("end_ms", "<i8"),
    Column("state", "<i4"),
    Column("n", "<i8"),  # records that the figures hold
    Column("since", "<i8"),  # records since its last pane
    Column("since_told", "<i8"),  # those of them that came when it had been told on time
    Column("early", "<i4"),  # early panes so far
    Column("late", "<i4"),
    Column("is_matched", "?"),  # its predicate was true once
    Column("sample_ms", "<i8", _NO_SAMPLE_MS),  # time of the record that it has its sample from
)


class Saved(Struct, frozen=True):
    """A snapshot: rows in order of (key, start, end)."""

    n: int
    columns: dict[str, bytes]
    samples: list[Sample]


class Ledger:
    """The rows, by number; whoever makes them knows how they are found."""

    def __init__(self, aggregates: Sequence[AggregateSpec]):
        self.figures = Figures(aggregates, OWN)
        self.samples: dict[int, Sample] = {}
        self._free: list[int] = []
        self._made = 0

    def __len__(self) -> int:
        return self._made - len(self._free)

    def __repr__(self) -> str:
        return f"<Ledger {len(self)} windows>"

    def column(self, name: str) -> Any:
        """One of `OWN`, by row; look it up at each use, as it is replaced when it grows."""
        return self.figures.arrays[name]

    def rows(self, *states: int) -> Rows:
        """All rows in these states, ascending."""
        state = self.column("state")[: self._made]
        return np.flatnonzero(np.isin(state, states) if len(states) > 1 else state == states[0])

    @property
    def all(self) -> Rows:
        return np.flatnonzero(self.column("state")[: self._made] != FREE)

    def make(self, keys: Ints, starts: Ints, ends: Ints) -> Rows:
        """Fresh open rows."""
        rows = self._allocate(len(keys))
        for name, values in (("key", keys), ("start_ms", starts), ("end_ms", ends)):
            self.column(name)[rows] = values
        self.column("state")[rows] = OPEN
        return rows

    def _allocate(self, n: int) -> Rows:
        reused = [self._free.pop() for _ in range(min(n, len(self._free)))]
        fresh = range(self._made, self._made + n - len(reused))
        self._made = fresh.stop
        self.figures.ensure(self._made)
        return np.array([*reused, *fresh], dtype=np.intp)

    def free(self, rows: Rows) -> None:
        self._forget_samples(rows)
        self.figures.reset(rows)
        self._free.extend(rows.tolist())

    def empty(self, rows: Rows) -> None:
        """Forget the figures of these rows, and nothing else."""
        self._forget_samples(rows)
        kept = {spec.name: self.column(spec.name)[rows] for spec in OWN}
        self.figures.reset(rows)
        for name, values in kept.items():
            if name not in ("n", "sample_ms"):
                self.column(name)[rows] = values

    def _forget_samples(self, rows: Rows) -> None:
        if self.samples:
            for row in rows.tolist():
                self.samples.pop(row, None)

    def merge(self, into: int, others: Rows) -> None:
        """Add all of other rows to one, and free them."""
        for other in others.tolist():
            at, one = np.array([into]), np.array([other])
            self.figures.merge(at, self.figures, one)
            for name in ("n", "since", "since_told"):
                self.column(name)[at] += self.column(name)[one]
            for name in ("early", "late", "is_matched"):
                column = self.column(name)
                column[at] = np.maximum(column[at], column[one])
            if self.column("sample_ms")[other] < self.column("sample_ms")[into]:
                self.column("sample_ms")[into] = self.column("sample_ms")[other]
                self.samples[into] = self.samples[other]
        self.free(others)

    def panes(self, rows: Rows, names: Sequence[str], finals: Bools) -> Panes:
        """What n rows have to tell, in order of key."""
        keys = self.column("key")[rows]
        order = np.argsort(keys, kind="stable")
        rows = rows[order]
        starts, ends = self.column("start_ms")[rows], self.column("end_ms")[rows]
        return Panes(
            keys[order].astype(np.intp),
            starts,
            self.column("n")[rows],
            self.values(rows, ends - starts),
            [self.samples.get(row, NO_SAMPLE) for row in rows.tolist()],
            [names[i] for i in order.tolist()],
            finals[order].tolist(),
        )

    def values(self, rows: Rows, lengths_ms: Ints) -> Mapping[str, Any]:
        return self.figures.results(rows, lengths_ms)

    # ---- bytes ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        rows = self.all
        order = np.lexsort([self.column(name)[rows] for name in ("end_ms", "start_ms", "key")])
        rows = rows[order]
        samples = [self.samples.get(row, NO_SAMPLE) for row in rows.tolist()]
        return Saved(len(rows), self.figures.take(rows), samples)

    def adopt(self, saved: Saved, heirs: Ints) -> Rows:
        """Take over the rows of the keys that have an heir: its index, -1 for none; int64[n].

        Gives them in their order. Raises ValueError where it is no ledger of n keys.
        """
        keys = np.frombuffer(saved.columns.get("key", b""), "<i4").astype(np.intp)
        if len(keys) != saved.n or len(saved.samples) != saved.n:
            raise ValueError(f"{saved.n} windows, {len(keys)} keys, {len(saved.samples)} samples")
        if saved.n and not 0 <= keys.min() <= keys.max() < len(heirs):
            raise ValueError(f"windows of other keys than the {len(heirs)} known")
        chosen = heirs[keys] >= 0 if saved.n else np.zeros(0, dtype=np.bool_)
        if not chosen.any():
            return NOBODY
        rows = self._allocate(int(chosen.sum()))
        self.figures.put(rows, saved.columns, chosen)
        self.column("key")[rows] = heirs[keys[chosen]]
        if not np.isin(self.column("state")[rows], (OPEN, TOLD, SHUT)).all():
            raise ValueError("windows in a state that there is none")
        for row, sample in zip(
            rows.tolist(), compress(saved.samples, chosen.tolist()), strict=True
        ):
            if tuple(sample) != NO_SAMPLE:
                self.samples[row] = (sample[0], sample[1])
        return rows
