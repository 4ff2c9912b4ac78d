"""Generations of shards: splits of splits, merges of halves, scaling; and what age takes away.

Each case is asked of our own stand-in and of a second opinion; one that only `local` runs says why.
What takes hours or minutes is asked of our own alone, whose clock can be turned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from tests.aws.conftest import client_of
from tests.aws.kinesis_calls import (
    HASH_KEYS,
    Json,
    assert_covers_all,
    drain,
    hash_range,
    ids_of,
    iterator,
    merge,
    new_stream,
    only_local,
    put,
    refusal,
    scale,
    shards_of,
    split,
)

KEYS = [f"key-{n}" for n in range(24)]
OPEN = {"Type": "AT_LATEST"}


async def put_round(kinesis: Any, name: str, round_: int) -> None:
    """A record a key: its data are the key and the round."""
    records = [{"Data": f"{key} {round_}".encode(), "PartitionKey": key} for key in KEYS]
    answer = await kinesis.put_records(StreamName=name, Records=records)
    assert answer["FailedRecordCount"] == 0


async def rest(kinesis: Any, name: str, shard: str) -> tuple[list[bytes], list[Json] | None]:
    """All that a shard holds now, and its children if it ended."""
    data: list[bytes] = []
    following = await iterator(kinesis, name, shard)
    while True:
        page = await kinesis.get_records(ShardIterator=following)
        data += [record["Data"] for record in page["Records"]]
        if (following := page.get("NextShardIterator")) is None:
            return data, page["ChildShards"]
        if not page["Records"] and page["MillisBehindLatest"] == 0:
            return data, None


async def walk(kinesis: Any, name: str, roots: list[str]) -> list[bytes]:
    """As a consumer reads: a shard's children once all of its parents have ended."""
    data: list[bytes] = []
    ended: set[str] = set()
    waiting, begun = list(roots), set(roots)
    while waiting:
        shard = waiting.pop(0)
        part, children = await rest(kinesis, name, shard)
        data += part
        ended.add(shard)
        for child in children or ():
            if set(child["ParentShards"]) <= ended and child["ShardId"] not in begun:
                begun.add(child["ShardId"])
                waiting.append(child["ShardId"])
    return data


def assert_each_once_and_in_order(data: list[bytes], rounds: int) -> None:
    seen: Counter[str] = Counter()
    for text in data:
        key, _, round_ = text.decode().partition(" ")
        assert int(round_) == seen[key], f"{key}: {round_} after {seen[key] - 1}"
        seen[key] += 1
    assert seen == dict.fromkeys(KEYS, rounds)


# Generations


