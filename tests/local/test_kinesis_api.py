"""From a request's bytes to an answer's: what a well-behaved SDK never sends, and what it sees."""

from typing import Any

import msgspec
import pytest

from processor.local.kinesis_api import answer_in_part, answer_to, shard_of
from processor.local.kinesis_errors import ServiceError
from processor.local.kinesis_model import KinesisModel

NOW = 1_700_000_000_000
SHARD = "shardId-000000000000"


@pytest.fixture
def model() -> KinesisModel:
    model = KinesisModel()
    model.create_stream("s", 1, NOW)
    return model


def call(model: KinesisModel, operation: str, **request: Any) -> Any:
    return msgspec.json.decode(answer_to(model, operation, msgspec.json.encode(request), NOW))


@pytest.mark.parametrize(
    ("operation", "body", "kind"),
    [
        ("SubscribeToShard", b"{}", "UnknownOperationException"),
        ("ListShards", b"{", "SerializationException"),
        ("ListShards", b"\xff", "SerializationException"),
        ("ListShards", b"{}", "InvalidArgumentException"),
        ("ListShards", b'{"StreamName":7}', "ValidationException"),
        ("ListShards", b'{"StreamName":"no such name!"}', "ValidationException"),
        ("ListShards", b'{"StreamName":"s","MaxResults":0}', "ValidationException"),
        ("ListShards", b'{"NextToken":"?"}', "InvalidArgumentException"),
        (
            "ListShards",
            b'{"StreamName":"s","ShardFilter":{"Type":"AFTER_SHARD_ID"}}',
            "InvalidArgumentException",
        ),
        (
            "ListShards",
            b'{"StreamName":"s","ShardFilter":{"Type":"AT_TIMESTAMP"}}',
            "InvalidArgumentException",
        ),
        ("GetRecords", b"{}", "ValidationException"),
        ("GetRecords", b'{"ShardIterator":"","Limit":10001}', "ValidationException"),
        ("CreateStream", b'{"StreamName":"t","ShardCount":0}', "ValidationException"),
        ("CreateStream", b'{"StreamName":"t","ShardCount":10001}', "ValidationException"),
        ("PutRecord", b'{"StreamName":"s","Data":"*","PartitionKey":"k"}', "ValidationException"),
        ("PutRecord", b'{"StreamName":"s","Data":""}', "ValidationException"),
        ("PutRecords", b'{"StreamName":"s","Records":[]}', "ValidationException"),
        (
            "UpdateShardCount",
            b'{"StreamName":"s","TargetShardCount":1,"ScalingType":"X"}',
            "ValidationException",
        ),
        (
            "GetShardIterator",
            b'{"StreamName":"s","ShardId":"' + SHARD.encode() + b'",'
            b'"ShardIteratorType":"AT_SEQUENCE_NUMBER"}',
            "InvalidArgumentException",
        ),
        (
            "GetShardIterator",
            b'{"StreamName":"s","ShardId":"' + SHARD.encode() + b'",'
            b'"ShardIteratorType":"AT_TIMESTAMP"}',
            "InvalidArgumentException",
        ),
    ],
)
def test_a_bad_request_is_refused_by_name(
    model: KinesisModel, operation: str, body: bytes, kind: str
) -> None:
    with pytest.raises(ServiceError) as error:
        answer_to(model, operation, body, NOW)
    assert (error.value.kind, error.value.status) == (kind, 400)


def test_fields_that_are_not_known_are_ignored(model: KinesisModel) -> None:
    assert call(model, "ListShards", StreamName="s", Invented=1)["Shards"]


def test_a_refused_entry_says_why_beside_those_that_were_taken(model: KinesisModel) -> None:
    half = [{"Data": "", "PartitionKey": "k"}] * 500
    for _ in range(2):
        assert call(model, "PutRecords", StreamName="s", Records=half)["FailedRecordCount"] == 0
    answer = call(model, "PutRecords", StreamName="s", Records=half[:1])
    assert answer["FailedRecordCount"] == 1
    [refused] = answer["Records"]
    assert refused["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert SHARD in refused["ErrorMessage"]


def test_a_single_put_over_the_rate_is_an_error(model: KinesisModel) -> None:
    full = [{"Data": "", "PartitionKey": "k"}] * 500
    for _ in range(2):
        call(model, "PutRecords", StreamName="s", Records=full)
    with pytest.raises(ServiceError) as error:
        call(model, "PutRecord", StreamName="s", Data="", PartitionKey="k")
    assert error.value.kind == "ProvisionedThroughputExceededException"


def test_in_part_only_a_batch_is_treated_differently(model: KinesisModel) -> None:
    streams = answer_in_part(model, "ListStreams", b"{}", NOW)
    assert streams == answer_to(model, "ListStreams", b"{}", NOW)
    with pytest.raises(ServiceError) as error:
        answer_in_part(model, "PutRecords", b'{"Records":7}', NOW)
    assert error.value.kind == "ValidationException"


def test_the_shard_that_a_request_names_is_found(model: KinesisModel) -> None:
    iterator = model.iterator("s", SHARD, "LATEST", NOW)

    def named(operation: str, **request: str) -> str | None:
        return shard_of(model, operation, msgspec.json.encode(request), NOW)

    assert named("GetRecords", ShardIterator=iterator) == SHARD
    assert named("GetRecords", ShardIterator="?") is None
    assert named("GetShardIterator", ShardId=SHARD) == SHARD
    assert named("SplitShard", ShardToSplit=SHARD) == SHARD
    assert named("PutRecord", ShardId=SHARD) is None
