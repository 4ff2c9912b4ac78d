"""One worker's leases: which to claim, keep, hand over and drop. A machine: pure, `now` comes in.

The rules, in order of importance:

1. No effect (claim, burial, release, what a shard's task does) starts with less validity left than
   the margin; validity counts from the send of the last good heartbeat. After it lapsed: a good
   heartbeat, then a consistent read of the shard rows, then effects.
2. A worker whose row is gone or buried is dead: it drops everything; its process joins as another.
3. A dead worker is buried first, by one conditional update; only then are its shards claimed.
4. Every claim raises the epoch, of one's own shards too: a task that failed starts under a new one.

A lease goes through these stages; no other change is legal:

    RUNNING → STOPPING → STOPPED → GIVEN → gone      handed over, or the worker stops
    RUNNING → FAILED → RUNNING (new epoch)           the task failed; after `failures_max`: PARKED
    RUNNING → gone                                   the shard ended
    any     → gone                                   lost
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from processor.core import commands as c
from processor.core.fleet import Fleet
from processor.core.lineage import seeks_of
from processor.core.rows import Held, ShardRow, WorkerRow, claimed, released

CLAIMS_MAX = 16  # under way at once: the client's pool holds more connections than that
POLLS_MAX = 16  # single rows read at once, likewise


class Stage(Enum):
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    GIVEN = "given"
    FAILED = "failed"
    PARKED = "parked"


TaskEnd = Literal["stopped", "failed", "waited", "unreadable", "lost"]


@dataclass(slots=True)
class Lease:
    """One shard that we own (or just released: GIVEN)."""

    row: ShardRow
    stage: Stage
    since: float
    until: float = 0.0  # STOPPING: cancel; GIVEN: forget; FAILED: claim anew
    rests_until: float = 0.0
    to: str | None = None
    failures: int = 0


class Machine:
    """The leases of worker `worker_id`; a new id is a new machine."""

    def __init__(self, worker_id: str, timing: c.Timing) -> None:
        self.worker_id = worker_id
        self.leases: dict[str, Lease] = {}
        self.is_dead = False
        self.is_finished = False
        self._timing = timing
        self._fleet = Fleet(worker_id, timing)
        self._busy: set[str] = set()
        self._not_before: dict[str, float] = {}  # after a failure, by command key
        self._outbox: list[c.Command] = []  # Run, Stop and Cancel of changes of stage
        self._wake_at: float | None = None
        self._joined = False
        self._draining = False
        self._drain_until = 0.0
        self._counter = 0
        self._told: tuple[Held, ...] | None = None  # what our row says we hold
        self._valid_until = 0.0
        self._reread_since: float | None = None  # validity lapsed: no effects before such a read
        self._sent_at = 0.0
        self._heartbeat_at = 0.0
        self._workers_at = 0.0
        self._workers_reads = 0
        self._shards_at = 0.0
        self._discover_at = 0.0

    def __repr__(self) -> str:
        stages = {key: lease.stage.value for key, lease in sorted(self.leases.items())}
        flags = [name for name in ("is_dead", "_draining", "is_finished") if getattr(self, name)]
        return f"<Machine {self.worker_id} {' '.join(flags)} {stages}>"

    # ---- questions

    def valid_for_s(self, now: float) -> float:
        """Seconds in which effects may still start; 0 and less: none may."""
        if self.is_dead or self._reread_since is not None:
            return 0.0
        return self._valid_until - self._timing.margin_s - now

    def wake_at(self) -> float | None:
        """When to call `commands` again if no fact comes before."""
        return None if self._wake_at == float("inf") else self._wake_at

    def knows(self, shard_id: str) -> bool:
        """Whether the shard had a row when rows were read last."""
        return shard_id in self._fleet.shards

    def rows(self) -> dict[str, ShardRow]:
        return {key: seen.row for key, seen in self._fleet.shards.items()}

    # ---- facts: our row

    def on_heartbeat(self, alive: bool, sent_at: float, now: float) -> None:
        """The answer to Join or Heartbeat."""
        self._busy.discard("heartbeat")
        if not alive:
            self._die()
            return
        if self._joined and now > self._valid_until:
            self._reread_since = now
            self._shards_at = now
            self._fleet.restart_counts()
        self._joined = True
        self._valid_until = max(self._valid_until, sent_at + self._timing.validity_s)
        self._heartbeat_at = sent_at + self._timing.heartbeat_s

    def on_left(self) -> None:
        """The answer to Leave."""
        self._busy.discard("heartbeat")
        self.is_finished = True

    def on_stop(self, now: float) -> None:
        """Give everything up in good order, within the drain time."""
        if not self._draining:
            self._draining = True
            self._drain_until = now + self._timing.drain_s
            self._told = None

    def on_failed(self, command: c.Command, now: float) -> None:
        """A call failed or hung: whether it was applied shows when it is repeated."""
        key = c.key_of(command)
        self._busy.discard(key)
        self._not_before[key] = now + self._timing.retry_s
        if isinstance(command, c.ReadWorkers):
            self._fleet.restart_counts()

    # ---- facts: what was read

    def on_workers(self, rows: Sequence[WorkerRow], now: float) -> None:
        self._busy.discard("ReadWorkers")
        self._workers_at = now + self._timing.read_s
        self._workers_reads += 1
        known = self._fleet.live()
        self._fleet.on_workers(rows, now)
        if set(known) - set(self._fleet.live()):
            self._shards_at = now  # somebody went: what was his is claimed by its rows
        mine = self._fleet.workers.get(self.worker_id)
        if mine is None or mine.buried:
            self._die()

    def on_shards(
        self, rows: Iterable[ShardRow], sent_at: float, now: float, jitter: float | None = None
    ) -> None:
        """All shard rows, read after `sent_at`.

        `jitter`: with a discovery only; 0.8 to 1.2, spreads the next one.
        """
        self._busy.discard("ReadShards")
        if self._shards_at <= sent_at:
            self._shards_at = float("inf")
        if jitter is not None:
            share = max(1, len(self._fleet.live())) / 8
            self._discover_at = now + self._timing.discovery_s * share * jitter
        self._fleet.on_shards(rows, now)
        for lease in list(self.leases.values()):
            self._compare(lease)
        if self._reread_since is not None and sent_at >= self._reread_since:
            self._reread_since = None

    def on_shard(self, shard_id: str, row: ShardRow | None, now: float) -> None:
        """One row, by a read or because a write of ours was refused."""
        self._busy.discard(f"shard {shard_id}")
        if row is None:
            self._fleet.shards.pop(shard_id, None)
            return
        self._fleet.on_shard(row, now)
        if shard_id in self.leases:
            self._compare(self.leases[shard_id])

    # ---- facts: what we wrote

    def on_buried(self, worker_id: str, now: float) -> None:
        """The answer to Bury or Forget, applied or not: the next read says what stands."""
        self._busy.discard(f"worker {worker_id}")
        self._workers_at = now
        self._not_before[f"worker {worker_id}"] = now + self._timing.retry_s

    def on_claimed(self, row: ShardRow, now: float) -> None:
        """A claim was applied: `row` is ours from here on."""
        self._busy.discard(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        known = self.leases.get(row.id)
        lease = Lease(row, Stage.RUNNING, now, failures=known.failures if known else 0)
        if row.moved:
            lease.rests_until = now + self._timing.rest_s
        self.leases[row.id] = lease
        self._outbox.append(c.Run(row))

    def on_released(self, row: ShardRow, now: float) -> None:
        """A release was applied; we speak of the shard until its successor had time to claim it."""
        self._busy.discard(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        lease = self.leases.get(row.id)
        if lease is not None and lease.row.epoch == row.epoch:
            lease.stage = Stage.GIVEN
            lease.until = now + self._timing.successor_s

    # ---- facts: shard tasks

    def on_committed(self, row: ShardRow) -> None:
        """The task committed: it gets on, so earlier failures no longer count."""
        lease = self.leases.get(row.id)
        if lease is not None and lease.row.epoch == row.epoch:
            if row.position != lease.row.position:
                lease.failures = 0
            lease.row = row

    def on_ended(self, row: ShardRow, children: Iterable[ShardRow], now: float) -> None:
        """The shard is at its end for good, and its children exist."""
        self._fleet.on_shard(row, now)
        for child in children:
            self._fleet.on_shard(child, now)
        self.leases.pop(row.id, None)

    def on_task_end(self, row: ShardRow, how: TaskEnd, now: float) -> None:
        """The task of `row`, as it last knew it, ended; `waited`: for what will be back."""
        lease = self.leases.get(row.id)
        if lease is None or lease.row.epoch != row.epoch:
            return
        if how == "lost":
            del self.leases[row.id]
            return
        lease.row = row
        if lease.stage is Stage.STOPPING:
            lease.stage = Stage.STOPPED
        elif how == "unreadable":
            lease.stage = Stage.PARKED
        else:
            self._fail(lease, how, now)

    def _fail(self, lease: Lease, how: TaskEnd, now: float) -> None:
        lease.failures += how != "waited"
        lease.stage = Stage.FAILED
        if lease.failures >= self._timing.failures_max:
            lease.stage = Stage.PARKED
        wait_s = self._timing.backoff_s * 2 ** max(0, lease.failures - 1)
        lease.until = now + min(wait_s, self._timing.backoff_max_s)

    def _compare(self, lease: Lease) -> None:
        """Take over what the row as last seen says of our lease; drop it if it is not ours."""
        seen = self._fleet.shards.get(lease.row.id)
        if seen is None or seen.row.epoch > lease.row.epoch:
            self._drop(lease)
        elif seen.row.epoch == lease.row.epoch and lease.stage is not Stage.GIVEN:
            has_task = lease.stage in (Stage.RUNNING, Stage.STOPPING)
            if seen.row.owner == self.worker_id:
                lease.row = max(lease.row, seen.row, key=lambda row: row.commit)
            elif not (has_task and seen.row.ended):  # else the task is about to tell us so itself
                self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        del self.leases[lease.row.id]
        self._outbox.append(c.Cancel(lease.row.id))

    def _die(self) -> None:
        self.is_dead = True
        for lease in list(self.leases.values()):
            self._drop(lease)

    # ---- commands

    def commands(self, now: float) -> list[c.Command]:
        """What to attempt now; each is answered by a fact, or by `on_failed`."""
        self._wake_at = None
        wanted = self._outbox
        self._outbox = []
        if not self.is_dead and not self.is_finished:
            self._advance(now)
            wanted += [*self._outbox, *self._own(now), *self._reads(now)]
            self._outbox = []
            if self.valid_for_s(now) > 0:
                wanted += self._effects(now)
        return [command for command in wanted if self._start(command, now)]

    def _start(self, command: c.Command, now: float) -> bool:
        """Whether it may go out: nothing of its key is under way, or waits after a failure."""
        if isinstance(command, c.Run | c.Stop | c.Cancel):
            return True
        key = c.key_of(command)
        if key in self._busy or not self._is_due(self._not_before.get(key, now), now):
            return False
        self._not_before.pop(key, None)
        self._busy.add(key)
        if isinstance(command, c.Heartbeat | c.Join):
            self._counter = command.row.counter
            self._told = command.row.held
            self._sent_at = now
        return True

    def _is_due(self, at: float, now: float) -> bool:
        if at <= now:
            return True
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
        return False

    def _advance(self, now: float) -> None:
        """Changes of stage that time alone brings."""
        if self._draining:
            self._drain(now)
        for lease in list(self.leases.values()):
            key = lease.row.id
            if lease.stage is Stage.STOPPING and self._is_due(lease.until, now):
                self._outbox.append(c.Cancel(key))
                lease.until = float("inf")
            elif lease.stage is Stage.GIVEN:
                taken = key in self._fleet.held_by_others()
                if taken or self._is_due(lease.until, now):
                    del self.leases[key]

    def _drain(self, now: float) -> None:
        heirs = self._fleet.heirs(self.leases, now)
        for key, lease in self.leases.items():
            if lease.stage is Stage.RUNNING:
                self._give(lease, heirs.get(key), self._drain_until)
            elif lease.stage in (Stage.FAILED, Stage.PARKED):
                lease.stage, lease.to = Stage.STOPPED, heirs.get(key)
        if self._is_due(self._drain_until + 2 * self._timing.margin_s, now):
            self.is_finished = True  # the table is out of reach: our TTL hands over what is left

    def _give(self, lease: Lease, to: str | None, until: float) -> None:
        lease.stage, lease.to, lease.until = Stage.STOPPING, to, until
        self._outbox.append(c.Stop(lease.row.id))

    def _held(self, now: float) -> dict[str, Held]:
        return {
            key: Held(key, lease.row.epoch, now < lease.rests_until, lease.to)
            for key, lease in sorted(self.leases.items())
        }

    def _own(self, now: float) -> Iterator[c.Command]:
        """Our own row: a heartbeat when it is due, and at once when it would say something new."""
        held = tuple(self._held(now).values())
        row = WorkerRow(self.worker_id, self._counter + 1, draining=self._draining, held=held)
        if not self._joined:
            yield c.Join(row)
        elif self._draining and all(lease.stage is Stage.GIVEN for lease in self.leases.values()):
            yield c.Leave(self.worker_id)
        elif self._is_due(self._heartbeat_at, now) or (
            held != self._told and self._is_due(self._sent_at + self._timing.poll_s, now)
        ):
            yield c.Heartbeat(row)

    def _reads(self, now: float) -> Iterator[c.Command]:
        if not self._joined:
            return
        if self._is_due(self._workers_at, now):
            yield c.ReadWorkers()
        if self._is_due(self._shards_at, now):  # first: it must not wait for the stream's service
            yield c.ReadShards(discover=False)
        elif self._is_due(self._discover_at, now):
            yield c.ReadShards(discover=True)

    def _effects(self, now: float) -> Iterator[c.Command]:
        yield from self._releases()
        if self._draining:
            return
        yield from self._burials(now)
        yield from self._reclaims(now)
        if self._workers_reads > 1 and self._fleet.is_current(
            now
        ):  # who started with us has shown up by the second read
            yield from self._claims(now)
            self._even_out(now)

    def _releases(self) -> Iterator[c.Command]:
        for lease in self.leases.values():
            if lease.stage is Stage.STOPPED:
                moved = not self._draining
                yield c.Release(lease.row, released(lease.row, lease.to, moved=moved))

    def _burials(self, now: float) -> Iterator[c.Command]:
        for row in self._fleet.to_bury(now):
            yield c.Bury(row.id, row.counter)
        death_at = self._fleet.next_death_at()
        if death_at is not None and death_at > now:
            self._is_due(death_at, now)
        for worker_id in self._fleet.to_forget():
            yield c.Forget(worker_id)

    def _reclaims(self, now: float) -> Iterator[c.Command]:
        """Shards whose task failed: again, from the last checkpoint, under a new epoch."""
        for lease in self.leases.values():
            if lease.stage is Stage.FAILED and self._is_due(lease.until, now):
                yield self._claim(lease.row)

    def _claims(self, now: float) -> Iterator[c.Command]:
        wanted = self._fleet.wanted(self._held(now), now) | self._fleet.announced()
        claims = polls = 0
        for key in sorted(wanted & self._fleet.shards.keys()):
            if claims < CLAIMS_MAX and self._fleet.is_claimable(key, now):
                claims += 1
                yield self._claim(self._fleet.shards[key].row)
            elif polls < POLLS_MAX and not self._fleet.is_claimable(key, now):
                polls += 1
                yield from self._poll(key, now)

    def _poll(self, shard_id: str, now: float) -> Iterator[c.Command]:
        """Read one row again: it is about to be released to us, or nobody seems to hold it."""
        read_at = self._fleet.shards[shard_id].read_at
        if self._is_due(read_at + self._timing.poll_s, now):
            yield c.ReadShard(shard_id)

    def _claim(self, row: ShardRow) -> c.Claim:
        return c.Claim(row, claimed(row, self.worker_id, seeks_of(row, self.rows())))

    def _even_out(self, now: float) -> None:
        """Begin to give one lease away, if we hold too many and none is on its way already."""
        if any(lease.to is not None for lease in self.leases.values()):
            return
        movable = {
            key
            for key, lease in self.leases.items()
            if lease.stage is Stage.RUNNING and lease.rests_until <= now
        }
        move = self._fleet.next_move(self._held(now), movable, now)
        if move is not None:
            self._give(self.leases[move.shard_id], move.taker, now + self._timing.drain_s)
            self._wake_at = now
