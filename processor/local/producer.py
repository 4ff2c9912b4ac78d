"""Puts a plan's records, each shard's in its order and at its time, through splits and merges too.

A lane a shard: one put is in flight there, and a record that was throttled is put again before any
later one: the service keeps a shard's order then, and the fates in the plan hold. A put that fails
otherwise may have taken effect, so repeating it could send records twice: it ends the run.

A split or merge lets no put run beside it. What its shards had yet to get goes on in the lanes of
their children, still by due time, so records that share a shard from then on are in order as well.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from processor.errors import ProcessorError
from processor.local.calls import Calls
from processor.local.kinesis_shards import HashRange
from processor.local.traffic import STORES, Plan, Record, flush_ms, flush_record, hash_of

BATCH_S = 0.05  # 25 records at the usual rate; how records are batched changes no fate
BATCH_MAX = 500  # PutRecords' own limit
THROTTLED_WAIT_S = 0.1  # a tenth of the rate's second: a hundred records more fit then


class Reordered(ProcessorError):
    """The stream refused a record and took a later one: its order, and the plan, are lost."""


class Lane:
    """An open shard and what it is to get: of all stores that are at home there."""

    def __init__(self, shard_id: str, hash_range: HashRange, records: Sequence[Record]) -> None:
        self.shard_id, self.hash_range = shard_id, hash_range
        self.records, self.taken = records, 0
        self.resting = asyncio.Lock()  # held by a put, and while its shard changes

    def __repr__(self) -> str:
        return f"<Lane {self.shard_id} {self.stores} {self.taken} of {len(self.records)}>"

    @property
    def is_done(self) -> bool:
        """Whether all is taken; what it had left at a split or merge is its children's."""
        return self.taken == len(self.records)

    @property
    def stores(self) -> list[str]:
        """By hash key."""
        found = [store for store in STORES if self.holds(store)]
        return sorted(found, key=hash_of)

    def holds(self, store: str) -> bool:
        return self.hash_range.first <= hash_of(store) <= self.hash_range.last


