"""The lease loop over the memory table, in virtual time: no sleeps, no real clocks."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.leases import commands as c
from processor.core.leases.rows import AppRow, LinkRef, ShardRow, StreamKey, claimed
from processor.core.stored.chain import Body
from processor.errors import LeaseLost, Outage, StateUnreadable, Unavailable
from processor.model import END, Position, Shard, StreamInfo
from processor.runtime.lease_loop import Follower, Lease, LeaseLoop, LeasePorts
from processor.runtime.lease_observer import Unobserved
from processor.stores.memory import MemoryContent, MemoryObjects, MemoryTable, open_gate
from tests.virtual_time import VirtualClock, run

INFO = StreamInfo("orders", "arn:orders", 1_600_000_000_000, 1_700_000_000_000)
Work = Callable[[Lease], Awaitable[None]]


def name(number: int) -> str:
    return f"shardId-{number:012d}"


@dataclass
class Stream:
    """A source that only tells its shards."""

    shards: list[Shard]
    info: StreamInfo = INFO
    error: Exception | None = None

    async def describe(self) -> StreamInfo:
        if self.error is not None:
            raise self.error
        return self.info

    async def list_shards(self) -> list[Shard]:
        if self.error is not None:
            raise self.error
        return list(self.shards)


class Log(Unobserved):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_claimed(self, row: ShardRow) -> None:
        self.lines.append(f"claimed {row.id[-1]} epoch {row.epoch}")

    def on_released(self, shard_id: str, successor: str | None) -> None:
        self.lines.append(f"released {shard_id[-1]}")

    def on_lost(self, shard_id: str, epoch: int) -> None:
        self.lines.append(f"lost {shard_id[-1]} epoch {epoch}")

    def on_ended(self, row: ShardRow, children: tuple[str, ...]) -> None:
        self.lines.append(f"ended {row.id[-1]}, then {' '.join(child[-1] for child in children)}")

    def on_task_failed(self, shard_id: str, error: Exception, setbacks: int) -> None:
        self.lines.append(f"failed {setbacks}: {error}")

    def on_parked(self, shard_id: str, error: Exception) -> None:
        self.lines.append(f"parked: {error}")

    def on_buried_self(self, worker_id: str) -> None:
        self.lines.append("buried")


@dataclass
class Effect:
    """One record that a shard's task let take effect."""

    shard_id: str
    epoch: int
    number: int


@dataclass
class Town:
    """Workers on one table and one stream, and every effect that their tasks had, in order."""

    stream: Stream
    content: MemoryContent = field(default_factory=MemoryContent)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    effects: list[Effect] = field(default_factory=list)
    loops: list[LeaseLoop] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    stops: list[asyncio.Event] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)

    def worker(
        self, work: Work | None = None, gate: object = open_gate, app: str = "shop"
    ) -> LeaseLoop:
        seed = len(self.loops)
        table = MemoryTable(self.content, gate)  # type: ignore[arg-type]
        rng = random.Random(seed)
        ports = LeasePorts(table, self.objects, self.stream, VirtualClock(), rng)
        self.logs.append(Log())
        self.stops.append(asyncio.Event())
        log, do = self.logs[-1], work or self.count
        self.loops.append(LeaseLoop(ports, do, Follower(app), observer=log))
        self.tasks.append(asyncio.create_task(self.loops[-1].run(self.stops[-1])))
        return self.loops[-1]

    async def count(self, lease: Lease) -> None:
        """A record a second, a commit every five, the state is the position."""
        restored = await lease.load()
        number = int(restored.state or 0)
        assert number == int(restored.position.value or 0)
        while not lease.stopping.is_set():
            await asyncio.sleep(1)
            await lease.fence()
            number += 1
            self.effects.append(Effect(lease.shard.id, lease.epoch, number))
            if number % 5 == 0:
                await lease.checkpoint(Position("after", str(number)), b"%d" % number)
        await lease.checkpoint(Position("after", str(number)), b"%d" % number)

    async def kill(self, index: int) -> None:
        self.tasks[index].cancel()
        await asyncio.wait([self.tasks[index]])

    async def stop(self, index: int) -> float:
        """How long it took."""
        started_at = asyncio.get_running_loop().time()
        self.stops[index].set()
        await asyncio.wait([self.tasks[index]])
        return asyncio.get_running_loop().time() - started_at

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    def rows(self) -> dict[str, ShardRow]:
        return {row.id: row for row in self.content.shards.values()}

    def owners(self) -> list[int | None]:
        """The index of each shard's owner, by shard."""
        ids = {loop.worker_id: index for index, loop in enumerate(self.loops)}
        return [ids.get(row.owner or "") for _, row in sorted(self.rows().items())]

    def numbers(self, shard_id: str) -> list[int]:
        return [effect.number for effect in self.effects if effect.shard_id == shard_id]


