"""A global rule on one shard: when it tells, what, and under which number."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core import shipping
from processor.core.keys import OTHER
from processor.core.merge import partials, slices
from processor.core.merge.partials import Closing
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import END, Mark, Partial, Position, Shard
from tests.core import streams
from tests.core.merge import stages
from tests.core.streams import MINUTE_MS, START_MS, Record

SIZE_MS = 10_000
NOW_MS = START_MS // SIZE_MS * SIZE_MS
seeds = st.integers(0, 2**32)


def fresh(plan: Plan | None = None, shard: Shard = streams.SHARD) -> ShardPipeline:
    return ShardPipeline(plan or stages.plan(stages.rule(), buckets=1), shard, "1.0")


def record(i: int, at_ms: int, store: str = "a") -> Record:
    event = f'{{"id":"{i}","at":{at_ms},"type":"order","store":"{store}","amount":1}}'
    return Record(event.encode(), store, at_ms, str(10**55 + i))


def feed(to: ShardPipeline, *times_ms: int) -> list[Closing]:
    first = 0 if to.position is None else int(to.position.value) - 10**55 + 1
    part = [record(first + i, at_ms) for i, at_ms in enumerate(times_ms)]
    return closings(to.feed(streams.page(part)).partials)


def mark(to: ShardPipeline, fact: Any, watermark_ms: int = 0) -> list[Closing]:
    return closings(to.mark(Mark(END, fact, watermark_ms)).partials)


def closings(told: list[Partial]) -> list[Closing]:
    found = [partials.closing(partial.body) for partial in told]
    assert all(isinstance(closing, Closing) for closing in found)
    return [closing for closing in found if isinstance(closing, Closing)]


def counted(closing: Closing) -> int:
    return 0 if closing.deltas is None else int(slices.counts(closing.deltas.windows).sum())


def test_the_first_record_of_a_life_tells_who_we_are() -> None:
    (hello,) = feed(fresh(), NOW_MS + 7_000)
    assert (hello.number, hello.watermark_ms, counted(hello)) == (0, NOW_MS + 2_000, 0)
    assert hello.teller.shard_id == streams.SHARD.id
    assert hello.teller.since_ms is None


def test_a_closing_is_made_by_the_record_that_takes_the_watermark_past_an_end() -> None:
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000)
    assert feed(pipeline, NOW_MS + 7_000, NOW_MS + 14_999) == []
    (one,) = feed(pipeline, NOW_MS + 15_000, NOW_MS + 16_000)
    assert (one.number, one.watermark_ms, counted(one)) == (1, NOW_MS + 10_000, 2)


def test_an_end_that_is_passed_with_nothing_in_its_window_is_told_all_the_same() -> None:
    """Others wait for the watermark."""
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000, NOW_MS + 25_000)
    (one,) = feed(pipeline, NOW_MS + 35_000)
    assert (one.number, one.watermark_ms) == (2, NOW_MS + 30_000)
    assert counted(one) == 1


def test_several_ends_that_one_record_passes_make_one_closing() -> None:
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000, NOW_MS + 14_000)
    (one,) = feed(pipeline, NOW_MS + 95_000)
    assert counted(one) == 2


def test_what_comes_within_lateness_goes_with_a_later_closing() -> None:
    rule = stages.rule(lateness_ms=20_000)
    pipeline = fresh(stages.plan(rule, buckets=1))
    feed(pipeline, NOW_MS + 6_000, NOW_MS + 16_000)
    assert feed(pipeline, NOW_MS + 7_000) == []
    (one,) = feed(pipeline, NOW_MS + 25_000)
    assert (one.number, counted(one)) == (2, 2)
    assert feed(pipeline, NOW_MS + 35_000)[0].number == 3
    step = pipeline.feed(streams.page([record(99, NOW_MS - 1)]))
    assert step.counts.late == 1


def test_an_idle_mark_tells_what_is_open_and_only_that() -> None:
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000)
    assert not pipeline.is_due(NOW_MS + 9_999)
    assert pipeline.is_due(NOW_MS + 10_000)
    (one,) = mark(pipeline, "idle", NOW_MS + 10_000)
    assert (counted(one), one.is_idle) == (1, False)
    assert not pipeline.is_due(NOW_MS + MINUTE_MS)


def test_a_shard_with_nothing_to_tell_may_fall_quiet_once() -> None:
    pipeline = fresh()
    assert pipeline.is_quiet_due
    (hello,) = mark(pipeline, "quiet")
    assert (hello.number, hello.is_idle, hello.watermark_ms) == (0, True, None)
    assert not pipeline.is_quiet_due
    assert mark(pipeline, "quiet") == []


def test_a_shard_with_an_open_window_is_not_quiet_whatever_the_mark_says() -> None:
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000)
    assert not pipeline.is_quiet_due
    assert mark(pipeline, "quiet") == []


def test_a_quiet_shard_is_back_with_its_first_record_and_not_before() -> None:
    pipeline = fresh()
    mark(pipeline, "quiet")
    assert mark(pipeline, "idle", NOW_MS + MINUTE_MS) == []
    (back,) = feed(pipeline, NOW_MS + MINUTE_MS + 1)
    assert (back.number, back.is_idle) == (1, False)
    assert feed(pipeline, NOW_MS + MINUTE_MS + 2) == []


def test_the_end_of_a_shard_tells_everything_and_leaves_its_children_nothing() -> None:
    pipeline = fresh()
    feed(pipeline, NOW_MS + 6_000)
    (last,) = closings(pipeline.end().partials)
    assert (last.is_ended, counted(last), last.number) == (True, 1, 1)
    child = fresh(shard=Shard("shardId-000000000001", parents=(streams.SHARD.id,)))
    child.inherit([pipeline.snapshot()])
    assert child.windows_open == 0
    (hello,) = feed(child, NOW_MS + 7_000)
    assert (hello.number, hello.teller.parents) == (0, (streams.SHARD.id,))
    assert hello.teller.since_ms is None


def test_a_rule_that_is_new_to_a_shard_says_from_where_on_it_counts() -> None:
    old = fresh(stages.plan(stages.rule("former"), buckets=1))
    feed(old, NOW_MS + 6_000)
    new = fresh()
    new.restore(old.snapshot(), old.position or END)
    (hello,) = feed(new, NOW_MS + 8_000)
    assert hello.teller.since_ms == NOW_MS + 6_001
    assert hello.teller.origin != ""
    ended = closings(old.end().partials)
    assert ended[0].teller.life != hello.teller.life


def test_a_rule_that_is_new_to_a_shard_without_records_has_a_life_of_its_own_too() -> None:
    """It may have told that it is quiet before, ran another file then, and count from 0 again."""
    first = fresh()
    (quiet,) = mark(first, "quiet")
    other = fresh(stages.plan(stages.rule("other"), buckets=1))
    other.restore(first.snapshot(), Position("after", str(10**55 - 1)))
    again = fresh()
    again.restore(other.snapshot(), Position("after", str(10**55 - 1)))
    (hello,) = feed(again, NOW_MS + 6_000)
    assert (hello.number, hello.teller.since_ms) == (quiet.number, None)
    assert hello.teller.life != quiet.teller.life


def test_a_rule_whose_thresholds_change_tells_what_is_open_in_a_life_of_its_own() -> None:
    old = fresh()
    feed(old, NOW_MS + 6_000)
    threshold = msgspec.structs.replace(streams.DETECTS[2], options={"above": 96})
    changed = stages.rule(detect=(*streams.DETECTS[:2], threshold))
    new = fresh(stages.plan(changed, buckets=1))
    new.restore(old.snapshot(), old.position or END)
    hello, one = [*feed(new, NOW_MS + 7_000), *feed(new, NOW_MS + 15_000)]
    assert (hello.number, one.number, counted(one)) == (0, 1, 2)
    assert hello.teller.since_ms == NOW_MS + 6_001


@settings(max_examples=25, deadline=None)
@given(seeds, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([0, 30_000]))
def test_neither_page_cuts_nor_restarts_show_in_what_is_told(
    seed: int, cuts: list[int], lateness_ms: int
) -> None:
    rng = random.Random(seed)
    rule = stages.rule(group_by=("type", "store"), max_groups=4, lateness_ms=lateness_ms)
    plan = stages.plan(rule)
    base = streams.records(seed, 200)
    whole = fresh(plan)
    expected = whole.feed(streams.page(base)).partials + whole.end().partials
    pipeline, told = fresh(plan), list[Partial]()
    for page in streams.pages(base, cuts):
        told += pipeline.feed(page).partials
        if rng.random() < 0.5:
            state, position = pipeline.snapshot(), pipeline.position or Position("trim_horizon")
            pipeline = fresh(plan)
            pipeline.restore(state, position)
            assert pipeline.snapshot() == state
    assert told + pipeline.end().partials == expected
    assert pipeline.snapshot() == whole.snapshot()


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_what_is_told_is_what_was_counted(seed: int) -> None:
    base = streams.records(seed, 200)
    pipeline = fresh(stages.plan(stages.rule(group_by=("type", "store"))))
    step = pipeline.feed(streams.page(base))
    told = closings(step.partials + pipeline.end().partials)
    assert sum(map(counted, told)) == step.counts.counted
    for closing in told:
        for values in closing.deltas.keys if closing.deltas else []:
            assert partials.bucket_of(values, stages.BUCKETS) == closing.bucket
    numbers = [closing.number for closing in told if closing.bucket == 2]
    assert numbers == list(range(len(numbers)))


def test_groups_past_the_bound_are_told_as_other() -> None:
    pipeline = fresh(stages.plan(stages.rule(group_by=("store",), max_groups=2), buckets=1))
    part = [record(i, NOW_MS + 6_000, f"store-{i}") for i in range(5)]
    pipeline.feed(streams.page(part))
    (last,) = closings(pipeline.end().partials)
    assert last.deltas is not None
    by_key = zip(last.deltas.keys, slices.counts(last.deltas.windows).tolist(), strict=True)
    assert list(by_key) == [(["store-0"], 1), (["store-1"], 1), ([OTHER], 3)]


def test_keys_are_forgotten_with_their_last_window() -> None:
    pipeline = fresh(stages.plan(stages.rule(group_by=("store",)), buckets=1))
    pipeline.feed(streams.page([record(i, NOW_MS + 6_000, f"store-{i}") for i in range(5)]))
    assert pipeline.groups == {"all": 5}
    feed(pipeline, NOW_MS + 20_000)
    assert pipeline.groups == {"all": 1}


def test_a_rule_without_groups_has_one() -> None:
    pipeline = fresh(stages.plan(stages.rule(group_by=()), buckets=4))
    feed(pipeline, NOW_MS + 6_000, NOW_MS + 7_000)
    told = [closing for closing in closings(pipeline.end().partials) if closing.deltas]
    assert [(closing.deltas.keys, counted(closing)) for closing in told if closing.deltas] == [
        ([[]], 2)
    ]


def test_a_closing_that_is_too_large_is_split_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slices, "SPLIT_BYTES_MAX", 4_000)
    pipeline = fresh(stages.plan(stages.rule(group_by=("store",)), buckets=1))
    pipeline.feed(streams.page([record(i, NOW_MS + 6_000, f"store-{i}") for i in range(100)]))
    told = pipeline.end().partials
    assert max(len(partial.body) for partial in told) <= 4_000
    parts = closings(told)
    assert [part.split for part in parts] == list(range(len(parts)))
    assert {(part.number, part.splits) for part in parts} == {(1, len(parts))}
    assert len(parts) > 5
    assert sum(map(counted, parts)) == 100
    keys = [values for part in parts if part.deltas for values in part.deltas.keys]
    assert keys == [[f"store-{i}"] for i in range(100)]


def test_many_windows_of_one_key_are_split_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SPLIT_BYTES_MAX", 4_000)
    plan = stages.plan(stages.rule(group_by=()), buckets=1, out_of_orderness_ms=10 * MINUTE_MS)
    pipeline = fresh(plan)
    feed(pipeline, *(NOW_MS + i * SIZE_MS for i in range(50)))
    told = pipeline.feed(streams.page([record(99, NOW_MS + 30 * MINUTE_MS)])).partials
    assert max(len(partial.body) for partial in told) <= 4_000
    parts = closings(told)
    assert len(parts) > 2
    assert sum(map(counted, parts)) == 50
    assert len({(part.number, part.splits) for part in parts}) == 1


def test_a_page_of_which_nothing_can_be_read_tells_nothing() -> None:
    """Cut otherwise, it would be part of a page that tells: then numbers would not be the same."""
    broken = record(0, NOW_MS)._replace(payload=b"{")
    alone, together = fresh(), fresh()
    told = alone.feed(streams.page([broken])).partials
    told += alone.feed(streams.page([record(1, NOW_MS + 6_000)])).partials
    assert told == together.feed(streams.page([broken, record(1, NOW_MS + 6_000)])).partials
    assert [closing.number for closing in closings(told)] == [0]


def test_a_watermark_before_1970_is_no_closing_of_its_own() -> None:
    shipper = fresh()._global_rules[0]
    told = list(shipper.take(None, np.array([-5_000, -1]), -1))
    assert [firing.record for firing in told] == [0]
    assert shipping.NO_WATERMARK < -5_000
