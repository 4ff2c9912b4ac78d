"""Many workers' leases in virtual time: the production loops over a table that counts its units.

The shards' tasks do nothing but hold their lease, and commit once when they are asked to stop. What
counts as a shard standing still is the time between the end of one task and the start of the next.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Literal

from bench.lease_units import CountingTable, Sizes, Units
from processor.model import Position, Shard, StreamInfo
from processor.runtime.inbox import Inbox
from processor.runtime.lease import Lease
from processor.runtime.lease_loop import Follower, LeaseLoop, LeasePorts
from processor.stores.memory import MemoryContent
from tests.virtual_time import START_MS, VirtualClock

HASHES = 2**128
DELAY_S = (0.004, 0.012)  # of a call to the table, there and back
HOUR_MS = 3_600_000


class Stream:
    """A stream of quiet shards."""

    def __init__(self, shards: int, clock: VirtualClock) -> None:
        edges = [HASHES * n // shards for n in range(shards + 1)]
        self._clock = clock
        self.shards = [
            Shard(f"shardId-{n:012d}", edges[n], edges[n + 1] - 1) for n in range(shards)
        ]
        self.listings = 0

    async def describe(self) -> StreamInfo:
        return StreamInfo("orders", "arn", START_MS - HOUR_MS, self._clock.wall_ms())

    async def list_shards(self) -> list[Shard]:
        self.listings += 1
        return list(self.shards)


def _raise(what: str, error: Exception) -> None:
    raise error


class Member:
    """One worker: its loop, and what it follows."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        rng = random.Random(f"{fleet.seed} {number}")
        table = CountingTable(fleet.content, fleet.gate, fleet.units, fleet.sizes)
        ports = LeasePorts(table, None, fleet.stream, fleet.clock, rng)
        self._loop = LeaseLoop(ports, self._follow, Follower("scale"))
        self._stopping = asyncio.Event()
        self.held: set[str] = set()
        self._inbox = Inbox(table.instructions, "scale", fleet.clock, _raise)
        self.task = asyncio.create_task(self._run())

    def stop(self) -> None:
        self._stopping.set()

    def kill(self) -> None:
        self.task.cancel()

    async def _run(self) -> None:
        polling = asyncio.create_task(self._inbox.run())
        try:
            await self._loop.run(self._stopping)
        finally:
            polling.cancel()

    async def _follow(self, lease: Lease) -> None:
        await lease.load()
        self._fleet.on_begin(lease.shard.id)
        self.held.add(lease.shard.id)
        try:
            await lease.stopping.wait()
            await lease.checkpoint(Position("after", str(lease.row.commit + 1)), b"")
        finally:
            self.held.discard(lease.shard.id)
            self._fleet.on_end(lease.shard.id)


class Fleet:
    """Workers that come and go, over one table and one stream."""

    def __init__(self, shards: int, seed: int) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.stream = Stream(shards, self.clock)
        self.content = MemoryContent()
        self.units = Units()
        self.sizes = Sizes()
        self.members: list[Member] = []
        self.gaps_s: list[float] = []  # how long a shard stood still, each time
        self.moves = 0
        self._rng = random.Random(seed)
        self._ended_at: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._started = 0

    async def gate(self, operation: str, side: Literal["before", "after"]) -> None:
        if side == "before":
            await asyncio.sleep(self._rng.uniform(*DELAY_S))

    def start(self, workers: int) -> list[Member]:
        started = [Member(self, self._started + n) for n in range(workers)]
        self._started += workers
        self.members += started
        return started

    async def kill(self, members: list[Member]) -> None:
        for member in members:
            member.kill()
        await self._gone(members)

    async def stop(self, members: list[Member]) -> None:
        """In good order; returns when they are gone."""
        for member in members:
            member.stop()
        await self._gone(members)

    async def _gone(self, members: list[Member]) -> None:
        self.members = [member for member in self.members if member not in members]
        await asyncio.wait([member.task for member in members])

    # ---- what shards tell

    def on_begin(self, shard_id: str) -> None:
        self._running[shard_id] += 1
        assert self._running[shard_id] == 1, f"{shard_id} is followed twice"
        if shard_id in self._ended_at:
            self.gaps_s.append(self.clock.monotonic() - self._ended_at.pop(shard_id))
        self.moves += 1

    def on_end(self, shard_id: str) -> None:
        self._running[shard_id] -= 1
        self._ended_at[shard_id] = self.clock.monotonic()

    # ---- questions

    def is_complete(self) -> bool:
        """Whether every shard is followed."""
        return self._running.total() == len(self.stream.shards)

    def is_even(self) -> bool:
        """And no two workers differ by two shards or more."""
        counts = [len(member.held) for member in self.members]
        return self.is_complete() and max(counts) - min(counts) < 2
