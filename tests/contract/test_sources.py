"""What every source promises, over each of them: the Kinesis source reads our local Kinesis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, NamedTuple

import aiohttp
import pytest

from processor.errors import StreamReplaced
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.model import TRIM_HORIZON, Page, Position, Shard
from processor.ports import ShardReader, Source
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.memory import MemorySource
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from tests.clocks import VirtualClock

SHARD = "shardId-000000000000"
HANGS_S = 10  # the slowest of these reads takes less than one
CHILDREN = ("shardId-000000000001", "shardId-000000000002")
HALF = 2**127


class Keys(NamedTuple):
    access_key: str = "AKID"
    secret_key: str = "secret"
    token: str | None = None


async def keys() -> Keys:
    return Keys()


class Bench(NamedTuple):
    """A source with one shard, and what happens to its stream."""

    source: Source
    clock: VirtualClock
    put: Callable[[Sequence[bytes], str], Any]
    split: Callable[[], Any]
    make_again: Callable[[], Any]


async def memory_bench(stack: AsyncExitStack) -> Bench:
    clock = VirtualClock()
    source = MemorySource("orders", [Shard(SHARD)], clock, page_records_max=7)
    left, right = (
        Shard(id_, first, first + HALF - 1, (SHARD,))
        for id_, first in zip(CHILDREN, (0, HALF), strict=True)
    )
    return Bench(
        source,
        clock,
        lambda payloads, key: source.put(SHARD, payloads, key),
        lambda: source.close(SHARD, children=[left, right]),
        lambda: source.make_again([Shard(SHARD)]),
    )


async def kinesis_bench(stack: AsyncExitStack) -> Bench:
    clock = VirtualClock()
    limits = Limits(page_records_max=7)
    server = await stack.enter_async_context(KinesisServer(limits, clock=clock.wall_s))
    server.create_stream("orders", 1)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    wire = Wire(http, Signer(server.url, "us-east-1", "kinesis"), keys, clock, "stream orders")
    source = KinesisSource(wire, "orders", Reading(clock, Random(1), ByteBudget(1 << 28)))

    def put(payloads: Sequence[bytes], key: str) -> None:
        server.load("orders", [(key, data) for data in payloads])

    def split() -> None:
        now_ms = server.now_ms()
        server.model.stream("orders", now_ms).split(SHARD, HALF, now_ms)

    def make_again() -> None:
        server.model.delete_stream("orders")
        server.create_stream("orders", 1)

    return Bench(source, clock, put, split, make_again)


@pytest.fixture(params=[memory_bench, kinesis_bench], ids=["memory", "kinesis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield await request.param(stack)


def payloads(count: int, first: int = 0) -> list[bytes]:
    return [b"record %d" % i for i in range(first, first + count)]


async def pages_of(reader: ShardReader, records: int) -> list[Page]:
    """Pages until `records` have come; what has not come within `HANGS_S` never will."""
    pages: list[Page] = []
    async with asyncio.timeout(HANGS_S):
        while sum(map(len, pages)) < records:
            pages.append(await reader.read())
    return pages


async def read_all(bench: Bench, position: Position, records: int) -> list[bytes]:
    reader = bench.source.open(SHARD, position)
    pages = await pages_of(reader, records)
    await reader.close()
    return [payload for page in pages for payload in page.payloads]


async def test_a_stream_is_described_by_name_creation_and_the_services_date(bench):
    bench.clock.now = 5.5
    info = await bench.source.describe()
    assert info.name == "orders"
    assert info.created_ms == 1_700_000_000_000
    assert info.service_date_ms == 1_700_000_005_000


async def test_shards_are_listed_with_their_hash_ranges(bench):
    assert await bench.source.list_shards() == [Shard(SHARD, 0, 2**128 - 1)]


async def test_after_a_split_the_parent_is_closed_and_the_children_name_it(bench):
    bench.split()
    assert await bench.source.list_shards() == [
        Shard(SHARD, is_closed=True),
        Shard(CHILDREN[0], 0, HALF - 1, (SHARD,)),
        Shard(CHILDREN[1], HALF, 2**128 - 1, (SHARD,)),
    ]


async def test_records_come_in_order_in_columns_of_equal_length(bench):
    bench.put(payloads(20), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    pages = await pages_of(reader, 20)
    await reader.close()
    numbers = [int(number) for page in pages for number in page.sequence_numbers]
    assert [payload for page in pages for payload in page.payloads] == payloads(20)
    assert numbers == sorted(set(numbers))
    for page in pages:
        columns = (page.payloads, page.sequence_numbers, page.partition_keys, page.arrivals_ms)
        assert {len(column) for column in columns} == {len(page)}
        assert set(page.partition_keys) <= {"key"}
        assert set(page.arrivals_ms.tolist()) <= {1_700_000_000_000}


async def test_a_shard_is_behind_until_its_last_record(bench):
    bench.put(payloads(20), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    pages = await pages_of(reader, 20)
    await reader.close()
    assert [page.millis_behind > 0 for page in pages] == [True] * (len(pages) - 1) + [False]


async def test_a_shard_that_is_caught_up_gives_empty_pages_with_the_services_date(bench):
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    pages = [await reader.read() for _ in range(20)]
    await reader.close()
    dates_ms = [page.date_ms for page in pages]
    assert all(len(page) == 0 for page in pages)
    assert {page.millis_behind for page in pages} == {0}
    assert {page.children for page in pages} == {None}
    assert dates_ms == sorted(dates_ms)
    assert dates_ms[0] < dates_ms[-1] <= bench.clock.wall_ms()


@pytest.mark.parametrize("taken", [1, 6, 7, 8, 12])
async def test_reading_goes_on_after_any_record(bench, taken):
    bench.put(payloads(13), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    pages = await pages_of(reader, 13)
    await reader.close()
    numbers = [number for page in pages for number in page.sequence_numbers]
    rest = await read_all(bench, Position("after", numbers[taken - 1]), 13 - taken)
    assert rest == payloads(13)[taken:]


async def test_reading_starts_with_the_first_record_that_arrived_at_a_time_or_later(bench):
    for first in (0, 5, 10):
        bench.put(payloads(5, first), "key")
        bench.clock.now += 1
    assert await read_all(bench, Position("at_time", "1700000001000"), 10) == payloads(10, 5)
    assert await read_all(bench, Position("at_time", "1700000001001"), 5) == payloads(5, 10)


async def test_records_that_arrive_while_it_is_read_are_read_too(bench):
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    await reader.read()
    bench.put(payloads(3), "key")
    pages = await pages_of(reader, 3)
    await reader.close()
    assert [payload for page in pages for payload in page.payloads] == payloads(3)


@pytest.mark.parametrize("records", [0, 1, 7, 8, 20])
async def test_a_closed_shard_drains_and_then_names_its_children_once(bench, records):
    bench.put(payloads(records), "key")
    bench.split()
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    pages = [await reader.read()]
    while pages[-1].children is None:
        pages.append(await reader.read())
    await reader.close()
    assert [payload for page in pages for payload in page.payloads] == payloads(records)
    assert [child.id for child in pages[-1].children] == list(CHILDREN)
    assert [child.parents for child in pages[-1].children] == [(SHARD,), (SHARD,)]
    assert [child.first_hash for child in pages[-1].children] == [0, HALF]


async def test_readers_of_one_shard_do_not_disturb_each_other(bench):
    bench.put(payloads(20), "key")
    both = await asyncio.gather(*(read_all(bench, TRIM_HORIZON, 20) for _ in range(2)))
    assert both == [payloads(20), payloads(20)]


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_cancelled_read_loses_nothing(bench, steps):
    bench.put(payloads(20), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    read = asyncio.ensure_future(reader.read())
    for _ in range(steps):
        await asyncio.sleep(0)
    read.cancel()
    await asyncio.wait([read])
    taken = [] if read.cancelled() else [read.result()]
    pages = taken + await pages_of(reader, 20 - sum(map(len, taken)))
    await reader.close()
    assert [payload for page in pages for payload in page.payloads] == payloads(20)


async def test_a_reader_may_be_closed_at_any_time_and_twice(bench):
    bench.put(payloads(20), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    await reader.close()
    await reader.close()
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    first = await reader.read()
    await reader.close()
    rest = Position("after", first.sequence_numbers[-1])
    assert first.payloads + await read_all(bench, rest, 20 - len(first)) == payloads(20)


# ---- what retention and people take away

DAY_S = 86_400


async def test_a_stream_says_how_long_it_keeps_records(bench):
    assert (await bench.source.describe()).retention_ms == 1_000 * DAY_S


async def test_records_past_retention_are_passed_over_in_silence(bench):
    bench.put(payloads(3), "key")
    bench.clock.now += DAY_S / 2
    bench.put(payloads(3, 3), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    first = (await pages_of(reader, 6))[0]
    await reader.close()
    bench.clock.now += DAY_S * 3 / 4
    after = Position("after", first.sequence_numbers[0])
    assert await read_all(bench, after, 3) == payloads(3, 3)
    assert await read_all(bench, TRIM_HORIZON, 3) == payloads(3, 3)


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_shard_past_retention_ends_and_names_its_children(bench, is_open):
    bench.put(payloads(3), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    if is_open:
        await pages_of(reader, 3)
    bench.split()
    bench.clock.now += 2 * DAY_S
    async with asyncio.timeout(HANGS_S):
        page = await reader.read()
    await reader.close()
    assert len(page) == 0
    assert [child.id for child in page.children] == list(CHILDREN)
    assert page.date_ms == bench.clock.wall_ms() // 1000 * 1000


@pytest.mark.parametrize("records", [0, 5])
async def test_a_stream_that_was_made_again_is_not_taken_for_the_old_one(bench, records):
    await bench.source.describe()
    bench.put(payloads(records), "key")
    reader = bench.source.open(SHARD, TRIM_HORIZON)
    await reader.read()
    bench.clock.now += 60
    bench.make_again()
    bench.put(payloads(5), "key")
    with pytest.raises(StreamReplaced, match="orders"):
        await pages_of(reader, 1)
    await reader.close()
    info = await bench.source.describe()
    assert info.created_ms >= 1_700_000_060_000
    assert await read_all(bench, TRIM_HORIZON, 5) == payloads(5)
