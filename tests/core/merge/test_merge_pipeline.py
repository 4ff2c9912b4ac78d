"""A shard of the merge stream: what becomes of its records, good and bad, and of its time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from processor.core import windows
from processor.core.merge import partials, pipeline
from processor.core.merge.partials import Closing, Deltas
from processor.core.merge.pipeline import Behind, MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.errors import StateUnreadable
from processor.model import (
    END,
    DerivedEvent,
    DetectSpec,
    Mark,
    PanesSpec,
    Partial,
    Position,
    RuleSpec,
    Shard,
    Step,
    WindowSpec,
)
from tests.core import streams
from tests.core.merge import stages
from tests.core.streams import START_MS
from tests.core.test_shipping import record

NOW_MS = START_MS // 10_000 * 10_000
MERGE = Shard("shardId-000000000000")
HALVES = [Shard("shardId-000000000000", 0, 2**127 - 1), Shard("shardId-000000000001", 2**127)]
FEW = DetectSpec("few", "threshold", "orders", {"below": 2, "recover_after": 1})


def plan(*rules: RuleSpec, buckets: int = 1) -> Plan:
    return stages.plan(*rules or (stages.rule(detect=()),), buckets=buckets)


class Two:
    """Two shards of a source, and one of the merge stream that hears of both."""

    def __init__(self, plan_: Plan, generation: int = 1):
        self.sources = [ShardPipeline(plan_, shard, "1700000000000.0") for shard in HALVES]
        self.merge = MergePipeline(plan_, MERGE, "1700000000000.0", generation)
        self.generation = generation
        self._records = self._put = 0

    def feed(self, which: int, *times_ms: int) -> Step:
        first, self._records = self._records, self._records + len(times_ms)
        part = [record(first + i, at_ms) for i, at_ms in enumerate(times_ms)]
        return self.put(self.sources[which].feed(streams.page(part)).partials)

    def mark(self, which: int, fact: Any, watermark_ms: int = 0) -> Step:
        return self.put(self.sources[which].mark(Mark(END, fact, watermark_ms)).partials)

    def put(self, told: list[Partial]) -> Step:
        first, self._put = self._put, self._put + len(told)
        return self.merge.feed(stages.page(told, first, self.generation))

    def restart(self, plan_: Plan | None = None, generation: int | None = None) -> None:
        """Another worker takes over."""
        state, position = self.merge.snapshot(), self.merge.position or Position("trim_horizon")
        self.generation = self.generation if generation is None else generation
        shard = self.merge.shard
        self.merge = MergePipeline(plan_ or self.merge.plan, shard, "1.0", self.generation)
        self.merge.restore(state, position)


def told(events: list[DerivedEvent]) -> list[tuple[int, int]]:
    """(start, count) of results."""
    details = [json.loads(event.detail) for event in events]
    return [(d["window"]["start"] - NOW_MS, d["count"]) for d in details]


def test_a_window_is_told_when_the_last_shard_has_passed_its_end() -> None:
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000, NOW_MS + 15_000)
    assert two.merge.watermark_ms is None
    two.feed(1, NOW_MS + 7_000)
    assert two.merge.watermark_ms == NOW_MS + 2_000
    assert two.merge.windows_open == 1
    assert two.merge.groups == {"all": 1}
    step = two.feed(1, NOW_MS + 16_000)
    assert told(step.events) == [(0, 2)]
    detail = json.loads(step.events[0].detail)
    assert "part" not in detail
    assert detail["key"] == {"type": "order"}
    assert step.events[0].arrival_ms == START_MS + 3_000  # of the record that closed it


def test_the_merged_watermark_waits_for_nobody_who_is_quiet() -> None:
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000)
    two.mark(1, "quiet")
    assert told(two.feed(0, NOW_MS + 15_000).events) == [(0, 1)]


def test_where_all_are_quiet_an_idle_mark_of_the_merge_shard_closes_what_is_open() -> None:
    """A shard ended with a window open; its child has nothing to tell."""
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000)
    two.put(two.sources[0].end().partials)
    child = Shard("shardId-000000000002", 0, 2**127 - 1, (HALVES[0].id,))
    heir = ShardPipeline(two.merge.plan, child, "1700000000000.0")
    heir.inherit([two.sources[0].snapshot()])
    two.sources[0] = heir
    assert two.merge.furthest_ms is None
    two.mark(0, "quiet")
    two.mark(1, "quiet")
    assert two.merge.furthest_ms == NOW_MS + 1_000
    assert not two.merge.is_due(NOW_MS + 9_999)
    assert two.merge.is_due(NOW_MS + 10_000)
    step = two.merge.mark(Mark(END, "idle", NOW_MS + 10_000))
    assert told(step.events) == [(0, 1)]
    assert step.events[0].arrival_ms == 0


def test_an_idle_mark_while_somebody_reports_moves_nothing() -> None:
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000)
    two.mark(1, "quiet")
    assert not two.merge.is_due(NOW_MS + 60_000)
    assert two.merge.mark(Mark(END, "idle", NOW_MS + 60_000)).events == []


def test_what_comes_behind_the_merged_watermark_is_counted_late() -> None:
    two = Two(plan())
    two.mark(1, "quiet")
    two.feed(0, NOW_MS + 6_000, NOW_MS + 15_000, NOW_MS + 26_000)
    step = two.feed(1, NOW_MS + 7_000, NOW_MS + 8_000, NOW_MS + 16_000)
    assert (step.counts.late, step.counts.late_by_rule) == (2, {"all": 2})
    assert two.merge.totals.late == 2


def test_a_closing_that_comes_again_is_a_duplicate() -> None:
    two = Two(plan())
    page = streams.page([record(1, NOW_MS + 6_000), record(2, NOW_MS + 15_000)])
    once = two.sources[0].feed(page).partials
    two.put(once)
    before = two.merge.snapshot()
    step = two.put(once)
    assert step.counts.duplicates == 2
    assert two.merge.totals.duplicates == 2
    two.merge.totals = MergePipeline(plan(), MERGE, "1.0").totals
    again = Two(plan())
    again.put(once)
    again.merge.totals = two.merge.totals
    assert two.merge.snapshot() == again.merge.snapshot()
    assert before != b""


def test_a_shard_that_stands_still_can_be_left_behind_and_results_say_so() -> None:
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000)
    two.feed(1, NOW_MS + 7_000)
    assert two.merge.behind is None
    two.feed(0, NOW_MS + 16_000)
    assert two.merge.behind == Behind(HALVES[1].id, NOW_MS + 2_000)
    two.restart()
    step = two.merge.mark(Mark(END, "stalled", NOW_MS + 2_000, HALVES[1].id))
    assert told(step.events) == [(0, 1)]
    assert json.loads(step.events[0].detail)["complete"] is False
    assert two.merge.behind is None
    late = two.feed(1, NOW_MS + 26_000)
    assert (late.counts.late, late.events) == (1, [])
    step = two.feed(0, NOW_MS + 26_000)
    assert told(step.events) == [(10_000, 1)]
    assert "complete" not in json.loads(step.events[0].detail)


def test_part_of_a_stream_that_never_reports_can_be_left_behind() -> None:
    two = Two(plan())
    two.feed(0, NOW_MS + 6_000, NOW_MS + 16_000)
    assert two.merge.behind == Behind("", -(2**62))
    step = two.merge.mark(Mark(END, "stalled", -(2**62), ""))
    assert told(step.events) == [(0, 1)]


def test_a_rule_that_began_in_the_midst_tells_partial_windows_under_another_id() -> None:
    """The former rule's state is there, ours is not: what came before is missing."""
    former, ours = plan(stages.rule("former", detect=())), plan(stages.rule(detect=(FEW,)))
    old, two = Two(former), Two(ours)
    old.feed(0, NOW_MS + 6_000)
    two.sources[0].restore(old.sources[0].snapshot(), Position("after", str(10**55)))
    two.mark(1, "quiet")
    two._records = 1
    (one,) = two.feed(0, NOW_MS + 7_000, NOW_MS + 16_000).events
    assert json.loads(one.detail)["partial"] is True
    window, opened = two.feed(0, NOW_MS + 26_000).events
    assert "partial" not in json.loads(window.detail)
    assert json.loads(opened.detail)["kind"] == "anomaly"
    whole = Two(ours)
    whole.mark(1, "quiet")
    same = whole.feed(0, NOW_MS + 7_000, NOW_MS + 16_000, NOW_MS + 26_000).events
    first, second, *_ = [e for e in same if json.loads(e.detail)["kind"] == "window"]
    assert (first.id == one.id, second.id == window.id) == (False, True)


