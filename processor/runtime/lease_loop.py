"""The shell of the lease machine: carries out its commands, runs one task a shard, upholds leases.

One supervising task asks the machine what to do and waits; every command is carried out in a task
of its own, so that a heartbeat never waits behind anything. A worker that others took for dead
drops everything and joins again under a new id, with a new machine.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from processor.core.leases import commands as c
from processor.core.leases.machine import Machine
from processor.core.leases.rows import ShardRow
from processor.core.leases.stages import Stage, TaskEnd
from processor.errors import (
    LeaseLost,
    Outage,
    RetentionGap,
    StateUnreadable,
    StreamReplaced,
    Unavailable,
)
from processor.model import Shard
from processor.runtime.lease import Lease as Lease
from processor.runtime.lease import Restored as Restored
from processor.runtime.lease_observer import LeaseObserver, Unobserved
from processor.runtime.shards import LISTING_TIMEOUT_S, Shards
from processor.runtime.shards import Follower as Follower
from processor.runtime.state_store import StateStore
from processor.runtime.upkeep import LeasePorts as LeasePorts
from processor.runtime.upkeep import Upkeep

SWEEP_TIMEOUT_S = 60.0
SLEPT_S = 10.0  # a loop that late was suspended: its tasks' silence then says nothing
END_S_MAX = 5.0  # for tasks that are cancelled; what ignores that has no lease, and can't harm
LAST_REMOVALS_S = 1.0  # at the end; a later claim sweeps what is left
BACKGROUND_MAX = 64  # sweeps and removals under way; what finds no room is left to a later sweep


class LeaseStatus(Struct, frozen=True):
    """One shard for the status page; `stage` and `held_for_s` only where we hold it."""

    stream: str
    shard_id: str
    owner: str | None
    epoch: int
    position: str
    ended: bool
    incarnation: str
    caught_up_at_ms: int | None
    stage: str | None = None
    held_for_s: float | None = None


class Tasks(Protocol):
    """What the shards' tasks tell, asked once a heartbeat."""

    def stalled(self) -> Mapping[str, str]:
        """A sentence for each shard whose task does not get on."""

    def behind_ms(self) -> int | None:
        """The smallest watermark of those that catch up; None: none does."""