class Producer:
    """Progress of one plan: `sent` are the records taken so far, in each store's order."""

    def __init__(self, plan: Plan, stream: str, calls: Calls) -> None:
        self.plan = plan
        self.sent: list[Record] = []
        self.last_due_ms: dict[str, int] = {}  # by store
        self.last_numbers: dict[str, str] = {}  # by shard id, ended ones included
        self.throttled = self.flushes = 0
        self.lanes: list[Lane] = []  # the open shards, by hash key
        self._stream, self._calls = stream, calls
        self._stopping = asyncio.Event()
        self._begun_at = 0.0
        self._tasks: asyncio.TaskGroup | None = None  # while it runs

    def __repr__(self) -> str:
        return f"<Producer {len(self.sent)} of {self.plan.total} sent, {self.lanes}>"

    def elapsed_s(self) -> float:
        """Since the traffic began."""
        return asyncio.get_running_loop().time() - self._begun_at

    def stop(self) -> None:
        """Send no more; `run` then returns when the puts in flight are answered."""
        self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    async def open(self) -> None:
        """Find the stream's shards, and lay out what each is to get."""
        await self._regroup([], [record for shard in self.plan.shards for record in shard])

    async def run(self) -> None:
        """Send the whole plan, or until stopped. Cancelling it loses count of what was sent."""
        assert self.lanes, "open() comes first"
        self._begun_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for lane in self.lanes:
                    self._tasks.create_task(self._feed(lane))
        finally:
            self._tasks = None

    async def flush(self, end_ms: int) -> None:
        """One record a shard that closes all windows up to the end."""
        at_ms = flush_ms(end_ms)
        await self._regroup(self.lanes, [])
        for lane in self.lanes:
            store = lane.stores[0]
            taken = 0
            while not taken:
                taken = await self._put([(store, flush_record(at_ms, store))])
                await asyncio.sleep(0 if taken else THROTTLED_WAIT_S)
            self.flushes += taken

    # ---- reshards ---------------------------------------------------------------------------

    async def split(self, lane: Lane) -> list[Lane]:
        """Split a lane's shard between its stores, half of them each; the children's lanes."""
        stores = lane.stores
        middle = stores[len(stores) // 2]
        request = {"ShardToSplit": lane.shard_id, "NewStartingHashKey": str(hash_of(middle))}
        return await self._reshard([lane], "SplitShard", request)

    async def merge(self, left: Lane, right: Lane) -> list[Lane]:
        """Merge two lanes' shards, neighbours by hash key; the child's lane."""
        request = {"ShardToMerge": left.shard_id, "AdjacentShardToMerge": right.shard_id}
        return await self._reshard([left, right], "MergeShards", request)

    async def _reshard(
        self, parents: Sequence[Lane], operation: str, request: dict[str, str]
    ) -> list[Lane]:
        async with AsyncExitStack() as stack:
            for lane in parents:
                await stack.enter_async_context(lane.resting)
            await self._calls("kinesis", operation, {"StreamName": self._stream, **request})
            rest = list(_by_due(lane.records[lane.taken :] for lane in parents))
            children = await self._regroup([one for one in self.lanes if one not in parents], rest)
            for lane in parents:
                lane.records = lane.records[: lane.taken]
            if self._tasks is not None:
                for child in children:
                    self._tasks.create_task(self._feed(child))
        return children

    async def _regroup(self, kept: Sequence[Lane], records: Sequence[Record]) -> list[Lane]:
        """Lanes for all open shards: those kept, and new ones, which share the records."""
        request = {"StreamName": self._stream, "ShardFilter": {"Type": "AT_LATEST"}}
        answer = await self._calls("kinesis", "ListShards", request)
        known = {lane.shard_id for lane in kept}
        fresh = [_lane(one, records) for one in answer["Shards"] if one["ShardId"] not in known]
        self.lanes = sorted([*kept, *fresh], key=lambda lane: lane.hash_range.first)
        return fresh

    # ---- putting ----------------------------------------------------------------------------

    async def _feed(self, lane: Lane) -> None:
        while not self._stopping.is_set():
            async with lane.resting:
                if lane.is_done:
                    return
                batch = self._due(lane)
                taken = await self._take(lane, batch) if batch else 0
            await self._pause(THROTTLED_WAIT_S if taken < len(batch) else BATCH_S)

    async def _take(self, lane: Lane, batch: Sequence[Record]) -> int:
        taken = await self._put([(one.store, one.payload) for one in batch])
        lane.taken += taken
        self.sent += batch[:taken]
        self.last_due_ms |= {one.store: one.due_ms for one in batch[:taken]}
        return taken

    def _due(self, lane: Lane) -> Sequence[Record]:
        elapsed_s = self.elapsed_s()
        first = last = lane.taken
        while (
            last < min(len(lane.records), first + BATCH_MAX)
            and self.plan.due_s(lane.records[last].due_ms) <= elapsed_s
        ):
            last += 1
        return lane.records[first:last]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass  # the usual case: nobody wants to stop

    async def _put(self, batch: Sequence[tuple[str, bytes]]) -> int:
        """How many of the batch were taken; the rest, its end, was throttled."""
        entries = [
            {"PartitionKey": key, "Data": base64.b64encode(data).decode()} for key, data in batch
        ]
        answer = await self._calls(
            "kinesis", "PutRecords", {"StreamName": self._stream, "Records": entries}
        )
        results: list[dict[str, Any]] = answer["Records"]
        taken = next((i for i, one in enumerate(results) if "ErrorCode" in one), len(results))
        if any("ErrorCode" not in one for one in results[taken:]):
            raise Reordered("PutRecords took a record after it had refused an earlier one")
        for one in results[:taken]:
            self.last_numbers[one["ShardId"]] = one["SequenceNumber"]
        self.throttled += len(batch) - taken
        return taken


def _lane(shard: dict[str, Any], records: Iterable[Record]) -> Lane:
    said = shard["HashKeyRange"]
    lane = Lane(
        shard["ShardId"], HashRange(int(said["StartingHashKey"]), int(said["EndingHashKey"])), []
    )
    at_home = set(lane.stores)
    lane.records = [record for record in records if record.store in at_home]
    return lane


def _by_due(parts: Iterable[Sequence[Record]]) -> Iterable[Record]:
    """All records by due time; each part's own order stays."""
    return heapq.merge(*parts, key=lambda record: record.due_ms)