# ---- what is not as it should be ----------------------------------------------------------------


def letters(step: Step) -> list[tuple[str, str]]:
    return [(letter.reason, letter.detail) for letter in step.dead_letters]


def test_what_is_no_partial_goes_to_the_dead_letters_and_the_rest_goes_on() -> None:
    two = Two(plan())
    good = two.sources[0].feed(streams.page([record(1, NOW_MS + 6_000)])).partials
    page = stages.page([*good, *good, *good])
    page = replace(page, payloads=[b"{}", b"", page.payloads[2]])
    step = two.merge.feed(page)
    assert [reason for reason, _ in letters(step)] == ["no_partial", "no_partial"]
    assert step.counts.rejects == {"no_partial": 2}
    assert step.counts.records == 3
    assert step.dead_letters[0].payload == b"{}"
    assert step.dead_letters[0].id != step.dead_letters[1].id
    assert two.merge.behind is None
    assert len(two.merge._worlds) == 1


def closing(of: Plan, **more: Any) -> Closing:
    teller = partials.teller(HALVES[0], "1.0", None, "")
    version = of.rules[0].version
    made = Closing(1, version, 0, of.rules[0].buckets, teller, 0, 0, 1, NOW_MS, False, False)
    return replace(made, **more)


def put(to: MergePipeline, made: Closing, generation: int = 1) -> Step:
    page = stages.page([partials.partial(made)], generation=generation)
    return to.feed(page)


