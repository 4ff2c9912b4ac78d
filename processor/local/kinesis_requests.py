"""The requests that our Kinesis understands, as typed values decoded straight from the wire.

A value out of its range is msgspec's ValidationError; the caller says it in the service's words.
"""

from typing import Annotated

import msgspec

from processor.local.kinesis_model import IteratorType, NewRecord
from processor.local.kinesis_stream import Distribution, Mode
from processor.local.kinesis_tokens import FilterType

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
HashKey = Annotated[str, msgspec.Meta(pattern=r"^(0|([1-9]\d{0,38}))$")]
SequenceNumber = Annotated[str, msgspec.Meta(pattern=r"^(0|([1-9]\d{0,128}))$")]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
RecordKibibytes = Annotated[int, msgspec.Meta(ge=1_024, le=10_240)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class OfStream(msgspec.Struct, rename="pascal", kw_only=True):
    """What nearly every request carries: the stream, by name or by ARN."""

    stream_name: Name | None = None
    stream_arn: str | None = msgspec.field(default=None, name="StreamARN")


class StreamModeDetails(msgspec.Struct, rename="pascal"):
    stream_mode: Mode


class CreateStream(msgspec.Struct, rename="pascal"):
    stream_name: Name
    shard_count: PositiveInt | None = None
    stream_mode_details: StreamModeDetails | None = None
    record_distribution_strategy: Distribution = "USER_PARTITION_KEY"
    max_record_size: RecordKibibytes | None = msgspec.field(default=None, name="MaxRecordSizeInKiB")


class DescribeStream(OfStream, rename="pascal"):
    limit: Count = 100
    exclusive_start_shard_id: Name | None = None


class ListStreams(msgspec.Struct, rename="pascal"):
    limit: Count = 100
    exclusive_start_stream_name: Name | None = None
    next_token: str | None = None


class PutRecord(OfStream, rename="pascal", kw_only=True):
    data: bytes
    partition_key: str | None = None
    explicit_hash_key: HashKey | None = None


class PutRecords(OfStream, rename="pascal", kw_only=True):
    records: list[NewRecord]


class GetShardIterator(OfStream, rename="pascal", kw_only=True):
    shard_id: Name
    shard_iterator_type: IteratorType
    starting_sequence_number: SequenceNumber | None = None
    timestamp: float | None = None


class GetRecords(msgspec.Struct, rename="pascal"):
    shard_iterator: str
    limit: Count | None = None


class ShardFilter(msgspec.Struct, rename="pascal"):
    type: FilterType
    shard_id: Name | None = None
    timestamp: float | None = None


class ListShards(OfStream, rename="pascal", kw_only=True):
    next_token: str | None = None
    exclusive_start_shard_id: Name | None = None
    max_results: Count = 1_000
    shard_filter: ShardFilter | None = None


class SplitShard(OfStream, rename="pascal", kw_only=True):
    shard_to_split: Name
    new_starting_hash_key: HashKey


class MergeShards(OfStream, rename="pascal", kw_only=True):
    shard_to_merge: Name
    adjacent_shard_to_merge: Name


class UpdateShardCount(OfStream, rename="pascal", kw_only=True):
    target_shard_count: PositiveInt
    scaling_type: str


class SetRetention(OfStream, rename="pascal", kw_only=True):
    retention_period_hours: int
