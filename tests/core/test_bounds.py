"""Keys that go: the oldest where one is too many, the silent after a while; and keys refused."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.lifetimes import Lifetimes
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import DetectSpec, Mark, Position, RuleSpec, Step
from tests.core import streams
from tests.core.streams import MINUTE_MS, START_MS

SECOND_MS = 1_000
N = 200
FEW = DetectSpec("few", "threshold", "orders", {"below": 2, "recover_after": 1})
ABSENCE = DetectSpec("absence", "absence", "orders")
RULES: dict[str, dict[str, Any]] = {
    "evict": {"overflow": "evict", "max_groups": 3, "detect": (FEW,)},
    "evict one": {"overflow": "evict", "max_groups": 1, "detect": ()},
    "dead letter": {"overflow": "dead_letter", "max_groups": 3},
    "forget": {"forget_after_ms": MINUTE_MS},
    "forget and evict": {
        "overflow": "evict",
        "max_groups": 4,
        "detect": (FEW,),
        "forget_after_ms": 15 * SECOND_MS,
    },
    "forget and refuse": {
        "overflow": "dead_letter",
        "max_groups": 2,
        "forget_after_ms": 15 * SECOND_MS,
    },
    "forget and other": {"max_groups": 2, "detect": (), "forget_after_ms": 15 * SECOND_MS},
}
seeds = st.integers(0, 2**32)
cuts = st.sets(st.integers(0, N), max_size=12)


def plan(**more: Any) -> Plan:
    """Windows of ten seconds, so that much opens and closes; a plain rule beside it."""
    bounded = streams.rule(size_ms=10 * SECOND_MS, **more)
    return streams.plan(bounded, streams.rule("payments", "payment", MINUTE_MS))


def order(store: str, second: float, n: int = 0) -> streams.Record:
    at_ms = START_MS + round(second * SECOND_MS)
    event = {"id": f"{store}{second}{n}", "at": at_ms, "type": "order", "store": store, "amount": 1}
    number = str(10**55 + round(second * SECOND_MS) * 100 + n)
    return streams.Record(json.dumps(event).encode(), store, at_ms, number)


def idle(second: float) -> Mark:
    return Mark(Position("end"), "idle", START_MS + round(second * SECOND_MS))


def windows(steps: list[Step], rule: str = "orders") -> list[tuple[str, str, int, bool]]:
    """(store, pane, count, final) as told."""
    details = [json.loads(event.detail) for step in steps for event in step.events]
    return [
        (d["key"]["store"], d["pane"], d["count"], d["is_final"])
        for d in details
        if d["kind"] == "window" and d["rule"] == rule
    ]


def moved(pipeline: ShardPipeline) -> ShardPipeline:
    """To another worker."""
    successor = streams.fresh(pipeline.plan)
    assert pipeline.position is not None
    successor.restore(pipeline.snapshot(), pipeline.position)
    return successor


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12, deadline=None)
@given(seeds, cuts)
def test_neither_cuts_nor_restores_show_where_keys_go(name: str, seed: int, at: set[int]) -> None:
    base, of = streams.records(seed, N), plan(**RULES[name])
    whole = streams.fresh(of)
    expected = [whole.feed(streams.page(base)), whole.mark(idle(10**5))]
    cut, steps = streams.fresh(of), []
    for page in streams.pages(base, at):
        steps.append(cut.feed(page))
        cut = moved(cut)
    steps.append(cut.mark(idle(10**5)))
    assert streams.yielded(steps) == streams.yielded(expected)
    assert cut.snapshot() == whole.snapshot()
    for figure in ("evicted", "forgotten", "overflowed"):
        assert total(steps, figure) == total(expected, figure)


def total(steps: list[Step], figure: str) -> Counter[str]:
    """A count of all steps, by rule."""
    found: Counter[str] = Counter()
    for step in steps:
        found.update(getattr(step.counts, figure))
    return found


# ---- evict ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 5))
def test_the_key_goes_whose_last_record_came_the_longest_ago_and_no_record_is_lost(
    seed: int, max_groups: int
) -> None:
    of = streams.plan(
        streams.rule(size_ms=10 * SECOND_MS, detect=(), overflow="evict", max_groups=max_groups)
    )
    base = streams.records(seed, N, is_timely=True)
    pipeline = streams.fresh(of)
    steps = [pipeline.feed(streams.page(base)), pipeline.mark(idle(10**5))]
    told = windows(steps)
    assert sum(count for *_, count, _ in told) == pipeline.totals.counted
    events = [event for step in steps for event in step.events]
    assert len({event.id for event in events}) == len(events)
    assert all(final == (pane == "on_time") for _, pane, _, final in told)
    evicted = {pane: store for store, pane, *_ in told if pane != "on_time"}
    expected = dict(enumerate(_evictions(base, pipeline, max_groups), 1))
    assert evicted.items() <= {f"evicted:{i}": key for i, key in expected.items()}.items()
    assert steps[0].counts.evicted.get("orders", 0) == len(expected)


def _evictions(base: list[streams.Record], pipeline: ShardPipeline, max_groups: int) -> list[str]:
    """The keys that go, by a plain list of the known ones in order of their last record."""
    known: list[str] = []
    gone: list[str] = []
    seen: set[str] = set()
    for record in base:
        event = streams._readable(record)
        if event is None or event["type"] != "order" or event["id"] in seen:
            continue
        seen.add(event["id"])
        if event["store"] in known:
            known.remove(event["store"])
        elif len(known) == max_groups:
            gone.append(known.pop(0))
        known.append(event["store"])
    return gone


def test_windows_of_an_evicted_key_are_told_as_they_stand_at_the_record_that_is_one_too_many() -> (
    None
):
    """
    second   0    1    2    3    4          20
    a        x         x                         two records, told when `c` comes
    b             x                              the oldest when `c` comes again
    c                       x
    """
    pipeline = streams.fresh(plan(overflow="evict", max_groups=2, detect=()))
    step = pipeline.feed(
        streams.page([order("a", 0), order("b", 1), order("a", 2), order("c", 3), order("b", 4)])
    )
    assert windows([step]) == [("b", "evicted:1", 1, False), ("a", "evicted:2", 2, False)]
    assert [event.arrival_ms - START_MS for event in step.events] == [3_000, 4_000]
    assert step.counts.evicted == {"orders": 2}
    assert step.counts.windows_closed == 2
    last = windows([pipeline.mark(idle(20))])
    assert last == [("b", "on_time", 1, True), ("c", "on_time", 1, True)]


def test_a_window_that_ended_before_is_told_on_time_and_not_as_evicted() -> None:
    pipeline = streams.fresh(plan(overflow="evict", max_groups=1, detect=()))
    step = pipeline.feed(streams.page([order("a", 0), order("a", 15), order("b", 16)]))
    assert windows([step]) == [("a", "on_time", 1, True), ("a", "evicted:1", 1, False)]


def test_a_page_of_which_each_record_evicts_is_counted_to_its_end() -> None:
    pipeline = streams.fresh(plan(overflow="evict", max_groups=1, detect=()))
    step = pipeline.feed(streams.page([order(f"{i}", 0, i) for i in range(1_500)]))
    assert step.counts.evicted == {"orders": 1_499}


def test_many_keys_are_evicted_a_sixty_fourth_part_at_once_the_oldest_first() -> None:
    pipeline = streams.fresh(plan(overflow="evict", max_groups=640, detect=()))
    first = pipeline.feed(streams.page([order(f"{i}", 0, i) for i in range(640)]))
    assert first.counts.evicted == {}
    step = pipeline.feed(streams.page([order("0", 1), order("new", 2), order("newer", 3)]))
    assert step.counts.evicted == {"orders": 10}
    assert sorted(int(store) for store, *_ in windows([step])) == list(range(1, 11))
    assert pipeline.groups["orders"] == 632


# ---- dead letters ---------------------------------------------------------------------------


def test_a_record_of_one_key_too_many_is_a_dead_letter_by_rule_and_others_count_it() -> None:
    strict = {"detect": (), "overflow": "dead_letter", "max_groups": 1}
    rules = [streams.rule("strict", **strict), streams.rule("stricter", **strict)]
    pipeline = streams.fresh(streams.plan(*rules, streams.rule(detect=())))
    records = [order("a", 0), order("b", 1), order("a", 2), order("b", 3)]
    broken = order("c", 1.5)._replace(payload=b"{")
    step = pipeline.feed(streams.page(sorted([*records, broken], key=lambda r: r.arrival_ms)))
    reasons = [(letter.reason, letter.arrival_ms - START_MS) for letter in step.dead_letters]
    full = "too_many_groups"
    assert (
        reasons
        == [(full, 1_000)] * 2 + [(step.dead_letters[2].reason, 1_500)] + [(full, 3_000)] * 2
    )
    assert len({letter.id for letter in step.dead_letters}) == 5
    letter = step.dead_letters[0]
    assert letter.detail == "rule strict: the key ['b'] is one more than max_groups, 1"
    assert letter.payload == records[1].payload
    assert step.counts.overflowed == {"strict": 2, "stricter": 2}
    done = [pipeline.mark(idle(100))]
    assert windows(done, "strict") == [("a", "on_time", 2, True)]
    assert [store for store, *_ in windows(done)] == ["a", "b"]
    repeats = pipeline.feed(streams.page([records[1]]))
    assert (repeats.dead_letters, repeats.counts.duplicates) == ([], 1)


def test_records_of_other_are_counted_as_overflow() -> None:
    pipeline = streams.fresh(plan(max_groups=1, detect=()))
    step = pipeline.feed(streams.page([order("a", 0), order("b", 1), order("c", 2), order("a", 3)]))
    assert step.counts.overflowed == {"orders": 2}
    assert step.dead_letters == []


# ---- forget_after ---------------------------------------------------------------------------


def test_a_key_is_forgotten_after_its_silence_and_its_row_serves_the_next() -> None:
    """Eighths of 80 s: silence is judged at each 10 s of the watermark."""
    pipeline = streams.fresh(plan(forget_after_ms=80 * SECOND_MS, detect=()))
    pipeline.feed(streams.page([order("a", 3), order("b", 40)]))
    step = pipeline.feed(streams.page([order("b", 89.9)]))  # a watermark of 84.9 s
    assert (pipeline.groups["orders"], step.counts.forgotten) == (2, {})
    step = pipeline.feed(streams.page([order("b", 95), order("c", 95.1)]))
    assert step.counts.forgotten == {"orders": 1}
    assert pipeline.groups["orders"] == 2
    assert pipeline._rules[0].keys.rows == 2


def test_what_a_detector_watches_is_watched_until_it_is_forgotten() -> None:
    """`few` tells of each window below two orders once; a key that is forgotten is not told of."""
    low = DetectSpec("low", "threshold", "orders", {"below": 0})
    pipeline = streams.fresh(plan(forget_after_ms=60 * SECOND_MS, detect=(low,)))
    pipeline.feed(streams.page([order("a", 0)]))
    known = []
    for second in range(10, 120, 10):
        pipeline.mark(idle(second))
        known.append(pipeline.groups["orders"])
    assert known == [1] * 6 + [0] * 5


def test_absence_is_told_of_a_key_that_is_silent_and_not_yet_forgotten() -> None:
    """A key of every window falls silent: it is missed long before it would be forgotten."""
    of = streams.plan(streams.rule(detect=(ABSENCE,), forget_after_ms=60 * MINUTE_MS))
    pipeline = streams.fresh(of)
    both, alone = range(0, 30 * 3_600, 60), range(30 * 3_600, 36 * 3_600, 60)
    pages = [[order(store, s) for s in both for store in "ab"], [order("b", s) for s in alone]]
    steps = [pipeline.feed(streams.page(page)) for page in pages]
    told = [json.loads(event.detail) for step in steps for event in step.events]
    opened = [d["key"]["store"] for d in told if d["kind"] == "anomaly"]
    assert opened == ["a"]
    assert pipeline.groups["orders"] == 2, "its alarm is open: it stays"


def test_an_open_alarm_keeps_its_key_until_it_is_resolved() -> None:
    forget_after_ms = 60 * SECOND_MS
    pipeline = streams.fresh(plan(forget_after_ms=forget_after_ms, detect=(FEW,)))
    pipeline.feed(streams.page([order("a", 0), order("b", 0), order("b", 1), order("b", 2)]))
    for second in range(10, 500, 10):
        pipeline.mark(idle(second))
    assert pipeline.groups["orders"] == 2, "both are below two orders a window: an alarm is open"
    calm = [order("a", 500 + n) for n in range(2)]
    pipeline.feed(streams.page(calm))
    pipeline.mark(idle(515))
    assert pipeline._rules[0]._scorer.is_open(np.arange(2)).tolist() == [False, True]


def test_an_open_window_keeps_its_key() -> None:
    pipeline = streams.fresh(
        streams.plan(streams.rule(size_ms=60 * MINUTE_MS, detect=(), forget_after_ms=MINUTE_MS))
    )
    pipeline.feed(streams.page([order("a", 0), order("b", 600)]))
    assert pipeline.groups["orders"] == 2
    step = pipeline.mark(idle(3_600 * 2))
    assert len(step.events) == 2
    assert pipeline.groups["orders"] == 0


def test_a_key_that_comes_back_is_as_if_it_were_new() -> None:
    pipeline = streams.fresh(
        plan(
            forget_after_ms=MINUTE_MS,
            detect=(DetectSpec("novelty", "novelty", "orders", {"warm_up": 3}),),
        )
    )
    steps = [pipeline.feed(streams.page([order("a", s), order("b", s)])) for s in range(0, 60, 5)]
    steps += [pipeline.feed(streams.page([order("b", s)])) for s in range(60, 300, 5)]
    assert pipeline.groups["orders"] == 1
    back = [order("a", 300 + n / 100, n) for n in range(50)]
    steps.append(pipeline.feed(streams.page(back)))
    steps.append(pipeline.mark(idle(320)))
    assert ("a", "on_time", 50, True) in windows(steps)
    assert not any(
        e.detail_type == "Anomaly Opened" and b'"a"' in e.detail for s in steps for e in s.events
    )


# ---- reshards -------------------------------------------------------------------------------


def test_a_child_evicts_only_for_what_is_new_to_it_and_goes_on_numbering() -> None:
    of = plan(overflow="evict", max_groups=4, detect=())
    parent = streams.fresh(of)
    parent.feed(streams.page([order(f"{i}", i / 10) for i in range(6)]))
    assert parent.groups["orders"] == 4
    narrow = plan(overflow="evict", max_groups=4, detect=())
    child = streams.fresh(narrow)
    child.inherit([parent.snapshot()])
    assert child.groups["orders"] == 4
    step = child.feed(streams.page([order("2", 1), order("new", 2)]))
    assert windows([step]) == [("3", "evicted:3", 1, False)]


def test_of_two_parents_keys_of_the_same_age_the_first_row_goes() -> None:
    spec: RuleSpec = streams.rule(overflow="evict", max_groups=2, detect=())
    parents = []
    for _ in range(2):
        of = Lifetimes(spec)
        of.ensure(2)
        of.note(np.array([0, 1]), np.array([5, 6]))
        parents.append(of.snapshot(2))
    child = Lifetimes(spec)
    child.ensure(4)
    for i, saved in enumerate(parents):
        child.adopt(np.arange(2) + 2 * i, saved, np.array([True, True]))
    live = np.ones(4, dtype=np.bool_)
    assert child.oldest(live).tolist() == [0]
    live[0] = False
    assert child.oldest(live).tolist() == [2]
    assert child.counted == 2
