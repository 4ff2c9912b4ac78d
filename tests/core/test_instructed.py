"""What people ask, and a budget, through whole pipelines, cut, restored and resharded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.instructions import Instruction, decoded, encoded
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import (
    BudgetSpec,
    DerivedEvent,
    DetectSpec,
    Mark,
    Page,
    Position,
    Shard,
    WindowSpec,
)
from tests.core import streams
from tests.core.merge.stages import page as merge_page
from tests.core.merge.stages import plan as global_plan
from tests.core.merge.stages import rule as global_rule
from tests.core.streams import MINUTE_MS, Record

NOW_MS = streams.START_MS // MINUTE_MS * MINUTE_MS
NEVER_MS = 2**53
DAY_MS = 86_400_000
LIMIT = DetectSpec("limit", "threshold", "revenue", {"above": 10, "recover_after": 1})
LOW, HIGH = "store-2", "store-1"  # halves of the hash range that they are at home in
HALVES = [
    Shard("shardId-000000000001", 0, 2**127 - 1, (streams.SHARD.id,)),
    Shard("shardId-000000000002", 2**127, 2**128 - 1, (streams.SHARD.id,)),
]


class Minutes:
    """Records of one minute after the other, by their keys' totals; each minute closes the last."""

    def __init__(self, size_ms: int = MINUTE_MS) -> None:
        self.size_ms = size_ms
        self.n = self.minute = 0

    def next(self, **totals: float) -> Page:
        at_ms = NOW_MS + self.minute * self.size_ms
        self.minute += 1
        part = [self._record(key, at_ms, total) for key, total in totals.items()]
        return streams.page([*part, self._record("clock", at_ms + self.size_ms + 5_000, 0)])

    def _record(self, store: str, at_ms: int, amount: float) -> Record:
        self.n += 1
        event = {"id": f"e{self.n}", "at": at_ms, "type": "order", "store": store, "amount": amount}
        return Record(json.dumps(event).encode(), store, at_ms, str(10**55 + self.n))


def asked(number: int, act: Any, **more: Any) -> Mark:
    instruction = Instruction(f"{number:013d}-00000000", act, NEVER_MS, **more)
    return Mark(Position("after", "1"), "instructed", 0, payload=encoded(instruction))


def plan(**more: Any) -> Plan:
    return streams.plan(streams.rule(**({"detect": (LIMIT,), "emit_windows": None} | more)))


def alarms(events: Iterable[DerivedEvent]) -> list[dict[str, Any]]:
    details = [json.loads(event.detail) for event in events]
    return [detail for detail in details if detail["kind"] == "anomaly"]


def told(events: Iterable[DerivedEvent]) -> list[tuple[str, str]]:
    return sorted((d["key"].get("store", ""), d["anomaly"]["state"]) for d in alarms(events))


def restored(pipeline: ShardPipeline) -> ShardPipeline:
    successor = ShardPipeline(pipeline.plan, pipeline.shard, "1")
    successor.restore(pipeline.snapshot(), pipeline.position or Position("trim_horizon"))
    assert successor.snapshot() == pipeline.snapshot()
    return successor


