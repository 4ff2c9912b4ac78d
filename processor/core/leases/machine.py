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

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf

from processor.core.leases import commands as c
from processor.core.leases.agenda import Agenda
from processor.core.leases.fleet import Fleet
from processor.core.leases.handoff import Taking
from processor.core.leases.lineage import seeks_of
from processor.core.leases.portfolio import Portfolio
from processor.core.leases.reading import Reading
from processor.core.leases.rows import Held, ShardRow, WorkerRow, claimed, released
from processor.core.leases.shares import Shares
from processor.core.leases.stages import Lease, TaskEnd
from processor.core.leases.standing import Standing
from processor.core.leases.succession import Succession

CLAIMS_MAX = 16  # under way at once: the client's pool holds more connections than that
POLLS_MAX = 16  # single rows read at once, likewise
EMPTY_S = 2.0  # between two looks at a table in which somebody is creating the shards' rows
HEAVY_SAMPLES = 3  # a load that differs for less long is not worth a hand-off
DECISION_S = 5.0  # between two when nothing changed but the time: leases rest, workers fall silent


class Machine:
    """The leases of worker `worker_id`; a new id is a new machine."""

    def __init__(self, worker_id: str, timing: c.Timing, generation: int = 0) -> None:
        """`generation`: of our pipeline; what a newer one committed is left to its workers."""
        self.worker_id = worker_id
        self.is_dead = False
        self.is_finished = False
        self._is_leaving = False  # Leave went out: our row may be gone by that
        self._timing = timing
        self._fleet = Fleet(worker_id, timing, generation)
        self._standing = Standing(worker_id, timing, generation)
        self._succession = Succession()
        self._agenda = Agenda(timing.retry_s)
        self._taking = Taking(worker_id, timing)
        self._shares = Shares(self._fleet, timing)
        self._reading = Reading(worker_id, timing)
        self._portfolio = Portfolio(self._fleet, self._shares, self._agenda, timing)
        self._stop_at: float | None = None  # draining: when tasks stop, ready takers or not
        self._has_news = False  # rows were read since we last decided what to claim and move
        self._wanted: set[str] = set()
        self._decided: tuple[int, tuple[str, ...]] | None = None  # on what
        self._decided_at = -inf
        self._heavy_samples = 0  # in a row in which somebody should be given some of our load
        self._shards_at = 0.0
        self._again_at = inf  # while we saw the table begin, and did not discover ourselves
        self._shards_read_at = -inf  # when the last read of all that was answered was sent
        self._discover_at = inf  # until we know who else is there
        self._has_discovered = False

    def __repr__(self) -> str:
        flags = [name for name in ("is_dead", "is_draining", "is_finished") if getattr(self, name)]
        return f"<Machine {self.worker_id} {' '.join(flags)} {self._portfolio!r}>"

    # ---- questions

    @property
    def leases(self) -> Mapping[str, Lease]:
        return self._portfolio.leases

    @property
    def is_draining(self) -> bool:
        return self._stop_at is not None

    def valid_for_s(self, now: float) -> float:
        """Seconds in which effects may still start; 0 and less: none may."""
        return -inf if self.is_dead else self._standing.valid_for_s(now)

    def wake_at(self) -> float | None:
        """When to call `commands` again if no fact comes before; None: after the next fact."""
        return self._agenda.wake_at()

    def barred(self, now: float) -> list[str]:
        """Free shards that we may not claim, for their state is of a newer generation than we."""
        return self._shares.barred(self._portfolio.held(now))

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
        elif isinstance(command, c.Prefetch):
            self._forgo_late(command.shard_id)

    # ---- facts: what was read

    def on_workers(
        self,
        rows: Sequence[WorkerRow],
        now: float,
        read: c.ReadWorkers = c.ReadWorkers(),  # noqa: B008 - frozen
    ) -> None:
        """The answer to `read`."""
        self._agenda.done(c.key_of(read))
        self._reading.on_read(read)
        self._has_news = True
        self._fleet.on_workers(rows, read, now)
        if self._discover_at == inf:
            self._discover_at = now + self._first_discovery_s()
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
        self._shards_read_at = max(self._shards_read_at, sent_at)
        if jitter is not None:
            self._has_discovered = True
            period_s = self._discovery_s() * jitter
            soon_s = self._timing.reshard_s if is_resharding else period_s
            self._discover_at = now + min(period_s, soon_s)
        self._fleet.on_shards(rows, sent_at, now)
        is_unsure = self._fleet.is_beginning and not self._has_discovered
        self._again_at = now + EMPTY_S if is_unsure else inf
        self._has_news = True
        for shard_id in list(self.leases):
            self._portfolio.compare(shard_id)
        self._standing.on_reread(sent_at)

    def _first_discovery_s(self) -> float:
        """Of workers that start together, the one with the smallest id begins: else each would
        create every row. The others follow as if they had done so at some time before."""
        if self.worker_id <= min(self._fleet.live(), default=self.worker_id):
            return 0.0
        fraction = zlib.crc32(self.worker_id.encode()) / 2**32
        return EMPTY_S + fraction * self._discovery_s()

    def _discovery_s(self) -> float:
        """Between two of ours: the fewer we are, the more of the same reads each does."""
        return self._timing.discovery_s * max(1, len(self._fleet.live())) / 8

    def on_shard(self, shard_id: str, row: ShardRow | None, now: float) -> None:
        """One row, by a read or because a write of ours was refused."""
        self._agenda.done(f"shard {shard_id}")
        if row is None:
            self._fleet.on_shard_gone(shard_id)
        else:
            self._fleet.on_shard(row, now)
            self._forgo(self._taking.on_row(row))
        self._portfolio.compare(shard_id)

    def on_fetched(self, shard_id: str, epoch: int, row: ShardRow | None, now: float) -> None:
        """The answer to Prefetch: what `row` names is fetched, as far as it exists and has room."""
        self._agenda.done(f"prefetch {shard_id}")
        self._taking.on_fetched(shard_id, epoch)
        if row is not None:
            self._fleet.on_shard(row, now)
            self._forgo(self._taking.on_row(row))
        self._forgo_late(shard_id)

    def _forgo_late(self, shard_id: str) -> None:
        """What was fetched after we heard that the shard won't come. Ours: its task drops it."""
        if shard_id not in self._taking.wanted() and shard_id not in self.leases:
            self._forgo([shard_id])

    def _forgo(self, shards: Iterable[str]) -> None:
        self._portfolio.outbox += (c.Forgo(shard_id) for shard_id in shards)

    # ---- facts: what we wrote

    def on_buried(self, worker_id: str, applied: bool, now: float) -> None:
        """The answer to Bury or Forget: the next read says what stands.

        Who buried a worker reads all shard rows: there may be more in its name than it said.
        """
        self._agenda.failed(f"worker {worker_id}", now)
        self._reading.hurry(is_all=not self._fleet.is_large)
        if applied:
            self._shards_at = now

    def on_claimed(self, row: ShardRow, now: float) -> None:
        """A claim was applied: `row` is ours from here on."""
        self._agenda.done(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        self._taking.on_claimed(row.id)
        self._portfolio.on_claimed(row, now)

    def on_released(self, row: ShardRow, now: float) -> None:
        """A release was applied; our row names its successor until that had time to claim."""
        self._agenda.done(f"shard {row.id}")
        self._fleet.on_shard(row, now)
        self._portfolio.on_released(row, now)

    # ---- facts: shard tasks

    def on_rates(self, rates: Mapping[str, int], now: float) -> None:
        """What each shard costs us, in points: a sample, once a heartbeat."""
        self._portfolio.on_rates(rates)
        held, movable = self._portfolio.held(now), self._portfolio.movable(now)
        is_heavy = self._shares.to_relieve(held, movable, now) is not None
        self._heavy_samples = self._heavy_samples + 1 if is_heavy else 0
        self._has_news = self._has_news or is_heavy
        self._decided = None if is_heavy else self._decided

    def on_behind(self, watermark_ms: int | None) -> None:
        """The smallest watermark of our shards that catch up; None: none does."""
        self._standing.behind_ms = watermark_ms

    def slowest_ms(self) -> int | None:
        """The smallest watermark of all shards that catch up, of all workers."""
        others = (row.behind_ms for row in self._fleet.workers.values() if not row.buried)
        known = [ms for ms in (self._standing.behind_ms, *others) if ms is not None]
        return min(known, default=None)

    def on_committed(self, row: ShardRow) -> None:
        """The task committed; if it got on by that, earlier setbacks no longer count."""
        self._portfolio.on_committed(row)

    def on_stalled(self, shard_id: str, now: float) -> bool:
        """The task neither gets on nor waits for anything with a name. Whether that is news."""
        return self._portfolio.on_stalled(shard_id, now)

    def on_ended(self, row: ShardRow, children: Iterable[ShardRow], now: float) -> None:
        """The shard is at its end for good, and its children exist."""
        children = tuple(children)
        for one in (row, *children):
            self._fleet.on_shard(one, now)
        self._succession.on_ended(row, children)
        self._has_news = True
        self._portfolio.on_ended(row)

    def on_family(self, child_id: str, rows: Iterable[ShardRow], now: float) -> None:
        """The answer to ReadFamily: the rows that are there."""
        self._agenda.done(f"family {child_id}")
        for row in rows:
            self._fleet.on_shard(row, now)
        self._succession.on_family(child_id, self._fleet.rows)

    def on_task_end(self, row: ShardRow, how: TaskEnd, now: float) -> None:
        """The task of `row`, as it last knew it, ended."""
        self._portfolio.on_task_end(row, how, now)

    def _die(self) -> None:
        self.is_dead = True
        self._portfolio.drop_all()
        self._forgo(self._taking.clear())

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
        changes, self._portfolio.outbox = self._portfolio.outbox, []
        return changes + [command for command in attempts if self._start(command, now)]

    def _start(self, command: c.Command, now: float) -> bool:
        if not self._agenda.start(command, now):
            return False
        if isinstance(command, c.Heartbeat | c.Join):
            self._standing.on_sent(command.row, now)
        elif isinstance(command, c.Leave):
            self._is_leaving = True
        elif isinstance(command, c.ReadWorkers):
            self._reading.on_sent(command, now)
        return True

    def _advance(self, now: float) -> None:
        """Changes of stage that time alone brings."""
        if self._stop_at is not None:
            self._portfolio.drain(self._stop_at, now)
            last_at = self._stop_at + self._timing.drain_s + self._timing.margin_s
            if self._agenda.is_due(last_at, now):
                self.is_finished = True  # no table: our TTL hands over what is left
        self._portfolio.advance(now)

    def _own(self, now: float) -> Iterator[c.Command]:
        """Our own row: a heartbeat when it is due, and soon when it would say something new."""
        held = tuple(self._portfolio.held(now).values())
        row = self._standing.next_row(held, self._taking.ready(), self.is_draining)
        if not self._standing.has_joined:
            yield c.Join(row)
        elif self.is_draining and self._has_given_all():
            yield c.Leave(self.worker_id)
        elif self._agenda.is_due(self._standing.news_at(row), now):
            yield c.Heartbeat(row)

    def _has_given_all(self) -> bool:
        """Nothing is ours, and no claim under way can make it so."""
        is_any = self._agenda.is_any_under_way("shard ")
        return self._portfolio.is_all_given() and not is_any

    def _reads(self, now: float) -> Iterator[c.Command]:
        if not self._standing.has_joined or self._is_leaving:
            return
        yield from self._worker_reads(now)
        if not self.is_draining:  # else the children are left to the others
            for child_id, shard_ids in islice(self._succession.families().items(), POLLS_MAX):
                yield c.ReadFamily(child_id, shard_ids)
        at = min(self._shards_at, self._again_at)
        if self._agenda.is_due(at, now):  # first: it needs no answer from the stream
            yield c.ReadShards(discover=False)
        elif self._agenda.is_due(self._discover_at, now):
            yield c.ReadShards(discover=True)

    def _worker_reads(self, now: float) -> Iterator[c.ReadWorkers]:
        awaited = self._portfolio.awaited()
        is_large = self._fleet.is_large
        if is_large:
            awaited = {one for one in awaited if not self._fleet.is_near(one)}
            self._reading.keep(awaited)
        is_urgent = self.is_draining or not is_large
        for at, read in self._reading.due(is_large, awaited, is_urgent):
            if self._agenda.is_due(at, now):
                yield read

    def _effects(self, now: float) -> Iterator[c.Command]:
        yield from self._releases()
        if self.is_draining:
            return
        yield from self._taking.to_fetch()
        yield from self._burials(now)
        for lease in self._portfolio.to_reclaim(now):
            yield self._claim(lease.row)
        for child_id in self._succession.claimable(self._fleet.rows)[:CLAIMS_MAX]:
            if self._fleet.may_claim(child_id):
                yield self._claim(self._fleet.rows[child_id])
        if self._reading.is_settled and self._fleet.is_current(now):
            if self._has_news:
                self._has_news = False
                self._decide(now)
            yield from self._claims(now)

    def _decide(self, now: float) -> None:
        """Once per read of rows: in between, we would see our own claims and nobody else's."""
        basis = (self._fleet.version + self._fleet.holdings.version, tuple(self.leases))
        if basis == self._decided and not self._wanted and now - self._decided_at < DECISION_S:
            return
        self._decided, self._decided_at = basis, now
        held = self._portfolio.held(now)
        self._wanted, needs_all = self._shares.wanted(held, now)
        self._reading.expects = self._fleet.is_large and self._shares.expects(held, now)
        if needs_all:
            self._reading.hurry(is_all=True)
        if not self._portfolio.is_giving():
            self._even_out(held, now)

    def _releases(self) -> Iterator[c.Command]:
        for lease in self._portfolio.stopped():
            moved = not self.is_draining and not lease.is_stalled
            yield c.Release(lease.row, released(lease.row, lease.to, moved=moved))

    def _burials(self, now: float) -> Iterator[c.Command]:
        for row in self._fleet.to_bury(now):
            yield c.Bury(row.id, row.counter)
        for at in self._fleet.deaths_at():
            self._agenda.is_due(at, now)
        for worker_id in self._fleet.to_forget(self._shards_read_at):
            yield c.Forget(worker_id)

    def _claims(self, now: float) -> Iterator[c.Command]:
        announced = self._taking.wanted()
        wanted = (self._wanted | announced) - self.leases.keys() - self._portfolio.shunned.keys()
        claims = polls = 0
        for key in sorted(wanted):
            if self._fleet.is_claimable(key, now):
                claims += 1
                if claims <= CLAIMS_MAX:
                    yield self._claim(self._fleet.rows[key])
                continue
            # About to be released to us; or we can't tell yet whose it is.
            poll_s = self._timing.poll_s if key in announced else self._timing.read_s
            if self._agenda.is_due(self._fleet.read_at(key) + poll_s, now):
                polls += 1
                if polls <= POLLS_MAX:
                    yield c.ReadShard(key)

    def _claim(self, row: ShardRow) -> c.Claim:
        return c.Claim(row, claimed(row, self.worker_id, seeks_of(row, self._fleet.rows)))

    def _even_out(self, held: Mapping[str, Held], now: float) -> None:
        """Begin to give one lease away, if we hold too many, or too much for long."""
        movable = self._portfolio.movable(now)
        gift = self._shares.to_even(held, movable, now)
        if gift is None and self._heavy_samples >= HEAVY_SAMPLES:
            gift = self._shares.to_relieve(held, movable, now)
            self._heavy_samples = 0
        if gift is not None:
            until = now + self._patience_s(gift.taker)
            self._portfolio.offer(gift.shard_id, gift.taker, until, now)
            self._agenda.is_due(now + self._timing.poll_s, now)  # our row is to say so soon

    def _patience_s(self, taker: str) -> float:
        """How long an offer stands: one who does not watch us sees it with all other rows."""
        is_watched = taker in self._fleet.watchers(self.worker_id)
        if not self._fleet.is_large or is_watched:
            return self._timing.ready_s
        return self._timing.all_s + 2 * self._timing.ready_s
