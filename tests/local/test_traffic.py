"""The plan: what each record must become follows from its place in its shard's order alone.

The watermark's rule is said here once more, in a loop a person can follow:

    shard's times   09:00  09:40  09:31  05:20      at 09:40 the watermark is 09:10:
    fate            counted …………………  late       09:31 is in time, 05:20's windows are closed
"""

from collections import Counter

import orjson
import pytest

from processor.local.broken import BROKEN_KINDS
from processor.local.check import DAY_MS, HOUR_MS, WINDOW_MS, Sent
from processor.local.traffic import (
    MINUTE_MS,
    PLANTED_FROM_MS,
    REGIONS,
    SHARDS,
    SPAN_MS,
    STORES,
    Plan,
    Record,
    flush_ms,
    flush_record,
    fortnight_end_ms,
    plan_traffic,
    shard_of,
)

END_MS = 1_760_000_400_000 // HOUR_MS * HOUR_MS
OUT_OF_ORDERNESS_MS = 30 * MINUTE_MS  # as demo.yaml has it
HORIZON_MS = 6 * HOUR_MS


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_traffic(7, END_MS, duration_s=15)


def all_records(plan: Plan) -> list[Record]:
    return [record for shard in plan.shards for record in shard]


def fates(plan: Plan) -> Counter[str]:
    return Counter(record.sent.fate for record in all_records(plan))


def test_a_seed_is_one_plan(plan: Plan) -> None:
    assert plan_traffic(7, END_MS, duration_s=15) == plan
    assert plan_traffic(8, END_MS, duration_s=15).shards != plan.shards


def test_two_stores_belong_to_each_shard() -> None:
    assert Counter(map(shard_of, STORES)) == dict.fromkeys(range(SHARDS), 2)


def test_every_region_has_stores_on_several_shards() -> None:
    shards: dict[str, set[int]] = {}
    for store, region in zip(STORES, REGIONS, strict=True):
        shards.setdefault(region, set()).add(shard_of(store))
    assert len(shards) == 3
    assert all(len(some) > 1 for some in shards.values())


def test_the_fortnight_ended_two_hours_ago_at_the_full_hour() -> None:
    now_ms = END_MS + 2 * HOUR_MS + 59 * MINUTE_MS
    assert fortnight_end_ms(now_ms) == END_MS


def test_as_many_records_are_planned_as_rate_and_time_make(plan: Plan) -> None:
    assert plan.total == 15 * 2_000
    assert fates(plan) == {"counted": 29_730, "duplicate": 150, "late": 90, "broken": 30}


def test_records_are_due_in_their_order_and_within_the_time(plan: Plan) -> None:
    for shard in plan.shards:
        due = [plan.due_s(record.due_ms) for record in shard]
        assert due == sorted(due)
        assert due[0] >= 0
        assert due[-1] <= 15 + 0.1  # the jitter of 15 minutes lets the last ones run over


def test_every_record_lies_on_its_store_s_shard(plan: Plan) -> None:
    for number, shard in enumerate(plan.shards):
        assert {shard_of(record.store) for record in shard} == {number}


def test_events_lie_within_the_fortnight(plan: Plan) -> None:
    times = [one.sent.at_ms for one in all_records(plan) if one.sent.fate != "broken"]
    assert min(times) >= END_MS - SPAN_MS
    assert max(times) < END_MS


def test_counted_events_are_never_behind_the_watermark(plan: Plan) -> None:
    for record, watermark_ms in with_watermarks(plan):
        if record.sent.fate == "counted":
            assert record.sent.at_ms > watermark_ms


def test_late_events_are_late_for_their_longest_window_and_off_every_edge(plan: Plan) -> None:
    for record, watermark_ms in with_watermarks(plan):
        if record.sent.fate == "late":
            at_ms, longest_ms = record.sent.at_ms, max(WINDOW_MS.values())
            assert watermark_ms >= at_ms - at_ms % longest_ms + longest_ms
            assert 1_000 < at_ms % (10 * MINUTE_MS) < 10 * MINUTE_MS - 1_000


def test_duplicates_repeat_an_earlier_record_of_their_shard_inside_the_horizon(plan: Plan) -> None:
    seen: dict[str, bytes] = {}
    for record, watermark_ms in with_watermarks(plan):
        if record.sent.fate == "duplicate":
            assert seen[record.sent.id] == record.payload
            assert watermark_ms <= record.sent.at_ms + HORIZON_MS
        else:
            assert record.sent.id not in seen
        if record.sent.fate == "counted":
            seen[record.sent.id] = record.payload


def with_watermarks(plan: Plan) -> list[tuple[Record, int]]:
    """Each record with the watermark before it."""
    out = []
    for shard in plan.shards:
        latest_ms = 0
        for record in shard:
            out.append((record, latest_ms - OUT_OF_ORDERNESS_MS))
            if record.sent.fate != "broken":
                latest_ms = max(latest_ms, record.sent.at_ms)
    return out


def test_a_good_payload_says_what_the_truth_says(plan: Plan) -> None:
    good = (one for one in all_records(plan) if one.sent.fate != "broken")
    for record in good:
        body = orjson.loads(record.payload)
        said = Sent(
            body["id"],
            record.sent.fate,
            body["type"].partition(".")[0],
            body["store"],
            body["at"],
            body["amount"],
            body.get("failed", record.sent.failed),
            body["region"],
        )
        assert said == record.sent
        assert body["amount"] >= 1
        assert body["user"]


def test_every_kind_of_broken_record_is_sent(plan: Plan) -> None:
    payloads = [one.payload for one in all_records(plan) if one.sent.fate == "broken"]
    assert len(payloads) >= len(BROKEN_KINDS)
    assert b"" in payloads
    assert any(b"NaN" in payload for payload in payloads)
    assert any(payload.count(b"[") > 1_000 for payload in payloads)
    assert any(b"\xff" in payload for payload in payloads)


def test_times_in_the_future_are_more_than_an_hour_ahead_of_any_moment_of_the_run() -> None:
    now_ms = END_MS + 3 * HOUR_MS  # the latest now that END_MS is the fortnight's end for
    body = {"id": "x", "at": END_MS - DAY_MS, "store": "lima"}
    for kind in ("far in the future", "hours in the future"):
        at_ms = orjson.loads(BROKEN_KINDS[kind](body, END_MS))["at"]
        assert at_ms > now_ms + 2 * HOUR_MS


@pytest.mark.parametrize("seed", range(20))
def test_four_anomalies_are_planted_on_four_stores_from_day_nine_on(seed: int) -> None:
    end_ms = END_MS + seed * HOUR_MS  # the fortnight may begin at any hour
    planted = plan_traffic(seed, end_ms, duration_s=5, rate_per_s=100).planted
    assert len({one.store for one in planted}) == 4
    assert Counter(one.detector for one in planted) == {"novelty": 2, "absence": 1, "threshold": 1}
    for one in planted:
        assert end_ms - SPAN_MS + PLANTED_FROM_MS <= one.start_ms < one.end_ms <= end_ms


def test_nothing_happens_during_the_planted_silence(plan: Plan) -> None:
    [silence] = [one for one in plan.planted if one.name == "silence"]
    inside = [
        one
        for one in all_records(plan)
        if one.store == silence.store
        and one.sent.fate == "counted"
        and silence.start_ms <= one.sent.at_ms < silence.end_ms
    ]
    assert inside == []


def test_a_flush_record_closes_every_window_up_to_the_end() -> None:
    body = orjson.loads(flush_record(flush_ms(END_MS), "lima"))
    assert body["at"] - OUT_OF_ORDERNESS_MS >= END_MS
    assert body["type"] == "flush"
