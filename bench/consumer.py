"""The consumer side of `end-to-end`: one process that reads a stream to its end, and what it took.

    python -m bench.consumer '{"side": "ours", "url": "http://…", "page": 1000, "core": 1}' OUTCOME

Both sides read a small stream first, to warm up. The clocks run from the first read until every
shard has been read and counted to its end.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from msgspec import Struct

from bench import data, ours, plain, results
from bench.server import STREAM, WARM_UP
from processor.core.pacing import Pace
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import TRIM_HORIZON, Shard
from processor.runtime.aws import open_aws
from processor.runtime.clock import SystemClock
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire

REGION = "us-east-1"
BUDGET_BYTES = 512 * 1024 * 1024  # a worker's at most; pages of 10,000 need 17 MB each
CONNECTIONS_MAX = 256

Side = Literal["ours", "plain"]
Row = tuple[str, str, int, int, float, float, float]


class Job(Struct, frozen=True):
    side: Side
    url: str
    page: int
    core: int | None  # to stay on


class Outcome(Struct, frozen=True):
    """What a consumer took and what it found."""

    cpu_s: float
    wall_s: float
    records: int
    payload_bytes: int
    late: int
    closed: list[Row]

    def results(self) -> plain.Results:
        return {row[:3]: row[3:] for row in self.closed}


class Found(Struct, frozen=True):
    """What came of one shard."""

    records: int
    payload_bytes: int
    late: int
    closed: plain.Results


Consume = Callable[[str], Awaitable[list[Found]]]  # a stream's name → its shards


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    run = _run_ours if job.side == "ours" else _run_plain
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run(job))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(outcome))


async def _measured(consume: Consume) -> Outcome:
    await consume(WARM_UP)
    wall_at, cpu_at = time.perf_counter(), time.process_time()
    found = await consume(STREAM)
    cpu_s, wall_s = time.process_time() - cpu_at, time.perf_counter() - wall_at
    return Outcome(
        cpu_s,
        wall_s,
        sum(shard.records for shard in found),
        sum(shard.payload_bytes for shard in found),
        sum(shard.late for shard in found),
        [(*key, *row) for shard in found for key, row in shard.closed.items()],
    )


# ---- ours ------------------------------------------------------------------------------------


async def _run_ours(job: Job) -> Outcome:
    async with open_aws(REGION, connections_max=CONNECTIONS_MAX) as aws:
        http, clock = await aws.http(job.url), SystemClock()
        signer = Signer(job.url, REGION, "kinesis")
        reading = Reading(clock, Random(1), ByteBudget(BUDGET_BYTES), _unpaced(job.page))
        plan = ours.plan_of(ours.full())

        async def consume(stream: str) -> list[Found]:
            wire = Wire(http, signer, aws.credentials, clock, f"stream {stream}")
            source = KinesisSource(wire, stream, reading)
            shards = await source.list_shards()
            taps = await asyncio.gather(*(_follow(source, plan, shard) for shard in shards))
            return [found() for found in taps]

        return await _measured(consume)


def _unpaced(page: int) -> Pace:
    """As fast as the shard answers, always `page` records."""
    return Pace(
        reads_per_s=1e6, records_min=page, records_max=page, page_bytes_max=32 * 1024 * 1024
    )


async def _follow(source: KinesisSource, plan: Plan, shard: Shard) -> Callable[[], Found]:
    """Read and count a shard to its end; what came of it is put together later."""
    pipeline = ShardPipeline(plan, shard, "1")
    tap = results.Tap(pipeline)
    reader = source.open(shard.id, TRIM_HORIZON)
    payload_bytes, is_behind = 0, True
    try:
        while is_behind:
            page = await reader.read()
            payload_bytes += pipeline.feed(page).counts.payload_bytes
            is_behind = page.millis_behind > 0
    finally:
        await reader.close()
    totals = pipeline.totals
    return lambda: Found(totals.records, payload_bytes, totals.late, tap.results())


# ---- the plain way ---------------------------------------------------------------------------


async def _run_plain(job: Job) -> Outcome:
    config = AioConfig(max_pool_connections=CONNECTIONS_MAX)
    async with get_session().create_client(
        "kinesis", region_name=REGION, endpoint_url=job.url, config=config
    ) as client:

        async def consume(stream: str) -> list[Found]:
            shards = (await client.list_shards(StreamName=stream))["Shards"]
            return await asyncio.gather(
                *(_consume_plainly(client, stream, shard["ShardId"], job.page) for shard in shards)
            )

        return await _measured(consume)


async def _consume_plainly(client: Any, stream: str, shard_id: str, page: int) -> Found:
    answer = await client.get_shard_iterator(
        StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
    )
    iterator, is_behind = answer["ShardIterator"], True
    records = payload_bytes = 0
    closed: plain.Results = {}
    loop = plain.windows(data.WINDOW_MS, data.OUT_OF_ORDERNESS_MS, closed)
    late = next(loop)
    while is_behind:
        answer = await client.get_records(ShardIterator=iterator, Limit=page)
        payloads = [record["Data"] for record in answer["Records"]]
        late = loop.send(payloads)
        records += len(payloads)
        payload_bytes += sum(map(len, payloads))
        iterator, is_behind = answer["NextShardIterator"], answer["MillisBehindLatest"] > 0
    return Found(records, payload_bytes, late, closed)


if __name__ == "__main__":
    main()
