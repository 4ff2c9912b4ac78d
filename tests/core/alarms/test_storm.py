"""Many alarms in one window are told as one event: when, what it says, and how it ends.

Each minute every store sends one amount; more than 1 of it is an alarm.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.instructions import Instruction, encoded
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import (
    AggregateSpec,
    CollapseSpec,
    DetectSpec,
    Mark,
    Position,
    RuleSpec,
    Shard,
    WindowSpec,
)
from tests.core import streams
from tests.core.merge import stages
from tests.core.streams import MINUTE_MS, START_MS, Record

T0 = START_MS // MINUTE_MS * MINUTE_MS
SITE = CollapseSpec(over=3, by="site")
HIGH = DetectSpec("high", "threshold", "amount", {"above": 1, "recover_after": 1})
VERY = DetectSpec("very", "threshold", "amount", {"above": 8, "severity": "critical"})


def rule(collapse: CollapseSpec | None = SITE, *detects: DetectSpec) -> RuleSpec:
    return RuleSpec(
        name="orders",
        where={},
        group_by=("site", "store"),
        window=WindowSpec(MINUTE_MS),
        aggregates=(AggregateSpec("amount", "sum", "amount"),),
        detect=detects or (HIGH,),
        emit_anomalies="bus",
        collapse=collapse,
    )


def plan(*args: Any) -> Plan:
    return streams.plan(rule(*args), id=None)


def stores(site: str, *amounts: float) -> dict[tuple[str, str], float]:
    return {(site, f"{site}{i}"): amount for i, amount in enumerate(amounts)}


def records(minute: int, values: dict[tuple[str, str], float], first: int = 0) -> list[Record]:
    """One of each store, at half past the minute."""
    at_ms = T0 + minute * MINUTE_MS + 30_000
    made = []
    for i, ((site, store), amount) in enumerate(values.items()):
        event = {"at": at_ms, "site": site, "store": store, "amount": amount, "request": f"r{i}"}
        payload = json.dumps(event).encode()
        made.append(Record(payload, store, at_ms + 1_000, str(10**55 + first + i)))
    return made


class World:
    """A shard; what it tells by the minute that it is about."""

    def __init__(self, plan: Plan, shard: Shard = streams.SHARD):
        self.pipeline = ShardPipeline(plan, shard, "1")
        self.minute = 0
        self.untold: dict[str, int] = {}
        self.ids: list[str] = []

    def see(self, *each: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
        """One minute, which closes at once."""
        values = {key: amount for one in each for key, amount in one.items()}
        steps = [self.pipeline.feed(streams.page(records(self.minute, values)))]
        self.minute += 1
        to_ms = T0 + self.minute * MINUTE_MS
        steps.append(self.pipeline.mark(Mark(Position("after", "1"), "idle", to_ms)))
        told = [event for step in steps for event in step.events]
        self.ids += [event.id for event in told]
        for step in steps:
            for (_, why), n in step.counts.untold.items():
                self.untold[why] = self.untold.get(why, 0) + n
        return [json.loads(event.detail) | {"type": event.detail_type} for event in told]

    def restart(self, plan: Plan | None = None, *parents: World) -> None:
        old = self.pipeline
        self.pipeline = ShardPipeline(plan or old.plan, old.shard, "1")
        self.pipeline.restore(old.snapshot(), old.position or Position("trim_horizon"))


def brief(told: list[dict[str, Any]]) -> list[str]:
    """`opened a1`, `collapsed a (4)`."""
    found = []
    for each in told:
        anomaly = each["anomaly"]
        series = f" ({anomaly['series']})" if "series" in anomaly else ""
        name = " ".join([each["key"].get("store", each["key"].get("site", "all"))])
        found.append(f"{anomaly['state']} {name}{series}")
    return found


# ---- the limit ------------------------------------------------------------------------------


def test_as_many_as_the_limit_are_told_one_by_one():
    world = World(plan())
    assert brief(world.see(stores("a", 2, 2, 2, 0, 0))) == ["opened a0", "opened a1", "opened a2"]
    assert not world.untold


def test_one_more_and_they_are_told_as_one():
    world = World(plan())
    assert brief(world.see(stores("a", 2, 2, 2, 2, 0))) == ["collapsed a (4)"]
    assert world.untold == {"collapsed": 4}


def test_sites_are_counted_apart():
    world = World(plan())
    told = world.see(stores("c", 2, 2, 2, 2, 2), stores("b", 2, 2, 2, 2), stores("a", 2, 2, 2))
    assert brief(told) == [
        *("opened a0", "opened a1", "opened a2"),
        *("collapsed b (4)", "collapsed c (5)"),
    ]


def test_without_a_field_the_whole_rule_is_counted():
    world = World(plan(CollapseSpec(over=3)))
    [event] = world.see(stores("a", 2, 2), stores("b", 2, 2))
    assert (event["key"], event["anomaly"]["series"]) == ({}, 4)
    assert event["anomaly"]["sentence"].startswith("4 series of rule orders went off")


def test_a_rule_without_it_tells_all():
    assert len(World(plan(None)).see(stores("a", *[2] * 9))) == 9


def test_all_detectors_are_counted_together():
    world = World(plan(SITE, HIGH, VERY))
    [event] = world.see(stores("a", 9, 9, 0))
    anomaly = event["anomaly"]
    assert anomaly["by_detector"] == [
        {"detector": "high", "aggregate": "amount", "series": 2},
        {"detector": "very", "aggregate": "amount", "series": 2},
    ]
    assert anomaly["severity"] == "critical"
    assert anomaly["sentence"] == (
        "4 series of rule orders with site a went off in this window:"
        " 2 by high on amount, 2 by very on amount"
    )


# ---- what it says ---------------------------------------------------------------------------


def test_the_event_names_its_shard_its_window_and_the_worst_few():
    world = World(plan(CollapseSpec(over=3, by="site"), HIGH))
    [event] = world.see(stores("a", 2, 7, 3, 0, 4, 5, 6))
    assert event["type"] == "Anomaly Collapsed"
    assert (event["kind"], event["key"], event["part"]) == (
        *("anomaly", {"site": "a"}),
        streams.SHARD.id,
    )
    assert event["window"] == {"start": T0, "end": T0 + MINUTE_MS}
    assert event["count"] == 6
    worst = event["anomaly"]["worst"]
    assert [(one["key"]["store"], one["value"]) for one in worst] == [
        *(("a1", 7), ("a6", 6), ("a5", 5), ("a4", 4), ("a2", 3))
    ]
    assert worst[0]["score"] > worst[1]["score"]
    assert "7" in worst[0]["sentence"]


def test_equally_bad_ones_are_named_in_order_of_their_keys():
    world = World(plan())
    backwards = dict(reversed(stores("a", *[2] * 8).items()))
    [event] = world.see(backwards)
    named = [one["key"]["store"] for one in event["anomaly"]["worst"]]
    assert named == ["a0", "a1", "a2", "a3", "a4"]


def test_ids_are_of_the_window_the_value_and_the_shard():
    ids = []
    for shard in (streams.SHARD, Shard("shardId-000000000001")):
        world = World(plan(), shard)
        for amount in (2, 0, 2):
            world.see(stores("a", *[amount] * 4), stores("b", *[amount] * 4))
        ids += world.ids
    assert len(set(ids)) == len(ids) == 2 * 6


# ---- while it is on -------------------------------------------------------------------------


def test_others_join_it_and_resolve_silently():
    world = World(plan())
    world.see(stores("a", *[2] * 4, *[0] * 6))
    assert world.see(stores("a", *[2] * 8, *[0] * 2)) == []
    assert world.see(stores("a", *[2] * 2, *[0] * 8)) == []
    assert world.untold == {"collapsed": 8}


def test_what_is_elsewhere_is_told_as_ever():
    world = World(plan())
    world.see(stores("a", *[2] * 4), stores("b", 0, 0))
    assert brief(world.see(stores("a", *[2] * 4), stores("b", 2, 0))) == ["opened b0"]


def test_what_was_told_before_it_is_told_as_over():
    world = World(plan())
    world.see(stores("a", 2, 0, 0, 0, 0, 0))
    assert brief(world.see(stores("a", *[2] * 6))) == ["collapsed a (5)"]
    assert brief(world.see(stores("a", 0, *[2] * 5))) == ["resolved a0"]


# ---- its end --------------------------------------------------------------------------------


def test_a_tenth_left_ends_it_and_is_told_with_the_next_window():
    world = World(plan())
    world.see(stores("a", *[2] * 10))
    assert world.see(stores("a", 2, 2, *[0] * 8)) == []
    [over] = world.see(stores("a", 2, *[0] * 9))
    anomaly = over["anomaly"]
    assert (over["type"], anomaly["state"]) == ("Anomaly Resolved", "resolved")
    assert (anomaly["series"], anomaly["still_open"]) == (10, 1)
    assert anomaly["opened_at"] == T0
    assert [one["key"]["store"] for one in anomaly["left"]] == ["a0"]
    assert anomaly["sentence"] == (
        "over after 3 min: 10 series of rule orders with site a had gone off; 1 of them still is"
    )
    [late] = world.see(stores("a", 2, *[0] * 9))
    assert late["anomaly"]["state"] == "opened"
    assert late["anomaly"]["sentence"].endswith("left over from many at once that were told as one")
    assert brief(world.see(stores("a", *[0] * 10))) == ["resolved a0"]


def test_never_more_than_the_limit_are_left():
    world = World(plan())
    world.see(stores("a", *[2] * 50))
    assert world.see(stores("a", *[2] * 5, *[0] * 45)) == []
    assert brief(world.see(stores("a", *[2] * 3, *[0] * 47))) == ["resolved a (50)"]
    assert len(world.see(stores("a", *[2] * 3, *[0] * 47))) == 3


def test_where_none_is_left_nothing_follows_and_the_next_one_is_new():
    world = World(plan())
    world.see(stores("a", *[2] * 4))
    [over] = world.see(stores("a", *[0] * 4))
    assert over["anomaly"]["sentence"].endswith("none of them still is")
    assert world.see(stores("a", *[0] * 4)) == []
    assert brief(world.see(stores("a", *[2] * 4))) == ["collapsed a (4)"]
    assert len(set(world.ids)) == len(world.ids) == 3


# ---- restarts, deploys, reshards, cuts ------------------------------------------------------


def test_a_storm_survives_a_restart():
    steady, moved = World(plan()), World(plan())
    for amounts in (
        [2] * 10,
        [2] * 12,
        [2, 2] + [0] * 10,
        [2] + [0] * 11,
        [2] + [0] * 11,
        [0] * 12,
    ):
        assert moved.see(stores("a", *amounts)) == steady.see(stores("a", *amounts))
        moved.restart()
        assert moved.pipeline.snapshot() == steady.pipeline.snapshot()
    assert len(steady.ids) == 4


@pytest.mark.parametrize("collapse", [None, CollapseSpec(over=3)])
def test_a_deploy_that_knows_no_such_storm_ends_it_and_tells_what_is_left(collapse):
    world = World(plan())
    world.see(stores("a", *[2] * 4))
    world.restart(plan(collapse))
    assert brief(world.see(stores("a", 2, 2, 0, 0))) == ["resolved a (4)"]
    assert brief(world.see(stores("a", 2, 2, 0, 0))) == ["opened a0", "opened a1"]


def test_a_deploy_with_another_limit_goes_on_with_it():
    world = World(plan())
    world.see(stores("a", *[2] * 4))
    world.restart(plan(CollapseSpec(over=5, by="site")))
    assert world.see(stores("a", *[2] * 5)) == []
    assert brief(world.see(stores("a", *[0] * 5))) == ["resolved a (5)"]


LOW, HIGH_HALF = ("1", 0, 2**127 - 1), ("2", 2**127, 2**128 - 1)


def child(of: list[World], name: str, first: int = 0, last: int = 2**128 - 1) -> World:
    parents = tuple(world.pipeline.shard.id for world in of)
    world = World(of[0].pipeline.plan, Shard(name, first, last, parents))
    for parent in of:
        parent.pipeline.finish()
    world.pipeline.inherit([parent.pipeline.snapshot() for parent in of])
    world.minute = of[0].minute
    return world


def homed(values: dict[tuple[str, str], float], shard: Shard) -> dict[tuple[str, str], float]:
    """Those whose records the shard gets."""
    return {
        key: amount
        for key, amount in values.items()
        if shard.first_hash
        <= int.from_bytes(hashlib.md5(key[1].encode()).digest(), "big")
        <= shard.last_hash
    }


def test_both_children_go_on_with_a_storm_and_each_ends_its_own():
    parent = World(plan())
    parent.see(stores("a", *[2] * 40))
    children = [child([parent], *LOW), child([parent], *HIGH_HALF)]
    ended = []
    for one in children:
        shard = one.pipeline.shard
        assert one.see(homed(stores("a", *[2] * 40), shard)) == []
        [over] = one.see(homed(stores("a", *[0] * 40), shard))
        assert over["part"] == shard.id
        assert over["anomaly"]["opened_at"] == T0
        ended.append((over["id"], over["anomaly"]["series"]))
    assert sum(n for _, n in ended) == 40
    assert len({id_ for id_, _ in ended}) == 2


def test_a_child_of_two_goes_on_with_the_storms_of_both():
    halves = [World(plan(), Shard(*LOW)), World(plan(), Shard(*HIGH_HALF))]
    for one in halves:
        [began] = one.see(homed(stores("a", *[2] * 40), one.pipeline.shard))
        assert began["anomaly"]["state"] == "collapsed"
    both = child(halves, "3")
    assert both.see(stores("a", *[2] * 42)) == []  # two of them join
    told = both.see(stores("a", *[0] * 42))
    assert [one["anomaly"]["state"] for one in told] == ["resolved", "resolved"]
    assert sum(one["anomaly"]["series"] for one in told) == 42
    assert len({one["id"] for one in told}) == 2


def test_what_came_along_on_two_ways_is_one_storm():
    parent = World(plan())
    parent.see(stores("a", *[2] * 40))
    both = child([child([parent], *LOW), child([parent], *HIGH_HALF)], "3")
    assert both.see(stores("a", *[2] * 40)) == []
    assert brief(both.see(stores("a", *[0] * 40))) == ["resolved a (40)"]
    assert both.see(stores("a", *[0] * 40)) == []


AMOUNTS = st.lists(st.sampled_from([0, 0, 2, 9]), min_size=12, max_size=12)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(AMOUNTS, min_size=3, max_size=12),
    st.lists(st.integers(1, 150), max_size=40),
    st.sets(st.integers(0, 40)),
)
def test_page_cuts_and_restarts_change_no_bit(minutes, cuts, stops):
    stream: list[Record] = []
    for minute, amounts in enumerate([*minutes, [0] * 12]):
        values = stores("a", *amounts[:7]) | stores("b", *amounts[7:])
        stream += records(minute, values, len(stream))
    made = plan(SITE, HIGH, VERY)
    steady, moved = streams.fresh(made), streams.fresh(made)
    first = streams.yielded([steady.feed(streams.page(stream))])
    steps = []
    for i, page in enumerate(streams.pages(stream, cuts)):
        if i in stops and moved.position is not None:
            successor = streams.fresh(made)
            successor.restore(moved.snapshot(), moved.position)
            moved = successor
        steps.append(moved.feed(page))
    assert streams.yielded(steps) == first
    assert moved.snapshot() == steady.snapshot()
    ids = [event.id for event in first[0]]
    assert len(set(ids)) == len(ids)


# ---- people ---------------------------------------------------------------------------------


def ask(world: World, act: Any, **more: Any) -> None:
    asked = Instruction(f"{world.minute:03d}", act, 2**50, **more)
    payload = encoded(asked)
    world.pipeline.mark(Mark(Position("after", "1"), "instructed", 0, payload=payload))


def test_muted_stores_are_no_part_of_it():
    world = World(plan())
    ask(world, "mute", rule="orders", key={"store": "a0"}, until_ms=T0 + 60 * MINUTE_MS)
    assert len(world.see(stores("a", *[2] * 4))) == 3
    assert world.untold == {"muted": 1}


@pytest.mark.parametrize("is_over", [False, True])
def test_a_storm_that_was_expected_was_so_of_all_its_series(is_over):
    world = World(plan())
    world.see(stores("a", *[2] * 4))
    if is_over:
        world.see(stores("a", *[0] * 4))
    ask(world, "expect", of=world.ids[0])
    world.see(stores("a", *[0] * 4))
    world.see(stores("a", *[0] * 4))
    assert world.see(stores("a", *[2] * 4, 0)) == []
    assert world.untold["expected"] == 4


def test_a_later_alarm_of_its_series_is_no_part_of_what_was_expected():
    world = World(plan())
    world.see(stores("a", *[2] * 4))
    world.see(stores("a", *[0] * 4))
    assert brief(world.see(stores("a", 2, 0, 0, 0))) == ["opened a0"]
    ask(world, "expect", of=world.ids[0])
    assert world.see(stores("a", 2, 0, 0, 0)) == []  # it goes on


# ---- global rules ---------------------------------------------------------------------------


class Buckets:
    """A global rule: two shards of the source, and a merge stream's shard that hears of both."""

    def __init__(self, plan: Plan):
        halves = (Shard(*LOW), Shard(*HIGH_HALF))
        self.sources = [ShardPipeline(plan, shard, stages.INCARNATION) for shard in halves]
        self.merge = self.fresh(plan)
        self.minute = self.n = 0

    @staticmethod
    def fresh(plan: Plan) -> MergePipeline:
        return MergePipeline(plan, streams.SHARD, stages.INCARNATION, 1)

    def see(self, values: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
        """One minute; each shard has every other store."""
        put = []
        for i, source in enumerate(self.sources):
            own = dict(list(values.items())[i::2])
            put += source.feed(streams.page(records(self.minute, own))).partials
            to_ms = T0 + (self.minute + 1) * MINUTE_MS
            put += source.mark(Mark(Position("after", "1"), "idle", to_ms)).partials
        self.minute += 1
        events = self.merge.feed(stages.page(put, self.n)).events
        self.n += len(put)
        return [json.loads(event.detail) | {"type": event.detail_type} for event in events]


def global_plan(buckets: int) -> Plan:
    return stages.plan(rule(), buckets=buckets, id=None)


def test_a_global_rule_collapses_what_is_in_one_bucket():
    one = Buckets(global_plan(1))
    [event] = one.see(stores("a", *[2] * 8))
    assert (event["anomaly"]["series"], event["part"]) == (8, "bucket-0")
    assert one.see(stores("a", *[2] * 8)) == []
    saved, position = one.merge.snapshot(), one.merge.position
    one.merge = one.fresh(one.merge.plan)
    one.merge.restore(saved, position or Position("trim_horizon"))
    [over] = one.see(stores("a", *[0] * 8))
    assert (over["anomaly"]["state"], over["anomaly"]["series"]) == ("resolved", 8)


def test_buckets_count_apart_and_their_events_have_ids_of_their_own():
    told = Buckets(global_plan(4)).see(stores("a", *[2] * 40))
    assert {one["anomaly"]["state"] for one in told} == {"collapsed"}
    assert sum(one["anomaly"]["series"] for one in told) == 40
    parts, ids = ({one[name] for one in told} for name in ("part", "id"))
    assert len(parts) == len(ids) == len(told) == 4
