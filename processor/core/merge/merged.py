"""A global rule where its parts meet: `rules.Rule`, with deltas in place of records."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np
from msgspec.structs import replace

from processor.core import events, figures
from processor.core.beginnings import Starts
from processor.core.keys import KeyTable
from processor.core.merge import slices
from processor.core.merge.members import Members
from processor.core.merge.partials import Deltas
from processor.core.rules import Firing, Rule, RulePlan, Saved
from processor.core.telling import Tell
from processor.core.windows import WindowTable
from processor.model import Bools, Ints, Rows, Shard


class MergedRule(Rule):
    """One bucket of a global rule. What shards tell of themselves, `members` knows."""

    def __init__(self, plan: RulePlan, app: str, shard: Shard, bucket: int, members: Members):
        super().__init__(plan, app, "", shard)
        spec = plan.spec
        most = groups_max(spec.max_groups, plan.buckets)
        # No record is here to be put aside: what is one too many counts in `other`.
        self._ruling.keys = self.keys = KeyTable(spec.group_by, None, shard, most)
        assert plan.grid is not None, "refused where the pipeline file is read"
        self.bare = WindowTable(plan.grid, spec.aggregates)  # stays empty: what shards tell
        self._members = members
        self._starts = _Starts(shard, members)
        empty_values = figures.nothing(spec.aggregates)
        self._tell = _Tell(spec, self._tell.identity, self.keys, self._starts, empty_values)
        self._tell.members, self._tell.bucket = members, bucket

    def _share(self) -> float:
        return 1 / self.plan.buckets

    def check(self, deltas: Deltas) -> None:
        """Raises ValueError where these are no deltas of this rule."""
        n_fields = len(self.plan.spec.group_by)
        if any(len(values) != n_fields for values in deltas.keys):
            raise ValueError(f"keys that are not of {n_fields} fields")
        self.bare.fresh().adopt(deltas.windows, np.arange(len(deltas.keys)))
        if (slices.counts(deltas.windows) < 1).any():
            raise ValueError("windows without a record")

    def merge(self, deltas: Deltas, watermark_ms: int) -> Iterator[Firing]:
        """Add what a shard counted, checked; what the watermark has passed is told late, or is
        dropped (see `take_dropped`). To be taken to the end."""
        n = len(deltas.keys)
        if not n:
            return
        columns = [list(column) for column in zip(*deltas.keys, strict=True)]
        rows = self.keys.indices(columns, [""] * n)
        self._ensure()
        firsts = slices.first_ends(self.bare, deltas.windows)
        np.minimum.at(
            self._by_key.arrays["first_end_ms"], rows[slices.rows_of(deltas.windows)], firsts
        )
        self._lifetimes.note(rows[slices.rows_of(deltas.windows)], firsts - 1)
        for row in np.unique(rows[_repeats(rows)]).tolist():  # of `other` only
            deltas, rows = slices.joined(deltas, rows, row, self.bare)
        parts = self.bare.fresh()
        parts.adopt(deltas.windows, rows)
        for told in self.windows.merge(parts, watermark_ms):
            yield self._firing(told)

    def take_dropped(self) -> int:
        """Records among what was merged since it was last asked that no window took."""
        dropped, self.windows.dropped = self.windows.dropped, 0
        return dropped

    def learning(self, saved: Saved) -> Iterator[None]:
        """Take over what another version's section knows of its keys, without its windows."""
        nothing = self.windows.fresh().snapshot()
        yield from self.restoring(replace(saved, windows=nothing))
        self._scorer.forget_volatile(np.flatnonzero(self.keys.live))

    def speak_for(self, incarnation: str) -> None:
        """Under which incarnation of the source the next events are told."""
        if self._tell.identity.incarnation != incarnation:
            self._tell.identity = replace(self._tell.identity, incarnation=incarnation)


class _Tell(Tell):
    """Each bucket has an `other` of its own; every other group is in one bucket only."""

    members: Members
    bucket: int

    def as_told(self, window: events.Window, key: int) -> events.Window:
        part = f"bucket-{self.bucket}" if self.keys.is_other(key) else None
        return replace(window, part=part, is_complete=self.members.is_complete)

    def as_of_all(self, window: events.Window) -> events.Window:
        part = f"bucket-{self.bucket}"
        return replace(window, part=part, is_complete=self.members.is_complete)


class _Starts(Starts):
    """The beginning of all keys: as late as that of the shard that began last."""

    def __init__(self, shard: Shard, members: Members):
        super().__init__(shard)
        self._members = members

    def know(self, rows: Rows, places: bytes, homeless: Bools) -> None:
        pass

    def may_be_whole(self, start_ms: int) -> bool:
        return start_ms >= self._members.since_ms

    def is_partial(self, row: int, start_ms: int) -> bool:
        return not self.may_be_whole(start_ms)

    def partial(self, rows: Rows, start_ms: int) -> Bools:
        return np.full(len(rows), not self.may_be_whole(start_ms))

    def origin(self, row: int) -> str:
        return self._members.origin

    def window_origin(self, row: int, start_ms: int, *, is_other: bool) -> str:
        return "" if self.may_be_whole(start_ms) and not is_other else self._members.origin


def groups_max(max_groups: int, buckets: int) -> int:
    """How many groups one bucket holds of those that the rule may have.

    Groups fall into buckets by hash: of `max_groups` groups some have more than their part. Six
    standard deviations more has one in a billion, and a few more where parts are small.
    """
    part = -(-max_groups // buckets)
    return min(max_groups, part + 6 * (isqrt(part) + 1) + 16)


def _repeats(rows: Ints) -> Bools:
    """Which of n rows are there more than once, bool[n]."""
    _, which, times = np.unique(rows, return_inverse=True, return_counts=True)
    more: Bools = times[which] > 1
    return more
