"""A changed pipeline file: which rules go on, which start anew, and that no id tells two things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import AggregateSpec, DerivedEvent, DetectSpec, Page, Position, RuleSpec
from processor.model import Shard as ModelShard
from tests.core import streams
from tests.core.streams import AGGREGATES, DETECTS, MINUTE_MS, START_MS

N = 600
PAGES = streams.pages(streams.records(5, 3 * N), range(0, 3 * N, 100))
EVERY = DetectSpec("few", "threshold", "orders", {"below": 3, "for": 2})


def rule(**more: Any) -> RuleSpec:
    return streams.rule("orders", **({"detect": (*DETECTS, EVERY)} | more))


PAYMENTS = streams.rule("payments", "payment", 3 * MINUTE_MS)
FIRST = streams.plan(rule(), PAYMENTS)
RESIZED = streams.plan(rule(window=replace(rule().window, size_ms=2 * MINUTE_MS)), PAYMENTS)
TUNED = streams.plan(rule(detect=(*DETECTS, replace(EVERY, options={"below": 4}))), PAYMENTS)
REMOVED = streams.plan(PAYMENTS)
TRACED = streams.plan(rule(), PAYMENTS, correlation_id=None, out_of_orderness_ms=2_000)
CROWDED = streams.plan(rule(max_groups=3), PAYMENTS)


class Shard:
    """One shard's committed position and state; and all that any life of it ever told."""

    def __init__(self, pages: list[Page]) -> None:
        self.pages = pages
        self.at = 0
        self.state: bytes | None = None
        self.told: dict[str, DerivedEvent] = {}

    def live(self, plan: Plan, pages: int, committed: int) -> list[DerivedEvent]:
        """A worker with `plan` takes some pages and commits after some of them; then it dies."""
        pipeline = streams.fresh(plan)
        if self.state is not None:
            last = self.pages[self.at - 1].sequence_numbers[-1]
            pipeline.restore(self.state, Position("after", last))
        told, begun = [], self.at
        for i, page in enumerate(self.pages[begun : begun + pages]):
            told += self._tell(pipeline, page)
            if i < committed:
                self.at, self.state = begun + i + 1, pipeline.snapshot()
        return told

    def _tell(self, pipeline: ShardPipeline, page: Page) -> list[DerivedEvent]:
        events = pipeline.feed(page).events
        for event in events:
            known = self.told.setdefault(event.id, event)
            assert known.detail == event.detail, "one id, two contents"
        return events


def windows(events: Any, name: str) -> dict[tuple[str, int, str], Any]:
    """(store, start, version) → detail, of the window results of one rule."""
    details = [json.loads(e.detail) for e in events if e.detail_type == "Window Result"]
    return {
        (d["key"]["store"], d["window"]["start"], d["rule_version"]): d
        for d in details
        if d["rule"] == name
    }


lives = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=8
)
some = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def steady(plan: Plan, pages: list[Page]) -> list[DerivedEvent]:
    """What one life from beginning to end tells."""
    return Shard(pages).live(plan, len(pages), 0)


@pytest.mark.parametrize(
    "other",
    [RESIZED, TUNED, REMOVED, TRACED, CROWDED],
    ids=["size", "bound", "gone", "event", "max"],
)
@some
@given(seeds, lives)
def test_whatever_the_lives_of_a_rollout_no_id_tells_two_things(
    other: Plan, seed: int, history: list[tuple[int, int, int]]
) -> None:
    """Old and new plan take turns in any order, with crashes. What one of them would have told
    alone stands beside it, and whole windows are as there."""
    pages = streams.pages(streams.records(seed, N), range(0, N, 30))
    shard = Shard(pages)
    alone = [event for plan in (FIRST, other) for event in steady(plan, pages)]
    shard.told = {event.id: event for event in alone}
    for which, n, committed in (*history, (0, N, 0), (1, N, 0)):
        shard.live((FIRST, other)[which], n, committed)
    if other in (CROWDED, TRACED):  # whom `other` holds, and what is late, is another matter there
        return
    expected = windows(alone, "orders")
    for at, detail in windows(shard.told.values(), "orders").items():
        assert detail.get("partial") or detail["values"] == expected[at]["values"]


@some
@given(seeds, lives)
def test_an_unchanged_rule_neither_misses_nor_repeats_anything(
    seed: int, history: list[tuple[int, int, int]]
) -> None:
    pages = streams.pages(streams.records(seed, N), range(0, N, 30))
    moved = Shard(pages)
    for which, n, committed in (*history, (1, N, N)):
        moved.live((FIRST, RESIZED)[which], n, committed)
    alone, told = (
        {event.id: event for event in events if event.group.startswith("payments")}
        for events in (steady(FIRST, pages), moved.told.values())
    )
    assert alone == told != {}


