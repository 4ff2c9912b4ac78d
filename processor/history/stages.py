"""Both stages of a pipeline without streams: a shard tells, and what is global meets at once.

Time is that of what is fed. A `ShardPipeline` a shard; where rules are global, a `MergePipeline`
that has all buckets, by which each of a shard's steps goes before the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from processor.core.homes import place_of, range_of
from processor.core.merge.partials import enveloped
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.core.rules import Learnt, together
from processor.history.lines import Recorded
from processor.history.shards import LoneShard
from processor.model import Page, Partial, Shard, Step

INCARNATION = "0.0"  # of a stream made at the epoch, and never sought
MERGE = Shard("merge")


class Told(NamedTuple):
    """A step, and whether the merge stage made it."""

    step: Step
    is_merged: bool


class Stages:
    """The shards of the source, and the merge stage if a rule is global."""

    def __init__(self, plan: Plan, shards: Sequence[Shard]) -> None:
        behind_ms = plan.pipeline.event.out_of_orderness_ms
        self._ranges = [range_of(shard) for shard in shards]
        self.shards = [
            LoneShard(ShardPipeline(plan, shard, INCARNATION), behind_ms) for shard in shards
        ]
        merge = plan.pipeline.merge if any(rule.is_global for rule in plan.rules) else None
        self.merge: LoneShard | None = None
        if merge is not None:
            merging = MergePipeline(plan, MERGE, INCARNATION)
            self.merge = LoneShard(merging, behind_ms, merge.on_stall_ms)
        self._numbers = 0  # sequence numbers given so far

    def __repr__(self) -> str:
        return f"<Stages {self.shards!r} {self.merge!r}>"

    def home(self, partition_key: str) -> int | None:
        """Which shard the service would route it to; None where none holds its hash key."""
        if len(self._ranges) == 1:
            return 0
        place = place_of(partition_key)
        return next((i for i, held in enumerate(self._ranges) if place in held), None)

    # ---- what comes

    def feed(self, nth: int, records: Sequence[Recorded], date_ms: int) -> Iterator[Told]:
        """Records of one shard, of one page; all that follows, to be taken to the end."""
        page = Page(
            [record.payload for record in records],
            self._next_numbers(len(records)),
            [record.partition_key for record in records],
            np.array([record.arrival_ms for record in records], dtype=np.int64),
            millis_behind=0,
            date_ms=date_ms,
        )
        return self._met(self.shards[nth].feed(page), date_ms)

    def feed_nothing(self, date_ms: int, which: Sequence[int] | None = None) -> Iterator[Told]:
        """An empty answer to each shard, or to some, and to the merge stage."""
        for nth in range(len(self.shards)) if which is None else which:
            yield from self._met(self.shards[nth].feed_nothing(date_ms), date_ms)
        if self.merge is not None:
            yield from (Told(step, True) for step in self.merge.feed_nothing(date_ms))

    def advance(self, nth: int, to_ms: int, date_ms: int) -> Iterator[Told]:
        """A mark moves the watermark of one shard there."""
        return self._met(self.shards[nth].advance(to_ms), date_ms)

    def quieten(self, nth: int, date_ms: int) -> Iterator[Told]:
        """Global rules need not wait for one shard until its next record."""
        return self._met(self.shards[nth].quieten(), date_ms)

    @property
    def learnt(self) -> Mapping[str, Learnt]:
        """How much the detectors of both stages know, by rule that has some."""
        each = [shard.machine for shard in self.shards]
        merged = [] if self.merge is None else [self.merge.machine]
        return together(machine.learnt_of for machine in (*each, *merged))

    # ---- what is told

    def _met(self, steps: Iterable[Step], date_ms: int) -> Iterator[Told]:
        """Steps of a shard, then those of the merge stage that they cause."""
        partials: list[Partial] = []
        for step in steps:
            partials += step.partials
            yield Told(step, False)
        if partials:
            assert self.merge is not None, "only a global rule has partials"
            page = self._merge_page(partials, date_ms)
            yield from (Told(step, True) for step in self.merge.feed(page))

    def _merge_page(self, partials: Sequence[Partial], date_ms: int) -> Page:
        return Page(
            [enveloped(partial.body, 0) for partial in partials],
            self._next_numbers(len(partials)),
            [partial.shard_id for partial in partials],
            np.full(len(partials), date_ms, dtype=np.int64),
            millis_behind=0,
            date_ms=date_ms,
        )

    def _next_numbers(self, n: int) -> list[str]:
        first, self._numbers = self._numbers, self._numbers + n
        return [str(number) for number in range(first, self._numbers)]


def even_shards(count: int) -> list[Shard]:
    """The hash space in as many equal parts, as the service makes a new stream's."""
    bounds = [i * 2**128 // count for i in range(count + 1)]
    return [Shard(f"shard-{i}", bounds[i], bounds[i + 1] - 1) for i in range(count)]
