"""One history as it happens: the world's main coroutine, which carries out the schedule.

It starts processes, puts records, cuts shards and brings the faults; then lets everything come to
rest, hands all shards to one last worker, and stops. What it saw is a log, one line an event.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from processor.core.rows import ShardRow
from processor.local.kinesis_model import NewRecord
from tests.sim.checkers import Breach, Checkers, short
from tests.sim.faults import (
    ACTS,
    AIMS,
    SHORT_S,
    ZOMBIE_S,
    Aim,
    Air,
    Fault,
    outage,
    schedule,
    weather,
)
from tests.sim.history import (
    CLOSING_S,
    CLOSING_S_MAX,
    END_S,
    FAULTS_UNTIL_S,
    HASHES,
    OWNED_BY_S,
    RECORDS_UNTIL_S,
    SIZES_MS,
    SWEPT_S,
    History,
    Put,
    Reshard,
    plan_of,
    record,
)
from tests.sim.loop import CURRENT, Host, SimLoop
from tests.sim.network import Network
from tests.sim.process import Process
from tests.sim.services import STREAM, Services
from tests.sim.truth import Taken
from tests.virtual_time import START_MS

LEAVE_S = 30.0  # a process that is told to stop is gone by then
STEP_S = 1.0  # how often a breach is looked for


class World:
    def __init__(self, loop: SimLoop, history: History) -> None:
        self.loop, self.history = loop, history
        self.lines: list[str] = []
        self.services = Services(loop)
        self.services.model.create_stream(STREAM, history.shards, START_MS)
        self.checkers = Checkers(self.services, self.note)
        self.air = Air(loop, history.seed, self._on_aim)
        self.air.on_mark = self._on_mark
        self.network = Network(loop, self.air, self.checkers)
        self.taken: list[Taken] = []
        self.processes: list[Process] = []
        self.started = 0
        self._rng = random.Random(f"world/{history.seed}")
        self._stragglers = 0
        self._latest: dict[tuple[str, str], int] = {}  # (key, type) → event time
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- the log

    def note(self, host: Host | None, text: str) -> None:
        who = host.name if isinstance(host, Process) else "world"
        self.lines.append(f"{self.loop.now:9.3f}  {who:6} {text}")

    def _on_told(self, process: Process, path: str, text: str) -> None:
        self.note(process, f"{path} {text}".rstrip())
        self.checkers.paths[path] += 1

    # ---- the story

    async def play(self) -> None:
        for _ in range(self.history.workers):
            self._start()
        for at_s, event in self._events():
            await self._until(at_s)
            self._happen(event)
        self._calm()
        await self._until(OWNED_BY_S)
        self._check_owned()
        await self._until(CLOSING_S)
        while self._windows_open() and self.loop.now < CLOSING_S_MAX:
            await self._until(self.loop.now + STEP_S)
        await self._close()

    async def _close(self) -> None:
        """One more worker takes everything over; its claims sweep what earlier owners left."""
        closing_s = self.loop.now
        leaving = [p for p in self.processes if not p.is_dead]
        self._start()
        await self._until(closing_s + 5)
        await asyncio.gather(*(self._stop(p) for p in leaving))
        await self._until(max(END_S, closing_s + SWEPT_S))
        self._check_owned()
        await self._stop(self.processes[-1])
        await asyncio.gather(*self._tasks)

    def _events(self) -> Iterator[tuple[float, Any]]:
        batches: dict[float, list[Put]] = {}
        for put in self.history.puts:
            batches.setdefault(put.at_s, []).append(put)
        events: list[tuple[float, int, Any]] = [
            *((at_s, 0, batch) for at_s, batch in batches.items()),
            *((one.at_s, 1, one) for one in self.history.reshards),
            *((one.at_s, 2, one) for one in schedule(self.history)),
            (FAULTS_UNTIL_S, 3, None),
        ]
        for at_s, _, event in sorted(events, key=lambda event: event[:2]):
            yield at_s, event

    async def _until(self, at_s: float) -> None:
        while self.loop.now < at_s:
            await asyncio.sleep(min(STEP_S, at_s - self.loop.now))
            if self.checkers.breach is not None:
                raise self.checkers.breach

    def _happen(self, event: Any) -> None:
        match event:
            case list():
                self.put(event)
            case Reshard():
                self._reshard(event)
            case Fault():
                self._strike(event)

    # ---- processes

    def _start(self, changed: bool = False) -> Process:
        self.started += 1
        name = f"w{self.started}"
        history = self.history
        process = Process(
            name,
            f"{name}/{history.seed}",
            history.drift,
            self.services,
            self.network,
            self._on_told,
        )
        process.start(plan_of(history.checkpoint_ms, changed))
        self.processes.append(process)
        self.note(process, f"starts, its clock at {process.rate:.4f}")
        return process

    async def _stop(self, process: Process) -> None:
        if process.is_dead:
            return
        self.note(process, "is told to stop")
        process.stopping.set()
        done, _ = await asyncio.wait([process.task], timeout=LEAVE_S)
        if process.is_dead:
            return
        if not done:
            raise Breach("leaving", f"{process.name} is there {LEAVE_S:g} s after its SIGTERM")
        process.is_dead = True
        self.note(process, "has stopped")
        process.task.result()

    async def _crash(self, process: Process, restart_s: float) -> None:
        if process.is_dead:
            return
        self.note(process, "crashes")
        self._thaw(process)
        await process.crash()
        await asyncio.sleep(restart_s)
        self._start()

    async def _pause(self, process: Process, seconds: float) -> None:
        if process.is_dead or process.is_frozen:
            return
        self.note(process, f"stands still for {seconds:.1f} s")
        self.loop.freeze(process)
        await asyncio.sleep(seconds)
        self._thaw(process)

    def _thaw(self, process: Process) -> None:
        if process.is_frozen:
            self.note(process, "goes on")
            self.loop.thaw(process)

    def _windows_open(self) -> int:
        views = (view for p in self._alive() for view in p.worker.shards().values())
        return sum(view.windows_open for view in views)

    def _alive(self) -> list[Process]:
        return [p for p in self.processes if not p.is_dead and not p.stopping.is_set()]

    def _do(self, work: Any) -> None:
        token = CURRENT.set(None)
        try:
            task = self.loop.create_task(work)
        finally:
            CURRENT.reset(token)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            known = self.checkers.breach
            self.checkers.breach = known or (
                error if isinstance(error, Breach) else Breach("process", repr(error))
            )

    # ---- the stream

    def put(self, batch: list[Put]) -> None:
        services = self.services
        now_ms = services.now_ms()
        records = [NewRecord(one.payload, one.key) for one in batch]
        placed = services.model.put(STREAM, records, now_ms)
        for one in batch:
            self._latest[one.key, one.type] = one.at_ms
        for one, where in zip(batch, placed, strict=True):
            assert where.sequence_number is not None
            self.taken.append(
                Taken(where.shard_id, where.sequence_number, one.key, one.payload, now_ms)
            )

    def _on_mark(self, row: ShardRow) -> None:
        """An idle shard's time is about to go on: now and then, a record comes that is too old."""
        if self.loop.now > RECORDS_UNTIL_S or self._rng.random() < 0.5:
            return
        closing = row.marks[-1].mark.watermark_ms
        for (key, type_), at_ms in sorted(self._latest.items()):
            size_ms = SIZES_MS.get(type_)
            if size_ms is None or not row.shard.first_hash <= HASHES[key] <= row.shard.last_hash:
                continue
            if at_ms // size_ms * size_ms + size_ms <= closing:
                delay_s = self._rng.uniform(0.01, 25)
                self.loop.in_the_world(delay_s, self._put_straggler, key, type_, at_ms)
                return

    def _put_straggler(self, key: str, type_: str, at_ms: int) -> None:
        self._stragglers += 1
        self.note(None, f"a straggler for {key}, {at_ms}")
        self.put([record(self.loop.now, key, f"s{self._stragglers}", type_, at_ms, 1)])

    def _reshard(self, reshard: Reshard) -> None:
        stream = self.services.model.streams[STREAM]
        now_ms = self.services.now_ms()
        open_ = stream.open_shards
        at = int(reshard.draw * len(open_))
        match reshard.kind:
            case "split":
                shard = open_[at]
                width = shard.hash_range.last - shard.hash_range.first
                share = 0.2 + 0.6 * (reshard.draw * 1000 % 1)
                stream.split(shard.shard_id, shard.hash_range.first + int(width * share), now_ms)
                self.note(None, f"splits {short(shard.shard_id)}")
            case "merge" if len(open_) > 2:
                one, other = open_[at - 1 if at else 0], open_[at if at else 1]
                stream.merge(one.shard_id, other.shard_id, now_ms)
                self.note(None, f"merges {short(one.shard_id)} and {short(other.shard_id)}")
            case _:
                target = len(open_) + (1 if reshard.draw < 0.5 or len(open_) < 4 else -1)
                stream.scale(target, now_ms)
                self.note(None, f"scales to {target} shards")
        self.checkers.paths[f"reshard by {reshard.kind}"] += 1

    # ---- faults

    def _strike(self, fault: Fault) -> None:
        rng = random.Random(fault.draw)
        alive = self._alive()
        now = self.loop.now
        self.air.counts[fault.kind] += 1
        match fault.kind:
            case "weather":
                self.air.weather.append(weather(rng, list(alive), now))
                self.note(None, f"weather: {self.air.weather[-1]}")
            case "outage":
                self.air.weather.append(outage(rng, list(alive), now))
                self.note(None, f"outage: {self.air.weather[-1]}")
            case "aim":
                aim = Aim(fault.at or rng.choice(AIMS), rng.choice(ACTS), rng.randrange(4))
                self.air.aims.append(aim if not fault.at else replace(aim, skip=0))
                self.note(None, f"aims: {aim.act} at a {aim.kind}")
            case "crash" if alive:
                self._do(self._crash(rng.choice(alive), rng.uniform(0.5, 20)))
            case "pause" if alive:
                seconds = rng.uniform(*rng.choice((ZOMBIE_S, ZOMBIE_S, SHORT_S)))
                self._do(self._pause(rng.choice(alive), seconds))
            case "deploy":
                self._do(self._deploy(rng))
            case "damage":
                self._damage(rng)
            case "refusal":
                self.services.refusals.until_s = now + rng.uniform(5, 60)

    def _damage(self, rng: random.Random) -> None:
        """A state that has an older one beside it can't be read any more, and its owner crashes."""
        services = self.services
        states = [
            (row.owner, row.pairs[-1].state.key)
            for row in self.checkers.rows.values()
            if len(row.pairs) == 2 and row.pairs[0].state and row.pairs[1].state and row.owner
        ]
        if not states:
            return
        owner, key = rng.choice(sorted(states))
        store = services.content.blobs if key in services.content.blobs else services.blobs
        store[key] = b"damaged" + store[key]
        self.note(None, f"damages {key[-60:]}")
        for process in self._alive():
            if process.worker.worker_id == owner:
                self._do(self._crash(process, rng.uniform(0.5, 15)))

    async def _deploy(self, rng: random.Random) -> None:
        self.note(None, "a deploy begins")
        for process in self._alive():
            self._start()
            await asyncio.sleep(rng.uniform(1, 8))
            process.stopping.set()
            self.note(process, "is told to stop")
            await asyncio.wait([process.task], timeout=LEAVE_S + 20)
            if not process.is_dead:
                process.is_dead = True
                self.note(process, "has stopped" if process.task.done() else "is killed")
                if process.task.done():
                    process.task.result()
                else:
                    self._thaw(process)
                    await process.crash()

    def _on_aim(self, aim: Aim, host: Host, duration_s: float) -> None:
        assert isinstance(host, Process)
        self.note(host, f"meets {aim.act} at a {aim.kind}")
        if duration_s:
            self._do(self._pause(host, duration_s))
        else:
            self._do(self._crash(host, self._rng.uniform(0.5, 15)))

    def _calm(self) -> None:
        self.note(None, "the faults stop")
        self.air.clear()
        for process in self.processes:
            self._thaw(process)
        while len(self._alive()) < 2:
            self._start()

    # ---- liveness

    def _check_owned(self) -> None:
        """Every shard that can be read is owned by somebody who lives."""
        rows = self.checkers.rows
        workers = self.services.content.workers
        living = {id_ for (_, id_), row in workers.items() if not row.buried}
        for shard_id in self.services.model.streams[STREAM].shards:
            row = rows.get(shard_id)
            if row is None or not (row.ended or row.owner in living):
                owner = None if row is None else self.checkers.name_of(row.owner)
                raise Breach("liveness", f"{short(shard_id)} is owned by {owner}")
