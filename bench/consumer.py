"""The consumer side of `end-to-end`: one process that reads a stream to its end, and what it took.

    python -m bench.consumer '{"side": "ours", "url": "http://…", "page": 1000, "core": 1}' OUTCOME

Both sides read a stream of warm-up first and go on with the second: the clocks run from the first
read of that until every shard has been read and counted to its end.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import aiohttp
import msgspec
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from msgspec import Struct

from bench import data, ours, plain, readings, results
from bench.server import STREAM, WARM_UP
from processor.core import intake
from processor.core.pacing import Pace
from processor.core.pipeline import ShardPipeline
from processor.model import TRIM_HORIZON, Page, Shard
from processor.runtime.aws import Aws, open_aws
from processor.runtime.clock import SystemClock
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire

REGION = "us-east-1"
BUDGET_BYTES = 512 * 1024 * 1024  # a worker's at most
CONNECTIONS_MAX = 256

Side = Literal["ours", "plain", "floor"]
Row = tuple[str, str, int, int, float, float, float]


class Job(Struct, frozen=True):
    side: Side
    url: str
    page: int
    core: int | None  # to stay on


class Outcome(Struct, frozen=True):
    """What a consumer took, and what it found (that with the warm-up)."""

    cpu_s: float
    wall_s: float
    records: int
    payload_bytes: int
    late: int
    closed: list[Row]
    rss_mb: float = 0.0  # at most, warm-up included
    lag_p99_9_ms: float = 0.0  # of the loop

    def results(self) -> plain.Results:
        return {row[:3]: row[3:] for row in self.closed}


class Found(Struct, frozen=True):
    """What came of all shards, warm-up included."""

    late: int
    closed: plain.Results


class Consumer(Protocol):
    """One side. Shards keep their state from stream to stream."""

    async def consume(self, stream: str) -> tuple[int, int]:
        """Read and count all of a stream; how many records and payload bytes."""

    def found(self) -> Found: ...


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(_run(job))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(outcome))


async def _run(job: Job) -> Outcome:
    async with SIDES[job.side](job) as consumer:
        await consumer.consume(WARM_UP)
        lag = readings.LoopLag()
        ticking = asyncio.create_task(lag.run())
        wall_at, cpu_at = time.perf_counter(), time.process_time()
        records, payload_bytes = await consumer.consume(STREAM)
        cpu_s, wall_s = time.process_time() - cpu_at, time.perf_counter() - wall_at
        ticking.cancel()
    found, rss_mb = consumer.found(), readings.rss_mb()
    closed = [(*key, *row) for key, row in found.closed.items()]
    lag_ms = lag.ms(99.9)
    return Outcome(cpu_s, wall_s, records, payload_bytes, found.late, closed, rss_mb, lag_ms)


def _sums(shards: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(records for records, _ in shards), sum(size for _, size in shards)


# ---- ours ------------------------------------------------------------------------------------


class Reads:
    """A worker's read path, as fast as the shards answer; what is done with pages is another's."""

    def __init__(self, http: aiohttp.ClientSession, aws: Aws, job: Job) -> None:
        self._wire_of = partial(
            Wire, http, Signer(job.url, REGION, "kinesis"), aws.credentials, SystemClock()
        )
        # Always `page` records, and no waiting between two reads.
        pace = Pace(1e6, records_min=job.page, records_max=job.page, page_bytes_max=BUDGET_BYTES)
        self._reading = Reading(SystemClock(), Random(1), ByteBudget(BUDGET_BYTES), pace)

    async def consume(self, stream: str) -> tuple[int, int]:
        source = KinesisSource(self._wire_of(f"stream {stream}"), stream, self._reading)
        shards = await source.list_shards()
        return _sums(await asyncio.gather(*(self._follow(source, shard) for shard in shards)))

    async def _follow(self, source: KinesisSource, shard: Shard) -> tuple[int, int]:
        reader = source.open(shard.id, TRIM_HORIZON)
        records, payload_bytes, is_behind = 0, 0, True
        try:
            while is_behind:
                page = await reader.read()
                self.take(shard, page)
                records += len(page)
                payload_bytes += sum(map(len, page.payloads))
                is_behind = page.millis_behind > 0
        finally:
            await reader.close()
        self.settle(shard)
        return records, payload_bytes

    def take(self, shard: Shard, page: Page) -> None:
        raise NotImplementedError

    def settle(self, shard: Shard) -> None:
        """All of the shard is read."""


class Ours(Reads):
    """A worker's read path and engine."""

    def __init__(self, http: aiohttp.ClientSession, aws: Aws, job: Job) -> None:
        super().__init__(http, aws, job)
        self._plan = ours.plan_of(ours.full())
        self._pipelines: dict[str, ShardPipeline] = {}
        self._taps: list[results.Tap] = []

    def take(self, shard: Shard, page: Page) -> None:
        pipeline = self._pipelines.get(shard.id) or self._fresh(shard)
        for _ in pipeline.steps(page, may_wait=True):
            pass

    def settle(self, shard: Shard) -> None:
        for _ in self._pipelines[shard.id].settle():
            pass

    def _fresh(self, shard: Shard) -> ShardPipeline:
        pipeline = self._pipelines[shard.id] = ShardPipeline(self._plan, shard, "1")
        self._taps.append(results.Tap(pipeline))
        return pipeline

    def found(self) -> Found:
        closed: plain.Results = {}
        for tap in self._taps:
            closed |= tap.results()
        return Found(sum(p.totals.late for p in self._pipelines.values()), closed)


