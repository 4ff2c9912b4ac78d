"""What every way to the merge stream promises: all arrives, unchanged, a bucket's in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any, NamedTuple

import aiohttp
import pytest

from processor.core.merge.partials import enveloped
from processor.local.kinesis_faults import Fault
from processor.local.kinesis_server import KinesisServer
from processor.model import TRIM_HORIZON, Partial, Shard
from processor.ports import Source
from processor.sinks.memory import AnswerLost, Dropped, Healthy, Throttled
from processor.sinks.memory_partials import MemoryRecords
from processor.sinks.partials import KinesisRecords, StreamPartials
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.memory import MemorySource
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from tests.clocks import VirtualClock
from tests.contract.test_sources import keys

BUCKETS = 4
WIDTH = 2**128 // BUCKETS
SHARDS = [
    Shard("shardId-000000000000", 0, 2**127 - 1),
    Shard("shardId-000000000001", 2**127, 2**128 - 1),
]
GENERATION = 3


def partials(n: int) -> list[Partial]:
    """n records, to each bucket in turn."""
    return [
        Partial("shardId-7", i % BUCKETS, i % BUCKETS * WIDTH + WIDTH // 2, b"%d" % i)
        for i in range(n)
    ]


class Watcher:
    """A PartialObserver that keeps what it is told."""

    def __init__(self) -> None:
        self.taken = self.bytes = 0
        self.retries: dict[str, int] = {}
        self.has_retried = asyncio.Event()

    def on_request(self, seconds: float) -> None:
        pass

    def on_taken(self, records: int, payload_bytes: int) -> None:
        self.taken += records
        self.bytes += payload_bytes

    def on_retry(self, reason: str, n: int) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + n
        self.has_retried.set()


class Bench(NamedTuple):
    """A way to a stream of two shards, what reads it, and how to make it fail."""

    sink: StreamPartials
    source: Source
    watcher: Watcher
    fail: Callable[[str], Any]

    async def arrivals(self) -> dict[str, list[bytes]]:
        """By shard, in order, repeats too."""
        return {shard.id: await self._of(shard.id) for shard in SHARDS}

    async def _of(self, shard_id: str) -> list[bytes]:
        reader = self.source.open(shard_id, TRIM_HORIZON)
        found: list[bytes] = []
        while True:
            page = await reader.read()
            found += page.payloads
            assert set(page.partition_keys) <= {"shardId-7"}
            if not page.millis_behind:
                await reader.close()
                return found


FAULTS = {
    "throttled": [Dropped()],
    "part": [Throttled(frozenset({0, 3})), Throttled(frozenset({1}))],
    "lost": [AnswerLost(), Healthy(), AnswerLost()],
}


def memory_bench(stack: AsyncExitStack) -> Bench:
    clock, watcher = VirtualClock(), Watcher()
    source = MemorySource("merge", SHARDS, clock)
    records = MemoryRecords(source)
    sink = StreamPartials(records, clock, Random(1), watcher)
    return Bench(sink, source, watcher, lambda how: records.script.extend(FAULTS[how]))


async def kinesis_bench(stack: AsyncExitStack) -> Bench:
    clock, watcher = VirtualClock(), Watcher()
    server = await stack.enter_async_context(KinesisServer(clock=clock.wall_s))
    server.create_stream("merge", 2)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    wire = Wire(http, Signer(server.url, "us-east-1", "kinesis"), keys, clock, "stream merge")
    source = KinesisSource(wire, "merge", Reading(clock, Random(1), ByteBudget(1 << 28)))
    kinds = {
        "throttled": ["throttle", "internal", "reset", "empty", "cut"],
        "part": ["partial", "partial"],
        "lost": ["lost", "cut", "empty"],
    }

    def fail(how: str) -> None:
        server.faults.add(*(Fault(kind, "PutRecords") for kind in kinds[how]))

    sink = StreamPartials(KinesisRecords(wire, "merge"), clock, Random(1), watcher)
    return Bench(sink, source, watcher, fail)


@pytest.fixture(params=["memory", "kinesis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield memory_bench(stack) if request.param == "memory" else await kinesis_bench(stack)


def wanted(sent: list[Partial]) -> dict[str, list[bytes]]:
    """What each shard holds where nothing came twice, sorted as numbers."""
    return {
        shard.id: [enveloped(p.body, GENERATION) for p in sent if p.hash_key in _range(shard)]
        for shard in SHARDS
    }


def _range(shard: Shard) -> range:
    return range(shard.first_hash, shard.last_hash + 1)


async def test_nothing_put_is_nothing_done(bench):
    await bench.sink.put([], GENERATION)
    assert await bench.arrivals() == {shard.id: [] for shard in SHARDS}


async def test_each_goes_to_the_shard_that_holds_its_buckets_place(bench):
    sent = partials(9)
    await bench.sink.put(sent, GENERATION)
    found = await bench.arrivals()
    assert found == wanted(sent)
    assert (bench.watcher.taken, bench.watcher.retries) == (9, {})
    assert bench.watcher.bytes == sum(len(body) for bodies in found.values() for body in bodies)


@pytest.mark.parametrize("how", FAULTS)
async def test_a_buckets_records_keep_their_order_through_every_fault(bench, how):
    sent = partials(12)
    bench.fail(how)
    await bench.sink.put(sent, GENERATION)
    found = await bench.arrivals()
    for bucket in range(BUCKETS):
        mine = [enveloped(p.body, GENERATION) for p in sent if p.bucket == bucket]
        bodies = [body for some in found.values() for body in some if body in mine]
        assert list(dict.fromkeys(bodies)) == mine, bodies  # each may come twice, but in a row
        assert bodies == sorted(bodies, key=mine.index)
    assert bench.watcher.retries


async def test_more_than_a_request_holds_goes_in_several(bench):
    large = [Partial("shardId-7", i, i * WIDTH // 8, bytes([i]) * 900_000) for i in range(4 * 2)]
    await bench.sink.put(large, GENERATION)
    assert bench.watcher.taken == 8


async def test_a_stream_that_is_out_is_waited_for_and_the_wait_can_be_cancelled(bench):
    bench.fail("throttled")
    putting = asyncio.create_task(bench.sink.put(partials(3), GENERATION))
    await bench.watcher.has_retried.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await bench.sink.put(partials(3), GENERATION)
    assert bench.watcher.taken >= 3