@pytest.mark.parametrize(
    "wrong",
    [
        Deltas([["order"]], windows.Saved(b"", {}, [])),
        Deltas([["order"]], windows.Saved(b"12345678", {"key": b"", "n": b""}, [])),
        Deltas([["order", "too many"]], windows.Saved(b"", {}, [])),
    ],
    ids=["no columns", "no rows", "another key"],
)
def test_deltas_that_do_not_fit_the_rule_are_refused_and_their_watermark_counts(
    wrong: Deltas,
) -> None:
    of = plan()
    merge = MergePipeline(of, MERGE, "1.0")
    teller = partials.teller(MERGE, "1.0", None, "")
    step = put(merge, closing(of, deltas=wrong, teller=teller))
    assert letters(step)[0][0] == "no_partial"
    assert step.counts.rejects == {"no_partial": 1}
    assert merge.watermark_ms == NOW_MS


def test_a_bucket_of_another_shard_or_of_another_division_is_refused() -> None:
    of = plan(buckets=2)
    merge = MergePipeline(of, HALVES[0], "1.0")
    assert letters(put(merge, closing(of, bucket=0))) == []
    assert letters(put(merge, closing(of, bucket=1)))[0][0] == "no_partial"
    (refused,) = letters(put(merge, closing(of, bucket=0, buckets=1)))
    assert refused == ("no_partial", "bucket 0 of 1: not of this shard")
    assert letters(put(merge, closing(of, bucket=0, buckets=3)))[0] == (
        "no_partial",
        "3 buckets, where the rule has 2",
    )


# ---- several pipeline files at once -------------------------------------------------------------