def halves(first: Plan, second: Plan) -> tuple[Shard, list[DerivedEvent]]:
    """Half of a stream under one plan, the rest under another."""
    shard = Shard(PAGES)
    shard.live(first, len(PAGES) // 2, N)
    return shard, shard.live(second, N, N)


def test_windows_that_began_before_their_rule_are_partial_and_no_detector_sees_them() -> None:
    _, events = halves(FIRST, RESIZED)
    partial = [d for d in windows(events, "orders").values() if d.get("partial")]
    whole = [d for d in windows(events, "orders").values() if not d.get("partial")]
    assert partial
    assert whole
    newest = max(d["window"]["start"] for d in partial)
    assert newest < min(d["window"]["start"] for d in whole)
    judged = [json.loads(e.detail) for e in events if e.detail_type == "Anomaly Opened"]
    starts = [d["window"]["start"] for d in judged if d["rule"] == "orders"]
    assert starts
    assert min(starts) > newest


def test_a_new_application_has_no_partial_windows() -> None:
    assert not any(b'"partial"' in event.detail for event in steady(FIRST, PAGES))


def test_a_tuned_rule_goes_on_with_its_windows_and_what_it_learnt() -> None:
    alone = steady(FIRST, PAGES)
    shard, events = halves(FIRST, TUNED)
    assert not any(b'"partial"' in event.detail for event in events)
    versions = {d["rule_version"] for d in windows(events, "orders").values()}
    assert versions == {TUNED.rules[0].version} != {FIRST.rules[0].version}

    def told(by: Any) -> Any:
        """Of windows and of the detector that was left as it was: what, where and when."""
        details = (json.loads(event.detail) for event in by if event.group.startswith("orders"))
        return [
            (detail["key"], detail["window"], detail["values"], detail.get("anomaly"))
            for detail in details
            if detail.get("anomaly", {}).get("detector") != "few"
        ]

    assert told(shard.told.values()) == told(alone)
    assert any(anomaly is not None for *_, anomaly in told(events))


@pytest.mark.parametrize(
    "aggregates",
    [
        AGGREGATES[::-1],
        tuple(replace(one, name=f"new_{one.name}") for one in AGGREGATES),
    ],
    ids=["in another order", "under new names"],
)
def test_figures_may_be_renamed_and_reordered_without_losing_state(
    aggregates: tuple[AggregateSpec, ...],
) -> None:
    names = {old.kind: new.name for new in aggregates for old in AGGREGATES if new.kind == old.kind}
    kinds = {one.name: one.kind for one in AGGREGATES}
    detect = tuple(replace(d, aggregate=names[kinds[d.aggregate]]) for d in (*DETECTS, EVERY))
    plan = streams.plan(rule(aggregates=aggregates, detect=detect), PAYMENTS)
    _, events = halves(FIRST, plan)
    assert not any(b'"partial"' in event.detail for event in events)
    first = min(windows(events, "orders"))
    figures = windows(events, "orders")[first]["values"]
    assert list(figures) == [one.name for one in aggregates]
    truth = streams.truth(streams.records(5, 3 * N), MINUTE_MS, "order")[first[:2]]
    assert figures[names["sum"]] == truth["revenue"]
    assert figures[names["max"]] == truth["highest"]


def minutes(orders: Sequence[int]) -> list[Page]:
    """A page a minute, with so many orders of one store."""
    at = [START_MS + minute * MINUTE_MS + i for minute, n in enumerate(orders) for i in range(n)]
    order = {"type": "order", "store": "s", "amount": 1}
    stream = [
        streams.Record(
            json.dumps(order | {"id": f"{i}", "at": at_ms}).encode(), "s", at_ms, str(10**50 + i)
        )
        for i, at_ms in enumerate(at)
    ]
    return streams.pages(stream, accumulate(orders))


def test_detectors_of_one_kind_may_change_places() -> None:
    """Each goes on with its own alarm: what was opened is resolved, under its own name."""
    low = DetectSpec("low", "threshold", "orders", {"below": 2, "recover_after": 1})
    high = DetectSpec("high", "threshold", "orders", {"above": 5, "recover_after": 1})
    first, then = (
        streams.plan(rule(detect=detect), PAYMENTS) for detect in ((low, high), (high, low))
    )
    shard = Shard(minutes((1, 1, 3, 3)))
    shard.live(first, 2, 2)
    shard.live(then, 9, 9)
    told = [json.loads(event.detail) for event in shard.told.values()]
    alarms = [one["anomaly"] for one in told if one["kind"] == "anomaly"]
    assert [(alarm["detector"], alarm["state"]) for alarm in alarms] == [
        ("low", "opened"),
        ("low", "resolved"),
    ]


def test_runs_beyond_a_bound_begin_anew_under_another_bound() -> None:
    """One window below 3, then the bound is moved: it takes two windows below the new one."""
    below = streams.plan(rule(detect=(replace(EVERY, options={"below": 5, "for": 3}),)), PAYMENTS)
    other = streams.plan(rule(detect=(replace(EVERY, options={"below": 5, "for": 2}),)), PAYMENTS)
    shard = Shard(minutes((1,) * 8))
    shard.live(below, 3, 3)  # two windows have closed
    opened = [json.loads(e.detail) for e in shard.live(other, 9, 9) if "Opened" in e.detail_type]
    (run,) = [d["anomaly"]["sentence"] for d in opened]
    assert "(2 windows)" in run


# ---- a file that reads time or id otherwise -------------------------------------------------


def test_where_times_are_read_otherwise_whole_windows_are_still_exact() -> None:
    """By the new field events are half an hour later: what was seen of them nobody wrote down."""
    order = {"type": "order", "store": "s", "amount": 1}
    stream = [
        streams.Record(
            json.dumps(order | {"id": f"{i}", "at": at, "then": at + 30 * MINUTE_MS}).encode(),
            "s",
            at,
            str(10**50 + i),
        )
        for i, at in enumerate(range(streams.START_MS, streams.START_MS + 180 * MINUTE_MS, 20_000))
    ]
    pages = streams.pages(stream, range(0, len(stream), 30))
    other = streams.plan(rule(), PAYMENTS, time="then")
    shard = Shard(pages)
    shard.live(FIRST, 5, 5)
    events = shard.live(other, N, N)
    expected, found = windows(steady(other, pages), "orders"), windows(events, "orders")
    whole = {at: detail for at, detail in found.items() if "partial" not in detail}
    assert len(whole) > 30
    assert all(detail["values"] == expected[at]["values"] for at, detail in whole.items())
    assert any(detail["values"] != expected[at]["values"] for at, detail in found.items())


def test_where_ids_are_read_otherwise_a_known_one_is_no_duplicate() -> None:
    order = {"type": "order", "store": "s", "amount": 1, "at": streams.START_MS}
    stream = [
        streams.Record(
            json.dumps(order | {"id": f"{i}", "request": f"{i - 5}"}).encode(),
            "s",
            streams.START_MS,
            str(10**50 + i),
        )
        for i in range(10)
    ]
    pages = streams.pages(stream, [5])
    first, second = streams.fresh(FIRST), streams.fresh(streams.plan(rule(), id="request"))
    first.feed(pages[0])
    assert first.position is not None
    second.restore(first.snapshot(), first.position)
    assert second.feed(pages[1]).counts.duplicates == 0


# ---- and a reshard at once ------------------------------------------------------------------


HALF = 2**127


def test_children_of_a_changed_rule_say_what_their_parents_have_taken() -> None:
    """The parent runs the old file to its end, both children the new one."""
    parent = ShardPipeline(FIRST, streams.SHARD, "1")
    stream = streams.records(5, 3 * N)
    cut = N - 60  # in the midst of a window
    parent.feed(streams.page(stream[:cut]))
    parent.end()
    events: list[DerivedEvent] = []
    for n, (first, last) in enumerate(((0, HALF - 1), (HALF, 2**128 - 1))):
        own = ModelShard(f"child-{n}", first, last, (streams.SHARD.id,))
        child = ShardPipeline(RESIZED, own, "1")
        child.inherit([parent.snapshot()])
        mine = [r for r in stream[cut:] if first <= hash_of(r.partition_key) <= last]
        events += child.feed(streams.page(mine)).events
    found = windows(events, "orders")
    partial = [at for at, detail in found.items() if "partial" in detail]
    expected = windows(steady(RESIZED, [streams.page(stream)]), "orders")
    assert partial
    for at in found.keys() - set(partial):
        if at in expected:
            assert found[at]["values"] == expected[at]["values"]
    kept = windows(events, "payments")
    assert not any("partial" in detail for detail in kept.values())


def hash_of(partition_key: str) -> int:
    return int(hashlib.md5(partition_key.encode()).hexdigest(), 16)