def town(shards: int) -> Town:
    return Town(Stream([Shard(name(n)) for n in range(shards)]))


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            await test()

        run(main())

    wrapped.__name__ = test.__name__
    return wrapped


# ---- sharing a stream


@in_virtual_time
async def test_a_worker_claims_all_shards_and_gives_them_back() -> None:
    here = town(4)
    here.worker()
    await asyncio.sleep(12)
    assert here.owners() == [0, 0, 0, 0]
    assert await here.stop(0) < 2
    assert here.owners() == [None] * 4
    assert here.content.workers == {}
    for shard_id, row in here.rows().items():
        assert row.position == Position("after", str(here.numbers(shard_id)[-1]))


@in_virtual_time
async def test_two_workers_share_a_stream_and_a_killed_ones_shards_move() -> None:
    here = town(4)
    here.worker()
    here.worker()
    await asyncio.sleep(12)
    assert sorted(here.owners()) == [0, 0, 1, 1]
    await here.kill(0)
    await asyncio.sleep(15)
    assert here.owners() == [1, 1, 1, 1]
    await here.close()


@in_virtual_time
async def test_a_stopped_worker_hands_over_in_moments_and_repeats_nothing() -> None:
    here = town(4)
    here.worker()
    here.worker()
    await asyncio.sleep(12)
    assert await here.stop(0) < 3
    await asyncio.sleep(3)
    assert here.owners() == [1, 1, 1, 1]
    for shard_id in here.rows():
        numbers = here.numbers(shard_id)
        assert numbers == list(range(1, len(numbers) + 1))
    await here.close()


@in_virtual_time
async def test_what_a_killed_worker_had_not_committed_is_repeated_from_there() -> None:
    here = town(1)
    here.worker()
    await asyncio.sleep(9)  # seven or eight records, of which five are committed
    await here.kill(0)
    done = here.numbers(name(0))[-1]
    here.worker()
    await asyncio.sleep(30)
    assert here.numbers(name(0))[done : done + 3] == [6, 7, 8]
    await here.close()


@in_virtual_time
async def test_the_first_start_is_pinned_for_all_that_come_later() -> None:
    here = town(1)
    table = MemoryTable(here.content)
    ports = LeasePorts(table, None, here.stream, VirtualClock(), random.Random(9))

    async def wait(lease: Lease) -> None:
        await lease.stopping.wait()

    loop = LeaseLoop(ports, wait, Follower("shop", "latest"))
    task = asyncio.create_task(loop.run(asyncio.Event()))
    await asyncio.sleep(5)
    (row,) = here.rows().values()
    assert row.position == Position("at_time", str(INFO.service_date_ms))
    (app,) = here.content.apps.values()
    assert app == AppRow("shop", StreamKey.of(INFO), row.position)
    task.cancel()
    await asyncio.wait([task])


# ---- when things fail