def test_what_a_newer_pipeline_file_tells_waits_for_a_worker_that_runs_it() -> None:
    ours, newer = plan(stages.rule("ours", detect=())), plan(stages.rule("newer", detect=()))
    two = Two(newer, generation=2)
    two.merge = MergePipeline(ours, MERGE, "1.0", 1)
    two.mark(1, "quiet")
    two.feed(0, NOW_MS + 6_000, NOW_MS + 15_000)
    assert two.merge.groups == {"ours": 0}
    two.restart(ours, 1)
    two.restart(newer, 2)
    step = two.feed(0, NOW_MS + 26_000)
    assert told(step.events) == [(0, 1), (10_000, 1)]


def test_what_an_older_pipeline_file_tells_is_counted_and_gone() -> None:
    ours, older = plan(stages.rule("ours", detect=())), plan(stages.rule("older", detect=()))
    merge = MergePipeline(ours, MERGE, "1.0", 2)
    step = put(merge, closing(older), generation=1)
    assert (step.counts.unmatched, letters(step)) == (1, [])
    assert merge.snapshot() == _with_totals_of(MergePipeline(ours, MERGE, "1.0", 2), merge)


def _with_totals_of(one: MergePipeline, other: MergePipeline) -> bytes:
    one.totals = other.totals
    return one.snapshot()


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, newer = plan(stages.rule("ours", detect=())), plan(stages.rule("newer", detect=()))
    monkeypatch.setattr(pipeline, "ASIDE_BYTES_MAX", 300)
    merge = MergePipeline(ours, MERGE, "1.0", 1)
    steps = [put(merge, closing(newer, number=n), generation=2) for n in range(10)]
    reasons = [reason for step in steps for reason, _ in letters(step)]
    assert 3 < len(reasons) < 10
    assert set(reasons) == {"aside_full"}


def test_what_waits_is_gone_once_its_pipeline_file_is_not_the_newest_any_more() -> None:
    """After a rollback: else it would take the room of all rollouts to come."""
    ours, newer = plan(stages.rule("ours", detect=())), plan(stages.rule("newer", detect=()))
    merge = MergePipeline(ours, MERGE, "1.0", 1)
    put(merge, closing(newer), generation=2)
    back = MergePipeline(ours, MERGE, "1.0", 3)
    back.restore(merge.snapshot(), Position("after", "1"))
    assert back.totals.unmatched == 1
    assert back.snapshot() == _with_totals_of(MergePipeline(ours, MERGE, "1.0", 3), back)


def test_results_of_a_merge_stream_that_was_sought_back_have_ids_of_their_own() -> None:
    """Marks are not made again, so a window may be told otherwise."""
    ids = []
    for incarnation in ("1.0", "2.0", "1.1"):
        two = Two(plan())
        two.merge = MergePipeline(plan(), MERGE, incarnation, 1)
        two.mark(1, "quiet")
        (event,) = two.feed(0, NOW_MS + 6_000, NOW_MS + 15_000).events
        ids.append(event.id)
    assert ids[0] == ids[1] != ids[2]


def test_detectors_keep_what_they_learnt_when_only_a_threshold_changes() -> None:
    ours = plan(stages.rule(detect=(FEW,)))
    lower = plan(stages.rule(detect=(replace(FEW, options={"below": 1, "recover_after": 1}),)))
    two = Two(ours)
    two.mark(1, "quiet")
    events = two.feed(0, NOW_MS + 6_000, NOW_MS + 16_000).events
    assert [json.loads(event.detail)["kind"] for event in events] == ["window", "anomaly"]
    two.restart(lower, 2)
    for source, fresh in zip(two.sources, HALVES, strict=True):
        state = source.snapshot()
        two.sources[HALVES.index(fresh)] = heir = ShardPipeline(lower, fresh, "1700000000000.0")
        heir.restore(state, source.position or Position("trim_horizon"))
    two.mark(1, "quiet")
    two.feed(0, NOW_MS + 17_000, NOW_MS + 27_000)  # a partial window: nobody judges it
    events = two.feed(0, NOW_MS + 36_000).events
    states = [json.loads(e.detail).get("anomaly", {}).get("state") for e in events]
    assert states == [None, "resolved"]


