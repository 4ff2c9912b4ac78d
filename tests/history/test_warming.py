"""Warm starts, with whole workers in memory: what history taught, and what it must not tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from processor import detectors
from processor.core.leases.rows import claimed
from processor.core.pipeline import ShardPipeline, generation
from processor.core.plan import Plan, compile
from processor.core.snapshots import Snapshot
from processor.core.stored import stream
from processor.errors import Refused
from processor.history import Recorded
from processor.history.learning import Learner
from processor.history.warming import Targets, learn, prepare, write
from processor.model import DetectSpec, MergeSpec, Page, RuleSpec, Shard
from processor.runtime.first_states import FirstStates
from processor.runtime.lease_admin import AdminPorts, LeaseAdmin
from processor.runtime.reliving import Reliving
from processor.runtime.shards import Follower
from processor.runtime.state_store import StateStore
from processor.sources.memory import MemorySource
from processor.stores.memory import MemoryTable
from tests.runtime.in_memory import BASE_MS, Life, Town, until
from tests.runtime.in_memory import tick as tick_at
from tests.virtual_time import START_MS, run

WINDOW_S = 600
DAY_S = 86_400
KEYS = ("a", "b", "c")
ZERO_MS = BASE_MS // (WINDOW_S * 1_000) * WINDOW_S * 1_000  # where window 0 starts
SHARD = "shardId-000000000000"
NOVELTY = DetectSpec("novelty", "novelty", "n")
ABSENCE = DetectSpec("absence", "absence", "n")


class World(Town):
    """A stream that nobody has read, by rules that watch how many records there are."""

    def __init__(self, *, start: str = "trim_horizon", shards: int = 1, merge: int = 0) -> None:
        super().__init__(
            shards=shards,
            window_ms=WINDOW_S * 1_000,
            detect=(NOVELTY, ABSENCE),
            start_at=start,
            caught_up_s=4.0,
            merge_shards=merge,
            merging=MergeSpec("merge", 4),
        )
        self.said: list[str] = []

    def plan(self) -> Plan:
        made = super().plan().pipeline
        rules = (self._watched(rule) for rule in made.rules)
        return compile(replace(made, rules=tuple(rules)))

    def _watched(self, rule: RuleSpec) -> RuleSpec:
        return replace(rule, detect=self.detect, emit_anomalies="bus", emit_windows="bus")

    def firsts(self) -> tuple[FirstStates, FirstStates | None]:
        plan = self.plan()
        table = MemoryTable(self.content, self._pass)

        def of(source: MemorySource, follower: Follower) -> FirstStates:
            admin = LeaseAdmin(AdminPorts(table, source, self.clock, self.said.append), follower)
            states = StateStore(table.items, self.objects)
            return FirstStates(admin, states, generation(plan))

        source = of(self.source, Follower("shop", self.start_at))
        if not self.merge_shards:
            return source, None
        return source, of(self.merge, Follower("shop", buckets=4))

    async def warm(self, recorded: Iterable[Recorded]) -> Learner:
        source, merge = self.firsts()
        targets = await prepare(source, merge)
        learner = learn(self.plan().pipeline, targets, recorded, _unseen)
        await write(source, merge, targets, learner)
        return learner

    async def relive(self, days: float) -> Reliving:
        source, merge = self.firsts()
        leases = await source.prepare(is_relived=True)
        merged = (
            [] if merge is None else list((await merge.prepare(is_relived=True)).shards.values())
        )
        reliving = Reliving(self.plan(), leases.shards, merged, await source.generation(), _unseen)
        await reliving.run(self.source, START_MS - round(days * 86_400_000), self.clock.wall_ms())
        await source.write(reliving.firsts())
        if merge is not None:
            await merge.write(reliving.merged())
        return reliving

    async def live(self, windows: Iterable[int], *, burst_at: int = -1) -> None:
        """Ten minutes a window pass, with traffic as history has it; in one of them far more."""
        for nth in windows:
            await self.clock.sleep(WINDOW_S)
            for payload in traffic(nth * WINDOW_S, 20 if nth == burst_at else 1):
                self.put(payload, shard=self.home(json.loads(payload)["key"]))
        await self.clock.sleep(60)

    def home(self, key: str) -> str:
        from processor.core.homes import place_of

        nth = int.from_bytes(place_of(key), "big") * self.shards >> 128
        return f"shardId-{nth:012d}"

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        details = [json.loads(body) for body in self.bus.by_id().values()]
        return [d for d in details if kind in ("", d["kind"])]

    def opened(self, rule: str = "ticks") -> list[tuple[str, int]]:
        """Detector and window of each alarm that opened."""
        return sorted(
            {
                (d["anomaly"]["detector"], (d["window"]["start"] - ZERO_MS) // 1000 // WINDOW_S)
                for d in self.told("anomaly")
                if d["rule"] == rule and d["anomaly"]["state"] == "opened"
            }
        )


def tick(key: str, second: float) -> bytes:
    return tick_at(key, second + (ZERO_MS - BASE_MS) / 1000)


def _unseen(told: object) -> None:
    pass


def traffic(from_s: float, times: int = 1) -> Iterator[bytes]:
    """Of one window: some records a key, more by day than by night, a bit uneven."""
    nth = int(from_s // WINDOW_S)
    hour = (ZERO_MS // 1000 + int(from_s)) // 3600 % 24
    count = (6 + (hour > 7) * 6 + crc32(b"%d" % nth) % 4) * times
    for n in range(count):
        for key in KEYS:
            yield tick(key, from_s + n * WINDOW_S / count)


def history(days: int, end_s: float = -2 * DAY_S) -> list[Recorded]:
    """So many days of traffic that end then (seconds from the first window's start)."""
    first = round(end_s / WINDOW_S) - days * DAY_S // WINDOW_S
    made = []
    for nth in range(first, first + days * DAY_S // WINDOW_S):
        for payload in traffic(nth * WINDOW_S):
            event = json.loads(payload)
            made.append(Recorded(payload, event["key"], event["at"]))
    return made


WEEK = history(8)


def test_a_warm_worker_finds_on_its_first_day_what_a_cold_one_does_not_and_else_is_quiet() -> None:
    async def scene(*, is_warm: bool) -> list[tuple[str, int]]:
        world = World(start="latest")
        if is_warm:
            await world.warm(WEEK)
        life = world.start(plan=world.plan())
        await world.live(range(12), burst_at=8)
        await life.stop()
        return world.opened()

    assert run(scene(is_warm=True)) == [("novelty", 8)]
    assert run(scene(is_warm=False)) == []


def test_nothing_of_history_is_told_nor_are_live_records_late_because_of_it() -> None:
    async def scene() -> None:
        world = World(start="latest")
        await world.warm(history(2, end_s=30 * DAY_S))  # by clocks that were wrong
        life = world.start(plan=world.plan())
        await world.live(range(5))
        await life.stop()
        starts = [(d["window"]["start"] - ZERO_MS) // 1000 // WINDOW_S for d in world.told()]
        assert set(starts) <= set(range(5))
        assert life.steps.steps[-1].counts.late == 0
        assert sum(step.counts.late for step in life.steps.steps) == 0

    run(scene())


def test_the_gap_is_no_absence_and_the_first_window_is_partial_and_not_judged() -> None:
    async def scene() -> None:
        world = World(start="latest")
        await world.warm(WEEK)
        life = world.start(plan=world.plan())
        half = [p for p in traffic(0) if json.loads(p)["at"] >= ZERO_MS + WINDOW_S * 900]
        await world.clock.sleep(WINDOW_S)
        world.put(*half[-2:])  # the window's last minute, with next to nothing in it
        await world.live(range(1, 5))
        await life.stop()
        assert world.opened() == []
        partial = {d["window"]["start"] for d in world.told("window") if d.get("partial")}
        assert partial == {ZERO_MS}

    run(scene())


def test_a_key_that_history_knows_and_that_never_comes_is_found_absent() -> None:
    async def scene() -> None:
        world = World(start="latest")
        await world.warm(WEEK)
        life = world.start(plan=world.plan())
        for nth in range(6):
            await world.clock.sleep(WINDOW_S)
            world.put(*(p for p in traffic(nth * WINDOW_S) if json.loads(p)["key"] != "c"))
        await world.clock.sleep(60)
        await life.stop()
        absent = [d for d in world.told("anomaly") if d["anomaly"]["detector"] == "absence"]
        assert [(d["key"]["key"], d["anomaly"]["state"]) for d in absent] == [("c", "opened")]
        start = (absent[0]["window"]["start"] - ZERO_MS) // 1000 // WINDOW_S
        assert 2 <= start <= 3, "of the second or third window that can be judged"

    run(scene())


def columns_of(state: bytes, plan: Plan) -> dict[str, bytes]:
    """What detectors learnt, of the only rule; not what tells of the windows just before."""
    (saved,) = msgspec.msgpack.decode(state, type=Snapshot).rules.values()
    (rule,) = plan.pipeline.rules
    kinds = {aggregate.name: aggregate.kind for aggregate in rule.aggregates}
    passing = {
        f"{detect.name}({kinds[detect.aggregate]}).state.{name}"
        for detect in rule.detect
        for name in detectors.get(detect.kind).params.passing
    }
    assert passing <= saved.scorer.keys()
    return {
        name: bytes(column)
        for name, column in saved.scorer.items()
        if ".state." in name and name not in passing
    }


def test_what_is_learnt_is_to_the_bit_what_a_worker_knows_who_lived_through_it() -> None:
    async def scene() -> None:
        plan, shard = World().plan(), Shard("s")
        records = history(3)
        learner = Learner(plan, [shard], [None])
        learner.learn(records, _unseen)
        worker = ShardPipeline(plan, shard, "1.0")
        for first in range(0, len(records), 777):  # whatever the pages
            part = records[first : first + 777]
            numbers = [str(n) for n in range(first, first + len(part))]
            arrivals = np.array([r.arrival_ms for r in part])
            keys = [r.partition_key for r in part]
            worker.feed(Page([r.payload for r in part], numbers, keys, arrivals, 0, 0))
        known = columns_of(worker.snapshot(), plan)
        machine = learner.stages.shards[0].machine
        assert isinstance(machine, ShardPipeline)
        learnt = columns_of(stream.joined(machine.learnt()), plan)
        assert len(known) >= 15
        assert learnt == known

    run(scene())


def test_what_was_learnt_is_read_back_and_goes_to_the_children_of_a_reshard() -> None:
    async def scene() -> None:
        world = World(start="latest")
        await world.warm(WEEK)
        middle = 2**127
        children = (
            Shard("shardId-000000000001", 0, middle - 1, (SHARD,)),
            Shard("shardId-000000000002", middle, 2**128 - 1, (SHARD,)),
        )
        world.source.close(SHARD, children=children)
        life = world.start(plan=world.plan())
        for nth in range(12):
            await world.clock.sleep(WINDOW_S)
            for payload in traffic(nth * WINDOW_S, 20 if nth == 8 else 1):
                key = json.loads(payload)["key"]
                first = int.from_bytes(_place(key), "big") < middle
                world.put(payload, shard=children[0 if first else 1].id)
        await world.clock.sleep(60)
        await life.stop()
        assert world.opened() == [("novelty", 8)]
        keys = {d["key"]["key"] for d in world.told("anomaly")}
        assert keys == set(KEYS)
        first = {d["window"]["start"] for d in world.told("window") if d.get("partial")}
        assert first == {ZERO_MS}

    run(scene())


def _place(key: str) -> bytes:
    from processor.core.homes import place_of

    return place_of(key)


def test_each_shard_learns_of_its_own_keys_and_of_no_others() -> None:
    async def scene() -> None:
        world = World(start="latest", shards=4)
        learner = await world.warm(WEEK)
        keys = {world.home(key) for key in KEYS}
        sizes = {
            shard_id: row.pairs[-1].state.stored_bytes
            for (_, shard_id), row in world.content.shards.items()
            if row.pairs[-1].state is not None
        }
        assert len(sizes) == 4
        large = {shard_id for shard_id, size in sizes.items() if size > 1_000}
        assert large == keys
        assert learner.learnt["ticks"].keys == len(KEYS)
        assert 7.9 < learner.learnt["ticks"].judged_ms / 86_400_000 <= 8

    run(scene())


# ---- global rules ---------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 4])
def test_a_global_rule_is_warm_in_its_merge_stage(shards: int) -> None:
    async def scene() -> None:
        world = World(start="latest", shards=shards, merge=2)
        learner = await world.warm(WEEK)
        assert learner.learnt["all"].keys == 1
        life = world.start(plan=world.plan())
        await world.live(range(12), burst_at=8)
        await world.clock.sleep(120)
        await life.stop()
        assert world.opened("all") == [("novelty", 8)]
        assert world.opened() == [("novelty", 8)]

    run(scene())


# ---- from the stream itself -------------------------------------------------------------------


def lived(world: World, windows: int) -> None:
    """So many windows of traffic up to now, with a burst in one of them, and half of the last."""
    for nth in range(-windows, 0):
        payloads = list(traffic(nth * WINDOW_S, 3 if nth == 3 - windows else 1))
        for payload in payloads[: len(payloads) // 2] if nth == -1 else payloads:
            world.put(payload, shard=world.home(json.loads(payload)["key"]))


@pytest.mark.parametrize("merge", [0, 2])
@pytest.mark.parametrize("shards", [1, 4])
def test_the_stream_is_relived_silently_and_goes_on_whole(shards: int, merge: int) -> None:
    async def scene() -> None:
        world = World(shards=shards, merge=merge)
        lived(world, 200)
        await world.relive(1)
        assert world.told() == []
        life = world.start(plan=world.plan())
        last = list(traffic(-WINDOW_S))
        for payload in last[len(last) // 2 :]:
            world.put(payload, shard=world.home(json.loads(payload)["key"]))
        await world.live(range(7), burst_at=5)
        await world.clock.sleep(120)
        await life.stop()
        for rule in ("ticks", "all")[: 2 if merge else 1]:
            windows = [d for d in world.told("window") if d["rule"] == rule]
            starts = {(d["window"]["start"] - ZERO_MS) // 1000 // WINDOW_S for d in windows}
            assert starts == set(range(-1, 7)), rule
            assert not any(d.get("partial") for d in windows)
            first = [d for d in windows if d["window"]["start"] < ZERO_MS]
            assert sum(d["count"] for d in first) == len(last), "the open window is whole"
            assert ("novelty", 5) in world.opened(rule)
            assert min(at for _, at in world.opened(rule)) >= -1

    run(scene())


def test_ended_parents_are_relived_before_their_children() -> None:
    async def scene() -> None:
        world = World()
        lived(world, 150)
        child = Shard("shardId-000000000001", 0, 2**128 - 1, (SHARD,))
        world.source.close(SHARD, children=(child,))
        await world.relive(1)
        assert world.row().ended
        assert world.row(child.id).pairs[-1].state is not None
        life = world.start(plan=world.plan())
        for nth in range(5):
            await world.clock.sleep(WINDOW_S)
            world.put(*traffic(nth * WINDOW_S, 20 if nth == 3 else 1), shard=child.id)
        await world.clock.sleep(60)
        await life.stop()
        assert ("novelty", 3) in world.opened()

    run(scene())


# ---- refusals, and being cut short ------------------------------------------------------------


def test_a_live_owner_is_never_cut_in_on() -> None:
    async def scene() -> None:
        world = World()
        life = world.start(plan=world.plan())
        await until(lambda: life.worker.shards())
        with pytest.raises(Refused, match="is alive"):
            await world.warm([])
        await life.stop()

    run(scene())


def test_a_state_is_not_replaced_but_the_way_to_drop_it_is_told() -> None:
    async def scene() -> None:
        world = World()
        life = world.start(plan=world.plan())
        world.put(*traffic(0))
        await world.clock.sleep(60)
        await life.stop()
        before = world.row()
        with pytest.raises(Refused, match="processor leases reset --all --yes shop"):
            await world.warm(WEEK)
        assert world.row() == before

    run(scene())


def test_a_worker_that_starts_meanwhile_wins() -> None:
    async def scene() -> None:
        world = World()
        source, merge = world.firsts()
        targets = await prepare(source, merge)
        learner = learn(world.plan().pipeline, targets, history(1), _unseen)
        row = world.row()
        world.content.shards[row.stream, row.id] = claimed(row, "somebody", 0)
        with pytest.raises(Refused, match="changed while we learnt"):
            await write(source, merge, targets, learner)
        assert world.row().owner == "somebody"

    run(scene())


def test_cut_short_it_is_run_again_and_nothing_is_there_twice() -> None:
    async def scene() -> None:
        world = World(start="latest", shards=3)
        writes = 0

        async def gate(operation: str, side: str) -> None:
            nonlocal writes
            writes += (operation, side) == ("write", "before")
            if writes == 2:
                raise asyncio.CancelledError

        world.gate = gate
        with pytest.raises(asyncio.CancelledError):
            await world.warm(WEEK)
        world.gate = None
        states = [row.pairs[-1].state for row in world.content.shards.values()]
        assert 0 < states.count(None) < 3, "some were written"
        await world.warm(WEEK)
        await world.warm(WEEK)  # nobody has read anything yet: nothing is lost
        life: Life = world.start(plan=world.plan())
        await world.live(range(12), burst_at=8)
        await life.stop()
        assert world.opened() == [("novelty", 8)]

    run(scene())


def test_records_that_the_stream_will_give_are_left_to_it() -> None:
    async def scene() -> None:
        world = World()  # from the trim horizon: since the stream was made
        records = [replace(r, arrival_ms=START_MS - 5 + n) for n, r in enumerate(history(1)[:10])]
        learner = await world.warm(records)
        assert (learner.told.records, learner.told.left_to_stream) == (5, 5)

    run(scene())


def test_targets_are_only_the_shards_that_are_read_first() -> None:
    async def scene() -> Targets:
        world = World()
        child = Shard("shardId-000000000001", 0, 2**128 - 1, (SHARD,))
        world.source.put(SHARD, [b"{}"])
        world.source.close(SHARD, children=(child,))
        source, merge = world.firsts()
        return await prepare(source, merge)

    assert [row.id for row in run(scene()).takers] == [SHARD]
