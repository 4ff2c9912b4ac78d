"""Puts a plan's records, each shard's in its order and at its time.

One put is in flight a shard, and a record that was throttled is put again before any later one:
the service keeps a shard's order then, and the fates in the plan hold. A put that fails otherwise
may have taken effect, so repeating it could send records twice: it ends the run.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from processor.errors import ProcessorError
from processor.local.calls import Calls
from processor.local.traffic import SHARDS, STORES, Plan, Record, flush_ms, flush_record, shard_of

BATCH_S = 0.05  # 25 records at the usual rate; how records are batched changes no fate
BATCH_MAX = 500  # PutRecords' own limit
THROTTLED_WAIT_S = 0.1  # a tenth of the rate's second: a hundred records more fit then


class Reordered(ProcessorError):
    """The stream refused a record and took a later one: its order, and the plan, are lost."""


class Producer:
    """Progress of one plan: `taken[shard]` records, the last with `last_numbers[shard]`."""

    def __init__(self, plan: Plan, stream: str, calls: Calls) -> None:
        self.plan = plan
        self.taken = [0] * SHARDS
        self.last_numbers: dict[str, str] = {}  # by shard id
        self.throttled = 0
        self._stream, self._calls = stream, calls
        self._stopping = asyncio.Event()

    @property
    def sent(self) -> list[Record]:
        """All records taken so far."""
        return [
            record
            for shard, count in zip(self.plan.shards, self.taken, strict=True)
            for record in shard[:count]
        ]

    def stop(self) -> None:
        """Send no more; `run` then returns when the puts in flight are answered."""
        self._stopping.set()

    async def run(self) -> None:
        """Send the whole plan, or until stopped. Cancelling it loses count of what was sent."""
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for shard in range(SHARDS):
                tasks.create_task(self._feed(shard, begin))

    async def flush(self, end_ms: int) -> None:
        """One record a shard that closes all windows up to the end."""
        at_ms = flush_ms(end_ms)
        stores = {shard_of(store): store for store in STORES}
        for store in stores.values():
            taken = 0
            while not taken:
                taken = await self._put([(store, flush_record(at_ms, store))])
                await asyncio.sleep(0 if taken else THROTTLED_WAIT_S)

    async def _feed(self, shard: int, begin: float) -> None:
        records = self.plan.shards[shard]
        while self.taken[shard] < len(records) and not self._stopping.is_set():
            elapsed_s = asyncio.get_running_loop().time() - begin
            batch = self._due(records, self.taken[shard], elapsed_s)
            taken = await self._put([(one.store, one.payload) for one in batch]) if batch else 0
            self.taken[shard] += taken
            await self._pause(THROTTLED_WAIT_S if taken < len(batch) else BATCH_S)

    def _due(self, records: Sequence[Record], first: int, elapsed_s: float) -> Sequence[Record]:
        last = first
        while (
            last < min(len(records), first + BATCH_MAX)
            and self.plan.due_s(records[last].due_ms) <= elapsed_s
        ):
            last += 1
        return records[first:last]

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