@in_virtual_time
async def test_an_outage_of_the_table_stops_effects_and_costs_nothing() -> None:
    here = town(2)
    is_out = False

    async def gate(operation: str, side: str) -> None:
        await asyncio.sleep(0.01)
        if is_out:
            raise Outage("memory", operation, "the table is out")

    here.worker(gate=gate)
    here.worker(gate=gate)
    await asyncio.sleep(10)
    owners = here.owners()
    is_out = True
    await asyncio.sleep(10)
    quiet = len(here.effects)
    await asyncio.sleep(60)
    assert len(here.effects) == quiet
    is_out = False
    await asyncio.sleep(10)
    assert here.owners() == owners
    assert {row.epoch for row in here.rows().values()} == {1}
    for shard_id in here.rows():
        numbers = here.numbers(shard_id)
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 10
    await here.close()


@in_virtual_time
async def test_a_failing_shard_starts_again_is_parked_and_leaves_the_others_alone() -> None:
    here = town(2)

    async def work(lease: Lease) -> None:
        if lease.shard.id == name(0):
            raise AssertionError("we are wrong")
        await here.count(lease)

    loop = here.worker(work)
    await asyncio.sleep(60)
    log = here.logs[0].lines
    failed = [line for line in log if "we are wrong" in line]
    assert failed == [f"failed {n}: we are wrong" for n in (1, 2, 3, 4)] + ["parked: we are wrong"]
    assert here.rows()[name(0)].epoch == 5
    assert [one.stage for one in loop.leases()] == ["parked", "running"]
    assert len(here.numbers(name(1))) > 50
    await here.stop(0)
    assert here.owners() == [None, None]


@in_virtual_time
async def test_a_task_that_returns_unasked_has_failed() -> None:
    here = town(1)

    async def work(lease: Lease) -> None:
        await asyncio.sleep(1)

    here.worker(work)
    await asyncio.sleep(5)
    assert "failed 1: returned though nobody asked" in here.logs[0].lines
    await here.close()


@pytest.mark.parametrize("error", [Outage("s", "o", "c"), Unavailable("stream", "read", "wait")])
def test_a_service_that_is_away_is_waited_for_ever_longer_without_parking(
    error: Exception,
) -> None:
    async def main() -> None:
        here = town(1)

        async def work(lease: Lease) -> None:
            raise error

        loop = here.worker(work)
        await asyncio.sleep(300)
        assert loop.leases()[0].stage in ("failed", "running")
        told = [line for line in here.logs[0].lines if line.startswith("failed")]
        assert told == [f"failed {n}: {error}" for n in range(1, len(told) + 1)]
        assert len(told) == 10  # after 1, 2, 4, 8, 16, 32 s, and then each 64 s
        await here.close()

    run(main())


@in_virtual_time
async def test_what_was_fetched_ahead_for_a_task_that_never_loads_it_makes_room_again() -> None:
    async def fail(lease: Lease) -> None:
        raise Outage("kinesis", "GetShardIterator", "away")

    world = town(1)
    states = world.worker(fail).states
    link = LinkRef("item", f"orders@1/{name(0)}/1", 10)
    assert states.prefetched.reserve(name(0), link)
    states.prefetched.keep(name(0), link, Body([b"0123456789"]))
    await asyncio.sleep(5)
    assert states.prefetched.find(name(0), link) is None
    await world.close()


@in_virtual_time
async def test_a_task_that_is_cancelled_as_it_is_started_leaves_nothing_and_forgets_none() -> None:
    """The one before it, which would not end, is still waited for by the next."""
    world = town(1)
    loop = world.worker()
    await asyncio.sleep(5)
    before = loop._tasks[name(0)]
    row = claimed(loop._leases[name(0)].row, loop.worker_id, 0)
    loop._carry_out(c.Run(row))
    loop._carry_out(c.Cancel(row.id))
    await asyncio.sleep(0.1)
    assert not loop._leases
    assert loop._tasks == {name(0): before}
    await world.close()


