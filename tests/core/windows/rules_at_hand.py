"""Rules of every kind of window over plain records, cut into pages as a test likes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from processor import zones
from processor.core.figures import Readings
from processor.core.plan import compile
from processor.core.records import Records
from processor.core.rules import Rule, RulePlan
from processor.core.telling import Output
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    EventSpec,
    PanesSpec,
    Pipeline,
    RuleSpec,
    Shard,
    SinkSpec,
    SourceSpec,
    StateSpec,
    WindowSpec,
)

BEFORE_MS = -(2**62)
SHARD = Shard("shard")
FIGURES = (AggregateSpec("n", "count"), AggregateSpec("total", "sum", "amount"))


class Item(NamedTuple):
    """A record of a key, or (key is empty) a mark that moves the watermark to `time`."""

    key: str
    time: int
    amount: float


def plan(window: WindowSpec, lateness_ms: int = 0, panes: PanesSpec | None = None) -> RulePlan:
    rule = RuleSpec(
        "rule",
        {},
        ("key",),
        window,
        FIGURES,
        emit_windows="out",
        lateness_ms=lateness_ms,
        panes=panes or PanesSpec(),
    )
    pipeline = Pipeline(
        "app",
        SourceSpec("stream"),
        EventSpec(partition_key="key"),
        {"out": SinkSpec("out", "stdout", "json")},
        (rule,),
        StateSpec("table"),
        DeadLetterSpec("queue"),
    )
    return compile(pipeline, zones.tables(pipeline)).rules[0]


def fresh(of: RulePlan, shard: Shard = SHARD) -> Rule:
    return Rule(of, "app", "1", shard)


class Stream:
    """One shard's records through a rule; the watermark is `behind` the newest time."""

    def __init__(self, rule: Rule, behind: int = 0, watermark_ms: int = BEFORE_MS):
        self.rule, self.behind, self.watermark_ms = rule, behind, watermark_ms
        self.told: list[Output] = []
        self.late = 0

    def feed(self, items: Sequence[Item]) -> None:
        """Records as one page; a mark is an item of its own."""
        if items and not items[0].key:
            self.watermark_ms = max(self.watermark_ms, items[0].time)
            self._take(None, np.zeros(0, dtype=np.int64))
            return
        times = np.array([item.time for item in items], dtype=np.int64)
        after = np.maximum(np.maximum.accumulate(times - self.behind), self.watermark_ms)
        before = np.concatenate(([self.watermark_ms], after[:-1]))
        is_late = self.rule.late(times, before)
        self.late += int(is_late.sum())
        at = np.flatnonzero(~is_late)
        self.watermark_ms = int(after[-1])
        amounts = np.array([items[i].amount for i in at.tolist()], dtype=np.float64)
        records = Records(
            [[items[i].key for i in at.tolist()]],
            [items[i].key for i in at.tolist()],
            times[at],
            Readings(times[at], {"amount": amounts}),
            at,
            before[at],
            lambda i: (f"{items[int(at[i])].time}/{items[int(at[i])].amount}", None),
        )
        self._take(records if len(at) else None, after)

    def _take(self, records: Records | None, after: np.ndarray) -> None:  # type: ignore[type-arg]
        for firing in self.rule.take(records, after, self.watermark_ms):
            self.told += firing.outputs  # type: ignore[arg-type]
        self.late += self.rule.tally.late
        self.rule.tally.late = 0


def pages(items: Sequence[Item], cuts: Iterable[int]) -> list[Sequence[Item]]:
    """Marks stand alone; between them records are cut at some places."""
    n = len(items)
    marks = {i for i, item in enumerate(items) if not item.key}
    places = sorted({0, n, *(c for c in cuts if c < n), *marks, *(i + 1 for i in marks)})
    return [items[i:j] for i, j in pairwise(places) if i < j]


def drawn(rng: random.Random, n: int, keys: int = 3, span: int = 12) -> list[Item]:
    """Times that go forward in steps and back by some, so that ends are often met exactly."""
    now, items = 100, []
    for _ in range(n):
        now += rng.choice((0, 0, 1, 1, 2, span // 2))
        if rng.random() < 0.05:
            now += span * 3
            items.append(Item("", now, 0.0))
        time = max(0, now - rng.choice((0, 0, 1, 2, span, 2 * span, 3 * span)))
        items.append(Item(rng.choice("abcdefgh"[:keys]), time, float(rng.randint(1, 9))))
    return items


def drawn_plan(rng: random.Random) -> RulePlan:
    """Any window and panes; sizes of a few ms."""
    window = rng.choice(
        (
            WindowSpec(rng.choice((5, 10)), rng.choice((0, 3))),
            WindowSpec(10, rng.choice((0, 1)), "hopping", every_ms=rng.choice((2, 3, 5, 10))),
            WindowSpec(kind="session", gap_ms=rng.choice((3, 6))),
            WindowSpec(kind="running", ttl_ms=rng.choice((8, 20))),
        )
    )
    lateness_ms = rng.choice((0, 0, 4, 15))
    when = {"total": [{"numeric": [">", 12]}]}
    panes = PanesSpec(
        early_every_ms=rng.choice((None, None, 4)),
        early_count=rng.choice((None, None, 1, 2, 3)),
        early_when=rng.choice((None, None, when)),
        late_count=rng.choice((None, 1, 2)) if lateness_ms else None,
        is_discarding=rng.random() < 0.5,
        emit_empty=rng.random() < 0.5,
    )
    return plan(window, lateness_ms, panes if rng.random() < 0.8 else None)