class LeaseLoop:
    """One worker's leases on one stream."""

    def __init__(
        self,
        ports: LeasePorts,
        run_shard: Callable[[Lease], Awaitable[None]],
        follower: Follower,
        *,
        timing: c.Timing | None = None,
        observer: LeaseObserver | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        """`tasks`: what the shards' tasks tell of themselves; None: nothing."""
        self._pipeline, self._is_rollback = follower.pipeline, follower.is_rollback
        self.table, self.clock, self.rng = ports.table, ports.clock, ports.rng
        self.observer = observer or Unobserved()  # type: ignore[abstract]  # empty is meant
        self.states = StateStore(ports.table.items, ports.objects)
        self._shards = Shards(ports.table, ports.source, follower)
        self._run_shard = run_shard
        self._timing = timing or c.Timing()
        self._upkeep = Upkeep(
            ports, self._shards, self.states, self.observer, self._timing, self.in_background
        )
        self._tasks_told = tasks
        self._machine = Machine(self._new_id(), self._timing)
        self._leases: dict[str, Lease] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by shard
        self._calls: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._valid = asyncio.Event()
        self._fatal: Unavailable | None = None
        self._sample_at = 0.0
        self._replaced: StreamReplaced | None = None  # until the new stream is open
        self._is_open = False

    def __repr__(self) -> str:
        return f"<LeaseLoop {self._machine!r}>"

    # ---- for the rest of the process

    @property
    def worker_id(self) -> str:
        return self._machine.worker_id

    @property
    def generation(self) -> int:
        """Our pipeline's number among those that the application ran; 0 until it is known."""
        return self._shards.generation

    def barred(self) -> list[str]:
        """Free shards that we may not claim, as a newer pipeline holds their state."""
        return self._machine.barred(self.clock.monotonic())

    @property
    def is_valid(self) -> bool:
        """Whether effects may start: false before joining, and while heartbeats fail."""
        return self.valid_for_s() > 0

    def leases(self) -> list[LeaseStatus]:
        """All shards as this worker last saw them, in order of ids."""
        now = self.clock.monotonic()
        return [self._status(row, now) for _, row in sorted(self._machine.rows().items())]

    def _status(self, row: ShardRow, now: float) -> LeaseStatus:
        mine = self._machine.leases.get(row.id)
        row = mine.row if mine else row
        return LeaseStatus(
            row.stream.name,
            row.id,
            row.owner,
            row.epoch,
            str(row.position),
            row.ended,
            row.incarnation,
            row.caught_up_at_ms,
            mine.stage.value if mine else None,
            now - mine.since if mine else None,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and every lease is handed over, or the drain time is over.

        Raises Unavailable if table, stream or a permission is missing at the start. Cancelling is
        safe: shard tasks end at once, and the leases fall to others after their TTL.
        """
        await self.open(stopping)
        watcher = asyncio.create_task(self._wake_on(stopping))
        try:
            while not self._machine.is_finished:
                await self._live(stopping)
            if self._background:  # what the last commits left: nobody may claim for long
                await asyncio.wait(self._background, timeout=LAST_REMOVALS_S)
        finally:
            watcher.cancel()
            await self._end_tasks([watcher, *self._background])

    # ---- the loop

    async def open(self, stopping: asyncio.Event) -> None:
        """What `run` begins with, unless it is done; raises the same."""
        if not self._is_open:
            await self._open(stopping)
            self._is_open = True

    async def _open(self, stopping: asyncio.Event, *, is_made_again: bool = False) -> None:
        """Which stream, and where its first shards start; waits while a service is out."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(LISTING_TIMEOUT_S):
                    await self._shards.open(is_made_again=is_made_again)
                    await self._register()
                    return
            except (Outage, TimeoutError, Unavailable) as error:
                if isinstance(error, Unavailable) and not is_made_again:
                    raise  # at the start of the process a person is there to mend it
                self.observer.on_error("open", error)
                await self.clock.sleep(self.rng.uniform(0, 2 * self._timing.retry_s))
        self._machine.is_finished = True  # told to stop before it could join

    async def _register(self) -> None:
        if self._pipeline is not None:
            is_newest = await self._shards.register(self._pipeline, is_rollback=self._is_rollback)
            self._is_rollback = False  # once: else it would turn back what comes after it, too
            self.observer.on_registered(self.generation, is_newest)
        self._machine = Machine(self.worker_id, self._timing, self.generation)

    async def _wake_on(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._wake.set()

    async def _live(self, stopping: asyncio.Event) -> None:
        """The life of one worker id."""
        machine = self._machine
        try:
            while not (machine.is_dead or machine.is_finished):
                self._wake.clear()
                now = self.clock.monotonic()
                if stopping.is_set():
                    machine.on_stop(now)
                self._sample(machine, now)
                for command in machine.commands(now):
                    self._carry_out(command)
                self._tell_validity()
                await self._pause(machine.wake_at())
                if self._fatal is not None:
                    raise self._fatal
            for command in machine.commands(self.clock.monotonic()):
                self._carry_out(command)  # a dead machine only cancels
        finally:
            for lease in self._leases.values():
                lease.close()
            await self._end_tasks([*self._calls, *self._tasks.values()])
        if machine.is_dead:
            if self._replaced is None:
                self.observer.on_buried_self(machine.worker_id)
            else:
                await self._follow_anew(machine.worker_id, self._replaced, stopping)
            self._machine = Machine(self._new_id(), self._timing, self.generation)
            self._machine.is_finished = stopping.is_set()

    async def _follow_anew(
        self, worker_id: str, replaced: StreamReplaced, stopping: asyncio.Event
    ) -> None:
        """The stream is another one now. The old one's rows stay, for a person to look at; ours
        goes, for nothing is held under it."""
        self.observer.on_stream_replaced(replaced)
        leave = functools.partial(self.table.delete_worker, self._shards.stream, worker_id)
        self.in_background("leave the old stream", leave)
        await self._open(stopping, is_made_again=True)
        self._replaced = None

    def _sample(self, machine: Machine, now: float) -> None:
        """What each shard costs, for balance; and which tasks stall, unless all of us did."""
        if now < self._sample_at:
            return
        has_slept = now > self._sample_at + SLEPT_S
        self._sample_at = now + self._timing.heartbeat_s
        rates = {key: lease.meter.sample(now) for key, lease in self._leases.items()}
        machine.on_rates(rates, now)
        if self._tasks_told is None:
            return
        machine.on_behind(self._tasks_told.behind_ms())
        for shard_id, reason in ({} if has_slept else self._tasks_told.stalled()).items():
            if machine.on_stalled(shard_id, now):
                self.observer.on_stalled(shard_id, reason)

    async def _pause(self, until: float | None) -> None:
        """Until something happened, or the machine wants to be asked again."""
        if until is None:
            await self._wake.wait()
            return
        delay_s = max(0.0, until - self.clock.monotonic())
        alarm = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _end_tasks(self, tasks: list[asyncio.Task[None]]) -> None:
        await asyncio.sleep(0)  # cancelled before its first step, a task would not tidy up
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=END_S_MAX)
        if pending:
            error = TimeoutError(f"{len(pending)} go on {END_S_MAX:g} s after they were cancelled")
            self.observer.on_error("end tasks", error)

    def _tell_validity(self) -> None:
        if self.is_valid:
            self._valid.set()
        else:
            self._valid.clear()

    def _new_id(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    # ---- commands

    def _carry_out(self, command: c.Command) -> None:
        match command:
            case c.Run(row=row):
                self._start_shard(row)
            case c.Stop(shard_id=shard_id, waited_s=waited_s):
                if waited_s is not None:
                    self.observer.on_handoff(shard_id, "ready", waited_s)
                if shard_id in self._leases:  # else its task just ended by itself
                    self._leases[shard_id].stopping.set()
            case c.Cancel(shard_id=shard_id):
                self._cancel(shard_id)
            case c.Forgo(shard_id=shard_id):
                self.states.prefetched.drop(shard_id)
            case _:
                attempt = self._attempt(self._machine, command)
                _keep(self._calls, asyncio.create_task(attempt))

    async def _attempt(self, machine: Machine, command: c.Command) -> None:
        """One call; its answer, or its failure, becomes a fact."""
        sent_at = self.clock.monotonic()
        try:
            async with asyncio.timeout(self._upkeep.timeout_s(command)):
                await self._upkeep.perform(machine, command, sent_at)
        except Exception as error:  # anything: the machine must hear that nothing came of it
            machine.on_failed(command, self.clock.monotonic())
            if isinstance(error, StreamReplaced):
                machine.on_replaced()
                self._replaced = error
                return
            self.observer.on_error(type(command).__name__, error)
            if isinstance(error, Unavailable) and not self._upkeep.has_joined:
                self._fatal = error
        finally:
            self._tell_validity()
            self._wake.set()

    # ---- shard tasks

    def _start_shard(self, row: ShardRow) -> None:
        lease = Lease(row, self, self._timing.margin_s)
        self._leases[row.id] = lease
        before = self._tasks.get(row.id)
        self._tasks[row.id] = asyncio.create_task(self._supervise(lease, before))
        self.in_background("sweep states", lambda: self.states.sweep(row))

    def _cancel(self, shard_id: str) -> None:
        """End a task: its lease is lost, or its drain time is over."""
        lease = self._leases.get(shard_id)
        if lease is None:  # it just ended by itself
            return
        if shard_id not in self._machine.leases:
            self.observer.on_lost(shard_id, lease.epoch)
        lease.close()
        # Soon, not now: cancelled before its first step, a task would not tidy up.
        asyncio.get_running_loop().call_soon(self._tasks[shard_id].cancel)

    async def _supervise(self, lease: Lease, before: asyncio.Task[None] | None) -> None:
        """Run a shard's task to whatever end, and tell the machine which it was."""
        machine = self._machine
        how: TaskEnd = "waited"  # cancelled: at the end of the drain time, or lost anyway
        error: Exception | None = None
        try:
            if before is not None:
                await asyncio.wait([before])
            await self._run_shard(lease)
            how = "stopped"
            assert lease.has_ended or lease.stopping.is_set(), "returned though nobody asked"
        except Exception as caught:
            error, how = caught, _end_by(caught)
        finally:
            lease.close()
            if isinstance(error, StreamReplaced):
                machine.on_doubt(self.clock.monotonic())
            machine.on_task_end(lease.row, how, self.clock.monotonic())
            if error is not None:
                self._report(machine, lease, error)
            if self._leases.get(lease.shard.id) is lease:
                del self._leases[lease.shard.id], self._tasks[lease.shard.id]
                self.states.prefetched.drop(lease.shard.id)  # it may have ended before it loaded
                if before is not None and not before.done():  # we did not outwait it
                    self._tasks[lease.shard.id] = before
            self._wake.set()

    def _report(self, machine: Machine, lease: Lease, error: Exception) -> None:
        mine = machine.leases.get(lease.shard.id)
        if isinstance(error, LeaseLost):
            self.observer.on_lost(lease.shard.id, lease.epoch)
        elif mine is not None and mine.stage is Stage.PARKED:
            self.observer.on_parked(lease.shard.id, error)
        else:
            self.observer.on_task_failed(lease.shard.id, error, mine.setbacks if mine else 0)

    # ---- what leases need (`lease.Keeper`)

    def slowest_ms(self) -> int | None:
        return self._machine.slowest_ms()

    def valid_for_s(self) -> float:
        return self._machine.valid_for_s(self.clock.monotonic())

    async def await_valid(self) -> None:
        self._tell_validity()
        await self._valid.wait()

    async def child_rows(self, row: ShardRow, children: tuple[Shard, ...]) -> list[ShardRow]:
        known = self._machine.rows().keys()
        return await self._shards.child_rows(row, children, known, self._machine.worker_id)

    @property
    def retention_ms(self) -> int:
        return self._shards.retention_ms

    def on_committed(self, row: ShardRow) -> None:
        self._machine.on_committed(row)

    def on_ended(self, row: ShardRow, children: list[ShardRow]) -> None:
        self._machine.on_ended(row, children, self.clock.monotonic())
        self.observer.on_ended(row, tuple(child.id for child in children))
        self._wake.set()

    def in_background(self, operation: str, work: Callable[[], Awaitable[object]]) -> None:
        if len(self._background) < BACKGROUND_MAX:
            _keep(self._background, asyncio.create_task(self._best_effort(operation, work)))

    async def _best_effort(self, operation: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(SWEEP_TIMEOUT_S):
                await work()
        except (Outage, Unavailable, TimeoutError) as error:
            self.observer.on_error(operation, error)


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _end_by(error: Exception) -> TaskEnd:
    """What an error says about the shard: lost, unreadable (a state, or what the stream does not
    hold any more), worth waiting for, or wrong."""
    match error:
        case LeaseLost():
            return "lost"
        case StateUnreadable() | RetentionGap():
            return "unreadable"
        case Outage() | Unavailable() | StreamReplaced():
            return "waited"
    return "failed"