def test_children_inherit_mutes_and_what_was_expected_and_are_asked_nothing_again() -> None:
    minutes, parent = Minutes(), streams.fresh(plan())
    [opened] = alarms(parent.feed(minutes.next(**{LOW: 30, HIGH: 1})).events)
    marks = [
        asked(1, "expect", of=opened["id"]),
        asked(2, "mute", rule="orders", key={"store": HIGH}, until_ms=NEVER_MS),
    ]
    for mark in marks:
        parent.mark(mark)
    assert told(parent.feed(minutes.next(**{LOW: 1, HIGH: 1})).events) == [(LOW, "resolved")]
    children = []
    for shard in HALVES:
        child = ShardPipeline(parent.plan, shard, "1")
        child.inherit([parent.snapshot()])
        assert not any(child.is_asked(decoded(mark.payload)) for mark in marks)
        children.append(restored(child))
    low, high = children
    assert told(low.feed(minutes.next(**{LOW: 32})).events) == []
    assert told(high.feed(minutes.next(**{HIGH: 90})).events) == []
    assert told(low.feed(minutes.next(**{LOW: 90})).events) == [(LOW, "opened")]
    whole = ShardPipeline(parent.plan, Shard("whole", 0, 2**128 - 1), "1")
    whole.inherit([high.snapshot(), low.snapshot()])
    high.mark(asked(3, "unmute", rule="orders", of=decoded(marks[1].payload).id))
    one_knows = ShardPipeline(parent.plan, Shard("whole", 0, 2**128 - 1), "1")
    one_knows.inherit([high.snapshot(), low.snapshot()])
    minutes.minute += 1
    page = minutes.next(**{HIGH: 90})
    assert told(whole.feed(page).events) == [(LOW, "resolved")]
    assert told(one_knows.feed(page).events) == [(HIGH, "opened"), (LOW, "resolved")]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_page_cuts_and_restarts_around_what_was_asked_change_no_bit(
    seed: int, data: st.DataObject
) -> None:
    """A mark is at its position, wherever pages begin and end."""
    stream = streams.records(seed, 300)
    at = sorted(data.draw(st.sets(st.integers(1, 299), min_size=2, max_size=2)))
    first = streams.fresh(streams.plan()).feed(streams.page(stream[: at[0]]))
    known = alarms(first.events) or [{"id": "b" * 40}]
    marks = [
        asked(1, "expect", of=known[-1]["id"]),
        asked(2, "mute", rule="orders", key={"store": "store-1"}, until_ms=NEVER_MS),
    ]
    runs = []
    for moves in (False, True):
        pipeline, out = streams.fresh(streams.plan()), []
        cuts = data.draw(st.sets(st.integers(1, 299), max_size=8)) | set(at)
        begin = 0
        for end in [*sorted(cuts), len(stream)]:
            out.append(pipeline.feed(streams.page(stream[begin:end])))
            if end in at:
                out.append(pipeline.mark(marks[at.index(end)]))
            if moves:
                pipeline = restored(pipeline)
            begin = end
        runs.append((streams.yielded(out), pipeline.snapshot()))
    assert runs[0] == runs[1]


# ---- global rules -----------------------------------------------------------------------------


class Merged:
    """A shard of the source, and one of the merge stream."""

    def __init__(self) -> None:
        emit = {"emit_windows": None, "emit_anomalies": "bus", "detect": (LIMIT,)}
        self.plan = global_plan(global_rule(size_ms=MINUTE_MS, **emit), buckets=1)
        self.source = ShardPipeline(self.plan, streams.SHARD, "1")
        self.merge = MergePipeline(self.plan, Shard("shardId-000000000000"), "1")
        self.minutes, self.put = Minutes(), 0

    def see(self, total: float) -> list[dict[str, Any]]:
        partials = self.source.feed(self.minutes.next(a=total)).partials
        first, self.put = self.put, self.put + len(partials)
        return alarms(self.merge.feed(merge_page(partials, first)).events)

    def restart(self) -> None:
        heir = MergePipeline(self.plan, self.merge.shard, "1")
        heir.restore(self.merge.snapshot(), self.merge.position or Position("trim_horizon"))
        assert heir.snapshot() == self.merge.snapshot()
        self.merge = heir


def test_rules_over_all_shards_take_what_is_asked_in_the_merge_stage_and_keep_it() -> None:
    both = Merged()
    [opened] = both.see(30)
    expect = asked(1, "expect", of=opened["id"])
    assert both.merge.is_asked(decoded(expect.payload))
    assert not both.source.is_asked(decoded(expect.payload))
    both.merge.mark(expect)
    both.restart()
    assert not both.merge.is_asked(decoded(expect.payload))
    assert [one["anomaly"]["state"] for one in both.see(30)] == ["resolved"]
    assert both.see(32) == []
    mute = asked(2, "mute", rule="all", until_ms=NEVER_MS)
    assert not both.source.is_asked(decoded(mute.payload))
    both.merge.mark(mute)
    both.restart()
    assert both.see(90) == []
    both.merge.mark(asked(3, "unmute", rule="all", of=decoded(mute.payload).id))
    assert [one["anomaly"]["state"] for one in both.see(90)] == ["opened"]


