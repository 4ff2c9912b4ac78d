"""The producer against a real Kinesis of our own: order per shard, throttling, an early end."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

from processor.errors import Outage
from processor.local.calls import Calls
from processor.local.check import HOUR_MS
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.local.producer import Producer
from processor.local.traffic import SHARDS, plan_traffic

END_MS = 1_760_000_400_000 // HOUR_MS * HOUR_MS


@asynccontextmanager
async def kinesis(limits: Limits | None = None) -> AsyncIterator[Calls]:
    async with KinesisServer(limits) as server, aiohttp.ClientSession() as session:
        server.create_stream("shop", SHARDS)
        yield Calls(session, server.url)


async def contents(calls: Calls, shard: int) -> list[bytes]:
    """All records of a shard, in order."""
    place = {"StreamName": "shop", "ShardId": f"shardId-{shard:012d}"}
    request = {**place, "ShardIteratorType": "TRIM_HORIZON"}
    answer = await calls("kinesis", "GetShardIterator", request)
    answer = await calls("kinesis", "GetRecords", {"ShardIterator": answer["ShardIterator"]})
    return [base64.b64decode(record["Data"]) for record in answer["Records"]]


async def test_every_shard_gets_its_records_in_the_plan_s_order() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis() as calls:
        producer = Producer(plan, "shop", calls)
        await producer.run()
        for shard in range(SHARDS):
            assert await contents(calls, shard) == [one.payload for one in plan.shards[shard]]
        assert len(producer.sent) == plan.total
        assert len(producer.last_numbers) == SHARDS


async def test_throttled_records_are_put_again_before_later_ones() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis(Limits(write_records_per_s=100)) as calls:
        producer = Producer(plan, "shop", calls)
        await producer.run()
        assert producer.throttled > 0
        for shard in range(SHARDS):
            assert await contents(calls, shard) == [one.payload for one in plan.shards[shard]]


async def test_a_stopped_producer_knows_what_it_sent_and_can_still_flush() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis() as calls:
        producer = Producer(plan, "shop", calls)
        producer.stop()
        await producer.run()
        assert producer.sent == []
        await producer.flush(END_MS)
        for shard in range(SHARDS):
            [flush] = await contents(calls, shard)
            assert orjson.loads(flush)["at"] == END_MS + HOUR_MS
        assert len(producer.last_numbers) == SHARDS


async def test_a_put_that_fails_ends_the_run() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis() as calls:
        with pytest.raises(ExceptionGroup) as caught:
            await Producer(plan, "no-such-stream", calls).run()
    assert caught.group_contains(Outage, match="ResourceNotFoundException")
