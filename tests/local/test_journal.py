"""The journal of a Kinesis of our own: who got which page, told by the caller's access key."""

import time
from pathlib import Path

import aiohttp
import orjson

from processor.local.journal import Journal, Reads
from processor.local.kinesis_server import CONTENT_TYPE, KinesisServer
from tests.aws.conftest import client_of

FIRST = "shardId-000000000000"


async def test_pages_are_noted_with_their_caller_their_records_and_the_shard_s_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "reads.jsonl"
    with path.open("a", buffering=1) as file:
        async with KinesisServer(journal=Journal(file)) as server, client_of(server.url) as client:
            server.create_stream("s", 1)
            begun_at_s = time.monotonic()
            start = await client.get_shard_iterator(
                StreamName="s", ShardId=FIRST, ShardIteratorType="TRIM_HORIZON"
            )
            empty = await client.get_records(ShardIterator=start["ShardIterator"])
            server.load("s", [("k", b"1"), ("k", b"2"), ("k", b"3")])
            half = await client.get_records(ShardIterator=empty["NextShardIterator"], Limit=2)
            await client.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey="9")
            rest = await client.get_records(ShardIterator=half["NextShardIterator"])
    reads = Reads(path)
    assert [(one.caller, one.shard_id) for one in reads.update()] == [("nobody", FIRST)] * 3
    numbers = [record["SequenceNumber"] for record in half["Records"] + rest["Records"]]
    assert [(one.records, one.first, one.last, one.is_end) for one in reads.all] == [
        (0, "", "", False),
        (2, numbers[0], numbers[1], False),
        (1, numbers[2], numbers[2], True),
    ]
    times = [one.at_s for one in reads.all]
    assert begun_at_s <= times[0] <= times[1] <= times[2] <= time.monotonic()
    assert reads.since(times[1]) == reads.all[1:]


async def test_who_does_not_sign_has_no_name_and_refusals_are_not_noted(tmp_path: Path) -> None:
    path = tmp_path / "reads.jsonl"
    with path.open("a", buffering=1) as file:
        async with KinesisServer(journal=Journal(file)) as server, aiohttp.ClientSession() as http:
            server.create_stream("s", 1)
            stream = {"StreamName": "s", "ShardId": FIRST, "ShardIteratorType": "LATEST"}
            answer = await ask(http, server, "GetShardIterator", stream)
            await ask(http, server, "GetRecords", answer)
            await ask(http, server, "GetRecords", {"ShardIterator": "none"})
    assert [one.caller for one in Reads(path).update()] == [""]


async def ask(
    http: aiohttp.ClientSession, server: KinesisServer, operation: str, request: object
) -> object:
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": f"Kinesis_20131202.{operation}"}
    async with http.post(server.url, data=orjson.dumps(request), headers=headers) as answer:
        return orjson.loads(await answer.read())


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path, line = tmp_path / "reads.jsonl", b'{"at_s":1.5,"caller":"a","shard_id":"s","records":0'
    path.write_bytes(line)
    reads = Reads(path)
    assert reads.update() == []
    path.write_bytes(line + b',"first":"","last":"","is_end":false}\n')
    assert [one.caller for one in reads.update()] == ["a"]
    assert len(reads.update()) == 1
