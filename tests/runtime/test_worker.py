"""Whole workers in memory: they share, take over, wait out outages, and say when one is stuck."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from processor.core.leases.commands import Timing
from processor.core.leases.rows import links_of
from processor.errors import Outage
from processor.model import END, Page, Shard
from processor.runtime.checkpoints import CHECKPOINT_S_MAX
from processor.runtime.worker import ENDED_MAX, STUCK_AFTER_S
from tests.runtime.in_memory import SHARD, Life, Side, Town, tick, until
from tests.virtual_time import run

TIMING = Timing()
NEVER_MS = 3_600_000  # no test lasts as long


def shard(n: int) -> str:
    return f"shardId-{n:012d}"


def held(*lives: Life) -> list[int]:
    return [len(life.worker.shards()) for life in lives]


def owners(town: Town) -> set[str | None]:
    return {row.owner for row in town.content.shards.values()}


async def send(town: Town, seconds: int) -> None:
    """A tick a second in every shard, each under a key of its own."""
    for second in range(seconds):
        for n in range(town.shards):
            town.put(tick(f"key-{n}", second), shard=shard(n))
        await asyncio.sleep(1)


async def settle(town: Town, seconds: int, *lives: Life) -> None:
    """Close what is open; then each second's tick is in its minute's window, once."""
    for n in range(town.shards):
        town.put(tick(f"key-{n}", seconds + 60), shard=shard(n))
    expected = {
        (f"key-{n}", minute): (60, 60)
        for n in range(town.shards)
        for minute in range(seconds // 60)
    }
    await until(lambda: len(town.windows()) >= len(expected))
    assert town.windows() == expected
    for life in lives:
        await life.stop()
    assert owners(town) == {None}
    assert town.content.workers == {}


def test_a_worker_that_leaves_hands_over_and_one_that_dies_is_followed() -> None:
    async def main() -> None:
        town = Town(shards=4)
        first, second = town.start(), town.start()
        sending = asyncio.create_task(send(town, 120))
        await until(lambda: held(first, second) == [2, 2])
        third = town.start()
        await until(lambda: sorted(held(first, second, third)) == [1, 1, 2])
        await first.stop()
        await until(lambda: held(second, third) == [2, 2])
        await second.kill()
        await until(lambda: held(third) == [4], within_s=15)
        await sending
        await settle(town, 120, third)

    run(main())


def test_an_outage_of_the_table_is_nobodys_death() -> None:
    """For a minute no call gets through; then all go on under their ids and epochs."""

    async def main() -> None:
        town = Town(shards=2)
        first, second = town.start(), town.start()
        sending = asyncio.create_task(send(town, 180))
        await until(lambda: held(first, second) == [1, 1])
        epochs = [row.epoch for row in town.content.shards.values()]
        ids = set(town.content.workers)

        async def out(operation: str, side: Side) -> None:
            raise Outage("dynamodb", operation, "refused")

        town.gate = out
        await until(lambda: not (first.worker.is_alive or second.worker.is_alive), within_s=8)
        await asyncio.sleep(60)
        assert (first.worker.stuck(), second.worker.stuck()) == ([], [])
        town.gate = None
        await until(lambda: first.worker.is_alive and second.worker.is_alive, within_s=5)
        await sending
        assert [row.epoch for row in town.content.shards.values()] == epochs
        assert set(town.content.workers) == ids
        await settle(town, 180, first, second)

    run(main())


def test_a_target_that_is_down_for_minutes_costs_no_lease() -> None:
    """Every shard waits for the bus meanwhile; upkeep does not, so nothing is stalled or moved."""

    async def main() -> None:
        town = Town(shards=2)
        first, second = town.start(), town.start()
        sending = asyncio.create_task(send(town, 180))
        await until(lambda: held(first, second) == [1, 1])
        epochs = [row.epoch for row in town.content.shards.values()]
        town.bus.is_down = True
        await asyncio.sleep(400)
        assert {loop.doing for life in (first, second) for loop in loops(life)} == {"publishing"}
        assert first.worker.is_alive
        assert second.worker.is_alive
        town.bus.is_down = False
        await sending
        assert [row.epoch for row in town.content.shards.values()] == epochs
        assert (first.seen.stalled, second.seen.stalled) == ([], [])
        await settle(town, 180, first, second)

    run(main())


def test_an_idle_shard_whose_checkpoint_waits_for_its_store_is_not_taken_for_stalled() -> None:
    async def main() -> None:
        town = Town(window_ms=3_600_000)  # so that no mark is due, which would wait by its name
        life = town.start()
        await until(lambda: held(life) == [1])

        async def full(operation: str, side: Side) -> None:
            if operation == "put":
                raise Outage("dynamodb", operation, "away")

        town.gate = full
        town.put(tick("a", 0))
        await asyncio.sleep(15 + CHECKPOINT_S_MAX + 200)
        assert (life.seen.stalled, life.worker.stuck()) == ([], [])
        town.gate = None
        await until(lambda: town.row().position.kind == "after")
        assert town.row().epoch == 1
        await life.stop()

    run(main())


def loops(life: Life) -> list[Any]:
    return list(life.worker._shards.values())


def test_a_worker_cut_off_from_the_table_stops_its_effects_before_others_take_over() -> None:
    """Its calls hang; the other one follows it, and nothing is put twice under other contents."""

    async def main() -> None:
        town, is_cut = Town(shards=2), False

        async def gate(operation: str, side: Side) -> None:
            await asyncio.sleep(1e6 if is_cut else 0.001)

        cut_off, other = town.start(gate=gate), town.start()
        sending = asyncio.create_task(send(town, 180))
        await until(lambda: held(cut_off, other) == [1, 1])
        old_id = cut_off.worker.worker_id
        await asyncio.sleep(20)
        is_cut, steps = True, cut_off.steps.steps
        cut_at = town.clock.monotonic()
        await until(lambda: held(other) == [2], within_s=15)
        claimed_at = town.clock.monotonic()
        assert claimed_at - cut_at > 8, "validity comes before the TTL"
        done = len(steps)
        await asyncio.sleep(5)
        assert len(steps) == done, "a step's effects are behind the fence"
        is_cut = False
        await until(lambda: held(cut_off, other) == [1, 1], within_s=30)
        assert cut_off.worker.worker_id != old_id
        await sending
        await settle(town, 180, cut_off, other)

    run(main())


@pytest.mark.parametrize("payloads", [[], [b"bad"]], ids=["events", "dead letters"])
def test_a_worker_cut_off_long_before_its_next_checkpoint_puts_nothing_more(
    payloads: list[bytes],
) -> None:
    """The fence alone stops it: no checkpoint is due that would hang."""

    async def main() -> None:
        town, is_cut = Town(shards=1, checkpoint_ms=NEVER_MS), False

        async def gate(operation: str, side: Side) -> None:
            await asyncio.sleep(1e6 if is_cut else 0.001)

        life = town.start(gate=gate)
        sending = asyncio.create_task(send(town, 120))
        await until(lambda: held(life) == [1])
        is_cut = True
        await asyncio.sleep(8)  # what was valid at the cut is so no longer
        events, letters = len(town.bus.arrivals), len(town.dead.arrivals)
        town.put(*payloads)
        await asyncio.sleep(100)
        assert len(town.bus.arrivals) == events
        assert len(town.dead.arrivals) == letters
        sending.cancel()
        await life.kill()

    run(main())


def test_told_to_stop_while_the_table_is_out_at_the_start_it_ends() -> None:
    async def main() -> None:
        async def out(operation: str, side: Side) -> None:
            raise Outage("dynamodb", operation, "refused")

        town = Town(gate=out)
        life = town.start()
        await asyncio.sleep(10)
        assert not life.worker.is_alive
        async with asyncio.timeout(30):
            await life.stop()

    run(main())


# ---- what is stuck ------------------------------------------------------------------------------


class Hanging:
    """A source whose readers never answer, and can't be cancelled (twice) before `over`."""

    def __init__(self, town: Town) -> None:
        self._source = town.source
        self.over = asyncio.Event()
        self.is_mended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def open(self, shard_id: str, position: Any) -> Any:
        reader = self._source.open(shard_id, position)
        if self.is_mended:
            return reader

        async def read() -> Page:
            if not self.over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.over.wait()
                await self.over.wait()
                raise AssertionError("cancelled long ago")
            await asyncio.Event().wait()
            raise AssertionError("never")

        reader.read = read
        return reader


