"""One version of a global rule in one bucket: who tells of it, what is held, and its windows.

Versions are worlds of their own: during a deploy each hears only of the shards that run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor.codecs.base import Fault
from processor.core import rules
from processor.core.merge import members, slices
from processor.core.merge.holding import Holding, Queue, Whole
from processor.core.merge.members import NEVER_MS, Behind, Members, Report
from processor.core.merge.merged import MergedRule
from processor.core.merge.partials import Closing, Deltas
from processor.core.rules import Firing, RulePlan
from processor.model import Ints, Shard

_NO_RECORDS: Ints = np.zeros(0, dtype=np.int64)


class Saved(Struct, frozen=True):
    """A world's section of a snapshot; rule version and bucket are the section's name."""

    rule: rules.Saved
    members: members.Saved
    queues: dict[str, Queue]


class Taken(NamedTuple):
    """What became of one record; its firings are to be taken to the end before the next one."""

    firings: Iterator[Firing]
    counted: int = 0  # records that went into windows
    late: int = 0
    is_repeat: bool = False
    fault: Fault | None = None


class World:
    """See above. `Members` is who is heard of, `Holding` what can't be applied yet."""

    def __init__(self, plan: RulePlan, app: str, shard: Shard, bucket: int, seeks: int = 0):
        """`seeks`: how often the merge stream was sought; what is told again has ids of its own."""
        self._again = f"/{seeks}" if seeks else ""
        self._members = Members()
        self._holding = Holding()
        self.rule = MergedRule(plan, app, shard, bucket, self._members)

    def __repr__(self) -> str:
        return f"<World {self._members!r} {self._holding!r} {self.rule!r}>"

    @property
    def watermark_ms(self) -> int | None:
        """Merged; None until all shards were told of."""
        merged_ms = self._members.watermark_ms
        return None if merged_ms == NEVER_MS else merged_ms

    @property
    def behind(self) -> Behind | None:
        """Who holds back the first window that is open; None where nobody does."""
        end_ms = self.rule.windows.next_end_ms
        return None if end_ms is None else self._members.behind(end_ms)

    # ---- what comes -------------------------------------------------------------------------

    def take(self, closing: Closing, size: int, arrival_ms: int) -> Iterator[Taken]:
        """A record of `size` bytes that arrived then: what it, and what it set free, tells."""
        for whole in self._holding.join(arrival_ms):
            yield self._apply(whole)
        standing = self._members.standing(closing.teller)
        if standing == "stale":
            yield Taken(iter(()), is_repeat=True)
            return
        if standing == "new":
            self._members.supersede(closing.teller)
        fault = self._fault(closing)
        if fault is not None:  # its number and watermark count all the same
            yield Taken(iter(()), fault=fault)
            closing = replace(closing, deltas=None)
        ready = self._holding.put(closing, size, arrival_ms)
        if ready is None:
            yield Taken(iter(()), is_repeat=True)
            return
        for whole in ready:
            yield self._apply(whole)

    @property
    def idle_from_ms(self) -> int | None:
        """From where on idleness moves its time: None unless all shards are quiet."""
        return self.watermark_ms if self._members.are_quiet else None

    def is_due(self, watermark_ms: int) -> bool:
        """Whether a mark that moves its time there would have an effect."""
        from_ms = self.idle_from_ms
        return from_ms is not None and from_ms < watermark_ms and self.rule.is_due(watermark_ms)

    def advance(self, watermark_ms: int) -> Taken:
        """Apply a mark: time passed while all were quiet."""
        self._members.advance(watermark_ms)
        return Taken(self._fire())

    def stall(self, shard_id: str, watermark_ms: int) -> Taken:
        """Apply a mark: go on without a shard."""
        self._members.stall(shard_id, watermark_ms)
        return Taken(self._fire())

    def _fault(self, closing: Closing) -> Fault | None:
        """What is wrong with its deltas, if so."""
        try:
            if closing.deltas is not None:
                self.rule.check(closing.deltas)
        except ValueError as error:
            return Fault("no_partial", f"deltas that don't fit the rule: {error!s:.200}")
        return None

    def _apply(self, whole: Whole) -> Taken:
        firings: list[Firing] = []
        records, reach_ms = 0, NEVER_MS
        for split in whole.splits:
            if split.deltas is not None:
                firings += self.rule.merge(split.deltas, self._members.watermark_ms)
                records += int(slices.counts(split.deltas.windows).sum())
                reach_ms = max(reach_ms, self._reach_ms(split.deltas))
        late = self.rule.take_dropped()
        last = whole.splits[-1]
        self._members.report(
            Report(
                last.teller,
                last.watermark_ms,
                last.is_idle,
                last.is_ended,
                reach_ms,
                whole.is_after_gap,
            )
        )
        self._holding.keep(self._members.ids)
        return Taken(chain(firings, self._fire()), records - late, late)

    def _reach_ms(self, deltas: Deltas) -> int:
        return int(slices.last_ends(self.rule.bare, deltas.windows).max(initial=NEVER_MS))

    def _fire(self) -> Iterator[Firing]:
        self.rule.speak_for(self._members.incarnation + self._again)
        return self.rule.take(None, _NO_RECORDS, self._members.watermark_ms)

    # ---- state ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        return Saved(self.rule.snapshot(), self._members.snapshot(), self._holding.snapshot())

    def learnt(self) -> Saved | None:
        """What detectors learnt, as `Rule.learnt`; whoever told it is forgotten."""
        rule = self.rule.learnt()
        return None if rule is None else Saved(rule, Members().snapshot(), Holding().snapshot())

    def restoring(self, saved: Saved) -> Iterator[None]:
        """The inverse of `snapshot`, in turns; to be taken to the end. Raises ValueError."""
        self._members.restore(saved.members)
        self._holding.restore(saved.queues)
        yield from self.rule.restoring(saved.rule)

    def converting(self, saved: rules.Saved) -> Iterator[None]:
        """Go on with what another version of the rule learnt, not with its windows: what shards
        told that version, they don't tell this one again. Raises ValueError."""
        yield from self.rule.learning(saved)
