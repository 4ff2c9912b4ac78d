"""Lease machines over the memory table in virtual time, without a shell: for tests of the rules.

Every command takes effect after a delay and is answered after another; a worker may be cut off from
the table (its commands hang and then fail), frozen (it does nothing at all, and goes on later as if
nothing had been), or killed. After every event the world checks what must never be: two workers
that may both act on one shard.
"""

import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from processor.core.leases import commands as c
from processor.core.leases.machine import Machine
from processor.core.leases.rows import (
    Pair,
    ShardRow,
    StreamKey,
    committed,
    fresh_row,
    of_generation,
)
from processor.core.leases.stages import Stage
from processor.errors import Outage
from processor.model import TRIM_HORIZON, Position, Shard
from processor.stores.memory import MemoryContent, MemoryTable

T = TypeVar("T")

STREAM = StreamKey("orders", 1_600_000_000_000)
HANG_S = 2.0  # what hangs fails after this
TIMING = c.Timing()


def shard_id(number: int) -> str:
    return f"shardId-{number:012d}"


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The memory table never really waits."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result


class World:
    def __init__(
        self, shards: int, seed: int = 0, delay_s: float = 0.02, timing: c.Timing = TIMING
    ) -> None:
        self.now = 0.0
        self._timing = timing
        self.content = MemoryContent()
        self.table = MemoryTable(self.content)
        self.machines: dict[str, Machine] = {}
        self.killed: set[str] = set()
        self.frozen_until: dict[str, float] = {}
        self.cut_until: dict[str, float] = {}
        self.fetch_s: dict[str, float] = {}  # how long a worker takes to fetch a state ahead
        self.log: list[str] = []
        self._delay_s = delay_s
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._asleep: dict[str, float] = {}
        self._generations: dict[str, int] = {}
        rows = [fresh_row(STREAM, Shard(shard_id(n)), TRIM_HORIZON) for n in range(shards)]
        at_once(self.table.create_shards(rows))

    # ---- what happens to workers

    def join(self, name: str, generation: int = 0) -> None:
        self.machines[name] = Machine(name, self._timing, generation)
        self._generations[name] = generation
        self._step(name)

    def kill(self, name: str) -> None:
        self.killed.add(name)

    def freeze(self, name: str, seconds: float) -> None:
        self.frozen_until[name] = max(self.frozen_until.get(name, 0), self.now + seconds)

    def cut_off(self, name: str, seconds: float) -> None:
        self.cut_until[name] = max(self.cut_until.get(name, 0), self.now + seconds)

    def stop(self, name: str) -> None:
        if name in self.machines:
            self.machines[name].on_stop(self.now)
            self._step(name)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._check()
        self.now = until

    # ---- what is asked

    def owners(self) -> dict[str, str | None]:
        return {key: row.owner for (_, key), row in sorted(self.content.shards.items())}

    def row(self, key: str) -> ShardRow:
        return self.content.shards[STREAM, key]

    def table_row(self, key: str, **changes: Any) -> None:
        """The row as somebody left it before all of this."""
        self.content.shards[STREAM, key] = replace(self.row(key), **changes)

    def counts(self) -> dict[str, int]:
        owned = list(self.owners().values())
        return {name: owned.count(name) for name in sorted(self.machines) if self._lives(name)}

    def epochs(self) -> dict[str, int]:
        return {key: row.epoch for (_, key), row in sorted(self.content.shards.items())}

    def acting(self, key: str) -> list[str]:
        """Workers that may act on a shard now; an effect may last as long as validity does."""
        return [
            name
            for name, machine in self.machines.items()
            if name not in self.killed
            and key in machine.leases
            and machine.leases[key].has_task
            and machine.valid_for_s(self.now) + TIMING.margin_s > 0
        ]

    # ---- how it runs

    def _lives(self, name: str) -> bool:
        machine = self.machines[name]
        return name not in self.killed and not machine.is_dead and not machine.is_finished

    def _at(self, at: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, event))

    def _delay(self) -> float:
        return self._rng.uniform(0.1, 2) * self._delay_s

    def _step(self, name: str) -> None:
        """Ask the machine, send its commands, and come back when it wants."""
        if name in self.killed:
            return
        if self.frozen_until.get(name, 0) > self.now:
            self._at(self.frozen_until[name], lambda: self._step(name))
            return
        machine = self.machines[name]
        for command in machine.commands(self.now):
            self._send(name, machine, command)
        wake_at = machine.wake_at()
        if wake_at is not None:
            self._at(max(wake_at, self.now + 0.001), lambda: self._wake(name, wake_at))
            self._asleep[name] = wake_at

    def _wake(self, name: str, at: float) -> None:
        if self._asleep.get(name) == at:  # else an earlier step made another appointment
            self._step(name)

    def _send(self, name: str, machine: Machine, command: c.Command) -> None:
        self.log.append(f"{self.now:7.2f} {name} {describe(command)}")
        if isinstance(command, c.Run | c.Stop | c.Cancel | c.Forgo):
            self._at(self.now + self._delay(), lambda: self._task(name, machine, command))
            return
        sent_at = self.now
        if self.cut_until.get(name, 0) > self.now:
            self._at(self.now + HANG_S, lambda: self._fail(name, machine, command))
            return

        def take_effect() -> None:
            answer = self._effect(command, sent_at)
            extra_s = self.fetch_s.get(name, 0) if isinstance(command, c.Prefetch) else 0
            at = self.now + self._delay() + extra_s
            self._at(at, lambda: self._answer(name, machine, answer))

        self._at(self.now + self._delay(), take_effect)

    def _fail(self, name: str, machine: Machine, command: c.Command) -> None:
        if self._postponed(name, lambda: self._fail(name, machine, command)):
            return
        machine.on_failed(command, self.now)
        self._step(name)

    def _answer(self, name: str, machine: Machine, answer: Callable[[Machine], None]) -> None:
        if self._postponed(name, lambda: self._answer(name, machine, answer)):
            return
        answer(machine)
        self._step(name)

    def _postponed(self, name: str, event: Callable[[], None]) -> bool:
        if name in self.killed:
            return True
        if self.frozen_until.get(name, 0) > self.now:
            self._at(self.frozen_until[name], event)
            return True
        return False

    def _effect(self, command: c.Command, sent_at: float) -> Callable[[Machine], None]:
        """Carry a command out; what it answers, as the fact to tell."""
        table = self.table
        match command:
            case c.Join(row=row):
                at_once(table.join(STREAM, row))
                return lambda m: m.on_heartbeat(True, sent_at, self.now)
            case c.Heartbeat(row=row):
                alive = at_once(table.heartbeat(STREAM, row))
                return lambda m: m.on_heartbeat(alive, sent_at, self.now)
            case c.Leave(worker_id=worker_id):
                at_once(table.delete_worker(STREAM, worker_id))
                return lambda m: m.on_left()
            case c.Forget(worker_id=worker_id):
                at_once(table.delete_worker(STREAM, worker_id))
                return lambda m: m.on_buried(worker_id, False, self.now)
            case c.Bury(worker_id=worker_id, counter=counter):
                applied = at_once(table.bury(STREAM, worker_id, counter))
                return lambda m: m.on_buried(worker_id, applied, self.now)
            case c.ReadWorkers(first=first, count=count):
                workers = at_once(table.read_workers(STREAM, first, count))
                return lambda m: m.on_workers(workers, self.now, command)
            case c.ReadShards(discover=discover):
                rows = at_once(table.read_shards(STREAM))
                jitter = self._rng.uniform(0.8, 1.2) if discover else None
                return lambda m: m.on_shards(rows, sent_at, self.now, jitter)
            case c.ReadShard(shard_id=key):
                row_now = at_once(table.read_shard(STREAM, key))
                return lambda m: m.on_shard(key, row_now, self.now)
            case c.Prefetch(shard_id=key, epoch=epoch):
                row_now = at_once(table.read_shard(STREAM, key))
                return lambda m: m.on_fetched(key, epoch, row_now, self.now)
            case c.ReadFamily(child_id=child_id, shard_ids=ids):
                found = [at_once(table.read_shard(STREAM, one)) for one in ids]
                family = [one for one in found if one is not None]
                return lambda m: m.on_family(child_id, family, self.now)
            case c.Claim(before=before, after=after) | c.Release(before=before, after=after):
                written = at_once(table.write(before, after))
                if not written.applied:
                    return lambda m: m.on_shard(before.id, written.row, self.now)
                if isinstance(command, c.Claim):
                    return lambda m: m.on_claimed(after, self.now)
                return lambda m: m.on_released(after, self.now)
        raise AssertionError(command)

    def _task(self, name: str, machine: Machine, command: c.Command) -> None:
        """Asked to stop, a shard's task commits once more, and returns; cancelled, it ends."""
        if self._postponed(name, lambda: self._task(name, machine, command)):
            return
        if isinstance(command, c.Stop) and command.shard_id in machine.leases:
            self._commit(machine, command.shard_id)
        elif isinstance(command, c.Cancel) and command.shard_id in machine.leases:
            machine.on_task_end(machine.leases[command.shard_id].row, "waited", self.now)
        self._step(name)

    def _commit(self, machine: Machine, key: str) -> None:
        row = machine.leases[key].row
        pair = Pair(Position("after", str(row.commit + 1)), row.commit + 1)
        after = committed(row, row.pairs[-1], pair, f"{machine.worker_id} {row.commit}")
        after = of_generation(after, self._generations[machine.worker_id])
        try:
            written = at_once(self.table.write(row, after))
        except Outage:
            return
        if written.applied:
            machine.on_committed(after)
        machine.on_task_end(after if written.applied else row, "stopped", self.now)

    def _check(self) -> None:
        for (_, key), row in self.content.shards.items():
            acting = self.acting(key)
            assert len(acting) <= 1, f"{self.now:.2f}: {acting} may both act on {key}: {row}"