class Floor(Reads):
    """The same reads, with each payload decoded to the fields that the rules use: nothing else."""

    def __init__(self, http: aiohttp.ClientSession, aws: Aws, job: Job) -> None:
        super().__init__(http, aws, job)
        self._codec = ours.plan_of(ours.full()).codec

    def take(self, shard: Shard, page: Page) -> None:
        intake.decode(page, self._codec)

    def found(self) -> Found:
        return Found(0, {})


@asynccontextmanager
async def _ours(job: Job) -> AsyncIterator[Consumer]:
    async with open_aws(REGION, connections_max=CONNECTIONS_MAX) as aws:
        yield Ours(await aws.http(job.url), aws, job)


@asynccontextmanager
async def _floor(job: Job) -> AsyncIterator[Consumer]:
    async with open_aws(REGION, connections_max=CONNECTIONS_MAX) as aws:
        yield Floor(await aws.http(job.url), aws, job)


# ---- the plain way ---------------------------------------------------------------------------


class Plain:
    """aiobotocore, a task a shard, and `plain.windows`."""

    def __init__(self, client: Any, job: Job) -> None:
        self._client = client
        self._page = job.page
        self._loops: dict[str, plain.Loop] = {}
        self._late: dict[str, int] = {}
        self._closed: plain.Results = {}

    async def consume(self, stream: str) -> tuple[int, int]:
        shards = (await self._client.list_shards(StreamName=stream))["Shards"]
        follow = (self._follow(stream, shard["ShardId"]) for shard in shards)
        return _sums(await asyncio.gather(*follow))

    async def _follow(self, stream: str, shard_id: str) -> tuple[int, int]:
        loop = self._loops.get(shard_id) or self._fresh(shard_id)
        answer = await self._client.get_shard_iterator(
            StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
        )
        iterator, is_behind = answer["ShardIterator"], True
        records = payload_bytes = 0
        while is_behind:
            answer = await self._client.get_records(ShardIterator=iterator, Limit=self._page)
            payloads = [record["Data"] for record in answer["Records"]]
            self._late[shard_id] = loop.send(payloads)
            records += len(payloads)
            payload_bytes += sum(map(len, payloads))
            iterator, is_behind = answer["NextShardIterator"], answer["MillisBehindLatest"] > 0
        return records, payload_bytes

    def _fresh(self, shard_id: str) -> plain.Loop:
        loop = plain.windows(data.WINDOW_MS, data.OUT_OF_ORDERNESS_MS, self._closed)
        self._loops[shard_id], self._late[shard_id] = loop, next(loop)
        return loop

    def found(self) -> Found:
        return Found(sum(self._late.values()), self._closed)


@asynccontextmanager
async def _plain(job: Job) -> AsyncIterator[Consumer]:
    config = AioConfig(max_pool_connections=CONNECTIONS_MAX)
    async with get_session().create_client(
        "kinesis", region_name=REGION, endpoint_url=job.url, config=config
    ) as client:
        yield Plain(client, job)


SIDES: Mapping[Side, Callable[[Job], AbstractAsyncContextManager[Consumer]]] = {
    "ours": _ours,
    "plain": _plain,
    "floor": _floor,
}


if __name__ == "__main__":
    main()
