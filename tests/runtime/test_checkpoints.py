"""A shard's checkpoints on their way while it goes on: order, failures, and how often they are due.

In memory and in virtual time; the object store and the table answer when the test lets them.
"""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from processor.core.leases.rows import claimed
from processor.core.pipeline import ShardPipeline
from processor.core.stored.stream import Part, whole
from processor.errors import LeaseLost, Unavailable
from processor.model import DetectSpec, Page, Shard
from processor.runtime.checkpoints import CHECKPOINT_S_MAX, SHARE, Captures, Checkpoints
from tests.runtime.in_memory import (
    BASE_MS,
    MINUTE_MS,
    SHARD,
    Side,
    Town,
    plan_of,
    tick,
    ticks,
    until,
)
from tests.runtime.test_lease import Keeping, at, kept
from tests.runtime.test_shard_loop import NEVER_MS, has_taken
from tests.virtual_time import VirtualClock, run


class Costly(VirtualClock):
    """Each look at the CPU's clock shows `step_s` more."""

    def __init__(self, step_s: float) -> None:
        super().__init__()
        self.step_s, self.spent_s = step_s, 0.0

    def cpu_s(self) -> float:
        self.spent_s += self.step_s
        return self.spent_s


class Gated:
    """Writes of shard rows wait until opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0

    async def __call__(self, operation: str, side: Side) -> None:
        await asyncio.sleep(0.001)
        if (operation, side) == ("write", "before"):
            self.waiting += 1
            try:
                await self.opened.wait()  # or until it is given up, and tried again
            finally:
                self.waiting -= 1


def checkpoints(keeper: Keeping, interval_s: float = 15.0) -> Checkpoints:
    return Checkpoints(keeper.claim(), keeper.clock, interval_s)


# ---- one on its way


def test_a_shard_goes_on_while_its_checkpoint_is_on_its_way() -> None:
    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(lambda: gate.waiting == 1)
        town.put(*ticks("a", range(3, 6)), tick("a", 61))
        await until(lambda: town.windows() == {("a", 0): (6, 6)})
        await asyncio.sleep(10)
        assert gate.waiting <= 1, "one at a time"
        assert town.commit == 0
        gate.opened.set()
        await until(lambda: town.commit == 1)
        assert town.row().position.value == "3", "what it was captured at"
        await until(lambda: town.row().position.value == "7")
        await life.stop()

    run(main())


def test_what_goes_on_meanwhile_is_not_in_the_state() -> None:
    """The commit is let through after more records were counted; then the worker dies."""

    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(lambda: gate.waiting == 1)
        town.put(*ticks("a", range(3, 6)))
        await until(lambda: has_taken(life, 6))
        town.gate = None
        gate.opened.set()
        await until(lambda: town.commit == 1)
        await life.kill()
        second = town.start()
        town.put(tick("a", 61))
        await until(lambda: has_taken(second, 7))
        assert town.windows() == {("a", 0): (6, 6)}, "none lost, none twice"
        await second.stop()

    run(main())


def test_a_large_state_on_its_way_shares_nothing_with_what_goes_on() -> None:
    """Its columns are taken as views of live memory, and later ones lean on what is kept of them:
    each is what it was when it was captured, whatever was counted while the store took its time."""

    async def main() -> None:
        keeper, until_ms = kept(), BASE_MS
        lease = keeper.claim()
        pipeline = ShardPipeline(plan_of(NEVER_MS, detect=(NOVELTY,)), lease.shard, "1")
        keeper.objects._gate = _slow
        for _ in range(GROWN):
            _count_on(pipeline, until_ms)
            until_ms += MINUTE_MS
        for number in range(1, 6):
            ours = Checkpoints(lease, keeper.clock, 15.0)
            _count_on(pipeline, until_ms)
            await ours.begin(at(number), pipeline.parts(), None)
            captured = pipeline.snapshot()
            _count_on(pipeline, until_ms := until_ms + MINUTE_MS)
            assert keeper.row().commit < number, "still on its way"
            await ours.settle()
            state = keeper.row().pairs[-1].state
            assert state is not None
            assert (await keeper.states.get(SHARD, state))[0] == captured
            assert bool(state.older) == (number > 1), "it leans on others"
            if number == 3:  # who takes over goes on from blocks that it read itself
                lease = keeper.claim()
                taken = (await lease.load()).state
                assert taken is not None
                pipeline = ShardPipeline(pipeline.plan, lease.shard, "1")
                pipeline.restore(taken, at(number))

    run(main())


NOVELTY = DetectSpec("novelty", "novelty", "total")
GROWN = 12  # windows: so much is known then that what one of them adds is little


async def _slow(operation: str, side: Side) -> None:
    await asyncio.sleep(1.0)


def _count_on(pipeline: ShardPipeline, from_ms: int) -> None:
    """A window of 500 keys, which closes, and is learnt."""
    payloads = [
        json.dumps(
            {
                "type": "tick",
                "key": f"k{i}",
                "at": at_ms,
                "value": (i * 7_919 + at_ms * 31) % 99_991,
            }
        )
        for at_ms in (from_ms, from_ms + MINUTE_MS)
        for i in range(500)
    ]
    n = len(payloads)
    arrivals = np.full(n, from_ms + MINUTE_MS, dtype=np.int64)
    keys = [f"k{i}" for i in range(500)] * 2
    texts = [payload.encode() for payload in payloads]
    pipeline.feed(Page(texts, ["1"] * n, keys, arrivals, 0, from_ms))


def test_a_mark_waits_for_the_checkpoint_on_its_way_and_is_replayed_after_it() -> None:
    """Both are at one position, so the commit numbers alone say that the state lacks the mark."""

    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await asyncio.sleep(200)  # idle for long: a mark is wanted
        assert (town.row().marks, town.bus.arrivals) == ((), [])
        gate.opened.set()
        await until(lambda: town.row().marks)
        (entry,) = town.row().marks
        captured = [pair.commit for pair in town.row().pairs if pair.position.value == "3"]
        assert (captured[0], entry.commit) == (1, 2)
        await life.kill()
        second = town.start()
        await until(lambda: town.windows() == {("a", 0): (3, 3)})
        await second.stop()

    run(main())


def test_a_stop_waits_for_the_checkpoint_on_its_way_and_commits_the_rest() -> None:
    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(lambda: gate.waiting == 1)
        town.put(*ticks("a", range(3, 6)))
        await until(lambda: has_taken(life, 6))
        life.stopping.set()
        await asyncio.sleep(5)
        assert town.row().owner is not None
        gate.opened.set()
        await life.task
        assert (town.row().position.value, town.row().owner) == ("6", None)

    run(main())


def test_a_shards_end_waits_for_the_checkpoint_on_its_way() -> None:
    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(lambda: gate.waiting == 1)
        town.source.close(SHARD, children=[Shard("shardId-000000000009", parents=(SHARD,))])
        await asyncio.sleep(5)
        assert not town.row().ended
        gate.opened.set()
        await until(lambda: town.row().ended)
        assert [pair.commit for pair in town.row().pairs] == [1, 2]
        await life.stop()

    run(main())


# ---- failures


def test_one_that_found_the_lease_lost_fails_the_shards_task() -> None:
    async def main() -> None:
        keeper = kept()
        ours = checkpoints(keeper)
        await ours.begin(at(1), whole(b"one"), None)
        await ours.settle()
        keeper.change(claimed(keeper.row(), "other", 0))
        await ours.begin(at(2), whole(b"two"), None)
        await asyncio.sleep(1)
        with pytest.raises(LeaseLost):
            await ours.poll()

    run(main())


def test_one_that_can_not_be_stored_fails_the_shards_task() -> None:
    async def main() -> None:
        keeper = kept()
        ours = checkpoints(keeper)

        async def denied(key: str, body: bytes) -> None:
            raise Unavailable("bucket b", "PutObject", "allow it")

        keeper.table.items.put = denied  # type: ignore[method-assign]
        await ours.begin(at(1), whole(b"one"), None)
        await asyncio.sleep(1)
        with pytest.raises(Unavailable):
            await ours.begin(at(2), whole(b"two"), None)

    run(main())


def test_when_the_task_ends_nothing_goes_on() -> None:
    async def main() -> None:
        keeper = kept()
        ours = checkpoints(keeper)
        keeper.faults.script = [("write", "hang")]
        await ours.begin(at(1), whole(b"one"), None)
        await asyncio.sleep(1)
        await ours.close()
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_cancelled_while_it_waits_it_cancels_the_one_on_its_way() -> None:
    async def main() -> None:
        keeper = kept()
        ours = checkpoints(keeper)
        keeper.faults.script = [("write", "hang")]
        await ours.begin(at(1), whole(b"one"), None)
        waiting = asyncio.create_task(ours.settle())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_a_shard_does_not_run_ahead_of_its_checkpoints_for_ever() -> None:
    """The store is out: after five minutes nothing more is read until it is back."""

    async def main() -> None:
        town, gate = Town(checkpoint_ms=1_000), Gated()
        life = town.start()
        await until(lambda: life.worker.shards())
        town.gate = gate
        town.put(tick("a", 0))
        await until(lambda: gate.waiting == 1)
        for second in range(1, int(CHECKPOINT_S_MAX) + 60):
            town.put(tick("a", second))
            await asyncio.sleep(1)
        taken = life.worker.shards()[SHARD].totals.records
        assert CHECKPOINT_S_MAX - 10 < taken < CHECKPOINT_S_MAX + 10
        assert life.worker.stuck() == []
        gate.opened.set()
        await until(lambda: has_taken(life, int(CHECKPOINT_S_MAX) + 60))
        await life.kill()

    run(main())


# ---- how often


def test_one_is_due_each_interval_and_never_while_one_is_on_its_way() -> None:
    async def main() -> None:
        keeper = kept()
        ours = checkpoints(keeper, 15.0)
        await asyncio.sleep(14)
        assert not ours.is_due
        await asyncio.sleep(1)
        assert ours.is_due
        keeper.faults.script = [("write", "hang")]
        await ours.begin(at(1), whole(b"one"), None)
        await asyncio.sleep(60)
        assert not ours.is_due
        await ours.close()
        assert ours.is_due

    run(main())


@pytest.mark.parametrize(
    ("cpu_s", "interval_s"),
    [(0.0, 15.0), (0.5, 15.0), (2.0, 2.0 / SHARE), (60.0, CHECKPOINT_S_MAX)],
)
def test_what_a_capture_costs_in_cpu_stretches_the_interval(
    cpu_s: float, interval_s: float
) -> None:
    """So that it is at most a twentieth of a core; wall-clock time plays no part in it."""

    async def main() -> None:
        keeper = kept()
        keeper.clock = Costly(cpu_s)
        ours = checkpoints(keeper, 15.0)
        await ours.begin(at(1), whole(b"one"), None)
        await ours.settle()
        await asyncio.sleep(interval_s - 1)
        assert not ours.is_due
        await asyncio.sleep(2)
        assert ours.is_due

    run(main())


def test_all_shards_of_a_process_together_take_a_twentieth_of_its_core() -> None:
    captures, costs = Captures(), {"a": 4.0, "b": 1.0, "c": 1.0, "idle": 0.0}
    for _ in range(2):  # the first time, the first of them knew nothing of the others
        intervals_s = {shard: captures.interval_s(shard, cost) for shard, cost in costs.items()}
    spent = [cost / intervals_s[shard] for shard, cost in costs.items() if cost]
    assert sum(spent) == pytest.approx(SHARE)
    assert intervals_s == {"a": 160.0, "b": 80.0, "c": 80.0, "idle": 0.0}
    captures.forget("a")
    assert captures.interval_s("b", 1.0) == 40.0


def test_a_neighbours_captures_stretch_the_interval_until_it_is_gone() -> None:
    async def main() -> None:
        keeper, captures = kept(), Captures()
        captures.interval_s("neighbour", 4.0)
        keeper.clock = Costly(1.0)
        ours = Checkpoints(keeper.claim(), keeper.clock, 15.0, captures)
        await ours.begin(at(1), whole(b"one"), None)
        await ours.settle()
        await asyncio.sleep(3.0 / SHARE - 1)
        assert not ours.is_due
        await asyncio.sleep(2)
        assert ours.is_due
        await ours.close()
        assert captures.interval_s("neighbour", 4.0) == 4.0 / SHARE

    run(main())


def test_a_capture_gives_others_their_turn_and_counts_only_its_own_time() -> None:
    """Others work between its turns: what they cost is not its own."""

    async def main() -> None:
        keeper = kept()
        clock = keeper.clock = Costly(0.0)
        turns = 0

        async def neighbour() -> None:
            nonlocal turns
            while True:
                turns += 1
                clock.spent_s += 100.0
                await asyncio.sleep(0)

        task = asyncio.create_task(neighbour())
        captured = await keeper.claim().pack([Part("a", bytes(100 * 1024 * 1024))])
        task.cancel()
        assert turns > 10
        assert captured.cpu_s == 0.0

    run(main())


def test_a_shard_whose_checkpoints_never_come_due_commits_at_its_end() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=NEVER_MS)
        life = town.start()
        town.put(*ticks("a", range(3)))
        await until(lambda: has_taken(life, 3))
        await life.stop()
        assert town.row().position.value == "3"

    run(main())
