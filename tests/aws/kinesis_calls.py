"""What the conformance suite says to a Kinesis, in short: `kinesis` is always a plain client."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count, pairwise
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError

HASH_KEYS = 2**128
DEADLINE_S = 10
names = (f"stream-{number}" for number in count())

Json = dict[str, Any]
T = TypeVar("T")


def only_local(reason: str) -> pytest.MarkDecorator:
    """For what kinesis-local rightly or wrongly does otherwise; the reason is for the reader."""
    assert reason
    return pytest.mark.parametrize("kinesis", ["local"], indirect=True)


async def until(ask: Callable[[], Awaitable[T]], is_there: Callable[[T], bool]) -> T:
    """Ask until the answer is there: kinesis-local changes shards a little after it says so."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_there(answer := await ask()):
            pass
    return answer


async def new_stream(kinesis: Any, shards: int = 1, **more: Any) -> str:
    name = next(names)
    await kinesis.create_stream(StreamName=name, ShardCount=shards, **more)
    await active(kinesis, name)
    return name


async def active(kinesis: Any, name: str) -> Json:
    async def summary() -> Json:
        answer = await kinesis.describe_stream_summary(StreamName=name)
        return answer["StreamDescriptionSummary"]

    return await until(summary, lambda found: found["StreamStatus"] == "ACTIVE")


async def shards_of(kinesis: Any, name: str, **filters: Any) -> list[Json]:
    answer = await kinesis.list_shards(StreamName=name, **filters)
    return answer["Shards"]


async def ids_of(kinesis: Any, name: str, **filters: Any) -> list[str]:
    return [shard["ShardId"] for shard in await shards_of(kinesis, name, **filters)]


async def put(kinesis: Any, name: str, *data: bytes, key: str = "key") -> list[Json]:
    """Put records one after the other, so that their order is certain."""
    return [await kinesis.put_record(StreamName=name, Data=item, PartitionKey=key) for item in data]


async def iterator(
    kinesis: Any, name: str, shard: str, kind: str = "TRIM_HORIZON", **more: Any
) -> str:
    answer = await kinesis.get_shard_iterator(
        StreamName=name, ShardId=shard, ShardIteratorType=kind, **more
    )
    return answer["ShardIterator"]


async def read(
    kinesis: Any, name: str, shard: str, kind: str = "TRIM_HORIZON", **more: Any
) -> list[bytes]:
    """The data of one page from the given start."""
    page = await kinesis.get_records(
        ShardIterator=await iterator(kinesis, name, shard, kind, **more)
    )
    return [record["Data"] for record in page["Records"]]


async def drain(kinesis: Any, name: str, shard: str) -> tuple[list[bytes], Json]:
    """All that a closed shard holds, and the page that ended it."""
    data: list[bytes] = []
    following = await iterator(kinesis, name, shard)
    async with asyncio.timeout(DEADLINE_S):
        while following is not None:
            page = await kinesis.get_records(ShardIterator=following)
            data += [record["Data"] for record in page["Records"]]
            following = page.get("NextShardIterator")
    return data, page


async def split(kinesis: Any, name: str, shard: str, first_key: int) -> None:
    await kinesis.split_shard(
        StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(first_key)
    )
    await active(kinesis, name)


async def merge(kinesis: Any, name: str, shard: str, adjacent: str) -> None:
    await kinesis.merge_shards(StreamName=name, ShardToMerge=shard, AdjacentShardToMerge=adjacent)
    await active(kinesis, name)


async def scale(kinesis: Any, name: str, target: int) -> None:
    await kinesis.update_shard_count(
        StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING"
    )
    await active(kinesis, name)


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(ClientError) as caught:
        await call
    return caught.value.response["Error"]["Code"]


def hash_range(shard: Json) -> tuple[int, int]:
    found = shard["HashKeyRange"]
    return int(found["StartingHashKey"]), int(found["EndingHashKey"])


def assert_covers_all(shards: list[Json]) -> None:
    ranges = sorted(map(hash_range, shards))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == HASH_KEYS - 1
    assert all(left[1] + 1 == right[0] for left, right in pairwise(ranges))
