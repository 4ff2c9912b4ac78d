"""Rules of all kinds tell the same bytes however their stream is cut, and whoever goes on with it.

Rules and records are random: windows of every kind, panes, lateness, detectors, keys that go, with
much disorder and times that stand exactly at the ends of windows.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.plan import Plan
from processor.model import (
    AggregateSpec,
    DetectSpec,
    MaintenanceSpec,
    Mark,
    PanesSpec,
    Position,
    RuleSpec,
    WindowSpec,
)
from tests.core import streams
from tests.core.streams import START_MS, Record

SECOND_MS = 1_000
N = 80
AGGREGATES = (
    AggregateSpec("orders", "count"),
    AggregateSpec("revenue", "sum", "amount"),
    AggregateSpec("opening", "first", "amount"),
    AggregateSpec("users", "distinct", "id"),
)
SHARED: tuple[dict[str, Any], ...] = (
    {},
    {"n_of_m": [2, 3], "cool_down": 2},
    {"missing": "breach", "escalation_only": True, "warm_up": 2},
    {"missing": "skip", "severity": {"warning": 1.2, "critical": 1.6}, "recover_below": 0.9},
)
ABSENCE = DetectSpec("absence", "absence", "orders")
MINUTE = START_MS // 60_000 + 1  # the first whole one
MAINTENANCE = (
    MaintenanceSpec(START_MS + 20 * SECOND_MS, START_MS + 40 * SECOND_MS),
    MaintenanceSpec(every=f"day {MINUTE // 60 % 24:02}:{MINUTE % 60:02}", for_ms=30 * SECOND_MS),
)


def window(rng: random.Random) -> WindowSpec:
    kind = rng.choice(("tumbling", "tumbling", "hopping", "hopping", "session", "running", "day"))
    if kind == "tumbling":
        return WindowSpec(rng.choice((1, 3, 10, 60)) * SECOND_MS, rng.choice((0, -4_000, 2_500)))
    if kind == "hopping":
        size, offset_ms = rng.choice((7, 10, 12, 60)), rng.choice((0, -1_500, 2_000))
        every_ms = rng.choice((1, 3, 4, 5)) * SECOND_MS
        return WindowSpec(size * SECOND_MS, offset_ms, "hopping", every_ms=every_ms)
    if kind == "session":
        return WindowSpec(kind="session", gap_ms=rng.choice((1, 3, 10, 40)) * SECOND_MS)
    if kind == "running":
        return WindowSpec(kind="running", ttl_ms=rng.choice((5, 30, 100)) * SECOND_MS)
    midnight_ms = START_MS % 86_400_000 + 20 * SECOND_MS
    return WindowSpec(kind="calendar", calendar="day", offset_ms=rng.choice((0, midnight_ms)))


def panes(rng: random.Random) -> PanesSpec:
    return PanesSpec(
        early_every_ms=rng.choice((None, None, 2_000, 7_000)),
        early_count=rng.choice((None, None, 1, 2, 5)),
        early_when=rng.choice((None, None, {"revenue": [{"numeric": [">", 20]}]})),
        late_count=rng.choice((None, 1, 1, 3)),
        is_discarding=rng.random() < 0.4,
        emit_empty=rng.random() < 0.2,
    )


def rule(rng: random.Random, name: str) -> RuleSpec:
    spec = window(rng)
    is_plain, is_running = rng.random() < 0.3, spec.kind == "running"
    overflow = rng.choice(("other", "other", "evict", "dead_letter"))
    detect: tuple[DetectSpec, ...] = ()
    if spec.kind in ("tumbling", "hopping") and rng.random() < 0.5:
        options = {"below": 2, "recover_after": 1, **rng.choice(SHARED)}
        below = DetectSpec("few", "threshold", "orders", options)
        detect = (below,) if overflow == "evict" else (below, ABSENCE)
    lateness_ms = rng.choice((0, 0, 2_000, 10_000, 60_000))
    return streams.rule(
        name,
        where=rng.choice(({"type": ["order"]}, {})),
        group_by=rng.choice((("store",), ("store",), ("store", "type"))),
        window=spec,
        aggregates=AGGREGATES,
        detect=detect,
        maintenance=rng.choice(((), MAINTENANCE)),
        lateness_ms=0 if is_plain or is_running else lateness_ms,
        panes=PanesSpec() if is_plain else panes(rng),
        overflow=overflow,
        max_groups=rng.choice((1, 2, 3, 4, 100)),
        forget_after_ms=None if is_running else rng.choice((None, None, 5_000, 15_000, 60_000)),
    )


def records(rng: random.Random) -> list[Record]:
    made, at_ms = [], START_MS
    for i in range(N):
        at_ms += rng.choice((0, 0, 10, 300, 1_000, 2_500, 20_000 if rng.random() < 0.3 else 5))
        behind = rng.choice((0, 0, 0, 1_000, 3_000, 4_999, 5_000, 5_001, 12_000, 30_000))
        time_ms = at_ms - behind
        if rng.random() < 0.5:
            time_ms -= time_ms % SECOND_MS
        event = {
            "id": f"e{i}",
            "at": time_ms if rng.random() < 0.98 else at_ms + 70_000,
            "type": rng.choice(("order", "order", "payment")),
            "store": f"store-{rng.randrange(5)}",
            "amount": rng.choice((1, 3, 7.5, -2)),
            "request": f"r{i}",
        }
        key = str(event["store"]) if rng.random() < 0.95 else "elsewhere"
        made.append(Record(json.dumps(event).encode(), key, at_ms + 1_000, str(10**55 + i)))
    return made


def run(
    plan: Plan,
    stream: Sequence[Record],
    cuts: set[int],
    marks: Mapping[int, int],
    restores: set[int],
) -> tuple[Any, ...]:
    """All that goes out, records late by rule, and the state at the end."""
    pipeline, steps = streams.fresh(plan), []
    at = sorted({0, *cuts, *marks, len(stream)})
    for start, stop in pairwise(at):
        if start in marks:
            steps.append(pipeline.mark(Mark(Position("end"), "idle", marks[start])))
        if start in restores and pipeline.position is not None:
            state, position = pipeline.snapshot(), pipeline.position
            pipeline = streams.fresh(plan)
            pipeline.restore(state, position)
            assert pipeline.snapshot() == state
        steps.append(pipeline.feed(streams.page(stream[start:stop])))
    steps.append(pipeline.mark(Mark(Position("end"), "idle", START_MS + 10**10)))
    late: Counter[str] = Counter()
    for step in steps:
        late.update(step.counts.late_by_rule)
    return *streams.yielded(steps), late, pipeline.snapshot()


def compare(seed: int) -> None:
    rng = random.Random(seed)
    rules = [rule(rng, f"rule-{i}") for i in range(rng.choice((1, 1, 2)))]
    plan = streams.plan(*rules, out_of_orderness_ms=rng.choice((0, 1_000, 5_000, 5_000)))
    stream, marks = records(rng), dict[int, int]()
    for _ in range(rng.choice((0, 0, 2))):
        i = rng.randrange(1, N)
        marks[i] = json.loads(stream[i - 1].payload)["at"] + rng.choice((0, 1_000, 5_000, 20_000))
    whole = run(plan, stream, set(), marks, set())
    for n in (5, 20, N - 1):
        cuts = set(rng.sample(range(1, N), n))
        restores = {cut for cut in cuts if rng.random() < 0.3}
        for is_what, told in zip(whole, run(plan, stream, cuts, marks, restores), strict=True):
            assert told == is_what


@pytest.mark.parametrize("seed", [1, 6, 8])  # each once showed a cut of its own kind
def test_no_cut_and_no_restore_shows_in_what_a_rule_of_any_kind_tells(seed: int) -> None:
    compare(seed)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32))
def test_no_cut_shows_whatever_the_rule(seed: int) -> None:
    compare(seed)


def test_a_page_of_records_that_are_all_refused_leaves_sessions_as_they_are() -> None:
    session = WindowSpec(kind="session", gap_ms=10_000)
    plan = streams.plan(
        streams.rule(window=session, detect=(), max_groups=1, overflow="dead_letter")
    )
    made = []
    for i, store in enumerate("aba"):
        event = {"id": f"e{i}", "at": START_MS, "type": "order", "store": store, "amount": 1}
        made.append(Record(json.dumps(event).encode(), store, START_MS, str(10**55 + i)))
    events, letters, _, _ = run(plan, made, {1, 2}, {}, set())
    assert [json.loads(event.detail)["count"] for event in events] == [2]
    assert [letter.reason for letter in letters] == ["too_many_groups"]
