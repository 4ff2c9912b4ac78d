"""The promise: what a shard yields is a function of its records and marks, and of nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.errors import StateUnreadable
from processor.model import AggregateSpec, DetectSpec, Mark, Position, Shard
from tests.core import streams
from tests.core.streams import MINUTE_MS, START_MS

N = 400
seeds = st.integers(0, 2**32)
cuts = st.lists(st.integers(1, N - 1), max_size=60)


@settings(max_examples=40, deadline=None)
@given(seeds, cuts, cuts)
def test_page_cuts_change_no_bit_of_events_letters_or_state(
    seed: int, some: list[int], others: list[int]
) -> None:
    stream, plan = streams.records(seed, N), streams.plan()
    one, two = streams.fresh(plan), streams.fresh(plan)
    first = streams.yielded([one.feed(page) for page in streams.pages(stream, some)])
    second = streams.yielded([two.feed(page) for page in streams.pages(stream, others)])
    assert first == second
    assert one.snapshot() == two.snapshot()


@settings(max_examples=40, deadline=None)
@given(seeds, cuts, st.sets(st.integers(0, 30)))
def test_a_pipeline_restored_at_any_page_goes_on_as_if_never_stopped(
    seed: int, where: list[int], stops: set[int]
) -> None:
    stream, plan = streams.records(seed, N), streams.plan()
    parts = streams.pages(stream, where)
    steady, moved = streams.fresh(plan), streams.fresh(plan)
    for i, page in enumerate(parts):
        if i in stops and moved.position is not None:
            successor = streams.fresh(plan)
            successor.restore(moved.snapshot(), moved.position)
            moved = successor
        assert moved.feed(page) == steady.feed(page)
    assert moved.snapshot() == steady.snapshot()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_every_closed_window_has_the_figures_that_plain_fractions_give(seed: int) -> None:
    stream = streams.records(seed, N)
    events, _ = streams.yielded([streams.fresh(streams.plan()).feed(streams.page(stream))])
    for rule, type_, size_ms in (("orders", "order", 1), ("payments", "payment", 3)):
        size_ms *= MINUTE_MS
        details = [json.loads(e.detail) for e in events if e.detail_type == "Window Result"]
        found = {
            (d["key"]["store"], d["window"]["start"]): d["values"]
            for d in details
            if d["rule"] == rule
        }
        expected = streams.truth(stream, size_ms, type_)
        assert found.keys() == expected.keys()
        for at, figures in expected.items():
            # Squares of values about 1e-7 are cut at 2^-104, so their spread is not exact.
            about = figures["spread"]
            spread = about and pytest.approx(about, rel=1e-12, abs=1e-28)
            assert found[at] == figures | {"spread": spread}


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_each_record_ends_once_counted_dropped_visibly_or_as_a_dead_letter(seed: int) -> None:
    pipeline = streams.fresh(streams.plan())
    step = pipeline.feed(streams.page(streams.records(seed, N)))
    t = pipeline.totals
    assert t.records == N
    assert t.records == t.counted + t.duplicates + t.late + t.unmatched + t.rejects
    assert t.rejects == len(step.dead_letters) == len({letter.id for letter in step.dead_letters})


def test_ids_are_unique_and_bytes_repeat() -> None:
    stream, plan = streams.records(7, 4_000), streams.plan()
    once, _ = streams.yielded([streams.fresh(plan).feed(streams.page(stream))])
    again, _ = streams.yielded([streams.fresh(plan).feed(streams.page(stream))])
    assert once == again
    assert len({event.id for event in once}) == len(once) > 200
    assert {event.detail_type for event in once} > {"Window Result", "Anomaly Opened"}


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_pythons_hash_seed_changes_no_byte(hash_seed: str) -> None:
    script = (
        "import hashlib; from tests.core import streams; "
        "from tests.core.test_pipeline import fingerprint; print(fingerprint())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == fingerprint()


def fingerprint() -> str:
    """Of all that a pipeline yields and keeps."""
    pipeline = streams.fresh(streams.plan())
    pages = streams.pages(streams.records(11, 3_000), range(0, 3_000, 170))
    steps = [pipeline.feed(page) for page in pages]
    snapshot = pipeline.snapshot()
    events, letters = streams.yielded([*steps, pipeline.end()])
    return hashlib.sha256(repr((events, letters)).encode() + snapshot).hexdigest()


def one(at_ms: int, n: int, store: str = "store-1", **more: object) -> streams.Record:
    event = {"id": f"x{n}", "at": at_ms, "type": "order", "store": store, "amount": 1, **more}
    return streams.Record(json.dumps(event).encode(), store, at_ms, str(10**55 + n))


def test_an_idle_mark_closes_what_it_passes_and_is_due_only_then() -> None:
    """
    minute   |--0--|--1--|          a record in each; watermark 55 s into minute 1 − 5 s
                      ^ mark at the end of minute 1 closes it
    """
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    start = START_MS // MINUTE_MS * MINUTE_MS
    step = pipeline.feed(streams.page([one(start, 1), one(start + 70_000, 2)]))
    assert [json.loads(e.detail)["window"]["start"] for e in step.events] == [start]
    end = start + 2 * MINUTE_MS
    assert not pipeline.is_due(end - 1)
    assert pipeline.is_due(end)
    assert pipeline.position is not None
    closed = pipeline.mark(Mark(pipeline.position, "idle", end))
    assert [json.loads(e.detail)["window"]["end"] for e in closed.events] == [end]
    assert pipeline.watermark_ms == end
    assert pipeline.mark(Mark(pipeline.position, "idle", end)).events == [], "a repeat is harmless"


def test_a_mark_behind_the_watermark_changes_nothing() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    start = START_MS // MINUTE_MS * MINUTE_MS
    pipeline.feed(streams.page([one(start, 1), one(start + 70_000, 2)]))
    before = pipeline.watermark_ms, pipeline.snapshot()
    assert pipeline.position is not None
    assert pipeline.mark(Mark(pipeline.position, "idle", start)).events == []
    assert (pipeline.watermark_ms, pipeline.snapshot()) == before


def test_a_wrong_clock_counts_but_does_not_close_everybodys_windows() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    start = START_MS // MINUTE_MS * MINUTE_MS
    ahead = one(start + 50 * MINUTE_MS, 2)._replace(arrival_ms=start + 1_000)
    pipeline.feed(streams.page([one(start, 1), ahead]))
    assert pipeline.watermark_ms == start + 1_000 - 5_000
    assert pipeline.totals.counted == 2
    too_far = one(start + 70 * MINUTE_MS, 3)._replace(arrival_ms=start + 1_000)
    letters = pipeline.feed(streams.page([too_far])).dead_letters
    assert [letter.reason for letter in letters] == ["future"]


def test_a_rejected_record_moves_no_watermark() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    start = START_MS // MINUTE_MS * MINUTE_MS
    bad = one(start + 10 * MINUTE_MS, 2, amount=None)
    step = pipeline.feed(streams.page([one(start, 1), bad, one(start + 1_000, 3)]))
    assert [letter.reason for letter in step.dead_letters] == ["missing_field"]
    assert pipeline.watermark_ms == start + 1_000 - 5_000
    assert pipeline.totals.late == 0


def test_of_several_bad_fields_the_first_that_the_rule_names_is_told() -> None:
    fields = [f"field-{n}" for n in range(12)]
    sums = tuple(AggregateSpec(f"sum-{n}", "sum", field) for n, field in enumerate(fields))
    pipeline = streams.fresh(streams.plan(streams.rule(aggregates=sums, detect=())))
    (letter,) = pipeline.feed(streams.page([one(START_MS, 1)])).dead_letters
    assert letter.detail.startswith("field-0:")


def test_without_a_time_field_arrival_is_event_time() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=()), time=None))
    start = START_MS // MINUTE_MS * MINUTE_MS
    pipeline.feed(streams.page([one(start, 1)._replace(arrival_ms=start + 9_000)]))
    assert pipeline.watermark_ms == start + 4_000


def test_a_key_that_goes_silent_is_still_judged() -> None:
    """Two stores, a record in each window of 30 minutes; store-2 stops for a while on day four."""
    half_hour = 30 * MINUTE_MS
    rule = streams.rule(detect=streams.DETECTS[1:2], size_ms=half_hour)
    pipeline = streams.fresh(streams.plan(rule))
    start, events = START_MS // half_hour * half_hour, []
    for window in range(200):
        is_silent = 150 <= window < 170
        for store in ("store-1",) if is_silent else ("store-1", "store-2"):
            record = one(start + window * half_hour, 2 * window + (store == "store-2"), store)
            events += pipeline.feed(streams.page([record])).events
    alarms = [json.loads(e.detail) for e in events if e.detail_type != "Window Result"]
    assert [(a["key"]["store"], a["anomaly"]["state"]) for a in alarms] == [
        ("store-2", "opened"),
        ("store-2", "resolved"),
    ]
    assert alarms[0]["count"] == 0
    assert alarms[0]["values"]["orders"] == 0
    assert alarms[0]["values"]["average"] is None


def test_the_bound_on_empty_windows_holds_over_a_restore() -> None:
    plan = streams.plan(streams.rule())
    start = START_MS // MINUTE_MS * MINUTE_MS
    steady, moved = streams.fresh(plan), streams.fresh(plan)
    for pipeline in (steady, moved):
        pipeline.feed(streams.page([one(start, 1)]))
    position = steady.position
    assert position is not None
    for minutes in (60, 90, 150, 300):
        mark = Mark(position, "idle", start + minutes * MINUTE_MS)
        successor = streams.fresh(plan)
        successor.restore(moved.snapshot(), position)
        moved = successor
        assert moved.mark(mark) == steady.mark(mark)
        assert moved.snapshot() == steady.snapshot()


def test_records_that_an_explicit_hash_key_sent_elsewhere_carry_their_shard() -> None:
    half = Shard("shardId-000000000001", 0, 2**127 - 1)
    plan = streams.plan(streams.rule(detect=()))
    start = START_MS // MINUTE_MS * MINUTE_MS
    stores = [f"store-{i}" for i in range(20)]
    stream = [one(start, i, store) for i, store in enumerate(stores)]
    stream += [one(start, 100, "store-1")._replace(partition_key="somebody")]
    stream += [one(start + 5 * MINUTE_MS, 101, "store-1")]
    events = ShardPipeline(plan, half, "1").feed(streams.page(stream)).events
    parts = {
        (d["key"]["store"], d.get("part")) for d in map(json.loads, (e.detail for e in events))
    }
    lower = {s for s in stores if int(hashlib.md5(s.encode()).hexdigest(), 16) < 2**127}
    homeless = {(s, half.id) for s in set(stores) - lower} | {("store-1", half.id)}
    assert parts == {(s, None) for s in lower} | homeless


def test_past_max_groups_new_keys_share_the_window_of_other() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=(), max_groups=3)))
    start = START_MS // MINUTE_MS * MINUTE_MS
    stream = [one(start, i, f"store-{i}") for i in range(8)]
    events = pipeline.feed(streams.page([*stream, one(start + 5 * MINUTE_MS, 99)])).events
    found = {d["key"]["store"]: d["count"] for d in map(json.loads, (e.detail for e in events))}
    assert found == {"store-0": 1, "store-1": 1, "store-2": 1, "__other__": 5}


def test_at_the_shards_end_only_what_no_child_can_have_is_told() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=(), max_groups=3)))
    strays = [one(START_MS, i)._replace(partition_key="somebody") for i in (2, 3)]
    others = [one(START_MS, 10 + i, f"store-{i}") for i in range(5)]
    pipeline.feed(streams.page([one(START_MS, 1), *strays, *others]))
    events = pipeline.end().events
    details = [json.loads(event.detail) for event in events]
    assert [(d["key"]["store"], d["count"]) for d in details] == [("__other__", 3), ("store-1", 2)]
    assert {d["part"] for d in details} == {streams.SHARD.id}
    assert pipeline.windows_open == 2, "those of store-1 and store-0, which have a home"


def test_a_child_says_nothing_under_an_id_that_its_parent_has_used() -> None:
    """The parent closed minute 0; a record of it comes late, after the reshard."""
    plan = streams.plan(streams.rule(detect=()))
    parent, child = streams.fresh(plan), ShardPipeline(plan, Shard("child"), "1")
    start = START_MS // MINUTE_MS * MINUTE_MS
    first = parent.feed(streams.page([one(start, 1), one(start + 2 * MINUTE_MS, 2)])).events
    first += parent.end().events
    child.inherit([parent.snapshot()])
    again = child.feed(streams.page([one(start, 3), one(start, 1)]))
    assert (again.counts.late, again.counts.duplicates) == (1, 1)
    then = child.feed(streams.page([one(start + 9 * MINUTE_MS, 4)])).events
    assert not {event.id for event in first} & {event.id for event in then}


LOW, HIGH = Shard("low", 0, 2**127 - 1), Shard("high", 2**127, 2**128 - 1)
LOW_STORE, HIGH_STORE = "store-2", "store-1"  # by their MD5


def merged(plan: Plan, low: ShardPipeline, high: ShardPipeline) -> ShardPipeline:
    child = ShardPipeline(plan, Shard("whole"), "1")
    child.inherit([high.snapshot(), low.snapshot()])
    return child


def test_a_merged_childs_watermark_begins_at_the_lower_and_the_other_is_a_floor() -> None:
    """
    minute   |--0--|--1--|--2--|--3--|--4--|
    low        x                            its parent stopped in minute 0
    high             x     x     x          its parent told minute 1, and stopped in minute 3
    """
    plan = streams.plan(streams.rule(detect=()))
    low, high = ShardPipeline(plan, LOW, "1"), ShardPipeline(plan, HIGH, "1")
    start = START_MS // MINUTE_MS * MINUTE_MS
    low.feed(streams.page([one(start, 0, LOW_STORE)]))
    high.feed(streams.page([one(start + n * MINUTE_MS, n, HIGH_STORE) for n in (1, 2, 3)]))
    child = merged(plan, low, high)
    assert child.watermark_ms == start - 5_000
    late = one(start + MINUTE_MS, 11, HIGH_STORE)
    timely = [one(start + MINUTE_MS, 10, LOW_STORE), one(start + 3 * MINUTE_MS, 12, HIGH_STORE)]
    step = child.feed(streams.page([late, *timely, one(start, 0, LOW_STORE)]))
    assert (step.counts.late, step.counts.counted, step.counts.duplicates) == (1, 2, 1)
    then = child.feed(streams.page([one(start + 6 * MINUTE_MS, 20, LOW_STORE)]))
    found = [json.loads(event.detail) for event in step.events + then.events]
    assert [
        ((d["window"]["start"] - start) // MINUTE_MS, d["key"]["store"], d["count"]) for d in found
    ] == [(0, LOW_STORE, 1), (1, LOW_STORE, 1), (2, HIGH_STORE, 1), (3, HIGH_STORE, 2)]


def test_a_merged_child_without_a_record_goes_idle_from_the_parent_that_had_some() -> None:
    plan = streams.plan(streams.rule(detect=()))
    low, high = ShardPipeline(plan, LOW, "1"), ShardPipeline(plan, HIGH, "1")
    start = START_MS // MINUTE_MS * MINUTE_MS
    high.feed(streams.page([one(start, 0, HIGH_STORE)]))
    child = merged(plan, low, high)
    assert child.watermark_ms == start - 5_000
    assert child.is_due(start + MINUTE_MS)
    earlier = [one(start - 9 * MINUTE_MS, 1, LOW_STORE), one(start - 2 * MINUTE_MS, 2, HIGH_STORE)]
    step = child.feed(streams.page(earlier))
    assert (step.counts.counted, step.counts.late) == (1, 1), "the silent one has told nothing yet"
    assert [json.loads(e.detail)["key"]["store"] for e in step.events] == [LOW_STORE]
    closed = child.mark(Mark(Position("trim_horizon"), "idle", start + MINUTE_MS)).events
    assert [json.loads(e.detail)["key"]["store"] for e in closed] == [HIGH_STORE]


def test_a_merged_child_goes_idle_from_the_parent_that_came_furthest() -> None:
    plan = streams.plan(streams.rule(detect=()))
    low, high = ShardPipeline(plan, LOW, "1"), ShardPipeline(plan, HIGH, "1")
    assert merged(plan, low, high).furthest_ms is None
    low.feed(streams.page([one(START_MS, 0, LOW_STORE)]))
    assert merged(plan, low, high).furthest_ms == START_MS - 5_000
    high.feed(streams.page([one(START_MS + 99 * MINUTE_MS, 1, HIGH_STORE)]))
    child = merged(plan, low, high)
    assert child.furthest_ms == START_MS + 99 * MINUTE_MS - 5_000
    child.feed(streams.page([one(START_MS + 100 * MINUTE_MS, 2, LOW_STORE)]))
    assert child.furthest_ms == child.watermark_ms == START_MS + 100 * MINUTE_MS - 5_000


def test_a_floor_that_the_watermark_has_passed_leaves_no_trace() -> None:
    plan = streams.plan(streams.rule(detect=()))
    low, high = ShardPipeline(plan, LOW, "1"), ShardPipeline(plan, HIGH, "1")
    low.feed(streams.page([one(START_MS, 0, LOW_STORE)]))
    high.feed(streams.page([one(START_MS + MINUTE_MS, 1, HIGH_STORE)]))
    child = merged(plan, low, high)
    assert b"floors\x91" in child.snapshot()
    child.feed(streams.page([one(START_MS + 2 * MINUTE_MS, 2, LOW_STORE)]))
    assert b"floors\x90" in child.snapshot()


def test_a_rule_that_one_parent_did_not_have_begins_anew_for_that_parents_keys() -> None:
    """
    minute   |--0--|--1--|
    low        x     x       its parent ran an older file: minute 0 is partial
    high       x     x       its parent ran this file
    """
    old, new = (streams.plan(streams.rule(detect=(), max_groups=n)) for n in (7, 8))
    low, high = ShardPipeline(old, LOW, "1"), ShardPipeline(new, HIGH, "1")
    start = START_MS // MINUTE_MS * MINUTE_MS
    low.feed(streams.page([one(start, 1, LOW_STORE)]))
    high.feed(streams.page([one(start, 2, HIGH_STORE)]))
    child = merged(new, low, high)
    then = [one(start + 1 + n, 10 + n, store) for n, store in enumerate((LOW_STORE, HIGH_STORE))]
    later = [record._replace(payload=_moved(record, n)) for n, record in enumerate(then)]
    events = child.feed(streams.page([*then, *later])).events
    events += child.mark(Mark(Position("end"), "idle", start + 9 * MINUTE_MS)).events
    assert [
        (d["key"]["store"], d["count"], d.get("partial", False))
        for d in (json.loads(event.detail) for event in events)
    ] == [
        (HIGH_STORE, 2, False),
        (LOW_STORE, 1, True),
        (HIGH_STORE, 1, False),
        (LOW_STORE, 1, False),
    ]


def _moved(record: streams.Record, n: int) -> bytes:
    """A minute later, under another id."""
    event = json.loads(record.payload)
    return json.dumps(event | {"at": event["at"] + MINUTE_MS, "id": f"later{n}"}).encode()


def test_a_rule_with_another_threshold_goes_on_with_what_the_parent_had_open() -> None:
    detects = [DetectSpec("threshold", "threshold", "highest", {"above": n}) for n in (95, 0.5)]
    old, new = (streams.plan(streams.rule(detect=(detect,))) for detect in detects)
    parent, child = streams.fresh(old), streams.fresh(new)
    parent.feed(streams.page([one(START_MS, 1)]))
    child.inherit([parent.snapshot()])
    assert child.windows_open == 1
    events = child.mark(Mark(Position("end"), "idle", START_MS + 2 * MINUTE_MS)).events
    assert [event.detail_type for event in events] == ["Window Result", "Anomaly Opened"]


def test_windows_that_led_to_an_alarm_under_other_options_count_no_more_in_a_child() -> None:
    """Two windows in a row raise it: the first was judged in the parent, by another threshold."""

    def plan_with(above: float) -> Plan:
        detect = DetectSpec("threshold", "threshold", "highest", {"above": above, "for": 2})
        return streams.plan(streams.rule(detect=(detect,)))

    found = []
    for then in (0.5, 0.6):
        parent = streams.fresh(plan_with(0.5))
        parent.feed(streams.page([one(START_MS, 1), one(START_MS + MINUTE_MS, 2)]))
        parent.mark(Mark(Position("end"), "idle", START_MS + MINUTE_MS))
        child = streams.fresh(plan_with(then))
        child.inherit([parent.snapshot()])
        events = child.mark(Mark(Position("end"), "idle", START_MS + 2 * MINUTE_MS)).events
        found.append([event.detail_type for event in events])
    assert found == [["Window Result", "Anomaly Opened"], ["Window Result"]]


def test_a_window_of_many_keys_is_told_in_steps_of_bounded_work_that_are_one_together() -> None:
    plan = streams.plan(streams.rule(detect=streams.DETECTS[1:2]))
    stores = [one(START_MS, i, f"store-{i}") for i in range(6_000)]
    closing = one(START_MS + 200_000, 9_999, "store-0")
    one_step, in_turns = streams.fresh(plan), streams.fresh(plan)
    for pipeline in (one_step, in_turns):
        pipeline.feed(streams.page(stores))
    steps = list(in_turns.steps(streams.page([closing])))
    assert [len(step.events) for step in steps] == [2_350, 2_500, 1_150]
    whole = one_step.feed(streams.page([closing]))
    assert [event for step in steps for event in step.events] == whole.events
    assert steps[-1].counts == whole.counts
    assert in_turns.snapshot() == one_step.snapshot()


def test_alarms_of_many_keys_are_put_into_words_in_bounded_steps() -> None:
    few = DetectSpec("few", "threshold", "orders", {"below": 1})
    plan = streams.plan(streams.rule(detect=(few,)))
    pipeline = streams.fresh(plan)
    pipeline.feed(streams.page([one(START_MS, i, f"store-{i}") for i in range(6_000)]))
    steps = list(pipeline.steps(Mark(Position("end"), "idle", START_MS + 2 * MINUTE_MS)))
    assert max(len(step.events) for step in steps) == 2_500
    assert sum(len(step.events) for step in steps) == 12_000
    assert steps[-1].counts.anomalies == {("orders", "few", "opened"): 6_000}


def test_what_closes_at_the_shards_end_is_told_in_bounded_steps_too() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=()), partition_key=None))
    pipeline.feed(streams.page([one(START_MS, i, f"store-{i}") for i in range(3_000)]))
    steps = list(pipeline.finish())
    assert [len(step.events) for step in steps] == [2_500, 500]
    assert [step.counts.windows_closed for step in steps] == [0, 3_000]


def test_a_long_gap_is_closed_in_steps_of_bounded_work_that_are_one_together() -> None:
    plan = streams.plan(streams.rule(detect=streams.DETECTS[1:2], size_ms=1_000))
    stores = [one(START_MS, i, f"store-{i}") for i in range(3_000)]
    late = one(START_MS + 200_000, 9_999, "store-0")
    one_step, in_turns = streams.fresh(plan), streams.fresh(plan)
    for pipeline in (one_step, in_turns):
        pipeline.feed(streams.page(stores))
    steps = list(in_turns.steps(streams.page([late])))
    assert len(steps) > 3
    whole = one_step.feed(streams.page([late]))
    assert [event for step in steps for event in step.events] == whole.events
    assert steps[-1].counts == whole.counts
    assert in_turns.snapshot() == one_step.snapshot()


def test_a_restored_watermark_makes_late_what_was_late_before() -> None:
    plan = streams.plan(streams.rule(detect=()))
    start = START_MS // MINUTE_MS * MINUTE_MS
    before, after = streams.fresh(plan), streams.fresh(plan)
    before.feed(streams.page([one(start, 1), one(start + 70_000, 2)]))
    assert before.position is not None
    after.restore(before.snapshot(), before.position)
    assert after.watermark_ms == before.watermark_ms
    after.feed(streams.page([one(start + 1, 3)]))
    assert after.totals.late == 1


@pytest.mark.parametrize(
    ("state", "reason"),
    [(b"", "truncated"), (b"\x00" * 40, "Expected `object`"), (None, "truncated")],
)
def test_a_state_that_cannot_be_read_is_refused(state: bytes | None, reason: str) -> None:
    plan = streams.plan()
    used = streams.fresh(plan)
    used.feed(streams.page(streams.records(1, 100)))
    damaged = used.snapshot()[:-20] if state is None else state
    with pytest.raises(StateUnreadable, match=reason):
        streams.fresh(plan).restore(damaged, Position("after", "1"))
