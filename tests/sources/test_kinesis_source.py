"""Polling Kinesis while things go wrong, over real sockets to our local Kinesis."""

import asyncio
from random import Random

import aiohttp
import pytest

from processor.core.pacing import Pace
from processor.errors import Unavailable
from processor.local.kinesis_faults import Fault
from processor.model import TRIM_HORIZON, Page, Position
from processor.ports import ShardReader
from processor.sources.budget import ByteBudget

SHARD = "shardId-000000000000"
HANGS_S = 10  # the slowest of these reads takes less than one
CHILDREN = ["shardId-000000000001", "shardId-000000000002"]


def payloads(count: int) -> list[bytes]:
    return [b"record %d" % i for i in range(count)]


async def pages_until(reader: ShardReader, records: int) -> list[Page]:
    """Pages until `records` have come; what has not come within `HANGS_S` never will."""
    pages: list[Page] = []
    async with asyncio.timeout(HANGS_S):
        while sum(map(len, pages)) < records:
            pages.append(await reader.read())
    return pages


async def read_all(reader: ShardReader, records: int) -> list[bytes]:
    """All payloads until `records` have come; closes the reader."""
    pages = await pages_until(reader, records)
    await reader.close()
    return [payload for page in pages for payload in page.payloads]


# ---- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("throttle", "throttled"),
        ("internal", "server"),
        ("expired_iterator", "expired_iterator"),
        ("reset", "connection"),
        ("lost", "connection"),
        ("empty", "garbled"),
        ("cut", "garbled"),
    ],
)
async def test_a_fault_is_waited_out_told_and_costs_no_record(local, operation, fault, kind):
    local.load(payloads(20))
    local.server.faults.add(Fault(fault, operation, times=3))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    assert await read_all(reader, 20) == payloads(20)
    seen = {**local.watcher.errors, "throttled": local.watcher.throttles}
    assert {kind: times for kind, times in seen.items() if times} == {kind: 3}
    assert local.watcher.records == 20


async def test_a_page_tells_how_many_requests_failed_since_the_page_before(local):
    reader = local.source().open(SHARD, TRIM_HORIZON)
    local.server.faults.add(Fault("internal", "GetRecords", times=2))
    assert [(await reader.read()).errors for _ in range(2)] == [2, 0]
    await reader.close()


@pytest.mark.parametrize("seed", range(10))
async def test_no_sequence_of_faults_loses_repeats_or_reorders_a_record(local, seed):
    random = Random(seed)
    kinds = ["throttle", "internal", "expired_iterator", "reset", "lost", "empty", "cut"]
    local.load(payloads(60))
    for _ in range(40):
        operation = random.choice(["GetRecords", "GetRecords", "GetShardIterator"])
        local.server.faults.add(Fault(random.choice(kinds), operation))
    assert await read_all(local.source().open(SHARD, TRIM_HORIZON), 60) == payloads(60)


async def test_a_cut_answer_at_the_end_of_an_open_shard_is_not_taken_for_its_end(local):
    reader = local.source().open(SHARD, TRIM_HORIZON)
    await reader.read()
    local.server.faults.add(Fault("empty", "GetRecords", times=5))
    page = await reader.read()
    await reader.close()
    assert page.children is None
    assert local.watcher.errors == {"garbled": 5}


async def test_a_cut_answer_amid_a_closed_shard_is_not_taken_for_its_end(local):
    local.load(payloads(20))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    pages = [await reader.read()]
    now_ms = local.server.now_ms()
    local.server.model.stream("orders", now_ms).split(SHARD, 2**127, now_ms)
    local.server.faults.add(Fault("empty", "GetRecords", times=3))
    async with asyncio.timeout(HANGS_S):
        while pages[-1].children is None:
            pages.append(await reader.read())
    await reader.close()
    assert [payload for page in pages for payload in page.payloads] == payloads(20)


async def test_throttling_halves_the_rate_and_errors_back_off(local):
    local.load(payloads(70))
    local.server.faults.add(Fault("throttle", "GetRecords", times=3))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    assert await read_all(reader, 70) == payloads(70)
    waits = [wait for wait in local.clock.slept if wait > 0]
    assert waits[:3] == pytest.approx([0.5, 1.0, 2.0])
    assert waits[3] == pytest.approx(2.0)  # still at a read in two seconds


async def test_a_hung_connection_is_given_up(local):
    local.load(payloads(5))
    local.server.faults.add(Fault("delay", "GetRecords", delay_ms=60_000))
    timeout = aiohttp.ClientTimeout(total=0.05)
    reader = local.source(timeout=timeout).open(SHARD, TRIM_HORIZON)
    assert await read_all(reader, 5) == payloads(5)
    assert local.watcher.errors["timeout"] >= 1
    assert "Kinesis GetRecords: timeout" in local.watcher.details[0]


# ---- iterators ------------------------------------------------------------------------------


async def test_an_expired_iterator_is_replaced_after_the_last_record_that_was_returned(local):
    local.load(payloads(20))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    first = await reader.read()
    local.server.faults.add(Fault("expired_iterator", "GetRecords"))
    rest = await pages_until(reader, 20 - len(first))
    await reader.close()
    assert first.payloads + [p for page in rest for p in page.payloads] == payloads(20)