async def test_a_walk_from_parents_to_children_finds_each_record_once_and_keys_in_order(
    kinesis: Any,
) -> None:
    name = await new_stream(kinesis, shards=2)
    roots = await ids_of(kinesis, name)
    await put_round(kinesis, name, 0)
    await split(kinesis, name, roots[0], HASH_KEYS // 4)
    await put_round(kinesis, name, 1)
    left = (await shards_of(kinesis, name))[2]
    await split(kinesis, name, left["ShardId"], HASH_KEYS // 8)
    await put_round(kinesis, name, 2)
    halves = sorted(await shards_of(kinesis, name, ShardFilter=OPEN), key=hash_range)
    await merge(kinesis, name, halves[1]["ShardId"], halves[2]["ShardId"])
    await put_round(kinesis, name, 3)
    assert_each_once_and_in_order(await walk(kinesis, name, roots), rounds=4)


async def test_scaling_up_and_down_under_traffic_loses_and_repeats_nothing(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    roots = await ids_of(kinesis, name)
    for round_, target in enumerate((4, 2, 3, 2)):
        await put_round(kinesis, name, round_)
        await scale(kinesis, name, target)
        still_open = await shards_of(kinesis, name, ShardFilter=OPEN)
        assert len(still_open) == target
        assert_covers_all(still_open)
    await put_round(kinesis, name, 4)
    assert_each_once_and_in_order(await walk(kinesis, name, roots), rounds=5)


async def test_halves_of_different_parents_merge_into_a_child_of_both(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    first, second = await ids_of(kinesis, name)
    await split(kinesis, name, first, HASH_KEYS // 4)
    await split(kinesis, name, second, HASH_KEYS // 4 * 3)
    _, right, left, _ = sorted(await shards_of(kinesis, name, ShardFilter=OPEN), key=hash_range)
    await merge(kinesis, name, right["ShardId"], left["ShardId"])
    child = (await shards_of(kinesis, name))[-1]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (
        right["ShardId"],
        left["ShardId"],
    )
    assert hash_range(child) == (HASH_KEYS // 4, HASH_KEYS // 4 * 3 - 1)
    for parent in (right, left):
        _, last_page = await drain(kinesis, name, parent["ShardId"])
        [named] = last_page["ChildShards"]
        assert named["ShardId"] == child["ShardId"]
        assert set(named["ParentShards"]) == {right["ShardId"], left["ShardId"]}


async def test_a_child_that_is_split_again_is_still_the_child_that_its_parent_names(
    kinesis: Any,
) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await split(kinesis, name, "shardId-000000000001", HASH_KEYS // 4)
    _, first_end = await drain(kinesis, name, "shardId-000000000000")
    assert {child["ShardId"] for child in first_end["ChildShards"]} == {
        "shardId-000000000001",
        "shardId-000000000002",
    }
    _, second_end = await drain(kinesis, name, "shardId-000000000001")
    assert {child["ShardId"] for child in second_end["ChildShards"]} == {
        "shardId-000000000003",
        "shardId-000000000004",
    }


async def test_a_child_s_numbers_lie_above_all_of_its_parents(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    parents = await ids_of(kinesis, name)
    last = 0
    for key in KEYS:
        [placed] = await put(kinesis, name, b"", key=key)
        last = max(last, int(placed["SequenceNumber"]))
    await merge(kinesis, name, *parents)
    [placed] = await put(kinesis, name, b"")
    assert int(placed["SequenceNumber"]) > last


async def test_an_explicit_hash_key_finds_the_grandchild_that_holds_it(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await split(kinesis, name, "shardId-000000000001", HASH_KEYS // 4)
    for shard in await shards_of(kinesis, name, ShardFilter=OPEN):
        for edge in hash_range(shard):
            placed = await kinesis.put_record(
                StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(edge)
            )
            assert placed["ShardId"] == shard["ShardId"]


async def test_only_open_shards_can_be_split_or_merged(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    parent = "shardId-000000000000"
    await split(kinesis, name, parent, HASH_KEYS // 2)
    again = kinesis.split_shard(
        StreamName=name, ShardToSplit=parent, NewStartingHashKey=str(HASH_KEYS // 4)
    )
    with_child = kinesis.merge_shards(
        StreamName=name, ShardToMerge=parent, AdjacentShardToMerge="shardId-000000000001"
    )
    codes = ("InvalidArgumentException", "ResourceInUseException")  # the model names both
    assert await refusal(again) in codes
    assert await refusal(with_child) in codes


# The end of a shard


async def test_the_latest_of_a_closed_shard_is_its_end(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    parent = "shardId-000000000000"
    await put(kinesis, name, b"1")
    await split(kinesis, name, parent, HASH_KEYS // 2)
    page = await kinesis.get_records(ShardIterator=await iterator(kinesis, name, parent, "LATEST"))
    assert page["Records"] == []
    assert page.get("NextShardIterator") is None
    assert len(page["ChildShards"]) == 2


async def test_an_iterator_from_before_a_reshard_leads_to_the_end(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    parent = "shardId-000000000000"
    before = await iterator(kinesis, name, parent, "LATEST")
    await put(kinesis, name, b"1")
    await split(kinesis, name, parent, HASH_KEYS // 2)
    data: list[bytes] = []
    following: str | None = before
    while following is not None:
        page = await kinesis.get_records(ShardIterator=following)
        data += [record["Data"] for record in page["Records"]]
        following = page.get("NextShardIterator")
    assert data == [b"1"]
    assert len(page["ChildShards"]) == 2


async def test_a_page_that_is_cut_by_its_limit_does_not_end_a_closed_shard(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    parent = "shardId-000000000000"
    await put(kinesis, name, b"1", b"2", b"3")
    await split(kinesis, name, parent, HASH_KEYS // 2)
    start = await iterator(kinesis, name, parent)
    page = await kinesis.get_records(ShardIterator=start, Limit=2)
    assert [record["Data"] for record in page["Records"]] == [b"1", b"2"]
    assert page["NextShardIterator"]
    assert not page.get("ChildShards")


async def test_open_shards_have_no_last_number_and_closed_ones_keep_theirs(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await split(kinesis, name, "shardId-000000000001", HASH_KEYS // 4)
    closed = {"shardId-000000000000", "shardId-000000000001"}
    for shard in await shards_of(kinesis, name):
        has_ended = "EndingSequenceNumber" in shard["SequenceNumberRange"]
        assert has_ended == (shard["ShardId"] in closed)


async def test_shards_after_a_shard_are_listed_whether_closed_or_open(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await split(kinesis, name, "shardId-000000000001", HASH_KEYS // 4)
    after = {"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"}
    listed = await ids_of(kinesis, name, ShardFilter=after)
    assert listed == [f"shardId-{n:012d}" for n in range(1, 5)]


# What age takes away


class Turned:
    """Our own Kinesis with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0
        self.server = KinesisServer(Limits.without_rates(), clock=lambda: self.now_s)


@pytest.fixture
async def turned() -> AsyncIterator[Turned]:
    turned = Turned()
    async with turned.server:
        yield turned


async def test_an_iterator_expires_after_five_minutes(turned: Turned) -> None:
    async with client_of(turned.server.url) as kinesis:
        name = await new_stream(kinesis)
        [placed] = await put(kinesis, name, b"1")
        old = await iterator(kinesis, name, placed["ShardId"])
        turned.now_s += 299
        page = await kinesis.get_records(ShardIterator=old)
        turned.now_s += 2
        assert await refusal(kinesis.get_records(ShardIterator=old)) == "ExpiredIteratorException"
        page = await kinesis.get_records(ShardIterator=page["NextShardIterator"])
        assert page["Records"] == [], "a page's next iterator has five minutes of its own"


async def test_an_expired_iterator_of_a_closed_shard_is_still_refused(turned: Turned) -> None:
    async with client_of(turned.server.url) as kinesis:
        name = await new_stream(kinesis)
        [placed] = await put(kinesis, name, b"1")
        old = await iterator(kinesis, name, placed["ShardId"])
        await split(kinesis, name, placed["ShardId"], HASH_KEYS // 2)
        turned.now_s += 301
        assert await refusal(kinesis.get_records(ShardIterator=old)) == "ExpiredIteratorException"
        data, _ = await drain(kinesis, name, placed["ShardId"])
        assert data == [b"1"]


async def test_records_past_retention_are_gone_and_a_position_there_begins_at_the_oldest(
    turned: Turned,
) -> None:
    async with client_of(turned.server.url) as kinesis:
        name = await new_stream(kinesis)
        [old] = await put(kinesis, name, b"old")
        turned.now_s += 23 * 3600
        await put(kinesis, name, b"new")
        turned.now_s += 2 * 3600
        data, _ = await rest(kinesis, name, old["ShardId"])
        assert data == [b"new"]
        again = await iterator(
            kinesis,
            name,
            old["ShardId"],
            "AFTER_SEQUENCE_NUMBER",
            StartingSequenceNumber=old["SequenceNumber"],
        )
        page = await kinesis.get_records(ShardIterator=again)
        assert [record["Data"] for record in page["Records"]] == [b"new"]


async def test_a_closed_shard_is_listed_until_its_records_are_past_retention(
    turned: Turned,
) -> None:
    async with client_of(turned.server.url) as kinesis:
        name = await new_stream(kinesis)
        parent = "shardId-000000000000"
        await put(kinesis, name, b"1")
        await split(kinesis, name, parent, HASH_KEYS // 2)
        turned.now_s += 23 * 3600
        assert parent in await ids_of(kinesis, name)
        turned.now_s += 2 * 3600
        assert parent not in await ids_of(kinesis, name)
        assert_covers_all(await shards_of(kinesis, name))
        assert await refusal(iterator(kinesis, name, parent)) == "ResourceNotFoundException"


@only_local("kinesis-local lists all shards; documented are those that were open at the horizon")
async def test_a_filter_by_the_horizon_begins_with_the_oldest_generation(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await split(kinesis, name, "shardId-000000000001", HASH_KEYS // 4)
    at_horizon = {"Type": "AT_TRIM_HORIZON"}
    assert await ids_of(kinesis, name, ShardFilter=at_horizon) == ["shardId-000000000000"]
