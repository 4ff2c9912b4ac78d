"""Which keys of a rule go, and when: those silent for long, and the oldest where one is too many.

Both are functions of the records and the marks. Silence is judged where the watermark crosses a
multiple of an eighth of `forget_after`, after the record that takes it across: so a key goes
between one and one and an eighth of it after its last record, in event time, and no page cut or
restore shows. A key with an open window or an open alarm stays till the next such point.

The oldest is the one whose last record came the longest ago, in order of records. A 64th part of
`max_groups` goes at once: for one by one, each would cost a look at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace

from processor.core.columns import Columns
from processor.model import Bools, Column, Ints, Rows, RuleSpec

_SWEEPS = 8
_PARTS = 64
_NEVER_MS = -(2**62)
_UNHEARD_MS = 2**61  # of keys learnt from history, until silence is first judged in the stream

_LAST = Column("last_ms", "<i8", _NEVER_MS)  # the newest time of the key's records
_NTH = Column("nth", "<i8")  # the number of its last record among the rule's


class Saved(Struct, frozen=True):
    """A snapshot, with a row a key."""

    columns: dict[str, bytes]
    counted: Annotated[int, Meta(ge=0)]
    evictions: Annotated[int, Meta(ge=0)]
    swept_ms: Annotated[int, Meta(ge=_NEVER_MS, lt=2**62)]


class Piece(NamedTuple):
    """Records of a page up to `stop`, after which keys may go; it ends at `watermark_ms`."""

    stop: int
    watermark_ms: int


class Lifetimes:
    """When each key of a rule on a shard was last heard of."""

    def __init__(self, spec: RuleSpec):
        self._after_ms = _silence_ms(spec)
        self._step_ms = max(1, (self._after_ms or 0) // _SWEEPS)
        self._evicts = spec.overflow == "evict"
        self._part = max(1, spec.max_groups // _PARTS)
        self._columns = Columns([_LAST] * (self._after_ms is not None) + [_NTH] * self._evicts)
        self._swept_ms = _NEVER_MS
        self.counted = 0  # records
        self.evictions = 0  # how often keys were evicted

    def __repr__(self) -> str:
        return f"<Lifetimes after {self.counted} records and {self.evictions} evictions>"

    @property
    def are_endless(self) -> bool:
        """Whether no key ever goes."""
        return self._after_ms is None and not self._evicts

    @property
    def chunk(self) -> int:
        """So many records at a time are looked up where one of them may evict: the rest are looked
        up again."""
        return max(64, min(4_096, 4 * self._part)) if self._evicts else 2**62

    def pieces(self, watermarks: Ints, watermark_ms: int) -> Iterator[Piece]:
        """Cut a page where silence is to be judged; `watermarks` int64[page]: after each record."""
        if self._after_ms is not None and len(watermarks):
            floors = np.concatenate(([self._swept_ms], watermarks // self._step_ms * self._step_ms))
            for i in np.flatnonzero(floors[1:] > np.maximum.accumulate(floors)[:-1]).tolist():
                yield Piece(i + 1, int(watermarks[i]))
        yield Piece(len(watermarks), watermark_ms)

    def note(self, rows: Rows, times: Ints) -> None:
        """Records were counted, in this order: each one's row and event time."""
        if self._after_ms is not None:
            np.maximum.at(self._columns.arrays["last_ms"], rows, times)
        if self._evicts:
            nths = np.arange(self.counted, self.counted + len(rows))
            np.maximum.at(self._columns.arrays["nth"], rows, nths)
            self.counted += len(rows)

    def silent(self, live: Bools, watermark_ms: int) -> Rows:
        """Keys that have been silent for long enough, intp[n]; at each point only once."""
        if self._after_ms is None:
            return np.zeros(0, dtype=np.intp)
        floor_ms = watermark_ms // self._step_ms * self._step_ms
        if floor_ms <= self._swept_ms:
            return np.zeros(0, dtype=np.intp)
        self._swept_ms = floor_ms
        last_ms = self._columns.arrays["last_ms"][: len(live)]
        last_ms[last_ms == _UNHEARD_MS] = floor_ms
        return np.flatnonzero(live & (last_ms <= floor_ms - self._after_ms))

    def oldest(self, live: Bools) -> Rows:
        """The keys to evict, intp[n], ascending."""
        rows = np.flatnonzero(live)
        n = min(self._part, len(rows))
        nths = self._columns.arrays["nth"][rows]
        last = np.partition(nths, n - 1)[n - 1]
        tied = np.flatnonzero(nths == last)  # heirs of two parents, which counted each their own
        before = np.flatnonzero(nths < last)
        return np.sort(rows[np.concatenate((before, tied[: n - len(before)]))])

    def ensure(self, rows: int) -> None:
        self._columns.ensure(rows)

    def forget(self, rows: Rows) -> None:
        self._columns.reset(rows)

    def snapshot(self, n: int) -> Saved:
        """Partly live memory: encode it before anything changes."""
        columns = self._columns.snapshot(n)
        return Saved(columns, self.counted, self.evictions, self._swept_ms)

    def learnt(self, n: int) -> Saved:
        """A snapshot from which they go on elsewhere in time: their silence begins there."""
        if self._after_ms is not None:
            self._columns.arrays["last_ms"][:n] = _UNHEARD_MS
        return replace(self.snapshot(n), swept_ms=_NEVER_MS)

    def restore(self, saved: Saved, n: int) -> None:
        """The inverse; raises ValueError where it is not of n keys of this rule."""
        self._columns.restore(saved.columns, n)
        self.counted, self.evictions = saved.counted, saved.evictions
        self._swept_ms = saved.swept_ms

    def adopt(self, rows: Rows, saved: Saved, chosen: Bools) -> None:
        """Go on with the `chosen` keys of a parent in these rows; after every parent's, so that no
        number is given twice. Raises ValueError as `restore`."""
        self._columns.put(rows, saved.columns, chosen)
        self.counted = max(self.counted, saved.counted)
        self.evictions = max(self.evictions, saved.evictions)


def _silence_ms(spec: RuleSpec) -> int | None:
    """How long a key must be silent to go; None: it never does."""
    if spec.window.kind == "running":
        return spec.window.ttl_ms
    return spec.forget_after_ms