# ---- state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1})])
def test_state_that_can_not_be_read_is_refused(state: bytes) -> None:
    merge = MergePipeline(plan(), MERGE, "1.0")
    with pytest.raises(StateUnreadable):
        merge.restore(state, Position("trim_horizon"))


def test_state_of_another_release_names_what_to_do() -> None:
    state = msgspec.msgpack.encode({"version": pipeline.SNAPSHOT_VERSION + 1})
    with pytest.raises(StateUnreadable, match="a newer release wrote it"):
        MergePipeline(plan(), MERGE, "1.0").restore(state, Position("trim_horizon"))


# ---- lateness, windows of several panes ---------------------------------------------------------


def test_what_comes_within_lateness_is_told_in_a_late_pane_and_then_for_the_last_time() -> None:
    lenient = stages.rule(detect=(), lateness_ms=20_000, panes=PanesSpec(late_count=1))
    two = Two(plan(lenient))
    two.mark(1, "quiet")
    events = two.feed(0, NOW_MS + 6_000, NOW_MS + 15_000).events
    two.feed(1, NOW_MS + 7_000)
    step = two.feed(1, NOW_MS + 16_000)
    events += step.events
    two.restart()
    events += two.mark(1, "idle", NOW_MS + 40_000).events
    events += two.feed(0, NOW_MS + 46_000).events
    details = [json.loads(event.detail) for event in events]
    panes = [
        (d["pane"], d["count"], d["is_final"])
        for d in details
        if d["window"]["end"] <= NOW_MS + 10_000
    ]
    assert panes == [("on_time", 1, False), ("late:0", 2, False), ("final", 2, True)]
    assert all(d["values"]["orders"] == d["count"] for d in details)
    assert (step.counts.late, step.counts.counted) == (0, 1)


def test_a_hopping_window_is_made_of_the_panes_that_shards_tell() -> None:
    hopping = WindowSpec(20_000, kind="hopping", every_ms=10_000)
    two = Two(plan(stages.rule(window=hopping, detect=())))
    two.feed(0, NOW_MS + 6_000, NOW_MS + 16_000)
    events = two.feed(1, NOW_MS + 7_000, NOW_MS + 15_000, NOW_MS + 25_000).events
    events += two.feed(0, NOW_MS + 36_000).events + two.feed(1, NOW_MS + 37_000).events
    assert told(events) == [(-10_000, 2), (0, 4), (10_000, 3)]
    late = two.feed(0, NOW_MS + 46_000)
    assert late.counts.late == 0


# ---- buckets that move, lives that follow each other --------------------------------------------


def test_what_waits_for_a_newer_pipeline_file_moves_with_its_bucket() -> None:
    ours = plan(stages.rule("ours", detect=()), buckets=2)
    newer = plan(stages.rule("newer", detect=()), buckets=2)
    parent = MergePipeline(ours, MERGE, "1.0", 1)
    for bucket in (0, 1):
        put(parent, closing(newer, bucket=bucket), generation=2)
    for bucket, half in enumerate(HALVES):
        child = MergePipeline(newer, half, "1.0", 2)
        child.inherit([parent.snapshot()])
        child.feed(stages.page([partials.partial(closing(newer, bucket=bucket, number=1))]))
        assert list(child._worlds) == [(newer.rules[0].version, bucket)]


def test_once_a_new_life_is_heard_of_the_former_one_is_stale() -> None:
    """Though the new one's first closing is not whole yet."""
    of = plan()
    merge = MergePipeline(of, MERGE, "1.0")
    put(merge, closing(of))
    again = partials.teller(HALVES[0], "1.1", None, "")
    put(merge, closing(of, teller=again, splits=2))
    step = put(merge, closing(of, number=1, watermark_ms=NOW_MS + 60_000))
    assert step.counts.duplicates == 1
