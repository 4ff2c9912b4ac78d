"""The lease machine's commands that go to the table or the stream: each a call and its answer."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from processor.core.leases import commands as c
from processor.core.leases.audit import describe
from processor.core.leases.machine import Machine
from processor.ports import Clock, LeaseTable, ObjectStore
from processor.runtime.lease_observer import LeaseObserver
from processor.runtime.shards import LISTING_TIMEOUT_S, Listing, Shards
from processor.runtime.state_store import StateStore

UPKEEP_TIMEOUT_S = 2.0  # below the gap between two reads that may count, and a heartbeat's period
JITTER = 0.2

InBackground = Callable[[str, Callable[[], Awaitable[object]]], None]


@dataclass(frozen=True)
class LeasePorts:
    """The outside world of a lease loop; `rng` gives ids and jitter, so a seed is a history."""

    table: LeaseTable
    objects: ObjectStore | None
    source: Listing
    clock: Clock
    rng: random.Random


class Upkeep:
    """Tells the machine what came of its commands; what fails, fails for the caller to tell."""

    def __init__(
        self,
        ports: LeasePorts,
        shards: Shards,
        states: StateStore,
        observer: LeaseObserver,
        timing: c.Timing,
        in_background: InBackground,
    ) -> None:
        self.has_joined = False
        self._ports = ports
        self._shards = shards
        self._states = states
        self._observer = observer
        self._timing = timing
        self._in_background = in_background

    async def perform(self, machine: Machine, command: c.Command, sent_at: float) -> None:
        match command:
            case c.Join() | c.Heartbeat():
                await self._beat(machine, command, sent_at)
            case c.Leave(worker_id=worker_id):
                await self._ports.table.delete_worker(self._shards.stream, worker_id)
                machine.on_left()
            case c.ReadWorkers(first=first, count=count):
                workers = await self._ports.table.read_workers(self._shards.stream, first, count)
                machine.on_workers(workers, self._ports.clock.monotonic(), command)
            case c.ReadShards(discover=discover):
                await self._read_shards(machine, discover, sent_at)
            case c.ReadShard(shard_id=shard_id):
                row = await self._shards.read_one(shard_id)
                machine.on_shard(shard_id, row, self._ports.clock.monotonic())
            case c.Prefetch(shard_id=shard_id, epoch=epoch):
                await self._prefetch(machine, shard_id, epoch)
            case c.ReadFamily(child_id=child_id, shard_ids=shard_ids):
                family = await asyncio.gather(*map(self._shards.read_one, shard_ids))
                rows = [row for row in family if row is not None]
                machine.on_family(child_id, rows, self._ports.clock.monotonic())
            case c.Bury(worker_id=worker_id, counter=counter):
                applied = await self._ports.table.bury(self._shards.stream, worker_id, counter)
                if applied:
                    self._observer.on_buried(worker_id)
                machine.on_buried(worker_id, applied, self._ports.clock.monotonic())
            case c.Forget(worker_id=worker_id):
                await self._ports.table.delete_worker(self._shards.stream, worker_id)
                machine.on_buried(worker_id, False, self._ports.clock.monotonic())
            case c.Claim() | c.Release():
                await self._change_owner(machine, command)

    async def _beat(self, machine: Machine, command: c.Join | c.Heartbeat, sent_at: float) -> None:
        if isinstance(command, c.Join):
            await self._ports.table.join(self._shards.stream, command.row)
            alive = True
            self.has_joined = True
            self._observer.on_joined(machine.worker_id)
        else:
            alive = await self._ports.table.heartbeat(self._shards.stream, command.row)
        now = self._ports.clock.monotonic()
        machine.on_heartbeat(alive, sent_at, now)
        self._observer.on_heartbeat(now - sent_at)

    async def _read_shards(self, machine: Machine, discover: bool, sent_at: float) -> None:
        if discover:
            await self._discover(machine, sent_at)
        else:
            rows = await self._shards.read()
            machine.on_shards(rows, sent_at, self._ports.clock.monotonic())
        barred = machine.barred(self._ports.clock.monotonic())
        self._observer.on_barred(barred, self._shards.generation)

    async def _prefetch(self, machine: Machine, shard_id: str, epoch: int) -> None:
        row = await self._shards.read_one(shard_id)
        if row is not None and row.pairs[-1].state is not None:
            await self._states.prefetch(shard_id, [row.pairs[-1].state])
        machine.on_fetched(shard_id, epoch, row, self._ports.clock.monotonic())

    async def _discover(self, machine: Machine, sent_at: float) -> None:
        rows, found = await self._shards.discover(sent_at)
        jitter = self._ports.rng.uniform(1 - JITTER, 1 + JITTER)
        now = self._ports.clock.monotonic()
        machine.on_shards(rows, sent_at, now, jitter, is_resharding=found.is_resharding)
        self._observer.on_audit([describe(hole) for hole in found.holes])
        if found.remove and machine.valid_for_s(now) > 0:
            remove = functools.partial(self._shards.remove, found.remove, self._states)
            self._in_background("remove ended shards", remove)

    async def _change_owner(self, machine: Machine, command: c.Claim | c.Release) -> None:
        written = await self._ports.table.write(command.before, command.after)
        now = self._ports.clock.monotonic()
        row = command.after
        if not written.applied:
            machine.on_shard(row.id, written.row, now)
        elif isinstance(command, c.Claim):
            machine.on_claimed(row, now)
            self._observer.on_claimed(row)
        else:
            lease = machine.leases.get(row.id)
            if lease is not None and lease.stopped_at is not None and row.successor is not None:
                self._observer.on_handoff(row.id, "release", now - lease.stopped_at)
            machine.on_released(row, now)
            self._observer.on_released(row.id, row.successor)

    def timeout_s(self, command: c.Command) -> float:
        match command:
            case c.ReadShards(discover=True):
                return LISTING_TIMEOUT_S
            case c.ReadShards():
                return 2 * UPKEEP_TIMEOUT_S
            case c.Prefetch():  # later than that, it is not waited for
                return self._timing.ready_s
        return UPKEEP_TIMEOUT_S