# ---- a budget ---------------------------------------------------------------------------------


HOURLY = DetectSpec("limit", "threshold", "revenue", {"above": 1, "recover_after": 1})


def days_of(seed: int, days: int) -> list[Page]:
    """Twenty alarms a day over one hour or another, whose scores are spread evenly."""
    rng, minutes = random.Random(seed), Minutes(size_ms=1_800_000)
    pages = []
    for _ in range(days * 24):
        pages.append(minutes.next(a=rng.uniform(2, 60) if rng.random() < 20 / 24 else 0.5))
        pages.append(minutes.next(a=0.5))
    return pages


def run_budget(pages: Sequence[Page], restarts: bool, budget: BudgetSpec | None) -> list[Any]:
    rule = {"window": WindowSpec(1_800_000), "detect": (HOURLY,), "alarm_budget": budget}
    pipeline, events = streams.fresh(plan(**rule)), []
    for page in pages:
        events += pipeline.feed(page).events
        if restarts:
            pipeline = restored(pipeline)
    return [one for one in alarms(events) if one["anomaly"]["state"] == "opened"]


def starts(found: list[Any]) -> list[int]:
    return [one["window"]["start"] for one in found]


def test_a_budget_holds_the_expected_number_and_says_how_far_it_raised_the_bar() -> None:
    pages = days_of(1, days=20)
    found = run_budget(pages, False, BudgetSpec(5, DAY_MS))
    assert found == run_budget(pages, True, BudgetSpec(5, DAY_MS))
    free = run_budget(pages, False, None)
    assert len(free) / 20 == pytest.approx(20, abs=2)
    later = [one for one in found if one["window"]["start"] >= NOW_MS + 3 * DAY_MS]
    assert 3 <= len(later) / 17 <= 6
    for one in later:
        told = one["anomaly"]
        assert told["score"] >= told["raised_bar"] > told["threshold"]
    assert set(starts(found)) <= set(starts(free))
    assert all(one["anomaly"]["raised_bar"] is None for one in free)


def test_a_budget_that_is_never_used_up_changes_nothing() -> None:
    pages = days_of(2, days=4)
    found = run_budget(pages, False, BudgetSpec(500, DAY_MS))
    assert starts(found) == starts(run_budget(pages, False, None))
    assert all(one["anomaly"]["raised_bar"] is None for one in found)


# ---- absence ----------------------------------------------------------------------------------


def test_a_silence_that_was_expected_may_come_again_and_a_longer_one_is_told() -> None:
    gone = DetectSpec("gone", "absence", "orders")
    window = WindowSpec(10 * MINUTE_MS)
    pipeline = streams.fresh(plan(detect=(gone,), window=window))
    minutes = Minutes(window.size_ms)

    def see(*lengths: int) -> list[dict[str, Any]]:
        """So many windows with a record, and so many without, in turns."""
        out: list[dict[str, Any]] = []
        for i, length in enumerate(lengths):
            for _ in range(length):
                out += alarms(pipeline.feed(minutes.next(**({} if i % 2 else {"a": 1}))).events)
        return [one for one in out if one["key"]["store"] == "a"]

    [opened] = see(600, 20)
    pipeline.mark(asked(1, "expect", of=opened["id"]))
    assert [one["anomaly"]["state"] for one in see(100)] == ["resolved"]
    assert see(0, 20, 100) == []
    assert [one["anomaly"]["state"] for one in see(0, 60, 5)] == ["opened", "resolved"]
