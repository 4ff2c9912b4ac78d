"""Streams, writing and reading: what the processor relies on in Kinesis.

Each case is asked of our own stand-in and of a second opinion; one that only `local` runs says why.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from tests.aws.kinesis_calls import (
    HASH_KEYS,
    Json,
    active,
    assert_covers_all,
    hash_range,
    ids_of,
    iterator,
    new_stream,
    only_local,
    put,
    read,
    refusal,
    shards_of,
    split,
    until,
)

large_body = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


# Streams


async def test_a_new_stream_is_described(kinesis: Any) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    name = await new_stream(kinesis, shards=3)
    summary = await active(kinesis, name)
    assert summary["StreamName"] == name
    assert summary["StreamARN"].endswith(f":stream/{name}")
    assert summary["OpenShardCount"] == 3
    assert summary["RetentionPeriodHours"] == 24
    assert summary["EncryptionType"] == "NONE"
    assert summary["ConsumerCount"] == 0
    assert "KeyId" not in summary
    assert before < summary["StreamCreationTimestamp"] <= datetime.now(UTC)


async def test_describing_a_stream_pages_through_its_shards(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=3)
    first = (await kinesis.describe_stream(StreamName=name, Limit=2))["StreamDescription"]
    rest = await kinesis.describe_stream(
        StreamName=name, ExclusiveStartShardId=first["Shards"][-1]["ShardId"]
    )
    assert first["HasMoreShards"] is True
    assert rest["StreamDescription"]["HasMoreShards"] is False
    assert_covers_all(first["Shards"] + rest["StreamDescription"]["Shards"])


async def test_a_name_is_taken_once(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    again = kinesis.create_stream(StreamName=name, ShardCount=1)
    assert await refusal(again) == "ResourceInUseException"


async def test_a_deleted_stream_is_gone(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await kinesis.delete_stream(StreamName=name)
    listed = await until(kinesis.list_streams, lambda found: name not in found["StreamNames"])
    assert name not in listed["StreamNames"]
    asked = kinesis.describe_stream_summary(StreamName=name)
    assert await refusal(asked) == "ResourceNotFoundException"


async def test_streams_are_listed_in_pages(kinesis: Any) -> None:
    made = {await new_stream(kinesis) for _ in range(3)}
    listed: list[str] = []
    page = await kinesis.list_streams(Limit=2)
    listed += page["StreamNames"]
    while page["HasMoreStreams"]:
        page = await kinesis.list_streams(Limit=2, ExclusiveStartStreamName=listed[-1])
        listed += page["StreamNames"]
    assert made <= set(listed)
    assert listed == sorted(set(listed))


async def test_an_unknown_stream_or_shard_is_not_found(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    record = {"Data": b"", "PartitionKey": "k"}
    calls = [
        kinesis.list_shards(StreamName="nowhere"),
        kinesis.put_record(StreamName="nowhere", **record),
        kinesis.put_records(StreamName="nowhere", Records=[record]),
        iterator(kinesis, "nowhere", "shardId-000000000000"),
        iterator(kinesis, name, "shardId-000000000007"),
    ]
    assert {await refusal(call) for call in calls} == {"ResourceNotFoundException"}


async def test_an_arn_will_do_in_place_of_a_name(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    arn = (await active(kinesis, name))["StreamARN"]
    await kinesis.put_record(StreamARN=arn, Data=b"data", PartitionKey="key")
    [shard] = (await kinesis.list_shards(StreamARN=arn))["Shards"]
    started = await kinesis.get_shard_iterator(
        StreamARN=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )
    page = await kinesis.get_records(ShardIterator=started["ShardIterator"])
    assert [record["Data"] for record in page["Records"]] == [b"data"]


async def test_retention_goes_up_and_down_within_bounds(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    assert (await active(kinesis, name))["RetentionPeriodHours"] == 48
    wrong_way = kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=47)
    assert await refusal(wrong_way) == "InvalidArgumentException"
    await kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    assert (await active(kinesis, name))["RetentionPeriodHours"] == 24
    wrong_way = kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=25)
    assert await refusal(wrong_way) == "InvalidArgumentException"
    too_short = kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=23)
    assert await refusal(too_short) == "InvalidArgumentException"


# Writing


async def test_a_record_comes_back_as_it_was_put(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    data, key = bytes(range(256)), 'clé "à" \\ \u2028 🗝'
    placed = await kinesis.put_record(StreamName=name, Data=data, PartitionKey=key)
    start = await iterator(kinesis, name, placed["ShardId"])
    [record] = (await kinesis.get_records(ShardIterator=start))["Records"]
    assert record["Data"] == data
    assert record["PartitionKey"] == key
    assert record["SequenceNumber"] == placed["SequenceNumber"]
    assert abs(record["ApproximateArrivalTimestamp"] - datetime.now(UTC)) < timedelta(seconds=5)


async def test_the_md5_of_the_partition_key_chooses_the_shard(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=4)
    ranges = {s["ShardId"]: hash_range(s) for s in await shards_of(kinesis, name)}
    for key in ("a", "b", "c", "d", "ü", "a longer key"):
        placed = await kinesis.put_record(StreamName=name, Data=b"", PartitionKey=key)
        first, last = ranges[placed["ShardId"]]
        assert first <= int(hashlib.md5(key.encode()).hexdigest(), 16) <= last


async def test_an_explicit_hash_key_goes_before_the_partition_key(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=3)
    for shard in await shards_of(kinesis, name):
        for edge in hash_range(shard):
            placed = await kinesis.put_record(
                StreamName=name, Data=b"", PartitionKey="same", ExplicitHashKey=str(edge)
            )
            assert placed["ShardId"] == shard["ShardId"]


async def test_each_record_of_a_batch_goes_by_its_own_explicit_hash_key(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=3)
    shards = await shards_of(kinesis, name)
    keys = [str(edge) for shard in shards for edge in hash_range(shard)]
    batch = [{"Data": b"", "PartitionKey": "same", "ExplicitHashKey": key} for key in keys]
    answer = await kinesis.put_records(StreamName=name, Records=batch)
    wanted = [shard["ShardId"] for shard in shards for _ in hash_range(shard)]
    assert [placed["ShardId"] for placed in answer["Records"]] == wanted


async def test_sequence_numbers_have_56_digits_and_increase(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    placed = await put(kinesis, name, *(b"%d" % i for i in range(20)))
    numbers = [int(each["SequenceNumber"]) for each in placed]
    [shard] = await shards_of(kinesis, name)
    assert {len(each["SequenceNumber"]) for each in placed} == {56}
    assert all(earlier < later for earlier, later in pairwise(numbers))
    assert int(shard["SequenceNumberRange"]["StartingSequenceNumber"]) <= numbers[0]
    assert "EndingSequenceNumber" not in shard["SequenceNumberRange"]


async def test_a_batch_is_answered_entry_by_entry(kinesis: Any) -> None:
    name = await new_stream(kinesis, shards=2)
    batch = [{"Data": b"%d" % i, "PartitionKey": f"key {i}"} for i in range(500)]
    answer = await kinesis.put_records(StreamName=name, Records=batch)
    assert answer["FailedRecordCount"] == 0
    assert len(answer["Records"]) == 500
    read_back: set[bytes] = set()
    for shard in await ids_of(kinesis, name):
        read_back.update(await read(kinesis, name, shard))
    assert read_back == {entry["Data"] for entry in batch}


@only_local("kinesis-local takes any number")
async def test_a_batch_of_more_than_500_is_refused(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    batch = [{"Data": b"", "PartitionKey": "k"}] * 501
    code = await refusal(kinesis.put_records(StreamName=name, Records=batch))
    assert code == "ValidationException"


async def test_a_partition_key_has_at_most_256_characters(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"", key="ü" * 256)
    code = await refusal(put(kinesis, name, b"", key="k" * 257))
    assert code in ("ValidationException", "InvalidArgumentException")


async def test_an_explicit_hash_key_has_at_most_128_bits(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    beyond = kinesis.put_record(
        StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(HASH_KEYS)
    )
    assert await refusal(beyond) == "InvalidArgumentException"


@large_body
async def test_a_stream_has_a_largest_record(kinesis: Any) -> None:
    name = await new_stream(kinesis, MaxRecordSizeInKiB=2048)
    data = bytes(2048 * 1024)
    [placed] = await put(kinesis, name, data)
    assert await read(kinesis, name, placed["ShardId"]) == [data]
    assert await refusal(put(kinesis, name, data + b"1")) == "InvalidArgumentException"


@large_body
@only_local("kinesis-local spends 5 s on it, and 1 MiB is its default")
async def test_a_record_of_10_mib_is_taken(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    data = bytes(10 * 1024 * 1024)
    [placed] = await put(kinesis, name, data)
    assert await read(kinesis, name, placed["ShardId"]) == [data]


# Reading


async def test_trim_horizon_begins_with_the_oldest(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"1", b"2", b"3")
    assert await read(kinesis, name, "shardId-000000000000") == [b"1", b"2", b"3"]


async def test_latest_begins_with_what_comes_after_the_iterator(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"before")
    latest = await iterator(kinesis, name, "shardId-000000000000", "LATEST")
    await put(kinesis, name, b"after")
    page = await kinesis.get_records(ShardIterator=latest)
    assert [record["Data"] for record in page["Records"]] == [b"after"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("AT_SEQUENCE_NUMBER", [b"2", b"3"]), ("AFTER_SEQUENCE_NUMBER", [b"3"])],
)
async def test_a_sequence_number_begins_at_or_after_its_record(
    kinesis: Any, kind: str, expected: list[bytes]
) -> None:
    name = await new_stream(kinesis)
    _, second, _ = await put(kinesis, name, b"1", b"2", b"3")
    number = second["SequenceNumber"]
    assert (
        await read(kinesis, name, second["ShardId"], kind, StartingSequenceNumber=number)
        == expected
    )


async def test_the_shards_first_number_is_a_place_to_begin(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"1", b"2")
    [shard] = await shards_of(kinesis, name)
    first = shard["SequenceNumberRange"]["StartingSequenceNumber"]
    kind = "AT_SEQUENCE_NUMBER"
    data = await read(kinesis, name, shard["ShardId"], kind, StartingSequenceNumber=first)
    assert data == [b"1", b"2"]


async def test_a_time_begins_with_the_first_record_from_then_on(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    shard = "shardId-000000000000"
    await put(kinesis, name, b"0")

    async def put_and_look() -> list[Json]:
        await put(kinesis, name, b"n")
        page = await kinesis.get_records(ShardIterator=await iterator(kinesis, name, shard))
        return page["Records"]

    def arrival(record: Json) -> datetime:
        return record["ApproximateArrivalTimestamp"]

    records = await until(put_and_look, lambda found: arrival(found[0]) < arrival(found[-1]))
    for record in (records[0], records[-1]):
        at = arrival(record)
        expected = [each["Data"] for each in records if arrival(each) >= at]
        assert await read(kinesis, name, shard, "AT_TIMESTAMP", Timestamp=at) == expected


@only_local("kinesis-local takes it")
async def test_a_time_to_come_is_refused(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    asked = iterator(kinesis, name, "shardId-000000000000", "AT_TIMESTAMP", Timestamp=tomorrow)
    assert await refusal(asked) == "InvalidArgumentException"


async def test_limit_cuts_a_page_and_the_next_iterator_goes_on(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, *(b"%d" % i for i in range(5)))
    following = await iterator(kinesis, name, "shardId-000000000000")
    pages: list[list[bytes]] = []
    for _ in range(4):
        page = await kinesis.get_records(ShardIterator=following, Limit=2)
        pages.append([record["Data"] for record in page["Records"]])
        following = page["NextShardIterator"]
    assert pages == [[b"0", b"1"], [b"2", b"3"], [b"4"], []]


async def test_an_iterator_can_be_used_again(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"1")
    start = await iterator(kinesis, name, "shardId-000000000000")
    pages = [await kinesis.get_records(ShardIterator=start) for _ in range(2)]
    assert [[r["Data"] for r in page["Records"]] for page in pages] == [[b"1"], [b"1"]]


async def test_millis_behind_latest_is_zero_at_the_tip(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    await put(kinesis, name, b"1", b"2")
    start = await iterator(kinesis, name, "shardId-000000000000")
    page = await kinesis.get_records(ShardIterator=start)
    assert page["MillisBehindLatest"] == 0
    after = await kinesis.get_records(ShardIterator=page["NextShardIterator"])
    assert (after["Records"], after["MillisBehindLatest"]) == ([], 0)


@only_local(
    "kinesis-local measures to the last record that it returned, which can be 0 when behind"
)
async def test_millis_behind_latest_is_never_zero_behind_the_tip(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    batch = [{"Data": b"", "PartitionKey": "k"}] * 3
    await kinesis.put_records(StreamName=name, Records=batch)
    start = await iterator(kinesis, name, "shardId-000000000000")
    page = await kinesis.get_records(ShardIterator=start, Limit=2)
    assert page["MillisBehindLatest"] > 0


@only_local("kinesis-local answers 500")
async def test_what_never_was_an_iterator_is_refused(kinesis: Any) -> None:
    asked = kinesis.get_records(ShardIterator="never was one")
    assert await refusal(asked) == "InvalidArgumentException"


@only_local(
    "kinesis-local says ResourceNotFoundException; the service, that it came from elsewhere"
)
async def test_a_sequence_number_of_another_shard_is_refused(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    [placed] = await put(kinesis, name, b"")
    await split(kinesis, name, placed["ShardId"], HASH_KEYS // 2)
    [child] = await put(kinesis, name, b"")
    asked = iterator(
        kinesis,
        name,
        placed["ShardId"],
        "AFTER_SEQUENCE_NUMBER",
        StartingSequenceNumber=child["SequenceNumber"],
    )
    assert await refusal(asked) == "InvalidArgumentException"


# The wire


async def test_each_answer_is_dated_and_numbered(kinesis: Any) -> None:
    name = await new_stream(kinesis)
    answer = await kinesis.list_shards(StreamName=name)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["date"].endswith(" GMT")
    assert answer["ResponseMetadata"]["RequestId"]


async def test_a_refusal_has_the_form_of_the_service(kinesis: Any) -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "Kinesis_20131202.ListShards",
        "X-Amz-Date": "20240101T000000Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=n/20240101/us-east-1/kinesis/aws4_request,"
        " SignedHeaders=host, Signature=0",
    }
    url, body = kinesis.meta.endpoint_url, '{"StreamName":"nowhere"}'
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=body, headers=headers) as answer,
    ):
        assert answer.status == 400
        said = await answer.json(content_type=None)
    assert said["__type"] == "ResourceNotFoundException"
    assert "nowhere" in said["message"]