def test_a_reader_that_neither_answers_nor_fails_is_stuck_and_one_that_fails_is_not() -> None:
    async def main() -> None:
        town = Town()
        source = Hanging(town)
        life = town.start(source=source)
        await until(lambda: held(life) == [1])
        for _ in range(30):
            await asyncio.sleep(10)
            life.pulse.on_error(SHARD, "connection", "refused")
            assert life.worker.stuck() == []
        await asyncio.sleep(STUCK_AFTER_S - 1)
        assert life.worker.stuck() == []
        await asyncio.sleep(2)
        assert life.worker.stuck() == [f"{SHARD} has been reading for 121 s"]
        source.over.set()
        await life.stop()
        assert life.worker.stuck() == []

    run(main())


def test_a_shard_whose_task_stalls_is_left_to_another_worker() -> None:
    async def main() -> None:
        town = Town(shards=1)
        source = Hanging(town)
        source.over.set()
        first = town.start(source=source)
        await until(lambda: held(first) == [1])
        second = town.start()
        sending = asyncio.create_task(send(town, 120))
        await asyncio.sleep(TIMING.stalled_s - 5)
        assert held(first, second) == [1, 0]
        await until(lambda: held(first, second) == [0, 1], within_s=15)
        (alert,) = first.seen.stalled
        assert alert.startswith(f"{SHARD} has been reading for 6")
        await asyncio.sleep(2 * TIMING.shun_s)
        assert held(first, second) == [0, 1]
        assert first.worker.is_alive
        await sending
        await first.stop()
        await settle(town, 120, second)

    run(main())


