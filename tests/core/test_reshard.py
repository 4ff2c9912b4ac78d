"""State through a reshard: many shards tell what one shard would have told, each id once."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.model import AggregateSpec, DetectSpec, Mark, Position
from tests.core import reshards, streams
from tests.core.streams import MINUTE_MS

N = 400
SECOND_MS = 1_000
# Speaks up in every window with fewer than two orders: a key that is judged once too often, or not
# at all, is noticed.
FEW = DetectSpec("few", "threshold", "orders", {"below": 2, "recover_after": 1})
DETECTS = (*streams.DETECTS, FEW)
seeds = st.integers(0, 2**32)
counts = st.integers(1, 8)


def end_ms(base: list[streams.Record]) -> int:
    """Past every window."""
    return max(record.arrival_ms for record in base) + 10 * MINUTE_MS


def alone(base: list[streams.Record], *rules: object) -> list[object]:
    pipeline = streams.fresh(streams.plan(*rules))  # type: ignore[arg-type]
    events = pipeline.feed(streams.page(base)).events
    events += pipeline.mark(Mark(Position("end"), "idle", end_ms(base))).events
    return reshards.shown(events)


@settings(max_examples=40, deadline=None)
@given(seeds, counts)
# A merged child that splits before it is where one of its parents was: detectors judged nothing yet
# of the other's keys.
@example(7891975, 2)
@example(4088626994, 5)
def test_windows_and_anomalies_are_those_of_a_shard_that_was_never_split_or_merged(
    seed: int, n: int
) -> None:
    """Short windows: the detectors are warm when the shards change."""
    rng = random.Random(seed)
    rules = [
        streams.rule(size_ms=10 * SECOND_MS, detect=DETECTS),
        streams.rule("payments", "payment", 30 * SECOND_MS, detect=DETECTS),
    ]
    base = streams.records(seed, N, is_timely=True)
    history = reshards.history(rng, N, n)
    told = reshards.run(streams.plan(*rules), base, history, rng, end_ms(base))
    assert reshards.shown(told.events) == alone(base, *rules)
    assert sum(pipeline.totals.late for pipeline in told.pipelines) == 0


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_stream_scaled_from_two_shards_to_four_to_three_tells_what_one_shard_would(
    seed: int,
) -> None:
    rule = streams.rule(size_ms=10 * SECOND_MS, detect=DETECTS)
    base = streams.records(seed, N, is_timely=True)
    history = reshards.scaled(N)
    assert sorted(node.shard.first_hash for node in history.nodes if not node.children) == [
        reshards.FULL * i // 3 for i in range(3)
    ]
    told = reshards.run(streams.plan(rule), base, history, random.Random(seed), end_ms(base))
    assert reshards.shown(told.events) == alone(base, rule)


@settings(max_examples=20, deadline=None)
@given(seeds, counts)
def test_sketches_and_filtered_figures_go_to_the_children_too(seed: int, n: int) -> None:
    rng = random.Random(seed)
    small = {"amount": [{"numeric": ["<", 50]}]}
    rule = streams.rule(
        size_ms=30 * SECOND_MS,
        detect=(),
        aggregates=(
            AggregateSpec("small", "count", where=small),
            AggregateSpec("p50", "quantile", "amount", where=small, options={"q": 0.5}),
            AggregateSpec("users", "distinct", "request"),
            AggregateSpec("top", "top_k", "request"),
            AggregateSpec("opening", "first", "amount"),
            AggregateSpec("closing", "last", "amount"),
            AggregateSpec("share", "ratio", of=("small", "users")),
        ),
    )
    base = streams.records(seed, N, is_timely=True)
    told = reshards.run(streams.plan(rule), base, reshards.history(rng, N, n), rng, end_ms(base))
    assert reshards.shown(told.events) == alone(base, rule)


@settings(max_examples=20, deadline=None)
@given(seeds, counts)
def test_every_window_has_the_figures_that_plain_fractions_give(seed: int, n: int) -> None:
    rng = random.Random(seed)
    base = streams.records(seed, N, is_timely=True)
    history = reshards.history(rng, N, n)
    told = reshards.run(streams.plan(), base, history, rng, end_ms(base))
    details = [json.loads(e.detail) for e in told.events if e.detail_type == "Window Result"]
    for rule, type_, size_ms in (("orders", "order", 1), ("payments", "payment", 3)):
        size_ms *= MINUTE_MS
        found = {
            (d["key"]["store"], d["window"]["start"]): d["values"]
            for d in details
            if d["rule"] == rule
        }
        expected = streams.truth(base, size_ms, type_, end_ms(base))
        assert found.keys() == expected.keys()
        for at, figures in expected.items():
            about = figures["spread"]
            spread = about and pytest.approx(about, rel=1e-12, abs=1e-28)
            assert found[at] == figures | {"spread": spread}


@settings(max_examples=40, deadline=None)
@given(seeds, counts, st.sampled_from([3, 100_000]))
def test_whatever_comes_late_or_to_the_wrong_shard_no_id_is_told_twice_and_no_record_lost(
    seed: int, n: int, max_groups: int
) -> None:
    rng = random.Random(seed)
    base = [
        record._replace(partition_key=f"other-{i}") if rng.random() < 0.1 else record
        for i, record in enumerate(reshards.in_disorder(streams.records(seed, N), rng))
    ]
    more = {"max_groups": max_groups, "detect": DETECTS}
    rules = [
        streams.rule(size_ms=10 * SECOND_MS, **more),
        streams.rule("payments", "payment", 30 * SECOND_MS, **more),
    ]
    history = reshards.history(rng, N, n)
    plan = streams.plan(*rules)
    told = reshards.run(plan, base, history, rng, end_ms(base))
    ids = Counter(event.id for event in told.events)
    assert [id_ for id_, times in ids.items() if times > 1] == []
    windows = [json.loads(e.detail) for e in told.events if e.detail_type == "Window Result"]
    counted = sum(pipeline.totals.counted for pipeline in told.pipelines)
    assert sum(window["count"] for window in windows) == counted
    assert sum(pipeline.totals.records for pipeline in told.pipelines) == N


def test_histories_have_splits_of_splits_and_merges_of_parents_that_came_to_other_times() -> None:
    """What the properties above are tried on."""
    found: Counter[str] = Counter()
    for seed in range(100):
        history = reshards.history(random.Random(seed), N, 8)
        by_id = {node.shard.id: node for node in history.nodes}
        for node in history.nodes:
            parents = [by_id[id_] for id_ in node.shard.parents]
            found["merge"] += len(parents) == 2
            found["skewed merge"] += len({parent.until for parent in parents}) == 2
            found["split"] += len(parents) == 1
            found["split of a merged"] += len(parents) == 1 and len(parents[0].shard.parents) == 2
            found["split of a split"] += len(parents) == 1 and len(parents[0].shard.parents) == 1
    assert min(found.values()) > 50
    assert len(found) == 5
