"""One worker's leases: which to claim, keep, hand over and drop. A machine: pure, `now` comes in.

The rules, in order of importance:

1. No effect (claim, burial, release, what a shard's task does) starts with less validity left than
   the margin; validity counts from the send of the last good heartbeat. After it lapsed: a good
   heartbeat, then a consistent read of the shard rows, then effects.
2. A worker whose row is gone or buried is dead: it drops everything; its process joins as another.
3. A dead worker is buried first, by one conditional update; only then are its shards claimed.
4. Every claim raises the epoch, of one's own shards too: a task that failed starts under a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf

from processor.core import commands as c
from processor.core.agenda import Agenda
from processor.core.fleet import Fleet
from processor.core.handoff import Taking, verdict
from processor.core.lineage import seeks_of
from processor.core.rows import Held, ShardRow, WorkerRow, claimed, released
from processor.core.stages import Lease, Stage, TaskEnd
from processor.core.standing import Standing
from processor.core.succession import Succession

CLAIMS_MAX = 16  # under way at once: the client's pool holds more connections than that
POLLS_MAX = 16  # single rows read at once, likewise
SETTLED_READS = 2  # of worker rows: workers that started with us have shown up by then


class Machine:
    """The leases of worker `worker_id`; a new id is a new machine."""

    def __init__(self, worker_id: str, timing: c.Timing) -> None:
        self.worker_id = worker_id
        self.is_dead = False
        self.is_finished = False
        self._is_leaving = False  # Leave went out: our row may be gone by that
        self._timing = timing
        self._leases: dict[str, Lease] = {}
        self._fleet = Fleet(worker_id, timing)
        self._standing = Standing(worker_id, timing)
        self._succession = Succession()
        self._agenda = Agenda(timing.retry_s)
        self._taking = Taking(worker_id, timing)
        self._outbox: list[c.Command] = []  # what follows changes of stage, and awaits no answer
        self._stop_at: float | None = None  # draining: when tasks stop, ready takers or not
        self._workers_sent_at = -inf
        self._workers_at = 0.0
        self._workers_reads = 0
        self._has_news = False  # rows were read since we last decided what to claim and move
        self._wanted: set[str] = set()
        self._shards_at = 0.0
        self._discover_at = 0.0

    def __repr__(self) -> str:
        flags = [name for name in ("is_dead", "is_draining", "is_finished") if getattr(self, name)]
        stages = {key: lease.stage.value for key, lease in sorted(self._leases.items())}
        return f"<Machine {self.worker_id} {' '.join(flags)} {stages}>"

    # ---- questions

    @property
    def leases(self) -> Mapping[str, Lease]:
        return self._leases

    @property
    def is_draining(self) -> bool:
        return self._stop_at is not None

    def valid_for_s(self, now: float) -> float:
        """Seconds in which effects may still start; 0 and less: none may."""
        return -inf if self.is_dead else self._standing.valid_for_s(now)

    def wake_at(self) -> float | None:
        """When to call `commands` again if no fact comes before; None: after the next fact."""
        return self._agenda.wake_at()

    def rows(self) -> dict[str, ShardRow]:
        """All shard rows as last seen."""
        return dict(self._fleet.rows)

    # ---- facts: our row

    def on_heartbeat(self, alive: bool, sent_at: float, now: float) -> None:
        """The answer to Join or Heartbeat."""
        self._agenda.done("heartbeat")
        if not alive:
            self._die()
        elif not self._standing.on_alive(sent_at, now):
            self._shards_at = now
            self._fleet.restart_counts()

    def on_left(self) -> None:
        """The answer to Leave."""
        self._agenda.done("heartbeat")
        self.is_finished = True

    def on_stop(self, now: float) -> None:
        """Give everything up in good order, within the drain time."""
        if self._stop_at is None:
            self._stop_at = now + self._timing.ready_s
            self._forgo(self._taking.clear())

    def on_doubt(self, now: float) -> None:
        """A reader met another stream under our stream's name: look at once."""
        self._discover_at = min(self._discover_at, now)

    def on_replaced(self) -> None:
        """The stream was deleted and made again: nothing of the old one is worth holding."""
        self._die()

    def on_failed(self, command: c.Command, now: float) -> None:
        """A call failed or hung: whether it was applied shows when it is repeated."""
        self._agenda.failed(c.key_of(command), now)
        if isinstance(command, c.ReadWorkers):
            self._fleet.restart_counts()
        elif isinstance(command, c.ReadShards) and command.discover:
            self._discover_at = now + self._timing.reshard_s  # the service allows few listings

    # ---- facts: what was read

    def on_workers(self, rows: Sequence[WorkerRow], now: float) -> None:
        self._agenda.done("ReadWorkers")
        self._workers_reads += 1
        self._has_news = True
        known = set(self._fleet.live())
        self._fleet.on_workers(rows, now)
        if known - set(self._fleet.live()):
            self._shards_at = now  # somebody went: what was his is claimed by its rows
        if not self.is_draining:
            self._forgo(self._taking.on_workers(self._fleet, now))
        mine = self._fleet.workers.get(self.worker_id)
        if mine.buried if mine is not None else not self._is_leaving:
            self._die()

    def on_shards(
        self,
        rows: Iterable[ShardRow],
        sent_at: float,
        now: float,
        jitter: float | None = None,
        *,
        is_resharding: bool = False,
    ) -> None:
        """All shard rows, read after `sent_at`.

        `jitter`: with a discovery only; 0.8 to 1.2, spreads the next one, which comes soon if the
        listing showed a reshard that is under way.
        """
        self._agenda.done("ReadShards")
        if self._shards_at <= sent_at:
            self._shards_at = inf
        if jitter is not None:
            share = max(1, len(self._fleet.live())) / 8
            period_s = self._timing.discovery_s * share * jitter
            soon_s = self._timing.reshard_s if is_resharding else period_s
            self._discover_at = now + min(period_s, soon_s)
        self._fleet.on_shards(rows, now)
        self._has_news = True
        for lease in list(self._leases.values()):
            self._compare(lease)
        self._standing.on_reread(sent_at)

    def on_shard(self, shard_id: str, row: ShardRow | None, now: float) -> None:
        """One row, by a read or because a write of ours was refused."""
        self._agenda.done(f"shard {shard_id}")
        if row is None:
            self._fleet.on_shard_gone(shard_id)
        else:
            self._fleet.on_shard(row, now)
            self._forgo(self._taking.on_row(row))
        if shard_id in self._leases:
            self._compare(self._leases[shard_id])

    def on_fetched(self, shard_id: str, epoch: int, row: ShardRow | None, now: float) -> None:
        """The answer to Prefetch: what `row` names is fetched, as far as it exists and has room."""
        self._agenda.done(f"prefetch {shard_id}")
        self._taking.on_fetched(shard_id, epoch)
        if row is not None:
            self._fleet.on_shard(row, now)
            self._forgo(self._taking.on_row(row))

    def _forgo(self, shards: Iterable[str]) -> None:
        self._outbox += (c.Forgo(shard_id) for shard_id in shards)

    # ---- facts: what we wrote

    def on_buried(self, worker_id: str, now: float) -> None:
        """The answer to Bury or Forget, applied or not: the next read says what stands."""
        self._agenda.failed(f"worker {worker_id}", now)
        self._workers_at = now

    def on_claimed(self, row: ShardRow, now: float) -> None:
        """A claim was applied: `row` is ours from here on."""
        self._agenda.done(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        self._taking.on_claimed(row.id)
        known = self._leases.get(row.id)
        lease = Lease(row, Stage.RUNNING, now)
        if known is not None:
            lease.failures, lease.waits = known.failures, known.waits
        if row.moved:
            lease.rests_until = now + self._timing.rest_s
        self._leases[row.id] = lease
        self._outbox.append(c.Run(row))

    def on_released(self, row: ShardRow, now: float) -> None:
        """A release was applied; our row names its successor until that had time to claim."""
        self._agenda.done(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        lease = self._leases.get(row.id)
        if lease is not None and lease.row.epoch == row.epoch:
            lease.stage = Stage.GIVEN
            lease.until = now + self._timing.successor_s

    # ---- facts: shard tasks

    def on_committed(self, row: ShardRow) -> None:
        """The task committed; if it got on by that, earlier setbacks no longer count."""
        lease = self._leases.get(row.id)
        if lease is not None and lease.row.epoch == row.epoch:
            if row.position != lease.row.position:
                lease.failures = lease.waits = 0
            lease.row = row

    def on_ended(self, row: ShardRow, children: Iterable[ShardRow], now: float) -> None:
        """The shard is at its end for good, and its children exist."""
        children = tuple(children)
        for one in (row, *children):
            self._fleet.on_shard(one, now)
        self._succession.on_ended(row, children)
        self._has_news = True
        self._leases.pop(row.id, None)

    def on_family(self, child_id: str, rows: Iterable[ShardRow], now: float) -> None:
        """The answer to ReadFamily: the rows that are there."""
        self._agenda.done(f"family {child_id}")
        for row in rows:
            self._fleet.on_shard(row, now)
        self._succession.on_family(child_id, self._fleet.rows)

    def on_task_end(self, row: ShardRow, how: TaskEnd, now: float) -> None:
        """The task of `row`, as it last knew it, ended."""
        lease = self._leases.get(row.id)
        if lease is None or lease.row.epoch != row.epoch:
            return
        lease.row = max(lease.row, row, key=lambda one: one.commit)
        if how == "lost":
            del self._leases[row.id]
        elif lease.stage is Stage.STOPPING:
            lease.stage = Stage.STOPPED
        elif how == "unreadable":
            lease.stage, lease.to = Stage.PARKED, None
        else:
            self._fail(lease, how, now)

    def _fail(self, lease: Lease, how: TaskEnd, now: float) -> None:
        lease.to = None
        if how == "waited":
            lease.waits += 1
        else:
            lease.failures += 1
        is_hopeless = lease.failures >= self._timing.failures_max
        lease.stage = Stage.PARKED if is_hopeless else Stage.FAILED
        doublings = min(lease.setbacks - 1, self._timing.doublings_max)
        lease.until = now + self._timing.backoff_s * (1 << doublings)

    def _compare(self, lease: Lease) -> None:
        """Take over what the row as last seen says of our lease; drop it if it is not ours."""
        seen = self._fleet.shards.get(lease.row.id)
        if seen is None or seen.row.epoch > lease.row.epoch:
            self._drop(lease)
        elif seen.row.epoch == lease.row.epoch and lease.stage is not Stage.GIVEN:
            if seen.row.owner == self.worker_id:
                lease.row = max(lease.row, seen.row, key=lambda row: row.commit)
            elif not (lease.has_task and seen.row.ended):  # else its task will say so itself
                self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        del self._leases[lease.row.id]
        if lease.has_task:
            self._outbox.append(c.Cancel(lease.row.id))

    def _die(self) -> None:
        self.is_dead = True
        for lease in list(self._leases.values()):
            self._drop(lease)

    # ---- commands

    def commands(self, now: float) -> list[c.Command]:
        """What to attempt now; each is answered by a fact, or by `on_failed`."""
        self._agenda.restart()
        attempts: list[c.Command] = []
        if not self.is_dead and not self.is_finished:
            self._advance(now)
            attempts += [*self._own(now), *self._reads(now)]
            if self.valid_for_s(now) > 0:
                attempts += self._effects(now)
        changes, self._outbox = self._outbox, []
        return changes + [command for command in attempts if self._start(command, now)]

    def _start(self, command: c.Command, now: float) -> bool:
        if not self._agenda.start(command, now):
            return False
        if isinstance(command, c.Heartbeat | c.Join):
            self._standing.on_sent(command.row, now)
        elif isinstance(command, c.Leave):
            self._is_leaving = True
        elif isinstance(command, c.ReadWorkers):
            self._workers_sent_at = now  # from the send: slow answers add no gap
            self._workers_at = now + self._timing.read_s
        return True

    def _advance(self, now: float) -> None:
        """Changes of stage that time alone brings."""
        if self._stop_at is not None:
            self._drain(self._stop_at, now)
        others = self._fleet.held_by_others()
        for key, lease in list(self._leases.items()):
            if lease.stage is Stage.OFFERED:
                self._follow_offer(lease, now)
            elif lease.stage is Stage.STOPPING and self._agenda.is_due(lease.until, now):
                self._outbox.append(c.Cancel(key))
                lease.until = inf
            elif lease.stage is Stage.GIVEN:
                is_taken = key in others and others[key][1].epoch > lease.row.epoch
                if is_taken or self._agenda.is_due(lease.until, now):
                    del self._leases[key]

    def _drain(self, stop_at: float, now: float) -> None:
        """Everything gets an heir, and another one if that goes; what runs is offered to it."""
        for key, heir in self._heirs(now).items():
            lease = self._leases[key]
            if lease.stage in (Stage.RUNNING, Stage.OFFERED):
                if heir is not None and now < stop_at:
                    self._offer(lease, heir, stop_at)
                else:
                    self._stop(lease, heir, now)
            else:
                lease.to = heir
                if not lease.has_task:
                    lease.stage = Stage.STOPPED
        if self._agenda.is_due(stop_at + self._timing.drain_s + self._timing.margin_s, now):
            self.is_finished = True  # the table is out of reach: our TTL hands over what is left

    def _heirs(self, now: float) -> dict[str, str | None]:
        """For what is on its way to nobody who could take it; None: nobody is there."""
        held = self._held(now)
        needy = {
            key
            for key, lease in self._leases.items()
            if lease.stage is not Stage.GIVEN
            and (lease.to is None or not self._fleet.can_take(lease.to, now))
        }
        heirs = self._fleet.heirs(held, needy, now) if needy else {}
        return {key: heirs.get(key) for key in sorted(needy)}

    def _offer(self, lease: Lease, to: str, until: float) -> None:
        lease.stage, lease.to, lease.until = Stage.OFFERED, to, until

    def _follow_offer(self, lease: Lease, now: float) -> None:
        match verdict(lease, self._fleet, now):
            case "stop":
                self._stop(lease, lease.to, now)
            case "call off":
                lease.stage, lease.to = Stage.RUNNING, None
            case "wait":
                self._agenda.is_due(lease.until, now)

    def _stop(self, lease: Lease, to: str | None, now: float) -> None:
        lease.stage, lease.to = Stage.STOPPING, to
        lease.until = now + self._timing.drain_s
        self._outbox.append(c.Stop(lease.row.id))

    def _held(self, now: float) -> dict[str, Held]:
        return {
            key: Held(key, lease.row.epoch, now < lease.rests_until, lease.to)
            for key, lease in sorted(self._leases.items())
        }

    def _own(self, now: float) -> Iterator[c.Command]:
        """Our own row: a heartbeat when it is due, and soon when it would say something new."""
        held = tuple(self._held(now).values())
        row = self._standing.next_row(held, self._taking.ready(), self.is_draining)
        if not self._standing.has_joined:
            yield c.Join(row)
        elif self.is_draining and self._has_given_all():
            yield c.Leave(self.worker_id)
        elif self._agenda.is_due(self._standing.news_at(row), now):
            yield c.Heartbeat(row)

    def _has_given_all(self) -> bool:
        """Nothing is ours, and no claim under way can make it so."""
        is_held = any(lease.stage is not Stage.GIVEN for lease in self._leases.values())
        return not is_held and not self._agenda.is_any_under_way("shard ")

    def _reads(self, now: float) -> Iterator[c.Command]:
        if not self._standing.has_joined or self._is_leaving:
            return
        if self._agenda.is_due(self._read_workers_at(), now):
            yield c.ReadWorkers()
        if not self.is_draining:  # else the children are left to the others
            for child_id, shard_ids in islice(self._succession.families().items(), POLLS_MAX):
                yield c.ReadFamily(child_id, shard_ids)
        if self._agenda.is_due(self._shards_at, now):  # first: it needs no answer from the stream
            yield c.ReadShards(discover=False)
        elif self._agenda.is_due(self._discover_at, now):
            yield c.ReadShards(discover=True)

    def _read_workers_at(self) -> float:
        """Soon, while a lease waits for its taker to be ready."""
        if any(lease.stage is Stage.OFFERED for lease in self._leases.values()):
            return min(self._workers_at, self._workers_sent_at + self._timing.poll_s)
        return self._workers_at

    def _effects(self, now: float) -> Iterator[c.Command]:
        yield from self._releases()
        if self.is_draining:
            return
        yield from self._taking.to_fetch()
        yield from self._burials(now)
        yield from self._reclaims(now)
        for child_id in self._succession.claimable(self._fleet.rows)[:CLAIMS_MAX]:
            yield self._claim(self._fleet.rows[child_id])
        if self._workers_reads >= SETTLED_READS and self._fleet.is_current(now):
            if self._has_news:
                self._has_news = False
                self._decide(now)
            yield from self._claims(now)

    def _decide(self, now: float) -> None:
        """Once per read of rows: in between, we would see our own claims and nobody else's."""
        held = self._held(now)
        self._wanted = self._fleet.wanted(held, now)
        if not any(lease.to is not None for lease in self._leases.values()):
            self._even_out(held, now)

    def _releases(self) -> Iterator[c.Command]:
        for lease in self._leases.values():
            if lease.stage is Stage.STOPPED:
                moved = not self.is_draining
                yield c.Release(lease.row, released(lease.row, lease.to, moved=moved))

    def _burials(self, now: float) -> Iterator[c.Command]:
        for row in self._fleet.to_bury(now):
            yield c.Bury(row.id, row.counter)
        for at in self._fleet.deaths_at():
            self._agenda.is_due(at, now)
        if self._shards_at == inf:  # else shards may be in their names that we don't know of yet
            for worker_id in self._fleet.to_forget():
                yield c.Forget(worker_id)

    def _reclaims(self, now: float) -> Iterator[c.Command]:
        """Shards whose task failed: again, from the last checkpoint, under a new epoch."""
        for lease in self._leases.values():
            if lease.stage is Stage.FAILED and self._agenda.is_due(lease.until, now):
                yield self._claim(lease.row)

    def _claims(self, now: float) -> Iterator[c.Command]:
        wanted = (self._wanted | self._taking.wanted()) - self._leases.keys()
        claims = polls = 0
        for key in sorted(wanted & self._fleet.shards.keys()):
            if self._fleet.is_claimable(key, now):
                claims += 1
                if claims <= CLAIMS_MAX:
                    yield self._claim(self._fleet.shards[key].row)
            elif self._agenda.is_due(self._fleet.shards[key].read_at + self._timing.poll_s, now):
                polls += 1
                if polls <= POLLS_MAX:  # about to be released to us, or nobody seems to hold it
                    yield c.ReadShard(key)

    def _claim(self, row: ShardRow) -> c.Claim:
        return c.Claim(row, claimed(row, self.worker_id, seeks_of(row, self._fleet.rows)))

    def _even_out(self, held: Mapping[str, Held], now: float) -> None:
        """Begin to give one lease away, if we hold too many."""
        movable = {
            key
            for key, lease in self._leases.items()
            if lease.stage is Stage.RUNNING and lease.rests_until <= now
        }
        move = self._fleet.next_move(held, movable, now)
        if move is not None:
            self._offer(self._leases[move.shard_id], move.taker, now + self._timing.ready_s)
            self._agenda.is_due(now + self._timing.poll_s, now)  # our row is to say so soon
