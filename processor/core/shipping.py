"""A global rule on one shard: it counts, and tells the merge stage what it counted.

Whenever the shard's watermark passes an end of a window, a closing tells each bucket of groups the
watermark, and all windows that ended with what was counted in them since the last closing. What
comes later, within the rule's lateness, goes with a later closing. Keys live as long as they have
something to tell; the detectors are at the other end.

    number 0    told at the first record or mark of this life of the rule, whatever it passes
    quiet       no record for long, by a mark: nobody need wait for this shard until the next one;
                where all are quiet, the merge stage's own idle marks move its time
    ended       the shard is at its end: everything is told, and its children begin with nothing
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from processor.core import beginnings, windows
from processor.core.admission import Tally, admit
from processor.core.beginnings import ALWAYS_MS, Beginnings
from processor.core.keys import KeyTable, SavedKeys
from processor.core.merge import partials, slices
from processor.core.merge.partials import Closing, Deltas, Teller
from processor.core.records import Records
from processor.core.rules import Firing, Heritage, RulePlan
from processor.core.windows import WindowTable
from processor.model import Bools, Ints, Partial, Shard

NO_WATERMARK = -(2**62)
_NO_MARKS: Ints = np.zeros(0, dtype=np.int64)


class Saved(Struct, frozen=True):
    """A rule's section of a snapshot; its version is the section's name."""

    rule: str
    state_version: str
    beginnings: Beginnings
    keys: SavedKeys
    windows: windows.Saved
    number: Annotated[int, Meta(ge=0)]
    told_ms: Annotated[int, Meta(ge=NO_WATERMARK, lt=2**62)]
    is_quiet: bool


class Shipper:
    """The state of one global rule on one shard; in a shard's pipeline as `rules.Rule` is."""

    def __init__(self, plan: RulePlan, incarnation: str, shard: Shard):
        self.plan = plan
        self._incarnation = incarnation
        self._shard = shard
        self._beginnings: Beginnings = ()
        self._number = 0  # of the next closing
        self._told_ms = NO_WATERMARK
        self._is_quiet = False
        spec = plan.spec
        assert plan.grid is not None, "refused where the pipeline file is read"
        self.windows = WindowTable(plan.grid, spec.aggregates)
        self.keys = KeyTable(spec.group_by, None, shard, spec.max_groups, spec.overflow)
        self.tally = Tally()

    def __repr__(self) -> str:
        return f"<Shipper {self.plan.spec.name} at {self._number} {self.windows!r}>"

    # ---- records and marks ------------------------------------------------------------------

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which records come too late to be told, by the watermark before each."""
        ends = self.windows.grid.last_ends(times)
        lateness_ms = self.plan.spec.lateness_ms
        # Without lateness a window that the watermark has reached is told, for good.
        return watermarks > ends + lateness_ms if lateness_ms else watermarks >= ends

    def is_still(self, watermark_ms: int, later_ms: int) -> bool:
        """As `rules.Rule.is_still`: whether such records make no closing."""
        if self._is_quiet or not self._number or self.plan.spec.lateness_ms:
            return False
        here, there = self._ends_passed(np.array([self._told_ms, later_ms])).tolist()
        return bool(there <= here)

    def take(
        self, records: Records | None, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """Count records, up to each that makes a closing; as `rules.Rule.take`."""
        at = 0
        while (record := self._next_closing(watermarks, watermark_ms)) is not None:
            if records is not None:
                stop = int(np.searchsorted(records.at, record, side="right"))
                self._add(records.part(slice(at, stop)))
                at = stop
            to_ms = int(watermarks[record]) if len(watermarks) else watermark_ms
            yield self._firing(record, to_ms)
        if records is not None:
            self._add(records.part(slice(at, None)))

    def _next_closing(self, watermarks: Ints, watermark_ms: int) -> int | None:
        """The record of the page that makes the next closing; 0 for a mark that makes one."""
        is_mark = not len(watermarks)
        if is_mark and self._is_quiet:
            return None
        if self._number == 0 or self._is_quiet:
            return 0
        moves = np.array([watermark_ms]) if is_mark else watermarks
        passed = self._ends_passed(moves) > self._ends_passed(np.array([self._told_ms]))[0]
        return int(passed.argmax()) if passed.any() else None

    def _ends_passed(self, watermarks: Ints) -> Ints:
        """A number for each that grows whenever the watermark passes an end of a window."""
        ordinals = self.windows.grid.units(np.maximum(watermarks, 0))
        return np.where(watermarks < 0, NO_WATERMARK, ordinals)

    def quieten(self, watermark_ms: int) -> Iterator[Firing]:
        """Apply a mark that says so: nobody need wait for this shard, if all is told."""
        if self.is_quiet_due:
            self._is_quiet = True
            yield self._firing(0, watermark_ms, is_idle=True)

    def is_due(self, watermark_ms: int) -> bool:
        """Whether a mark that moves the watermark there would tell something."""
        return bool(len(self.windows)) and self._next_closing(_NO_MARKS, watermark_ms) is not None

    @property
    def is_quiet_due(self) -> bool:
        """Whether others wait for a shard that has nothing to tell."""
        return not self._is_quiet and not len(self.windows)

    def finish(self) -> Iterator[Partial]:
        """The shard is at its end: the last closing, with all that is open."""
        yield from self._close(self._told_ms, is_ended=True)

    def _add(self, records: Records) -> None:
        if len(records.at):
            _, records, rows = admit(self.keys, records, self.tally)
            self.windows.add(rows, records.readings, records.sample_of)

    # ---- closings ---------------------------------------------------------------------------

    def _firing(self, record: int, to_ms: int, *, is_idle: bool = False) -> Firing:
        self._is_quiet = is_idle
        cost = len(self.windows)
        return Firing(record, to_ms, 0, cost, self._close(to_ms, is_idle=is_idle))

    def _close(
        self, to_ms: int, *, is_idle: bool = False, is_ended: bool = False
    ) -> Iterator[Partial]:
        """One closing: the state moves on at once, its records are made as they are taken."""
        due = self._take_out(None if is_ended else to_ms)
        number, self._number, self._told_ms = self._number, self._number + 1, to_ms
        watermark_ms = None if to_ms == NO_WATERMARK else to_ms

        def record(bucket: int, deltas: Deltas | None, split: int, splits: int) -> Partial:
            return partials.partial(
                Closing(
                    partials.FORMAT,
                    self.plan.version,
                    bucket,
                    self.plan.buckets,
                    self._teller(),
                    number,
                    split,
                    splits,
                    watermark_ms,
                    is_idle,
                    is_ended,
                    deltas,
                )
            )

        return self._records(due, record)

    def _records(self, due: Deltas, record: slices.Record) -> Iterator[Partial]:
        by_bucket = slices.by_bucket(due, self.plan.buckets, self.windows)
        for bucket in range(self.plan.buckets):
            yield from slices.split(bucket, by_bucket.get(bucket), record, self.windows)

    def _take_out(self, until_ms: int | None) -> Deltas:
        """Windows that end up to then, all where it is None; what stays is counted on."""
        due = self.windows.open if until_ms is None else self.windows.ended(until_ms)
        saved = self.windows.take_out(due)
        deltas = slices.named(saved, self._values_of, self.windows)
        gone = np.setdiff1d(np.flatnonzero(self.keys.live), self.windows.open_keys())
        self.keys.forget(gone)
        return deltas

    def _values_of(self, row: int) -> list[str | int]:
        return [value for _, value in self.keys.group(row).key]

    def _teller(self) -> Teller:
        since_ms = max((one.since_ms for one in self._beginnings), default=ALWAYS_MS)
        origin = "|".join(sorted({one.origin for one in self._beginnings if one.origin}))
        if len(origin) > 200:  # of many parents
            origin = hashlib.sha256(origin.encode()).hexdigest()
        since = since_ms if since_ms > ALWAYS_MS else None
        return partials.teller(self._shard, self._incarnation, since, origin)

    # ---- state ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        return Saved(
            self.plan.spec.name,
            self.plan.state_version,
            self._beginnings,
            self.keys.snapshot(),
            self.windows.snapshot(),
            self._number,
            self._told_ms,
            self._is_quiet,
        )

    def resume(self, first_ms: int, origin: str) -> None:
        """The first record came, at that time, of a stream that begins in the midst of things."""
        self._number, self._told_ms, self._is_quiet = 0, NO_WATERMARK, False
        self.begin(first_ms, origin)

    def begin(self, newest_ms: int | None, origin: str) -> None:
        """Start anew on a shard whose records up to now had times up to `newest_ms`.

        Also where there were none, it is a life of its own: an earlier one may have told so.
        """
        known_ms = ALWAYS_MS - 1 if newest_ms is None else newest_ms
        self._beginnings = beginnings.anew(self._shard, known_ms, origin)

    def restoring(self, saved: Saved) -> Iterator[None]:
        """The inverse of `snapshot`, in turns; to be taken to the end. Raises ValueError."""
        self._beginnings = saved.beginnings
        self._number, self._told_ms = saved.number, saved.told_ms
        self._is_quiet = saved.is_quiet
        yield
        self._restore(saved)

    def converting(self, saved: Saved, newest_ms: int | None, origin: str) -> Iterator[None]:
        """Go on from another version's section: with what it has not told, but as a life of its
        own. What the other version told already is missing in the windows that are open."""
        self._restore(saved)
        self.begin(newest_ms, origin)
        yield

    def _restore(self, saved: Saved) -> None:
        self.keys.restore(saved.keys)
        self.windows.adopt(saved.windows, np.arange(len(saved.keys)))

    def adopt(self, heritages: Sequence[Heritage]) -> None:
        """The parents told everything: only where they began is inherited."""
        told = (heritage.beginnings for heritage in heritages)
        self._beginnings = beginnings.inherited(told, self._shard)
