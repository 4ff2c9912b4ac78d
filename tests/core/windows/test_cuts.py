"""How a stream is cut into pages, and where it is taken over, never shows in what is told."""

from __future__ import annotations

import random

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.rules import Heritage
from processor.core.telling import Output
from processor.model import Shard
from tests.core.windows.rules_at_hand import (
    Stream,
    drawn,
    drawn_plan,
    fresh,
    pages,
)

N = 40
seeds = st.integers(0, 2**32)
cuts = st.sets(st.integers(0, N + 10))
FOREVER_MS = 10**6


def shown(told: list[Output]) -> list[tuple[int, bytes]]:
    return [(output.end_ms, output.event.detail) for output in told]


@settings(max_examples=60, deadline=None)
@given(seeds, cuts, cuts, st.integers(0, 6))
def test_page_cuts_and_takeovers_leave_no_trace(
    seed: int, some: set[int], moves: set[int], behind: int
) -> None:
    rng = random.Random(seed)
    plan, items = drawn_plan(rng), drawn(rng, N)
    single = Stream(fresh(plan), behind)
    cut = Stream(fresh(plan), behind)
    for page in pages(items, range(N + 10)):
        single.feed(page)
    for i, page in enumerate(pages(items, some)):
        cut.feed(page)
        if i in moves:
            successor, saved = fresh(plan), cut.rule.snapshot()
            for _ in successor.restoring(saved):
                pass
            assert successor.snapshot() == saved
            cut.rule = successor
    assert shown(cut.told) == shown(single.told)
    assert cut.late == single.late
    assert cut.rule.snapshot() == single.rule.snapshot()


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, N), st.integers(0, 6))
def test_a_child_that_adopts_all_keys_goes_on_as_its_parent_would(
    seed: int, at: int, behind: int
) -> None:
    """Early panes by event time are told a moment later where nothing new came since."""
    rng = random.Random(seed)
    plan, items = drawn_plan(rng), drawn(rng, N)
    parent = Stream(fresh(plan), behind)
    for page in pages(items[:at], range(N)):
        parent.feed(page)
    child = Stream(fresh(plan, Shard("child")), behind, parent.watermark_ms)
    child.rule.adopt([Heritage((), parent.rule.snapshot())])
    before = len(parent.told)
    for stream in (parent, child):
        for page in pages(items[at:], range(0, N, 7)):
            stream.feed(page)
    if plan.spec.panes.early_every_ms is None:
        assert shown(child.told) == shown(parent.told[before:])


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 6))
def test_every_record_is_told_or_counted_late(seed: int, behind: int) -> None:
    """Where panes discard, what is told of a window adds up."""
    rng = random.Random(seed)
    plan, items = drawn_plan(rng), drawn(rng, N)
    panes = plan.spec.panes
    if plan.spec.window.kind == "hopping" or not panes.is_discarding:
        return
    stream = Stream(fresh(plan), behind)
    for page in pages(items, range(0, N, 5)):
        stream.feed(page)
    stream.feed([items[0]._replace(key="", time=FOREVER_MS)])
    assert len(stream.rule.windows) == 0
    counts = [orjson.loads(output.event.detail)["count"] for output in stream.told]
    assert sum(counts) + stream.late == sum(bool(item.key) for item in items)