@in_virtual_time
async def test_unreadable_state_parks_the_shard_with_its_reason() -> None:
    here = town(1)

    async def work(lease: Lease) -> None:
        raise StateUnreadable(lease.shard.id, "it is of another format")

    loop = here.worker(work)
    await asyncio.sleep(30)
    assert loop.leases()[0].stage == "parked"
    assert here.logs[0].lines[-1].endswith("it is of another format")
    await here.close()


@in_virtual_time
async def test_a_worker_whose_row_was_deleted_joins_anew_and_goes_on() -> None:
    here = town(2)
    loop = here.worker()
    await asyncio.sleep(8)
    first_id = loop.worker_id
    del here.content.workers[StreamKey.of(INFO), first_id]
    await asyncio.sleep(20)
    assert loop.worker_id != first_id
    assert here.owners() == [0, 0]
    log = here.logs[0].lines
    assert "buried" in log
    assert "lost 0 epoch 1" in log
    await here.close()


@in_virtual_time
async def test_what_must_exist_at_the_start_ends_the_run_if_it_does_not() -> None:
    here = town(1)
    here.stream.error = Unavailable("stream orders", "kinesis:DescribeStream", "create it")
    here.worker()
    await asyncio.wait(here.tasks)
    assert here.tasks[0].exception() is here.stream.error


@in_virtual_time
async def test_two_streams_by_one_table_take_no_notice_of_each_other() -> None:
    """Their shards are called alike, and were taken for held by the other's workers."""
    here = town(2)
    other = Town(Stream(here.stream.shards, replace(INFO, name="returns")), here.content)
    here.worker()
    other.worker()
    await asyncio.sleep(10)
    for loop in (*here.loops, *other.loops):
        assert [lease.owner for lease in loop.leases()] == [loop.worker_id] * 2
    await here.close()
    await other.close()


@in_virtual_time
async def test_a_second_app_on_a_stream_and_table_is_refused_at_the_start() -> None:
    here = town(1)
    here.worker()
    await asyncio.sleep(5)
    here.worker(app="billing")
    await asyncio.wait(here.tasks[1:])
    complaint = str(here.tasks[1].exception())
    assert complaint == (
        "lease table: following stream orders as app 'billing' failed; app 'shop' follows it by"
        " the same table: name a table of its own in state.table, or the same app"
    )
    await here.close()


@in_virtual_time
async def test_a_table_that_may_not_be_written_ends_the_run_at_the_start() -> None:
    here = town(1)
    error = Unavailable("table leases", "dynamodb:PutItem", "allow it")

    async def gate(operation: str, side: str) -> None:
        if operation == "join":
            raise error

    here.worker(gate=gate)
    await asyncio.wait(here.tasks)
    assert here.tasks[0].exception() is error


@in_virtual_time
async def test_a_stream_that_is_away_at_a_restart_stops_nobody_from_resuming() -> None:
    here = town(2)
    here.worker()
    await asyncio.sleep(5)
    await here.stop(0)

    async def listing() -> list[Shard]:
        raise Outage("kinesis", "ListShards", "away")

    here.stream.list_shards = listing  # type: ignore[method-assign]
    here.worker()
    await asyncio.sleep(5)
    assert here.owners() == [1, 1]
    await here.close()


@in_virtual_time
async def test_validity_counts_from_the_send_of_a_slow_heartbeat() -> None:
    here, latency_s = town(1), 1.5

    async def gate(operation: str, side: str) -> None:
        await asyncio.sleep(latency_s if (operation, side) == ("heartbeat", "after") else 0.001)

    loop = here.worker(gate=gate)
    await asyncio.sleep(20)
    most = 0.0
    for _ in range(200):
        await asyncio.sleep(0.05)
        most = max(most, loop.valid_for_s())
    assert 0 < most <= 8.0 - 2.0 - latency_s
    await here.close()


# ---- upkeep and stopping


@in_virtual_time
async def test_heartbeats_go_out_however_busy_the_shards_calls_are() -> None:
    here = town(3)

    async def gate(operation: str, side: str) -> None:
        await asyncio.sleep(4.9 if operation in ("write", "put") and side == "after" else 0.01)

    here.worker(gate=gate)
    loop = here.loops[0]
    await asyncio.sleep(60)
    assert loop.is_valid
    assert "buried" not in here.logs[0].lines
    await here.close()


