"""Resharding and listing: how a shard ends, what follows it, and who gets to see which shards.

Each case is asked of our own stand-in and of a second opinion; one that only `local` runs says why.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.aws.kinesis_calls import (
    HASH_KEYS,
    active,
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

# Resharding


async def test_a_split_shard_drains_and_names_its_children(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"1", b"2")
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    await put(kinesis, name, b"3")
    data, last_page = await drain(kinesis, name, "shardId-000000000000")
    assert data == [b"1", b"2"]
    children = {child["ShardId"]: child for child in last_page["ChildShards"]}
    assert set(children) == {"shardId-000000000001", "shardId-000000000002"}
    for child in children.values():
        assert child["ParentShards"] == ["shardId-000000000000"]
    assert_covers_all(list(children.values()))


async def test_a_split_leaves_its_lineage(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    [placed] = await put(kinesis, name, b"1")
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 4)
    parent, left, right = await shards_of(kinesis, name)
    assert hash_range(left) == (0, HASH_KEYS // 4 - 1)
    assert hash_range(right) == (HASH_KEYS // 4, HASH_KEYS - 1)
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    for child in (left, right):
        assert child["ParentShardId"] == parent["ShardId"]
        assert "AdjacentParentShardId" not in child
        started = child["SequenceNumberRange"]["StartingSequenceNumber"]
        assert int(started) > int(placed["SequenceNumber"])


@only_local("kinesis-local ends every shard with the largest 64-bit number")
async def test_a_closed_shard_ends_between_its_records_and_its_children(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    [placed] = await put(kinesis, name, b"1")
    await split(kinesis, name, placed["ShardId"], HASH_KEYS // 4)
    parent, *children = await shards_of(kinesis, name)
    ended = int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
    assert ended >= int(placed["SequenceNumber"])
    for child in children:
        assert int(child["SequenceNumberRange"]["StartingSequenceNumber"]) > ended


async def test_merged_shards_drain_and_name_both_as_parents(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    parents = await ids_of(kinesis, name)
    for key in "abcdef":
        await put(kinesis, name, key.encode(), key=key)
    await merge(kinesis, name, *parents)
    drained: list[bytes] = []
    for parent in parents:
        data, last_page = await drain(kinesis, name, parent)
        drained += data
        [child] = last_page["ChildShards"]
        assert child["ShardId"] == "shardId-000000000002"
        assert set(child["ParentShards"]) == set(parents)
    assert set(drained) == {key.encode() for key in "abcdef"}


async def test_a_merge_leaves_its_lineage(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    left, right = await ids_of(kinesis, name)
    await merge(kinesis, name, left, right)
    child = (await shards_of(kinesis, name))[-1]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (left, right)
    assert hash_range(child) == (0, HASH_KEYS - 1)


async def test_children_take_the_records_with_higher_numbers(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    before = await put(kinesis, name, b"1", b"2")
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    after = await put(kinesis, name, b"3", b"4")
    assert {each["ShardId"] for each in after} < {"shardId-000000000001", "shardId-000000000002"}
    assert min(int(a["SequenceNumber"]) for a in after) > max(
        int(b["SequenceNumber"]) for b in before
    )


async def test_the_end_is_found_from_the_last_record_on(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    [placed] = await put(kinesis, name, b"1")
    await split(kinesis, name, placed["ShardId"], HASH_KEYS // 2)
    start = await iterator(
        kinesis,
        name,
        placed["ShardId"],
        "AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=placed["SequenceNumber"],
    )
    page = await kinesis.get_records(ShardIterator=start)
    assert page["Records"] == []
    assert page.get("NextShardIterator") is None
    assert len(page["ChildShards"]) == 2


async def test_an_open_shard_names_no_children(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    start = await iterator(kinesis, name, "shardId-000000000000")
    page = await kinesis.get_records(ShardIterator=start)
    assert page["NextShardIterator"]
    assert not page.get("ChildShards")


async def test_what_cannot_be_split_or_merged_is_refused(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=3)
    first, _, third = await shards_of(kinesis, name)
    outside = kinesis.split_shard(
        StreamName=name, ShardToSplit=first["ShardId"], NewStartingHashKey=str(HASH_KEYS - 1)
    )
    apart = kinesis.merge_shards(
        StreamName=name,
        ShardToMerge=first["ShardId"],
        AdjacentShardToMerge=third["ShardId"],
    )
    assert await refusal(outside) == "InvalidArgumentException"
    assert await refusal(apart) == "InvalidArgumentException"


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 3), (3, 2)])
async def test_scaling_leaves_open_shards_for_all_keys(
    kinesis: Any, before: int, after: int
) -> None:
    name = await new_stream(kinesis, shards=before)
    await scale(kinesis, name, after)
    still_open = await shards_of(kinesis, name, ShardFilter={"Type": "AT_LATEST"})
    assert len(still_open) == after
    assert_covers_all(still_open)


@only_local("kinesis-local's shards are not even after 2 to 3")
async def test_uniform_scaling_leaves_even_shards(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    await scale(kinesis, name, 3)
    still_open = await shards_of(kinesis, name, ShardFilter={"Type": "AT_LATEST"})
    widths = [last - first + 1 for first, last in map(hash_range, still_open)]
    assert max(widths) - min(widths) <= 3


async def test_scaling_up_is_at_most_to_double(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    too_much = kinesis.update_shard_count(
        StreamName=name, TargetShardCount=5, ScalingType="UNIFORM_SCALING"
    )
    # The service's model lists both without saying which; kinesis-local chose the second.
    assert await refusal(too_much) in ("LimitExceededException", "InvalidArgumentException")


# Listing


async def test_shards_are_listed_in_pages(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=5)
    page = await kinesis.list_shards(StreamName=name, MaxResults=2)
    sizes, listed = [len(page["Shards"])], page["Shards"]
    while "NextToken" in page:
        page = await kinesis.list_shards(NextToken=page["NextToken"], MaxResults=2)
        sizes.append(len(page["Shards"]))
        listed = listed + page["Shards"]
    assert sizes == [2, 2, 1]
    assert listed == await shards_of(kinesis, name)


async def test_a_token_stands_in_for_the_stream(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    page = await kinesis.list_shards(StreamName=name, MaxResults=1)
    both = kinesis.list_shards(StreamName=name, NextToken=page["NextToken"])
    assert await refusal(both) == "InvalidArgumentException"


async def test_shards_are_listed_after_a_shard(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=3)
    first, second, third = await ids_of(kinesis, name)
    assert await ids_of(kinesis, name, ExclusiveStartShardId=first) == [second, third]
    after = {"Type": "AFTER_SHARD_ID", "ShardId": second}
    assert await ids_of(kinesis, name, ShardFilter=after) == [third]


async def test_filters_tell_the_open_from_the_closed(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    parent, left, right = await ids_of(kinesis, name)
    assert await ids_of(kinesis, name, ShardFilter={"Type": "AT_LATEST"}) == [left, right]
    from_horizon = {"Type": "FROM_TRIM_HORIZON"}
    assert await ids_of(kinesis, name, ShardFilter=from_horizon) == [parent, left, right]


@only_local("kinesis-local lists all shards; documented are those that were open at the horizon")
async def test_at_the_horizon_only_its_open_shards_are_listed(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    parent = "shardId-000000000000"
    await split(kinesis, name, parent, HASH_KEYS // 2)
    at_horizon = {"Type": "AT_TRIM_HORIZON"}
    assert await ids_of(kinesis, name, ShardFilter=at_horizon) == [parent]


async def test_filters_by_time_follow_the_lives_of_shards(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    created = (await active(kinesis, name))["StreamCreationTimestamp"]
    await split(kinesis, name, "shardId-000000000000", HASH_KEYS // 2)
    everything = await ids_of(kinesis, name)
    from_start = {"Type": "FROM_TIMESTAMP", "Timestamp": created - timedelta(seconds=1)}
    assert await ids_of(kinesis, name, ShardFilter=from_start) == everything
    from_later = {"Type": "FROM_TIMESTAMP", "Timestamp": datetime.now(UTC) + timedelta(seconds=1)}
    assert await ids_of(kinesis, name, ShardFilter=from_later) == everything[1:]
