"""Our own read path against implementations that are not ours: the same on all of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any, NamedTuple

import aiohttp
import pytest

from processor.core.pacing import Pace
from processor.core.progress import start_position
from processor.model import TRIM_HORIZON, Page, Position
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from tests.aws.conftest import client_of
from tests.aws.kinesis_calls import new_stream, put, split

HALF = 2**127
FAST = Pace(reads_per_s=100, caught_up_s=0.01, caught_up_s_max=0.02)


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Keys(NamedTuple):
    access_key: str = "nobody"
    secret_key: str = "nothing"
    token: str | None = None


async def keys() -> Keys:
    return Keys()


class Bench(NamedTuple):
    client: Any
    stream: str
    source: KinesisSource


async def bench_over(client: Any, http: aiohttp.ClientSession) -> Bench:
    stream = await new_stream(client)
    signer = Signer(client.meta.endpoint_url, "us-east-1", "kinesis")
    wire = Wire(http, signer, keys, SystemClock(), f"stream {stream}")
    reading = Reading(SystemClock(), Random(1), ByteBudget(1 << 28), FAST)
    return Bench(client, stream, KinesisSource(wire, stream, reading))


@pytest.fixture
async def bench(kinesis: Any) -> AsyncIterator[Bench]:
    """Over our Kinesis and over kinesis-local."""
    async with aiohttp.ClientSession() as http:
        yield await bench_over(kinesis, http)


@pytest.fixture
async def ministack_bench(ministack: str) -> AsyncIterator[Bench]:
    async with client_of(ministack) as client, aiohttp.ClientSession() as http:
        yield await bench_over(client, http)


async def read_until(bench: Bench, shard_id: str, position: Position, last: bytes) -> list[Page]:
    """Pages until the payload `last` has come; with b"" until the shard ends."""
    reader = bench.source.open(shard_id, position)
    pages = [await reader.read()]
    while pages[-1].children is None and not (last and last in pages[-1].payloads):
        pages.append(await reader.read())
    await reader.close()
    return pages


def payloads(pages: list[Page]) -> list[bytes]:
    return [payload for page in pages for payload in page.payloads]


async def test_everything_that_reading_needs_is_there(bench):
    info = await bench.source.check()
    assert info.name == bench.stream
    assert abs(info.service_date_ms - info.created_ms) < 60_000


async def test_a_shard_is_read_to_its_end_and_its_children_go_on(bench):
    (parent,) = await bench.source.list_shards()
    await put(bench.client, bench.stream, *(b"%d" % i for i in range(30)), key="key")
    await split(bench.client, bench.stream, parent.id, HALF)
    await put(bench.client, bench.stream, b"after", key="key")
    pages = await read_until(bench, parent.id, TRIM_HORIZON, b"")
    assert payloads(pages) == [b"%d" % i for i in range(30)]
    children = pages[-1].children
    assert [(child.first_hash, child.parents) for child in children] == [
        (0, (parent.id,)),
        (HALF, (parent.id,)),
    ]
    assert [shard.id for shard in await bench.source.list_shards()] == [
        parent.id,
        *(child.id for child in children),
    ]
    child = children[0] if HALF > 0x3C6E0B8A9C15224A8228B9A98CA1531D else children[1]
    assert payloads(await read_until(bench, child.id, TRIM_HORIZON, b"after")) == [b"after"]


async def read_goes_on_from(bench: Bench) -> None:
    (shard,) = await bench.source.list_shards()
    await put(bench.client, bench.stream, b"a", b"b", b"c", key="key")
    pages = await read_until(bench, shard.id, TRIM_HORIZON, b"c")
    numbers = [number for page in pages for number in page.sequence_numbers]
    position = Position("after", numbers[0])
    assert payloads(await read_until(bench, shard.id, position, b"c")) == [b"b", b"c"]
    arrivals_ms = [int(ms) for page in pages for ms in page.arrivals_ms]
    assert abs(arrivals_ms[0] - pages[0].date_ms) < 60_000


async def test_reading_goes_on_after_a_record(bench):
    await read_goes_on_from(bench)


async def test_reading_goes_on_after_a_record_on_ministack_too(ministack_bench):
    await read_goes_on_from(ministack_bench)


async def test_latest_is_a_time_and_misses_nothing_that_is_put_later(bench):
    (shard,) = await bench.source.list_shards()
    position = start_position("latest", (await bench.source.describe()).service_date_ms)
    await put(bench.client, bench.stream, b"later", key="key")
    assert b"later" in payloads(await read_until(bench, shard.id, position, b"later"))
