"""The lease loop over the memory table, in virtual time: no sleeps, no real clocks."""

import asyncio
import random

from processor.model import Position, Shard, StreamInfo
from processor.runtime.lease_loop import Lease, LeaseLoop, LeasePorts
from processor.stores.memory import MemoryContent, MemoryObjects, MemoryTable
from tests.virtual_time import VirtualClock, run

INFO = StreamInfo("orders", "arn:orders", 1_600_000_000_000, 1_700_000_000_000)


class Stream:
    def __init__(self, shards: int) -> None:
        self.shards = [Shard(f"shardId-{n:012d}") for n in range(shards)]

    async def describe(self) -> StreamInfo:
        return INFO

    async def list_shards(self) -> list[Shard]:
        return list(self.shards)


async def count_on(lease: Lease) -> None:
    """A shard task that reads one record a second and commits every five."""
    restored = await lease.load()
    done = int(restored.position.value or 0) if restored.position.kind == "after" else 0
    while not lease.stopping.is_set():
        await asyncio.sleep(1)
        await lease.fence()
        done += 1
        if done % 5 == 0:
            await lease.checkpoint(Position("after", str(done)), b"%d" % done)
    await lease.checkpoint(Position("after", str(done)), b"%d" % done)


def loop_on(content: MemoryContent, stream: Stream, seed: int) -> LeaseLoop:
    table = MemoryTable(content)
    ports = LeasePorts(table, MemoryObjects(), stream, VirtualClock(), random.Random(seed))
    return LeaseLoop(ports, count_on)


def owners(content: MemoryContent) -> dict[str, str | None]:
    return {shard_id: row.owner for (_, shard_id), row in sorted(content.shards.items())}


def test_a_worker_claims_all_shards_and_gives_them_back() -> None:
    async def main() -> None:
        content, stopping = MemoryContent(), asyncio.Event()
        loop = loop_on(content, Stream(4), 1)
        running = asyncio.create_task(loop.run(stopping))
        await asyncio.sleep(12)
        assert set(owners(content).values()) == {loop.worker_id}
        stopping.set()
        await running
        assert set(owners(content).values()) == {None}
        assert content.workers == {}
        assert {row.position.kind for row in content.shards.values()} == {"after"}

    run(main())


def test_two_workers_share_a_stream_and_a_killed_ones_shards_move() -> None:
    async def main() -> None:
        content, stream = MemoryContent(), Stream(4)
        loops = [loop_on(content, stream, seed) for seed in (1, 2)]
        tasks = [asyncio.create_task(loop.run(asyncio.Event())) for loop in loops]
        await asyncio.sleep(12)
        held = list(owners(content).values())
        assert sorted(held.count(loop.worker_id) for loop in loops) == [2, 2]
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        await asyncio.sleep(15)
        assert set(owners(content).values()) == {loops[1].worker_id}
        tasks[1].cancel()
        await asyncio.wait(tasks)

    run(main())
