"""A lease goes from one live worker to another: with its state, at once, and without a repeat."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from processor.model import Page, Position
from processor.ports import ShardReader
from processor.sources.memory import MemorySource
from tests.runtime.in_memory import Life, Town, tick, until
from tests.virtual_time import run


class Read(NamedTuple):
    at: float
    worker: str
    shard_id: str


@dataclass
class Watched:
    """A source that notes when whose reads were answered."""

    inner: MemorySource
    worker: str
    log: list[Read]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def open(self, shard_id: str, position: Position) -> ShardReader:
        return _Reader(self.inner.open(shard_id, position), self, shard_id)


@dataclass
class _Reader:
    inner: ShardReader
    source: Watched
    shard_id: str

    async def read(self) -> Page:
        page = await self.inner.read()
        at = asyncio.get_running_loop().time()
        self.source.log.append(Read(at, self.source.worker, self.shard_id))
        return page

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Watch:
    """Workers by name in one town, and all their reads."""

    town: Town
    log: list[Read] = field(default_factory=list)

    def start(self, name: str) -> Life:
        return self.town.start(source=Watched(self.town.source, name, self.log))

    def gaps_s(self, giver: str) -> list[float]:
        """Of each shard that the giver read: from its last read to another worker's first."""
        gaps = []
        for shard_id in {read.shard_id for read in self.log if read.worker == giver}:
            reads = [read for read in self.log if read.shard_id == shard_id]
            last = max(read.at for read in reads if read.worker == giver)
            after = [read.at for read in reads if read.at > last]
            gaps.append(min(after) - last)
        return gaps

    async def send(self, seconds: int) -> None:
        for second in range(seconds):
            for n in range(self.town.shards):
                self.town.put(tick(f"key-{n}", second), shard=f"shardId-{n:012d}")
            await asyncio.sleep(1)


def held(*lives: Life) -> list[int]:
    return [len(life.worker.shards()) for life in lives]


def test_the_successor_of_a_stopped_worker_reads_within_a_second_of_its_last_read() -> None:
    async def main() -> None:
        town = Town(shards=8)
        watch = Watch(town)
        lives = [watch.start(name) for name in "abc"]
        sending = asyncio.create_task(watch.send(90))
        await until(lambda: sorted(held(*lives)) == [2, 3, 3])
        await asyncio.sleep(20)
        await lives[0].stop()
        await until(lambda: held(*lives) == [0, 4, 4])
        await asyncio.sleep(2)
        gaps = watch.gaps_s("a")
        assert len(gaps) in (2, 3)
        assert max(gaps) <= 1.0
        await sending
        for life in lives[1:]:
            await life.stop()

    run(main())


def test_a_moved_shard_is_read_on_within_a_second() -> None:
    async def main() -> None:
        town = Town(shards=4)
        watch = Watch(town)
        first = watch.start("a")
        sending = asyncio.create_task(watch.send(60))
        await until(lambda: held(first) == [4])
        second = watch.start("b")
        await until(lambda: held(first, second) == [2, 2])
        await asyncio.sleep(5)
        moved = {read.shard_id for read in watch.log if read.worker == "b"}
        watch.log[:] = [read for read in watch.log if read.shard_id in moved]
        assert max(watch.gaps_s("a")) <= 1.0
        await sending
        for life in (first, second):
            await life.stop()

    run(main())


def test_the_owner_reads_on_until_its_successor_has_fetched_the_state() -> None:
    """The store of states takes three seconds an answer: the giver does not wait, it works."""

    async def main() -> None:
        town = Town(shards=1, checkpoint_ms=1_000)
        watch = Watch(town)

        async def slow(operation: str, side: str) -> None:
            if (operation, side) == ("get", "before"):
                await asyncio.sleep(3)

        town.gate = slow
        first = watch.start("a")
        sending = asyncio.create_task(watch.send(40))
        await until(lambda: held(first) == [1])
        second = watch.start("b")
        await asyncio.sleep(10)
        started_at = asyncio.get_running_loop().time()
        await first.stop()
        last = max(read.at for read in watch.log if read.worker == "a")
        assert 2.5 <= last - started_at <= 5
        await until(lambda: held(second) == [1])
        await sending
        await second.stop()

    run(main())