def test_a_stalled_task_starts_again_where_there_is_no_other_worker() -> None:
    async def main() -> None:
        town = Town()
        source = Hanging(town)
        life = town.start(source=source)
        await until(lambda: held(life) == [1])
        source.over.set()  # from here on it can be cancelled
        source.is_mended = True
        await asyncio.sleep(TIMING.stalled_s + 15)
        assert town.row().epoch == 2
        town.put(*(tick("a", second) for second in (1, 61)))
        await until(lambda: town.windows() == {("a", 0): (1, 1)})
        await life.stop()

    run(main())


def test_a_shard_that_gets_on_is_never_stuck() -> None:
    async def main() -> None:
        town = Town()
        life = town.start()
        await until(lambda: held(life) == [1])
        await asyncio.sleep(10 * STUCK_AFTER_S)
        assert life.worker.stuck() == []
        await life.stop()

    run(main())


def test_what_an_ended_shard_counted_is_told_where_it_ended_of_the_last_hundred() -> None:
    async def main() -> None:
        town = Town()
        life = town.start()
        town.put(tick("a", 1), tick("b", 2))
        for n in range(ENDED_MAX + 1):
            child = Shard(shard(n + 1), 0, 2**128 - 1, parents=(shard(n),))
            town.source.close(shard(n), children=[child])
        await until(lambda: shard(1) in life.worker.ended(), within_s=600)
        first = life.worker.ended()[SHARD]
        assert (first.totals.records, first.position) == (2, str(END))
        await until(lambda: shard(ENDED_MAX + 1) in life.worker.shards(), within_s=3_600)
        assert list(life.worker.ended()) == [shard(n) for n in range(1, ENDED_MAX + 1)]
        assert list(life.worker.shards()) == [shard(ENDED_MAX + 1)]
        await life.stop()

    run(main())


def test_what_the_last_checkpoint_made_superfluous_is_removed_before_the_end() -> None:
    async def main() -> None:
        async def slow_removals(operation: str, side: Side) -> None:
            if operation == "delete":
                await asyncio.sleep(0.2)

        town = Town(checkpoint_ms=1_000, gate=slow_removals)
        life = town.start()
        await until(lambda: held(life) == [1])
        await send(town, 6)
        town.put(tick("key-0", 7))
        await until(lambda: town.row().commit >= 4)
        town.put(tick("key-0", 8))
        await life.stop()
        assert set(town.content.blobs) == set(links_of(town.row()))

    run(main())
