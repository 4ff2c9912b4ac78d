"""Routing and resharding of one stream: whatever was done, the open shards share out all keys."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.local.kinesis_limits import Limits
from processor.local.kinesis_shards import HASH_KEY_MAX
from processor.local.kinesis_stream import Stream, hash_key_of

NOW = 1_700_000_000_000


def stream_of(shards: int) -> Stream:
    return Stream("s", "arn", shards, Limits(), NOW)


def assert_shares_out_all_keys(stream: Stream) -> None:
    ranges = [shard.hash_range for shard in stream.open_shards]
    assert ranges[0].first == 0
    assert ranges[-1].last == HASH_KEY_MAX
    for left, right in pairwise(ranges):
        assert left.last + 1 == right.first


@settings(max_examples=50)
@given(st.integers(1, 12), st.lists(st.integers(1, 24), max_size=4))
def test_scaling_leaves_even_shards_with_one_or_two_parents(
    shards: int, targets: list[int]
) -> None:
    stream = stream_of(shards)
    for target in targets:
        count = len(stream.open_shards)
        within = min(max(target, -(-count // 2)), 2 * count)
        stream.scale(within, NOW)
        assert len(stream.open_shards) == within
    assert_shares_out_all_keys(stream)
    widths = [s.hash_range.last - s.hash_range.first for s in stream.open_shards]
    assert max(widths) - min(widths) <= len(widths)
    assert all(len(shard.parent_ids) <= 2 for shard in stream.shards.values())


def test_scaling_to_what_is_there_changes_nothing() -> None:
    stream = stream_of(3)
    stream.scale(3, NOW)
    assert len(stream.shards) == 3


@given(st.text(min_size=1))
def test_a_key_goes_where_its_hash_lies(key: str) -> None:
    hash_key = hash_key_of(key)
    hash_range = stream_of(5).shard_for(hash_key).hash_range
    assert hash_range.first <= hash_key <= hash_range.last


def test_a_closed_shard_takes_no_more_keys() -> None:
    stream = stream_of(1)
    stream.split("shardId-000000000000", 2**127, NOW)
    assert [shard.shard_id[-1] for shard in stream.open_shards] == ["1", "2"]
    assert stream.shard_for(2**127 - 1).shard_id[-1] == "1"
    assert stream.shard_for(2**127).shard_id[-1] == "2"
    assert_shares_out_all_keys(stream)


def test_merged_shards_take_no_more_keys() -> None:
    stream = stream_of(2)
    stream.merge("shardId-000000000000", "shardId-000000000001", NOW)
    assert [shard.shard_id[-1] for shard in stream.open_shards] == ["2"]
    for hash_key in (0, 2**127 - 1, 2**127, HASH_KEY_MAX):
        assert stream.shard_for(hash_key).shard_id[-1] == "2"
    assert_shares_out_all_keys(stream)