@in_virtual_time
async def test_a_task_that_will_not_stop_is_cut_off_and_its_shard_released() -> None:
    here = town(1)

    async def work(lease: Lease) -> None:
        await lease.checkpoint(Position("after", "7"), b"7")
        await asyncio.sleep(1e9)

    here.worker(work)
    await asyncio.sleep(5)
    assert 20 <= await here.stop(0) < 30
    (row,) = here.rows().values()
    assert (row.owner, row.position) == (None, Position("after", "7"))


@in_virtual_time
async def test_after_the_drain_time_a_lease_takes_no_more_commits() -> None:
    here = town(1)
    seen: list[type[BaseException]] = []

    async def work(lease: Lease) -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            try:
                await lease.checkpoint(Position("after", "9"), b"9")
            except LeaseLost as error:
                seen.append(type(error))
            raise

    here.worker(work)
    await asyncio.sleep(5)
    await here.stop(0)
    assert seen == [LeaseLost]
    assert next(iter(here.rows().values())).commit == 0


# ---- resharding


async def end_after(town: Town, lease: Lease, records: int, children: tuple[Shard, ...]) -> None:
    for number in range(records):
        await asyncio.sleep(1)
        town.effects.append(Effect(lease.shard.id, lease.epoch, number + 1))
    await lease.end(END, b"last", children)


@in_virtual_time
async def test_children_are_read_by_who_ended_their_parent_without_delay() -> None:
    here = town(1)
    left, right = Shard(name(1), parents=(name(0),)), Shard(name(2), parents=(name(0),))

    async def work(lease: Lease) -> None:
        if lease.shard.id == name(0):
            here.stream.shards += [left, right]
            return await end_after(here, lease, 3, (left, right))
        return await here.count(lease)

    here.worker(work)
    await asyncio.sleep(7)
    assert here.rows()[name(0)].ended
    assert here.owners() == [None, 0, 0]
    assert here.logs[0].lines[1] == "ended 0, then 1 2"
    assert {row.commit for row in here.rows().values() if not row.ended} <= {0, 1}
    await here.close()


@in_virtual_time
async def test_a_merged_child_starts_after_both_its_parents() -> None:
    here = town(2)
    child = Shard(name(2), parents=(name(0), name(1)))

    async def work(lease: Lease) -> None:
        if lease.shard.id == name(2):
            return await here.count(lease)
        slow = lease.shard.id == name(1)
        return await end_after(here, lease, 20 if slow else 2, (child,))

    here.worker(work)
    here.worker(work)
    await asyncio.sleep(60)
    order = [effect.shard_id for effect in here.effects]
    assert order.index(child.id) > max(i for i, one in enumerate(order) if one == name(1))
    assert here.rows()[child.id].shard.parents == child.parents
    await here.close()


@in_virtual_time
async def test_a_child_with_an_undiscovered_parent_waits_for_it_too() -> None:
    """0 splits into 1 and 2, and 2 merges with 3 into 4; 3 ends before anybody knows 2."""
    here = Town(Stream([Shard(name(0)), Shard(name(3))]))
    one, two = Shard(name(1), parents=(name(0),)), Shard(name(2), parents=(name(0),))
    four = Shard(name(4), parents=(name(2), name(3)))

    async def work(lease: Lease) -> None:
        match lease.shard.id:
            case "shardId-000000000000":
                return await end_after(here, lease, 25, (one, two))
            case "shardId-000000000002":
                return await end_after(here, lease, 5, (four,))
            case "shardId-000000000003":
                await asyncio.sleep(1)
                here.stream.shards = [Shard(name(0)), Shard(name(3)), one, two, four]
                return await lease.end(END, b"last", (four,))
        return await here.count(lease)

    here.worker(work)
    await asyncio.sleep(60)
    order = [effect.shard_id for effect in here.effects]
    assert order.index(four.id) > max(i for i, one in enumerate(order) if one == two.id)
    await here.close()


