"""The scenarios of `chaos`, one after the other, and what was measured in them.

Each begins with a fleet that owns every shard and ends with one, whoever it is by then. Shards are
those of the traffic's stores: four at first, then eight, one a store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from bench import turnover
from bench.turnover import Gaps
from processor.local.changes import Changes
from processor.local.door import Door
from processor.local.journal import Read, Reads
from processor.local.producer import Lane, Producer
from processor.local.view import View
from processor.local.workers import Fleet, Worker

LOOK_S = 0.2
GIVE_UP_S = 60.0  # four times what a takeover may take
FRESH_S = 2.0  # a shard is read each second at least
STOPPED_S = 20.0  # longer than a lease lives (12 s until others bury its owner)
CUT_EVERY_S, DELAY_S = 2.0, 0.2
LOOK_BACK_S = 120.0  # of the journal: a hand-off takes 30 s at most


class Sizes(Struct, frozen=True):
    """How much of each."""

    kills: int
    handoffs: int
    cuts_s: float
    outage_s: float


class Measured(Struct):
    """Seconds, each of one shard; and what should not have been."""

    takeover_s: list[float] = []
    handoff_s: list[float] = []
    reshard_gap_s: list[float] = []
    zombie_takeover_s: list[float] = []
    table_back_s: list[float] = []
    bus_back_s: list[float] = []
    kills: int = 0
    restarts: int = 0
    faults: list[str] = []


class Ordeal:
    """Runs beside the traffic and ends it when all is done."""

    def __init__(
        self,
        sizes: Sizes,
        fleet: Fleet,
        producer: Producer,
        doors: Mapping[str, Door],
        reads: Reads,
        view: View,
    ) -> None:
        self.measured = Measured()
        self._sizes, self._fleet, self._producer = sizes, fleet, producer
        self._doors, self._reads, self._view = doors, reads, view

    async def perform(self, changes: Changes) -> None:
        """Everything, in this order; then the traffic is stopped."""
        found, sizes = self.measured, self._sizes
        scenarios: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("splits under load", lambda: self._split_all(changes)),
            ("rolling restarts under load", lambda: self._restart(changes)),
            ("connections cut and slow", self._cut),
            ("SIGKILL", self._kill),
            ("SIGSTOP and SIGCONT", self._pause),
            (f"no table for {sizes.outage_s:.0f} s", self._without_table),
            (f"no bus for {sizes.outage_s:.0f} s", self._without_bus),
            ("merges and a split of a merge under load", lambda: self._merge_some(changes)),
        ]
        try:
            for name, scenario in scenarios:
                self._view.say(f"{self._producer.elapsed_s():6.1f} s  {name}")
                await scenario()
                await self._settle(name)
        finally:
            self._producer.stop()
        found.faults += changes.faults

    # ---- reshards ---------------------------------------------------------------------------

    async def _split_all(self, changes: Changes) -> None:
        for lane in list(self._producer.lanes):
            await self._note_reshard([lane], await changes.split(lane))

    async def _merge_some(self, changes: Changes) -> None:
        first, second, third, fourth = self._producer.lanes[1:5]
        merged = await changes.merge(second, third)
        await self._note_reshard([second, third], merged)
        halves = await changes.split(merged[0])
        await self._note_reshard(merged, halves)
        for pair in ((first, halves[0]), (halves[1], fourth)):
            await self._note_reshard(pair, await changes.merge(*pair))

    async def _note_reshard(self, parents: Sequence[Lane], children: Sequence[Lane]) -> None:
        old, new = ([lane.shard_id for lane in lanes] for lanes in (parents, children))
        self.measured.reshard_gap_s += await self._all(
            lambda: turnover.reshard_gaps(self._reads.all, old, new), f"children of {old}"
        )

    # ---- restarts and crashes ---------------------------------------------------------------

    async def _restart(self, changes: Changes) -> None:
        """One worker after the other, again and again."""
        found, wanted = self.measured, self._sizes.handoffs
        for _ in range(wanted):  # each hands over one at least, or something is wrong
            [old] = self._busiest(1)
            await changes.replace(old)
            found.restarts += 1
            found.handoff_s += await self._handoffs(old, _ended(old))
            await self._settle("a restart")
            if len(found.handoff_s) >= wanted:
                return

    async def _kill(self) -> None:
        """Two of three at a time, and as many new ones are started."""
        found = self.measured
        while found.kills < self._sizes.kills:
            victims = self._busiest(2)
            await asyncio.gather(*map(self._fleet.kill, victims))
            found.kills += len(victims)
            for _ in victims:
                await self._fleet.start()
            for one in victims:
                found.takeover_s += await self._takeovers(one, _ended(one))
            await self._settle("a kill")

    async def _pause(self) -> None:
        """A worker stands still for longer than its leases live, then goes on."""
        [zombie] = self._busiest(1)
        at_s = time.monotonic()
        os.kill(zombie.child.pid, signal.SIGSTOP)
        await asyncio.sleep(STOPPED_S)
        os.kill(zombie.child.pid, signal.SIGCONT)
        self.measured.zombie_takeover_s += await self._takeovers(zombie, at_s)
        if not await self._comes_true(lambda: '"worker_buried_self"' in zombie.child.tail(10_000)):
            self._fault(f"{zombie.child.name} stood still and never told that it was buried")

    async def _handoffs(self, owner: Worker, at_s: float) -> list[float]:
        name = owner.child.name
        return await self._all(
            lambda: turnover.handoffs(self._recent(at_s), name, at_s), f"shards of {name}"
        )

    async def _takeovers(self, victim: Worker, at_s: float) -> list[float]:
        name = victim.child.name
        return await self._all(
            lambda: turnover.takeovers(self._recent(at_s), name, at_s), f"shards of {name}"
        )

    # ---- the ways to services ---------------------------------------------------------------

    async def _cut(self) -> None:
        """All connections are slow, and cut every two seconds."""
        for door in self._doors.values():
            door.delay_s = DELAY_S
        for _ in range(round(self._sizes.cuts_s / CUT_EVERY_S)):
            await asyncio.sleep(CUT_EVERY_S)
            for door in self._doors.values():
                await door.cut()
        for door in self._doors.values():
            door.delay_s = 0

    async def _without_table(self) -> None:
        buried = self._buried()
        self.measured.table_back_s += await self._without("DYNAMODB")
        if self._buried() != buried:
            self._fault("an outage of the table was taken for a worker's death")

    async def _without_bus(self) -> None:
        self.measured.bus_back_s += await self._without("EVENTBRIDGE")

    async def _without(self, service: str) -> list[float]:
        """How long after its return each shard's records were read again."""
        door = self._doors[service]
        await door.refuse()
        await asyncio.sleep(self._sizes.outage_s)
        await door.open()
        at_s = time.monotonic()
        ids = [lane.shard_id for lane in self._producer.lanes]
        return await self._all(
            lambda: turnover.resumptions(self._recent(at_s), ids, at_s), f"after {service}"
        )

    def _buried(self) -> int:
        return sum(
            worker.child.tail(10_000).count('"worker_buried"') for worker in self._fleet.living
        )

    # ---- how --------------------------------------------------------------------------------

    def _busiest(self, count: int) -> list[Worker]:
        """Those with most shards; one is left alive, and one without shards is none of them."""
        names = [view.worker for view in self._fleet.shards().values()]
        ordered = sorted(self._fleet.living, key=lambda one: -names.count(one.child.name))
        busy = [one for one in ordered if one.child.name in names]
        return busy[: min(count, len(ordered) - 1)]

    async def _settle(self, what: str) -> None:
        """Until every shard is read by somebody who lives."""
        if not await self._comes_true(self._is_settled):
            self._fault(f"after {what}: some shard is read by nobody")

    def _is_settled(self) -> bool:
        now_s, living = time.monotonic(), {worker.child.name for worker in self._fleet.living}
        readers = {read.shard_id: read for read in self._recent(now_s)}
        reads = [readers.get(lane.shard_id) for lane in self._producer.lanes]
        is_read = all(read is not None and read.at_s > now_s - FRESH_S for read in reads)
        return is_read and {read.caller for read in reads if read is not None} <= living

    async def _all(self, measure: Callable[[], Gaps], what: str) -> list[float]:
        """All gaps, once they are over; a fault for those that are not in time."""
        if not await self._comes_true(lambda: turnover.is_complete(measure())):
            open_ = [shard_id for shard_id, gap in measure().items() if gap is None]
            self._fault(f"{what}: after {GIVE_UP_S:.0f} s nobody reads {open_}")
        return [gap for gap in measure().values() if gap is not None]

    async def _comes_true(self, holds: Callable[[], bool]) -> bool:
        give_up_at_s = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up_at_s:
            self._reads.update()
            if holds():
                return True
            await asyncio.sleep(LOOK_S)
        return False

    def _recent(self, at_s: float) -> list[Read]:
        return self._reads.since(at_s - LOOK_BACK_S)

    def _fault(self, text: str) -> None:
        self._view.say(f"FAULT: {text}")
        self.measured.faults.append(text)


def _ended(worker: Worker) -> float:
    assert worker.ended_at_s is not None, f"{worker.child!r} was not ended by us"
    return worker.ended_at_s
