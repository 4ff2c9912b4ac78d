"""The producer against a real Kinesis of our own: order per shard, throttling, splits, an end."""

import asyncio
import base64
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

from processor.errors import Outage
from processor.local.calls import Calls
from processor.local.check import HOUR_MS
from processor.local.kinesis_faults import Fault
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.local.producer import Producer
from processor.local.traffic import SHARDS, plan_traffic
from tests.service import eventually

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
        await producer.open()
        await producer.run()
        for shard in range(SHARDS):
            assert await contents(calls, shard) == [one.payload for one in plan.shards[shard]]
        assert len(producer.sent) == plan.total
        assert len(producer.last_numbers) == SHARDS


async def test_throttled_records_are_put_again_before_later_ones() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis(Limits(write_records_per_s=100)) as calls:
        producer = Producer(plan, "shop", calls)
        await producer.open()
        await producer.run()
        assert producer.throttled > 0
        for shard in range(SHARDS):
            assert await contents(calls, shard) == [one.payload for one in plan.shards[shard]]


async def test_a_stopped_producer_knows_what_it_sent_and_can_still_flush() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis() as calls:
        producer = Producer(plan, "shop", calls)
        await producer.open()
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
    async with KinesisServer() as server, aiohttp.ClientSession() as session:
        server.create_stream("shop", SHARDS)
        server.faults.add(Fault("internal", "PutRecords"))
        producer = Producer(plan, "shop", Calls(session, server.url))
        await producer.open()
        with pytest.raises(ExceptionGroup) as caught:
            await producer.run()
    assert caught.group_contains(Outage, match="InternalFailure")


async def until_sent(producer: Producer, count: int) -> None:
    await eventually(lambda: len(producer.sent) >= count, what=lambda: producer)


async def test_through_splits_and_merges_each_shard_stays_in_order_of_due_times() -> None:
    plan = plan_traffic(1, END_MS, duration_s=1)
    originals = [one for shard in plan.shards for one in shard if one.sent.fate != "duplicate"]
    due = {one.payload: one.due_ms for one in reversed(originals)}
    async with kinesis() as calls:
        producer = Producer(plan, "shop", calls)
        await producer.open()
        running = asyncio.create_task(producer.run())
        await until_sent(producer, 100)
        _, second, third, _ = producer.lanes
        left, right = await producer.split(second), await producer.split(third)
        await until_sent(producer, 1_000)
        [merged] = await producer.merge(left[-1], right[0])
        await running
        assert Counter(producer.sent) == Counter(itertools.chain(*plan.shards))
        assert len(merged.stores) == 2
        assert [lane.shard_id for lane in producer.lanes][1:4] == [
            left[0].shard_id,
            merged.shard_id,
            right[-1].shard_id,
        ]
        for shard in (4, 7, 8):  # both halves that stayed as they were, and what was merged
            payloads = list(dict.fromkeys(await contents(calls, shard)))  # duplicates come later
            assert len(payloads) > 100
            times = [due[one] for one in payloads]
            assert times == sorted(times)
        await producer.flush(END_MS)
        assert producer.flushes == 5, "one an open shard"


async def test_a_store_s_records_stay_in_the_plan_s_order_from_parent_to_child() -> None:
    plan = plan_traffic(1, END_MS, duration_s=0.5)
    async with kinesis() as calls:
        producer = Producer(plan, "shop", calls)
        await producer.open()
        running = asyncio.create_task(producer.run())
        await until_sent(producer, 100)
        children = await producer.split(producer.lanes[0])
        await running
        for child in children:
            [store] = child.stores
            number = int(child.shard_id[-12:])
            got = [*await contents(calls, 0), *await contents(calls, number)]
            mine = [one.payload for one in plan.shards[0] if one.store == store]
            assert [one for one in got if one in set(mine)] == mine