@in_virtual_time
async def test_parents_that_end_at_one_moment_leave_their_child_to_one_of_their_workers() -> None:
    """Each last saw the other's shard open; who came second finds out, and goes on at once."""
    here = town(2)
    child = Shard(name(2), parents=(name(0), name(1)))
    began_at: list[float] = []

    async def work(lease: Lease) -> None:
        if lease.shard.id == child.id:
            began_at.append(asyncio.get_running_loop().time())
            await here.count(lease)
            return
        await asyncio.sleep(20 - asyncio.get_running_loop().time())
        await lease.end(END, b"last", (child,))

    here.worker(work)
    here.worker(work)
    await asyncio.sleep(19)
    assert sorted(here.owners()) == [0, 1]
    await asyncio.sleep(10)
    assert len(began_at) == 1
    assert 20 <= began_at[0] <= 21
    await here.close()


@in_virtual_time
async def test_a_child_is_read_within_a_second_though_worker_rows_can_not_be_read() -> None:
    here = town(1)
    left, right = Shard(name(1), parents=(name(0),)), Shard(name(2), parents=(name(0),))
    began_at: dict[str, float] = {}

    async def gate(operation: str, side: str) -> None:
        await asyncio.sleep(0.01)
        if operation == "read_workers" and asyncio.get_running_loop().time() > 8:
            raise Outage("memory", operation, "out")

    async def work(lease: Lease) -> None:
        began_at[lease.shard.id] = asyncio.get_running_loop().time()
        if lease.shard.id != name(0):
            await lease.stopping.wait()
            return
        await asyncio.sleep(20 - began_at[name(0)])
        await lease.end(END, b"last", (left, right))

    here.worker(work, gate=gate)
    await asyncio.sleep(30)
    assert 20 <= began_at[name(1)] <= 21
    assert 20 <= began_at[name(2)] <= 21
    await here.close()


@in_virtual_time
async def test_a_child_that_was_discovered_before_its_parent_ended_is_read_at_once() -> None:
    here = town(1)
    left, right = Shard(name(1), parents=(name(0),)), Shard(name(2), parents=(name(0),))
    began_at: dict[str, float] = {}

    async def work(lease: Lease) -> None:
        began_at[lease.shard.id] = asyncio.get_running_loop().time()
        if lease.shard.id != name(0):
            await here.count(lease)
            return
        here.stream.shards += [left, right]
        await asyncio.sleep(20 - began_at[name(0)])
        await lease.end(END, b"last", (left, right))

    here.worker(work)
    await asyncio.sleep(19)
    assert set(here.rows()) == {name(0), name(1), name(2)}
    await asyncio.sleep(10)
    assert 20 <= began_at[name(1)] <= 21
    assert 20 <= began_at[name(2)] <= 21
    await here.close()


@in_virtual_time
async def test_a_worker_that_drains_leaves_the_children_to_the_others() -> None:
    here = town(1)
    child = Shard(name(1), parents=(name(0),))

    async def work(lease: Lease) -> None:
        if lease.shard.id != name(0):
            await here.count(lease)
            return
        await lease.stopping.wait()
        await lease.end(END, b"last", (child,))

    here.worker(work)
    await asyncio.sleep(5)
    here.worker(work)
    await asyncio.sleep(5)
    await here.stop(0)
    assert "claimed 1 epoch 1" not in here.logs[0].lines
    await asyncio.sleep(5)
    assert here.owners() == [None, 1]
    await here.close()


@in_virtual_time
async def test_a_lone_worker_lists_as_often_as_its_share_of_a_fleet_of_eight() -> None:
    here, listed_at = town(1), []

    async def listing() -> list[Shard]:
        listed_at.append(asyncio.get_running_loop().time())
        return list(here.stream.shards)

    here.stream.list_shards = listing  # type: ignore[method-assign]
    here.worker()
    await asyncio.sleep(100)
    quiet = [after - before for before, after in pairwise(listed_at)]
    assert all(3 <= gap <= 4.6 for gap in quiet)  # 30 s by eight workers, of whom we are one
    await here.close()