async def test_an_iterator_is_renewed_before_it_expires(local):
    reader = local.source().open(SHARD, TRIM_HORIZON)
    await reader.read()
    local.clock.now += 600
    local.load(payloads(3))
    assert await read_all(reader, 3) == payloads(3)
    assert not local.watcher.errors


async def test_an_iterator_in_use_is_not_renewed(local):
    reader = local.source().open(SHARD, TRIM_HORIZON)
    await reader.read()
    renewal = Fault("throttle", "GetShardIterator")
    local.server.faults.add(renewal)
    while local.clock.now < 900:
        await reader.read()
    await reader.close()
    assert local.server.faults.pending == [renewal]


async def test_a_position_that_retention_passed_goes_on_at_the_trim_horizon(local):
    local.load(payloads(3))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    (page,) = await pages_until(reader, 3)
    await reader.close()
    local.clock.now += 25 * 3600
    local.load([b"new"])
    position = Position("after", page.sequence_numbers[0])
    assert await read_all(local.source().open(SHARD, position), 1) == [b"new"]


# ---- what must exist ------------------------------------------------------------------------


async def test_check_tries_every_call_that_reading_needs(local):
    assert (await local.source().check()).arn.endswith(":stream/orders")
    for operation in ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"):
        fault = Fault("internal", operation)
        local.server.faults.add(fault)
        with pytest.raises(Exception, match=f"Kinesis {operation}: server: HTTP 500"):
            await local.source().check()


async def test_a_missing_stream_is_told_at_the_start(local):
    complaint = (
        r"stream orders: kinesis:DescribeStreamSummary failed; make it \(aws kinesis create-stream"
        r" --stream-name orders\), or correct its name, region or account"
        r" .*ResourceNotFoundException"
    )
    with pytest.raises(Unavailable, match=complaint):
        await local.source("nothing").check()


async def test_a_stream_that_is_missing_while_running_is_waited_for(local):
    local.server.model.delete_stream("orders")
    reader = local.source().open(SHARD, TRIM_HORIZON)
    read = asyncio.ensure_future(read_all(reader, 3))
    await local.watcher.until(errors=1)
    local.server.create_stream("orders", 1)
    local.load(payloads(3))
    assert await read == payloads(3)
    assert set(local.watcher.errors) == {"unavailable"}


async def test_a_stream_may_be_given_by_its_arn(local):
    local.load(payloads(3))
    source = local.source("arn:aws:kinesis:us-east-1:000000000000:stream/orders")
    assert (await source.check()).name == "orders"
    assert await read_all(source.open(SHARD, TRIM_HORIZON), 3) == payloads(3)


async def test_more_shards_than_a_listing_holds_are_listed_all(local):
    local.server.create_stream("wide", 2_100)
    assert len({shard.id for shard in await local.source("wide").list_shards()}) == 2_100


async def test_a_record_of_ten_mebibytes_comes_whole(local):
    large = b"\x00\xff" * (5 * 1024 * 1024)
    local.load([large, b"small"])
    assert await read_all(local.source().open(SHARD, TRIM_HORIZON), 2) == [large, b"small"]


# ---- memory ---------------------------------------------------------------------------------


async def test_a_shard_that_is_behind_is_read_one_page_ahead(local):
    local.load(payloads(70))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    await reader.read()
    await local.watcher.until(records=14)
    local.clock.now += 10
    for _ in range(100):
        await asyncio.sleep(0)
    assert local.watcher.records == 14
    assert local.budget.ahead_bytes > 0
    await reader.close()
    assert local.budget.ahead_bytes == 0


async def test_a_shard_that_is_caught_up_is_not_read_ahead(local):
    local.load(payloads(5))
    reader = local.source().open(SHARD, TRIM_HORIZON)
    await reader.read()
    assert local.budget.ahead_bytes == 0
    await reader.close()


async def test_without_any_memory_to_share_each_shard_still_goes_on(local):
    local.reading = local.reading._replace(budget=ByteBudget(1))
    local.load(payloads(20))
    readers = [local.source().open(SHARD, TRIM_HORIZON) for _ in range(3)]
    assert await asyncio.gather(*(read_all(reader, 20) for reader in readers)) == [payloads(20)] * 3


async def test_the_page_is_asked_for_as_large_as_memory_allows(local):
    local.reading = local.reading._replace(budget=ByteBudget(8 * 36), pace=Pace())
    local.load([b"x" * 12] * 70)
    reader = local.source().open(SHARD, TRIM_HORIZON)
    sizes = [len(page) for page in await pages_until(reader, 70)]
    await reader.close()
    assert sizes[0] == 7  # sizes are unknown yet: all that the service gives
    assert set(sizes[1:]) == {3}  # 36 bytes a page, 12 a record


# ---- the end --------------------------------------------------------------------------------


