"""Our Kinesis over a socket: headers, faults on request, and a process of its own."""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from processor.local.kinesis_faults import Fault
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import CONTENT_TYPE, REQUEST_BODY_MAX, KinesisServer

ROOT = Path(__file__).parents[2]
NOW_S = 1_700_000_000.0
SHARD = "shardId-000000000000"


@pytest.fixture
async def server() -> AsyncIterator[KinesisServer]:
    async with KinesisServer(Limits.without_rates(), clock=lambda: NOW_S) as server:
        server.create_stream("s", 1)
        yield server


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def call(
    http: aiohttp.ClientSession, url: str, operation: str, **request: Any
) -> "aiohttp.client._RequestContextManager":
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": f"Kinesis_20131202.{operation}"}
    return http.post(url, data=orjson.dumps(request), headers=headers)


def put(http: aiohttp.ClientSession, url: str) -> "aiohttp.client._RequestContextManager":
    return call(http, url, "PutRecord", StreamName="s", Data="eA==", PartitionKey="k")


def held(server: KinesisServer) -> int:
    """How many records the shard has taken."""
    return server.model.stream("s", server.now_ms()).shard(SHARD).next_index


async def test_answers_carry_the_servers_own_date(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    async with call(http, server.url, "ListStreams") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == CONTENT_TYPE
        assert answer.headers["Date"] == formatdate(NOW_S, usegmt=True)
        first = answer.headers["x-amzn-RequestId"]
    async with call(http, server.url, "ListStreams") as answer:
        assert answer.headers["x-amzn-RequestId"] != first


async def test_a_refusal_names_its_type_in_header_and_body(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    async with call(http, server.url, "ListShards", StreamName="nowhere") as answer:
        assert answer.status == 400
        assert answer.headers["x-amzn-ErrorType"] == "ResourceNotFoundException"
        assert orjson.loads(await answer.read())["__type"] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("method", "headers", "kind"),
    [
        ("GET", {}, "UnknownOperationException"),
        ("POST", {"X-Amz-Target": "DynamoDB_20120810.Query"}, "UnknownOperationException"),
        ("POST", {"Content-Type": "application/x-amz-cbor-1.1"}, "SerializationException"),
    ],
)
async def test_what_is_not_of_this_protocol_is_refused(
    server: KinesisServer,
    http: aiohttp.ClientSession,
    method: str,
    headers: dict[str, str],
    kind: str,
) -> None:
    async with http.request(method, server.url, headers=headers) as answer:
        assert answer.status == 400
        assert orjson.loads(await answer.read())["__type"] == kind


async def test_a_body_over_the_limit_is_refused(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    body = io.BytesIO(bytes(REQUEST_BODY_MAX + 1))
    async with http.post(server.url, data=body) as answer:
        assert answer.status == 413


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("throttle", 400, "ProvisionedThroughputExceededException"),
        ("internal", 500, "InternalFailure"),
        ("expired_iterator", 400, "ExpiredIteratorException"),
    ],
)
async def test_an_injected_refusal_applies_nothing(
    server: KinesisServer, http: aiohttp.ClientSession, fault: Any, status: int, kind: str
) -> None:
    server.faults.add(Fault(fault, "PutRecord"))
    async with put(http, server.url) as answer:
        assert answer.status == status
        assert answer.headers["x-amzn-ErrorType"] == kind
    assert held(server) == 0


async def test_an_empty_answer_hides_what_was_applied(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    server.faults.add(Fault("empty"))
    async with put(http, server.url) as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")
    assert held(server) == 1


async def test_a_cut_answer_is_half_of_its_json(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    async with call(http, server.url, "ListShards", StreamName="s") as answer:
        whole = await answer.read()
    server.faults.add(Fault("cut"))
    async with call(http, server.url, "ListShards", StreamName="s") as answer:
        assert answer.status == 200
        assert await answer.read() == whole[: len(whole) // 2]


@pytest.mark.parametrize(("fault", "applied"), [("reset", 0), ("lost", 1)])
async def test_a_connection_is_reset_before_or_after_the_fact(
    server: KinesisServer, http: aiohttp.ClientSession, fault: Any, applied: int
) -> None:
    server.faults.add(Fault(fault, "PutRecord"))
    with pytest.raises(aiohttp.ClientOSError):
        await put(http, server.url)
    assert held(server) == applied
    async with put(http, server.url) as answer:
        assert answer.status == 200


async def test_a_batch_can_be_taken_in_part(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    server.faults.add(Fault("partial", "PutRecords"))
    batch = [{"Data": "eA==", "PartitionKey": "k"}] * 5
    async with call(http, server.url, "PutRecords", StreamName="s", Records=batch) as answer:
        found = orjson.loads(await answer.read())
    assert found["FailedRecordCount"] == 3
    assert ["ErrorCode" in entry for entry in found["Records"]] == [False] * 2 + [True] * 3
    assert held(server) == 2


async def test_a_delayed_answer_comes_late_and_whole(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    server.faults.add(Fault("delay", "PutRecord", delay_ms=50))
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with put(http, server.url) as answer:
        assert answer.status == 200
    assert loop.time() - began_at >= 0.049


async def test_a_fault_can_be_aimed_at_one_shard(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    server.create_stream("t", 2)
    server.faults.add(Fault("throttle", "GetRecords", shard="shardId-000000000001"))
    status = []
    for shard in (SHARD, "shardId-000000000001", "shardId-000000000001"):
        iterator = server.model.iterator("t", shard, "LATEST", server.now_ms())
        async with call(http, server.url, "GetRecords", ShardIterator=iterator) as answer:
            status.append(answer.status)
    assert status == [200, 400, 200]


async def test_faults_are_administered_over_http(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    url = f"{server.url}/_local/faults"
    async with http.post(url, json=[{"kind": "throttle", "times": 2}]) as answer:
        assert answer.status == 200
    async with put(http, server.url) as answer:
        assert answer.status == 400
    async with http.get(url) as answer:
        assert [fault["kind"] for fault in orjson.loads(await answer.read())] == ["throttle"]
    async with http.post(url, json=[{"kind": "nonsense"}]) as answer:
        assert answer.status == 400
    async with http.delete(url) as answer:
        assert await answer.read() == b"[]"
    assert len(server.faults) == 0


async def test_what_is_loaded_in_bulk_is_read_over_the_wire(
    server: KinesisServer, http: aiohttp.ClientSession
) -> None:
    assert server.load("s", ((f"key {i}", b"%d" % i) for i in range(2_500))) == 2_500
    iterator = server.model.iterator("s", SHARD, "TRIM_HORIZON", server.now_ms())
    async with call(http, server.url, "GetRecords", ShardIterator=iterator, Limit=2_000) as answer:
        page = orjson.loads(await answer.read())
    assert [record["PartitionKey"] for record in page["Records"]] == [
        f"key {i}" for i in range(2_000)
    ]
    assert page["MillisBehindLatest"] > 0


async def test_a_server_can_be_stopped_twice_and_says_so() -> None:
    server = KinesisServer()
    await server.start()
    assert "127.0.0.1" in repr(server)
    await server.stop()
    await server.stop()
    assert "stopped" in repr(server)


async def test_its_process_prints_a_url_and_ends_with_zero_on_sigterm(
    http: aiohttp.ClientSession,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processor.local.kinesis_server", "--no-rates"),
        *("--stream", "a:2", "--stream", "b:1"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().strip()
            async with call(http, url, "ListStreams") as answer:
                assert orjson.loads(await answer.read())["StreamNames"] == ["a", "b"]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