@in_virtual_time
async def test_the_rows_and_states_of_a_shard_go_when_nobody_needs_them_any_more() -> None:
    here = town(1)
    child = Shard(name(1), parents=(name(0),))

    async def work(lease: Lease) -> None:
        if lease.shard.id != name(0):
            await here.count(lease)
            return
        await asyncio.sleep(3)
        here.stream.shards = [replace(Shard(name(0)), is_closed=True), child]
        await lease.end(END, b"last", (child,))

    here.worker(work)
    await asyncio.sleep(60)
    assert set(here.rows()) == {name(0), name(1)}  # it is still listed
    here.stream.shards = [child]
    await asyncio.sleep(30)
    assert set(here.rows()) == {name(1)}
    assert not [key for key in here.content.blobs if f"/{name(0)}/" in key]
    assert here.numbers(name(1)) == list(range(1, len(here.numbers(name(1))) + 1))
    await here.close()


@in_virtual_time
async def test_hash_keys_that_no_shard_covers_are_told() -> None:
    here = Town(Stream([Shard(name(0), 0, 9)]))
    told: list[list[str]] = []
    loop = here.worker()
    loop.observer.on_audit = lambda holes: told.append(list(holes))  # type: ignore[method-assign]
    await asyncio.sleep(30)
    assert told[0] == []  # once may be a mishap
    assert told[1:] == [[f"{10:032x}-{'f' * 32}"]] * len(told[1:])
    assert len(told) > 3
    await here.close()


# ---- whatever happens


faults = st.lists(
    st.tuples(
        st.integers(0, 2),  # which worker
        st.sampled_from(["refuse", "lose", "hang", "slow"]),
        st.floats(0.1, 20),  # for so long
        st.floats(0.1, 10),  # until the next
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(faults, st.integers(0, 2**16))
def test_epochs_take_turns_and_every_state_belongs_to_its_position(
    story: list[tuple[int, Literal["refuse", "lose", "hang", "slow"], float, float]], seed: int
) -> None:
    async def main() -> None:
        here = town(3)
        rng = random.Random(seed)
        trouble = ["", "", ""]

        def gate_of(index: int) -> Callable[[str, str], Awaitable[None]]:
            async def gate(operation: str, side: str) -> None:
                await asyncio.sleep(rng.uniform(0.001, 0.2))
                what = trouble[index] if rng.random() < 0.7 else ""
                if (what, side) in (("refuse", "before"), ("lose", "after")):
                    raise Outage("memory", operation, what)
                if what == "hang" and side == "after":
                    await asyncio.sleep(1e6)
                if what == "slow":
                    await asyncio.sleep(rng.uniform(0, 3))

            return gate

        for index in range(3):
            here.worker(gate=gate_of(index))
        await asyncio.sleep(5)
        for index, what, seconds, pause in story:
            trouble[index] = what
            await asyncio.sleep(seconds)
            trouble[index] = ""
            await asyncio.sleep(pause)
        await asyncio.sleep(45)
        check(here)
        await here.close()

    run(main())


def check(here: Town) -> None:
    """Every shard gets on, one epoch after the other, from what the last one committed."""
    assert None not in here.owners()
    for shard_id in here.rows():
        effects = [effect for effect in here.effects if effect.shard_id == shard_id]
        epochs = [effect.epoch for effect in effects]
        assert epochs == sorted(epochs), f"{shard_id}: a stale epoch still acted"
        for before, after in pairwise(effects):
            goes_on = after.number == before.number + 1
            starts_again = after.epoch > before.epoch and after.number <= before.number + 1
            assert goes_on or starts_again, f"{before} and then {after}"
        assert effects[-1].number >= 20
