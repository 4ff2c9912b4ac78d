"""A lease table in memory that counts what DynamoDB would bill for each operation.

Units as the service's documentation gives them ("DynamoDB read and write operations"): a write of
up to 1 KB is one unit, also where its condition does not hold; in a transaction it is two; a
consistent read is one unit for each 4 KB that a Query touches, and one at least. An item's size is
that of its names and values as `stores.dynamodb_items` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from msgspec import Struct

from processor.core.leases.rows import ShardRow, StreamKey, WorkerRow
from processor.ports import OnStrange, Placed, Written
from processor.stores import dynamodb_items as items
from processor.stores.dynamodb import CREATED_AT_ONCE
from processor.stores.memory import Gate, MemoryContent, MemoryInstructions, MemoryTable

WRITE_BYTES = 1024
READ_BYTES = 4096
# On demand in us-east-1, in dollars a million units.
WRITE_DOLLARS = 0.625
READ_DOLLARS = 0.125
MONTH_S = 730 * 3600


class Units(Struct):
    """Units consumed, in all or a second; `scans` are those of `reads` that read all shard rows."""

    writes: float = 0.0
    reads: float = 0.0
    scans: float = 0.0

    def since(self, before: Units) -> Units:
        return Units(
            self.writes - before.writes, self.reads - before.reads, self.scans - before.scans
        )

    def copy(self) -> Units:
        return Units(self.writes, self.reads, self.scans)

    def per_s(self, seconds: float) -> Units:
        return Units(self.writes / seconds, self.reads / seconds, self.scans / seconds)

    @property
    def dollars_a_month(self) -> float:
        """Of units a second, kept up for a month."""
        a_second = self.writes * WRITE_DOLLARS + self.reads * READ_DOLLARS
        return a_second * MONTH_S / 1e6


def item_bytes(item: Mapping[str, Any]) -> int:
    return sum(len(name) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "N":
        return len(content) // 2 + 2  # two digits a byte, and a byte for the sign
    return 1 if kind in ("BOOL", "NULL") else len(content)


def write_units(size: int) -> int:
    return max(1, ceil(size / WRITE_BYTES))


def read_units(size: int) -> int:
    return max(1, ceil(size / READ_BYTES))


class Sizes:
    """Bytes of every row, and of the rows under each partition key."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._partitions: dict[str, int] = {}

    def put(self, item: Mapping[str, Any]) -> int:
        """Takes an item's size; returns the larger of before and after, which a write is billed."""
        pk, sk = item["pk"]["S"], item["sk"]["S"]
        before, after = self._rows.get((pk, sk), 0), item_bytes(item)
        self._rows[pk, sk] = after
        self._partitions[pk] = self._partitions.get(pk, 0) + after - before
        return max(before, after)

    def drop(self, key: Mapping[str, Any]) -> int:
        pk, sk = key["pk"]["S"], key["sk"]["S"]
        size = self._rows.pop((pk, sk), 0)
        self._partitions[pk] = self._partitions.get(pk, 0) - size
        return size

    def row(self, key: Mapping[str, Any]) -> int:
        return self._rows.get((key["pk"]["S"], key["sk"]["S"]), 0)

    def partition(self, pk: str) -> int:
        return self._partitions.get(pk, 0)

    def scan_units(self) -> int:
        """Of one read of all shard rows."""
        return sum(read_units(self.partition(items.bucket_pk(n))) for n in range(items.BUCKETS))


class CountingInstructions(MemoryInstructions):
    """Billed by 4 KB as any Query, half of it where it need not be consistent."""

    def __init__(self, content: MemoryContent, gate: Gate, units: Units) -> None:
        super().__init__(content, gate)
        self._units = units

    async def read(
        self, app: str, *, consistent: bool = False, on_strange: OnStrange | None = None
    ) -> list[Placed]:
        found = await super().read(app, consistent=consistent, on_strange=on_strange)
        size = sum(item_bytes(items.instruction_item(app, placed)) for placed in found)
        self._units.reads += read_units(size) * (1.0 if consistent else 0.5)
        return found


class CountingTable(MemoryTable):
    """One worker's handle on the shared content; `units` and `sizes` are shared likewise."""

    def __init__(self, content: MemoryContent, gate: Gate, units: Units, sizes: Sizes) -> None:
        super().__init__(content, gate)
        self._units = units
        self._sizes = sizes
        self._instructions = CountingInstructions(content, gate, units)

    async def join(self, stream: StreamKey, row: WorkerRow) -> None:
        self._put_worker(stream, row)
        await super().join(stream, row)

    async def heartbeat(self, stream: StreamKey, row: WorkerRow) -> bool:
        self._put_worker(stream, row)
        return await super().heartbeat(stream, row)

    async def read_workers(
        self, stream: StreamKey, first: str | None = None, count: int = 0
    ) -> list[WorkerRow]:
        rows = await super().read_workers(stream, first, count)
        sizes = (self._sizes.row(items.worker_key(stream, row.id)) for row in rows)
        self._units.reads += read_units(sum(sizes))
        return rows

    async def bury(self, stream: StreamKey, worker_id: str, counter: int) -> bool:
        self._units.writes += write_units(self._sizes.row(items.worker_key(stream, worker_id)))
        return await super().bury(stream, worker_id, counter)

    async def delete_worker(self, stream: StreamKey, worker_id: str) -> None:
        self._units.writes += write_units(self._sizes.drop(items.worker_key(stream, worker_id)))
        await super().delete_worker(stream, worker_id)

    async def read_shards(self, stream: StreamKey) -> list[ShardRow]:
        units = self._sizes.scan_units()
        self._units.reads += units
        self._units.scans += units
        return await super().read_shards(stream)

    async def read_shard(self, stream: StreamKey, shard_id: str) -> ShardRow | None:
        self._units.reads += read_units(self._sizes.row(items.shard_key(stream, shard_id)))
        return await super().read_shard(stream, shard_id)

    async def create_shards(self, rows: Sequence[ShardRow]) -> None:
        for row in rows:
            self._units.writes += write_units(self._sizes.put(items.shard_item(row)))
        for start in range(0, len(rows), CREATED_AT_ONCE):
            await self._gate("create_shards", "before")
            for row in rows[start : start + CREATED_AT_ONCE]:
                self.content.shards.setdefault((row.stream, row.id), row)

    async def write(self, before: ShardRow, after: ShardRow) -> Written:
        written = await super().write(before, after)
        if written.applied:
            self._units.writes += write_units(self._sizes.put(items.shard_item(after)))
        else:
            size = self._sizes.row(items.shard_key(before.stream, before.id))
            self._units.writes += write_units(size)
        return written

    async def end(self, before: ShardRow, after: ShardRow, children: Sequence[ShardRow]) -> Written:
        written = await super().end(before, after, children)
        for row in (after, *children) if written.applied else ():
            self._units.writes += 2 * write_units(self._sizes.put(items.shard_item(row)))
        return written

    def _put_worker(self, stream: StreamKey, row: WorkerRow) -> None:
        item = items.worker_key(stream, row.id) | items.worker_values(row)
        self._units.writes += write_units(self._sizes.put(item))