def describe(command: c.Command) -> str:
    """One line of a transcript."""
    match command:
        case c.Join() | c.Heartbeat():
            row = command.row
            held = " ".join(
                f"{one.shard_id[-1]}e{one.epoch}{'→' + one.to if one.to else ''}"
                for one in row.held
            )
            flag = " draining" if row.draining else ""
            ready = "".join(f" ready {one.shard_id[-1]}e{one.epoch}" for one in row.ready)
            return f"{type(command).__name__} {row.counter}{flag} holds [{held}]{ready}"
        case c.Claim(before=before, after=after):
            return f"Claim {before.id[-1]} of {before.owner} at epoch {after.epoch}"
        case c.Release(after=after):
            return f"Release {after.id[-1]} to {after.successor}"
        case c.Run(row=row):
            return f"Run {row.id[-1]} epoch {row.epoch}"
        case (
            c.Stop(shard_id=key)
            | c.Cancel(shard_id=key)
            | c.ReadShard(shard_id=key)
            | c.Prefetch(shard_id=key)
            | c.Forgo(shard_id=key)
        ):
            return f"{type(command).__name__} {key[-1]}"
        case c.ReadFamily(child_id=key):
            return f"ReadFamily of {key[-1]}"
        case c.Bury(worker_id=worker_id) | c.Forget(worker_id=worker_id):
            return f"{type(command).__name__} {worker_id}"
        case c.ReadShards(discover=discover):
            return "Discover" if discover else "ReadShards"
        case c.ReadWorkers(first=first, count=count) if first is not None:
            return f"ReadWorkers {first}+{count}"
    return type(command).__name__


def is_running(machine: Machine, key: str) -> bool:
    return key in machine.leases and machine.leases[key].stage is Stage.RUNNING
