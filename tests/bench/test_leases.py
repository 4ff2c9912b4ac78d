"""What leases cost at rest, and that the table which says so counts as DynamoDB does."""

import asyncio

from bench.lease_fleet import Fleet
from bench.lease_units import CountingTable, Sizes, Units
from processor.core.leases.rows import StreamKey, WorkerRow, claimed, fresh_row
from processor.model import TRIM_HORIZON, Shard
from processor.stores.memory import MemoryContent, open_gate
from tests.virtual_time import run

STREAM = StreamKey("orders", 1)
REST_S = 80.0  # a discovery of each worker is among them


def test_a_thousand_idle_shards_on_twenty_workers_cost_ten_writes_and_200_reads_a_second():
    async def rest() -> Units:
        fleet = Fleet(shards=1_000, seed=1)
        fleet.start(workers=20)
        await asyncio.sleep(30.0)
        assert fleet.is_even()
        before = fleet.units.copy()
        await asyncio.sleep(REST_S)
        found = fleet.units.since(before).per_s(REST_S)
        await fleet.kill(list(fleet.members))
        return found

    found = run(rest())
    assert 20 / 3 <= found.writes <= 10  # no less than a heartbeat of each every three seconds
    assert found.scans > 0
    assert found.reads <= 200


def test_a_write_is_billed_by_the_kilobyte_also_when_it_is_refused():
    async def bill() -> list[float]:
        units = Units()
        table = CountingTable(MemoryContent(), open_gate, units, Sizes())
        row = fresh_row(STREAM, Shard("shardId-000000000000"), TRIM_HORIZON)
        bills = []
        for call in (
            table.create_shards([row]),
            table.write(row, claimed(row, "w" * 1024, 0)),
            table.write(row, claimed(row, "w", 0)),
            table.join(STREAM, WorkerRow("w")),
        ):
            before = units.writes
            await call
            bills.append(units.writes - before)
        return bills

    assert run(bill()) == [1, 2, 2, 1]


def test_a_query_is_billed_by_four_kilobytes_of_all_that_it_touches():
    async def bill() -> list[float]:
        units = Units()
        table = CountingTable(MemoryContent(), open_gate, units, Sizes())
        bills = []
        for n in range(60):
            await table.join(STREAM, WorkerRow(f"{n:036d}"))
        for call in (
            table.read_workers(STREAM),
            table.read_workers(STREAM, f"{0:036d}", 8),
            table.read_shards(STREAM),
            table.read_shard(STREAM, "shardId-000000000000"),
        ):
            before = units.reads
            await call
            bills.append(units.reads - before)
        return bills

    whole, near, empty_buckets, nothing = run(bill())
    assert whole > near == nothing == 1
    assert empty_buckets == 16