RECORD = (
    b'{"SequenceNumber":"1","Data":"aGk=","ApproximateArrivalTimestamp":1700000000.25'
    b',"PartitionKey":"k"}'
)
ITERATOR = b'{"ShardIterator":"it-0"}'
WITHOUT_SUCCESSORS = b'{"Records":[%b],"MillisBehindLatest":0}' % RECORD
SUMMARY = (
    b'{"StreamName":"o","StreamARN":"a","StreamStatus":"%b","StreamCreationTimestamp":1,'
    b'"RetentionPeriodHours":24}'
)
RANGES = b'"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"7"}'


def listing(*, is_closed: bool) -> bytes:
    ending = b',"EndingSequenceNumber":"9"' if is_closed else b""
    own = b'{"ShardId":"s",%b,"SequenceNumberRange":{"StartingSequenceNumber":"0"%b}}'
    child = (
        b'{"ShardId":"c","ParentShardId":"s","AdjacentParentShardId":null,%b,'
        b'"SequenceNumberRange":{"StartingSequenceNumber":"9"}}'
    )
    return b'{"Shards":[%b,%b]}' % (own % (RANGES, ending), child % RANGES)


async def test_an_end_without_named_children_is_believed_if_the_shard_is_closed(scripted):
    for body in (ITERATOR, WITHOUT_SUCCESSORS, listing(is_closed=True)):
        scripted.script.add(body)
    reader = scripted.source().open("s", TRIM_HORIZON)
    page = await reader.read()
    await reader.close()
    assert page.payloads == [b"hi"]
    assert page.arrivals_ms.tolist() == [1_700_000_000_250]
    assert [(child.id, child.parents, child.last_hash) for child in page.children] == [
        ("c", ("s",), 7)
    ]


async def test_an_end_without_named_children_of_an_open_shard_is_garbled(scripted):
    whole = b'{"Records":[%b],"MillisBehindLatest":0,"NextShardIterator":"it-1"}' % RECORD
    for body in (ITERATOR, WITHOUT_SUCCESSORS, listing(is_closed=False), whole):
        scripted.script.add(body)
    reader = scripted.source().open("s", TRIM_HORIZON)
    page = await reader.read()
    await reader.close()
    assert page.children is None
    assert page.payloads == [b"hi"]
    assert scripted.watcher.errors == {"garbled": 1}
    asked = [body for operation, body, _ in scripted.script.requests if operation == "GetRecords"]
    assert asked == [b'{"ShardIterator":"it-0","Limit":1000}'] * 2


async def test_a_closed_shard_whose_children_are_not_known_ends_without_any(scripted):
    own = listing(is_closed=True).partition(b',{"ShardId":"c"')[0] + b"]}"
    for body in (ITERATOR, WITHOUT_SUCCESSORS, own):
        scripted.script.add(body)
    reader = scripted.source().open("s", TRIM_HORIZON)
    assert (await reader.read()).children == ()
    await reader.close()


async def test_a_record_without_partition_key_has_an_empty_one(scripted):
    keyless = RECORD.replace(b',"PartitionKey":"k"', b"")
    scripted.script.add(ITERATOR)
    scripted.script.add(
        b'{"Records":[%b],"MillisBehindLatest":0,"NextShardIterator":"i"}' % keyless
    )
    reader = scripted.source().open("s", TRIM_HORIZON)
    assert (await reader.read()).partition_keys == [""]
    await reader.close()


async def test_after_a_refused_iterator_the_stream_is_looked_at_and_a_new_one_asked_for(scripted):
    refusal = b'{"__type":"InvalidArgumentException","message":"Invalid ShardIterator."}'
    scripted.script.add(ITERATOR)
    scripted.script.add(refusal, 400)
    scripted.script.add(b'{"StreamDescriptionSummary":%b}' % (SUMMARY % b"ACTIVE"))
    scripted.script.add(listing(is_closed=False))
    scripted.script.add(ITERATOR)
    scripted.script.add(WITHOUT_SUCCESSORS[:-1] + b',"NextShardIterator":"i"}')
    reader = scripted.source().open("s", Position("after", "12"))
    assert len(await reader.read()) == 1
    await reader.close()
    asked, looked = ["GetShardIterator", "GetRecords"], ["DescribeStreamSummary", "ListShards"]
    assert scripted.script.operations == [*asked, *looked, *asked]
    assert b'"StartingSequenceNumber":"12"' in scripted.script.requests[4][1]


async def test_a_listing_that_never_ends_is_garbled(scripted):
    for _ in range(100):
        scripted.script.add(b'{"Shards":[],"NextToken":"again"}')
    with pytest.raises(Exception, match="ListShards: garbled: no end after 100 pages"):
        await scripted.source().list_shards()


@pytest.mark.parametrize(
    ("status", "error"),
    [("CREATING", "the stream is being created"), ("DELETING", "make it anew")],
)
async def test_a_stream_that_is_not_there_yet_or_any_more_is_not_started_on(
    scripted, status, error
):
    scripted.script.add(b'{"StreamDescriptionSummary":%b}' % (SUMMARY % status.encode()))
    with pytest.raises(Exception, match=error):
        await scripted.source().describe()
