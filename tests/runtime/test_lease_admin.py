"""Leases by hand against a table in memory, in virtual time: who is dead, and whose write wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from processor.core.leases.rows import ShardRow, StreamKey, WorkerRow, claimed
from processor.core.leases.seeking import Change, moved_to, seek_all
from processor.errors import Outage, Refused, Unavailable
from processor.model import TRIM_HORIZON, Shard
from processor.runtime.lease_admin import AdminPorts, LeaseAdmin, Leases
from processor.runtime.shards import Follower
from processor.sources.memory import MemorySource
from processor.stores.memory import MemoryContent, MemoryTable
from tests.virtual_time import VirtualClock, run


class Office:
    """A table with one shard owned by worker `w`, and somebody who administers it."""

    def __init__(self, shards: int = 1) -> None:
        self.clock = VirtualClock()
        self.content = MemoryContent()
        self.said: list[str] = []
        self.gate: Callable[[str, Literal["before", "after"]], Any] | None = None
        source = MemorySource("orders", [Shard(f"s{n}") for n in range(shards)], self.clock)
        ports = AdminPorts(MemoryTable(self.content, self._gate), source, self.clock, self._say)
        self.admin = LeaseAdmin(ports, Follower("shop"))

    def _say(self, text: str) -> None:
        self.said.append(text)

    async def _gate(self, operation: str, side: Literal["before", "after"]) -> None:
        await asyncio.sleep(0.001)
        if self.gate is not None:
            self.gate(operation, side)

    async def open(self, *, row: WorkerRow | None) -> Leases:
        leases = await self.admin.discover()
        self.stream = leases.stream
        for shard_id, shard in leases.shards.items():
            self.content.shards[self.stream, shard_id] = claimed(shard, "w", 0)
        if row is not None:
            self.content.workers[self.stream, row.id] = row
        return await self.admin.read()

    async def beat(self, every_s: float) -> None:
        """The heartbeats of `w`."""
        while True:
            await self.clock.sleep(every_s)
            row = self.content.workers[self.stream, "w"]
            if not row.buried:
                self.content.workers[self.stream, "w"] = replace(row, counter=row.counter + 1)

    def row(self, shard_id: str = "s0") -> ShardRow:
        return self.content.shards[self.stream, shard_id]


W = WorkerRow("w", counter=5)


def test_a_worker_that_stands_still_is_buried_and_its_lease_is_free() -> None:
    async def main() -> None:
        office = Office()
        leases = await office.open(row=W)
        began_at = office.clock.monotonic()
        assert await office.admin.release(leases, "s0") is not None
        assert office.clock.monotonic() - began_at >= 12.0, "as long as another worker waits"
        assert office.row().owner is None
        assert office.content.workers[office.stream, "w"].buried
        assert office.said == [
            "watching worker w for 12 s: a worker is dead when its heartbeats have stopped for"
            " that long"
        ]
        assert await office.admin.release(await office.admin.read(), "s0") is None

    run(main())


def test_an_owner_without_a_row_is_waited_for_as_long() -> None:
    async def main() -> None:
        office = Office()
        leases = await office.open(row=None)
        began_at = office.clock.monotonic()
        await office.admin.release(leases, "s0")
        assert office.clock.monotonic() - began_at >= 12.0

    run(main())


def test_one_that_others_have_buried_is_not_waited_for() -> None:
    async def main() -> None:
        office = Office()
        leases = await office.open(row=replace(W, buried=True))
        began_at = office.clock.monotonic()
        await office.admin.release(leases, "s0")
        assert office.clock.monotonic() - began_at < 1.0
        assert office.said == [], "nobody was watched"

    run(main())


@pytest.mark.parametrize("every_s", [3.0, 11.0])
def test_a_worker_whose_counter_changes_is_alive(every_s: float) -> None:
    async def main() -> None:
        office = Office()
        leases = await office.open(row=W)
        beating = asyncio.create_task(office.beat(every_s))
        with pytest.raises(Refused, match=r"worker w is alive \(its counter went from 5 to 6\)"):
            await office.admin.release(leases, "s0")
        beating.cancel()
        assert office.row().owner == "w"

    run(main())


def test_an_outage_of_the_table_is_nobodys_death() -> None:
    async def main() -> None:
        office = Office()
        leases = await office.open(row=W)
        down = iter(range(10))

        def fail_sometimes(operation: str, side: str) -> None:
            late = office.clock.monotonic() > 9.0
            if operation == "read_workers" and side == "before" and late and next(down, 1) < 1:
                raise Outage("dynamodb", "Query", "down")

        office.gate = fail_sometimes
        began_at = office.clock.monotonic()
        await office.admin.release(leases, "s0")
        assert office.clock.monotonic() - began_at > 20.0, "it began to count anew"
        assert any("trying again" in line for line in office.said)

    run(main())


def test_an_outage_that_lasts_ends_the_command() -> None:
    async def main() -> None:
        office = Office()

        def fail(operation: str, side: str) -> None:
            raise Outage("dynamodb", "Query", "down")

        office.gate = fail
        with pytest.raises(Unavailable, match=r"try again later \(dynamodb Query: down\)"):
            await office.admin.read()

    run(main())


def test_a_write_whose_answer_got_lost_is_known_to_have_been_done() -> None:
    async def main() -> None:
        office = Office()
        await office.open(row=None)
        lost = iter([True])

        def lose(operation: str, side: str) -> None:
            if (operation, side) == ("write", "after") and next(lost, False):
                raise Outage("dynamodb", "UpdateItem", "no answer")

        office.gate = lose
        row = office.row()
        after = moved_to(row, TRIM_HORIZON, "mine", inherits=False)
        await office.admin.write([Change(row, after)])
        assert office.row() == after

    run(main())


def test_a_worker_that_claims_in_between_wins_and_is_named() -> None:
    async def main() -> None:
        office = Office(shards=2)
        leases = await office.open(row=None)
        changes = seek_all(leases.shards, leases.shards, TRIM_HORIZON, "mine", reopen=True)
        theirs = claimed(office.row("s1"), "other", 0)
        office.content.shards[office.stream, "s1"] = theirs
        with pytest.raises(Refused) as refused:
            await office.admin.write(changes)
        assert "s1 changed while we looked (now worker other's, epoch 2)" in str(refused.value)
        assert "changed before that: s0" in str(refused.value)
        assert office.row("s1") == theirs
        assert office.row("s0").seeks == 1

    run(main())


def test_reading_changes_nothing_even_of_a_stream_that_is_new() -> None:
    async def main() -> None:
        office = Office()
        leases = await office.admin.read()
        assert (leases.shards, leases.stream) == ({}, StreamKey("orders", leases.stream.created_ms))
        assert office.content == MemoryContent()
        assert set((await office.admin.discover()).shards) == {"s0"}

    run(main())
