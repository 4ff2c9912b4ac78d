"""Runs a case through the production pipeline, both stages of it, and judges each step.

A `ShardPipeline` a shard; where rules are global, what these tell goes at once through a
`MergePipeline` that has all buckets.

Time is the case's own: it goes on with records, with `idle` and with `arrival`, and nothing else.
An idle shard is judged as the runtime does it, by answers 5 s apart that bring no records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import orjson
from msgspec import Struct

from processor import zones
from processor.core.homes import place_of, range_of
from processor.core.merge.partials import enveloped
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.core.progress import ANSWERS_APART_MS_MAX
from processor.model import (
    DeadLetter,
    DerivedEvent,
    Page,
    Partial,
    Shard,
)
from processor.model import Step as Yielded
from processor.testing.comparing import Difference, Outcome, Told, differences
from processor.testing.shards import LoneShard
from processor.testing.suite import Case, Idle, Records, Sent, Step, Suite, Watermark

INCARNATION = "0.0"  # of a stream made at the epoch, and never sought


class Wrong(Struct, frozen=True):
    """A step after which something else was told; `number` counts from 1.

    `watermarks_ms`: of each shard by then; None where there was no record yet.
    """

    number: int
    line: int
    watermarks_ms: tuple[int | None, ...]
    differences: tuple[Difference, ...]


class Verdict(Struct, frozen=True):
    """What became of a case: nothing wrong, or the steps that were."""

    case: str
    line: int
    steps: int
    wrong: tuple[Wrong, ...]


def run(suite: Suite, only: str = "") -> list[Verdict]:
    """Every case whose name contains `only`, each from nothing."""
    plan = compile(suite.pipeline, zones.tables(suite.pipeline))
    return [judge(plan, suite.start_ms, case) for case in suite.cases if only in case.name]


def judge(plan: Plan, start_ms: int, case: Case) -> Verdict:
    trial = Trial(plan, start_ms, case)
    wrong = []
    for number, step in enumerate(case.steps, 1):
        trial.take(step)
        if step.expect is not None:
            found = differences(step.expect, trial.outcome())
            if found:
                wrong.append(Wrong(number, step.line, trial.watermarks_ms, tuple(found)))
    return Verdict(case.name, case.line, len(case.steps), tuple(wrong))


class Trial:
    """The shards of one case, and what they have told since somebody asked."""

    def __init__(self, plan: Plan, start_ms: int, case: Case) -> None:
        shards = _even_shards(case.shards)
        self._rules = case.rules
        self._clock_ms = start_ms
        self._numbers = 0  # sequence numbers given so far
        self._ranges = [range_of(shard) for shard in shards]
        behind_ms = plan.pipeline.event.out_of_orderness_ms
        self._shards = [
            LoneShard(ShardPipeline(plan, shard, INCARNATION), behind_ms) for shard in shards
        ]
        merge = plan.pipeline.merge if any(rule.is_global for rule in plan.rules) else None
        self._merge: LoneShard | None = None
        if merge is not None:
            merging = MergePipeline(plan, Shard("merge"), INCARNATION)
            self._merge = LoneShard(merging, behind_ms, merge.on_stall_ms)
        self._forget()

    def __repr__(self) -> str:
        return f"<Trial at {self._clock_ms} {self._shards!r}>"

    @property
    def watermarks_ms(self) -> tuple[int | None, ...]:
        return tuple(shard.watermark_ms for shard in self._shards)

    def take(self, step: Step) -> None:
        shards = self._shards if step.shard is None else [self._shards[step.shard]]
        match step.action:
            case Records() as records:
                self._send(records, step.shard)
            case Idle(ms):
                self._pass(ms, shards)
            case Watermark(to_ms):
                for shard in shards:
                    self._took(shard.advance(to_ms))

    def outcome(self) -> Outcome:
        """What was told since the last time."""
        told = Outcome(self._events, self._letters, self._late, self._duplicates, self._unmatched)
        self._forget()
        return told

    def _forget(self) -> None:
        self._events: list[Told] = []
        self._letters: list[Told] = []
        self._late: dict[str, int] = {}
        self._duplicates = self._unmatched = 0

    # ---- the steps

    def _send(self, records: Records, shard: int | None) -> None:
        """A page for each shard that gets some; page cuts show in nothing, so one will do."""
        if records.arrival_ms is not None:
            self._clock_ms = records.arrival_ms
        pages: dict[int, list[tuple[Sent, int]]] = {}
        for sent in records.sent:
            if records.arrival_ms is None and sent.time_ms is not None:
                self._clock_ms = max(self._clock_ms, sent.time_ms)
            i = self._home(sent) if shard is None else shard
            pages.setdefault(i, []).append((sent, self._clock_ms))
        for i, arrived in sorted(pages.items()):
            self._took(self._shards[i].feed(self._page(arrived)))

    def _home(self, sent: Sent) -> int:
        place = place_of(sent.partition_key)
        return next(i for i, held in enumerate(self._ranges) if place in held)

    def _page(self, arrived: Sequence[tuple[Sent, int]]) -> Page:
        return Page(
            [sent.payload for sent, _ in arrived],
            self._next_numbers(len(arrived)),
            [sent.partition_key for sent, _ in arrived],
            np.array([at for _, at in arrived], dtype=np.int64),
            millis_behind=0,
            date_ms=self._clock_ms,
        )

    def _merge_page(self, partials: Sequence[Partial]) -> Page:
        return Page(
            [enveloped(partial.body, 0) for partial in partials],
            self._next_numbers(len(partials)),
            [partial.shard_id for partial in partials],
            np.full(len(partials), self._clock_ms, dtype=np.int64),
            millis_behind=0,
            date_ms=self._clock_ms,
        )

    def _next_numbers(self, n: int) -> list[str]:
        first, self._numbers = self._numbers, self._numbers + n
        return [str(number) for number in range(first, self._numbers)]

    def _pass(self, ms: int, shards: Sequence[LoneShard]) -> None:
        """Empty answers from now on, as far apart as they may be, and one at the very end."""
        end_ms = self._clock_ms + ms
        for date_ms in (*range(self._clock_ms, end_ms, ANSWERS_APART_MS_MAX), end_ms):
            self._clock_ms = date_ms
            for shard in shards:
                self._took(shard.feed_nothing(date_ms))
            if self._merge is not None:
                self._heard(self._merge.feed_nothing(date_ms))

    # ---- what they tell

    def _took(self, steps: Iterable[Yielded]) -> None:
        """Of a shard of the source; what it tells of global rules meets at once."""
        partials: list[Partial] = []
        for step in self._heard(steps):
            self._duplicates += step.counts.duplicates
            self._unmatched += step.counts.unmatched
            partials += step.partials
        if partials:
            assert self._merge is not None, "only a global rule has partials"
            self._heard(self._merge.feed(self._merge_page(partials)))

    def _heard(self, steps: Iterable[Yielded]) -> list[Yielded]:
        """What either stage tells. (Repeats in the merge stage are none of the user's.)"""
        taken = list(steps)
        for step in taken:
            self._events += filter(self._is_looked_at, map(_event, step.events))
            self._letters += map(_letter, step.dead_letters)
            for rule, n in step.counts.late_by_rule.items():
                if self._rules is None or rule in self._rules:
                    self._late[rule] = self._late.get(rule, 0) + n
        return taken

    def _is_looked_at(self, event: Told) -> bool:
        return self._rules is None or event["rule"] in self._rules


def _event(event: DerivedEvent) -> Told:
    detail: Told = orjson.loads(event.detail)
    return {**detail, "detail_type": event.detail_type, "sink": event.sink}


def _letter(letter: DeadLetter) -> Told:
    payload = letter.payload.decode(errors="backslashreplace")
    return {"reason": letter.reason, "detail": letter.detail, "payload": payload}


def _even_shards(count: int) -> list[Shard]:
    """The hash space in as many equal parts, as the service makes a new stream's."""
    bounds = [i * 2**128 // count for i in range(count + 1)]
    return [Shard(f"shard-{i}", bounds[i], bounds[i + 1] - 1) for i in range(count)]
