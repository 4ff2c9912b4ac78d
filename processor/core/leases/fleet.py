"""What one worker knows of all workers and shards, by the rows that it read.

A small fleet is read whole each second. Of a large one, each worker reads the few that come after
it in the ring of ids, whom it watches: their deaths are its business. The others' rows may be as
old as `all_s`; what they say of who is there and who holds what is good enough to share out work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from typing import NamedTuple

from processor.core.leases.commands import ReadWorkers, Timing
from processor.core.leases.generations import state_generation
from processor.core.leases.holdings import Holdings
from processor.core.leases.lineage import is_readable
from processor.core.leases.liveness import Liveness
from processor.core.leases.ring import before, is_within
from processor.core.leases.rows import Held, Ready, ShardRow, WorkerRow


class Seen(NamedTuple):
    """A shard's row: since when its ownership was seen so, and when it was last read."""

    row: ShardRow
    since: float
    read_at: float


class Gone(NamedTuple):
    """Since when a worker was seen buried, or its row to be missing."""

    at: float
    is_buried: bool


class _Left(NamedTuple):
    """A shard that a gone worker held, under that epoch."""

    owner: str
    epoch: int


class Fleet:
    """Worker rows, shard rows and liveness as of the last reads.

    Our own row (`me`) counts among the `live`, and nowhere else: what we hold comes as an argument,
    for it is newer than our row.
    """

    def __init__(self, me: str, timing: Timing, generation: int = 0) -> None:
        self.me = me
        self.generation = generation
        self.all_read_at = -inf  # when all worker rows were read
        self.version = 0  # rises with every change of workers, holdings or shards
        self.workers: dict[str, WorkerRow] = {}
        self.shards: dict[str, Seen] = {}
        self.rows: dict[str, ShardRow] = {}  # those of `shards`, for functions of rows
        self.gone: dict[str, Gone] = {}
        self._has_new = False  # the last read of all shards showed rows for the first time
        self._owned: Counter[str] = Counter()  # how many shard rows name each worker as their owner
        self.holdings = Holdings(me)
        self._timing = timing
        self._liveness = Liveness(timing.dead_after_s, timing.gap_max_s)
        self._near: list[str] = []  # whom the last read of our own surroundings showed
        self._near_read_at = -inf
        self._ring: list[str] | None = None
        self._missing: set[str] = set()  # owners whose row the last read of all did not show
        self._left: dict[str, _Left] = {}  # shards of the gone, of which we know no newer row

    # ---- facts

    def on_workers(self, rows: Iterable[WorkerRow], read: ReadWorkers, now: float) -> None:
        """The answer to `read`. A worker whose row should be in it and is not, is gone."""
        rows = list(rows)
        is_all = read.first is None or len(rows) < read.count
        for row in rows:
            self._on_worker(row, now)
        shown = {row.id for row in rows}
        for worker_id in [one for one in self.workers if one not in shown]:
            if is_all or (rows and is_within(worker_id, read.first or "", rows[-1].id)):
                self._on_worker_gone(worker_id, now)
        self._liveness.on_read(rows, now)
        if is_all:
            self.all_read_at = now
            self._note_missing_owners(now)
        if is_all or read.first == self.me:
            self._near = [row.id for row in rows if row.id != self.me]
            self._near_read_at = now

    def _on_worker(self, row: WorkerRow, now: float) -> None:
        known = self.workers.get(row.id)
        self.workers[row.id] = row
        if known is None or (known.buried, known.draining) != (row.buried, row.draining):
            self._ring = None
            self.version += 1
        if row.buried:
            self._leave(row.id, row.held, Gone(now, True))
        elif row.id != self.me:
            self.gone.pop(row.id, None)  # its shard's row was read before its own stood
            self.holdings.set(row)

    def _on_worker_gone(self, worker_id: str, now: float) -> None:
        row = self.workers.pop(worker_id)
        self._ring = None
        self._liveness.forget(worker_id)
        self._leave(worker_id, row.held, Gone(now, False))

    def _leave(self, worker_id: str, held: tuple[Held, ...], how: Gone) -> None:
        """What a gone worker held is to be looked at, under whatever epoch it is by now."""
        if worker_id in self.gone or worker_id == self.me:
            return
        self.version += 1
        self.gone[worker_id] = how
        self.holdings.drop(worker_id)
        for lease in held:
            if self._epoch(lease.shard_id) < lease.epoch:
                self._left[lease.shard_id] = _Left(worker_id, lease.epoch)

    def _note_missing_owners(self, now: float) -> None:
        """Whoever owns a shard and has no row is gone; whoever owns none can be forgotten.

        By two reads: the first may have been sent before he joined, and his shard's row seen since.
        """
        owners = self._owned.keys()
        missing = owners - self.workers.keys() - self.gone.keys()
        for worker_id in missing & self._missing:
            self._leave(worker_id, (), Gone(now, False))
        self._missing = missing
        for worker_id in self.gone.keys() - self.workers.keys() - owners:
            del self.gone[worker_id]

    def on_shards(self, rows: Iterable[ShardRow], sent_at: float, now: float) -> None:
        """All shard rows, read after `sent_at`; what is not among them is gone. What was seen since
        then may have come to be after its bucket's turn: of that, this read says nothing."""
        rows = list(rows)
        self._has_new = any(row.epoch == 0 and row.id not in self.shards for row in rows)
        listed = {row.id for row in rows}
        listed.update(key for key, seen in self.shards.items() if seen.read_at > sent_at)
        for key in self.shards.keys() - listed:
            self.on_shard_gone(key)
        for row in rows:
            self.on_shard(row, now)
        self._left = {key: left for key, left in self._left.items() if key in listed}

    def on_shard(self, row: ShardRow, now: float) -> None:
        """One row; an answer that was overtaken by a newer one changes nothing."""
        known = self.shards.get(row.id)
        if known is None or _age(row) > _age(known.row):
            since = known.since if known and _ownership(known.row) == _ownership(row) else now
            self.shards[row.id] = Seen(row, since, now)
            self._set_row(row.id, row)
            if row.id in self._left and self._left[row.id].epoch <= row.epoch:
                del self._left[row.id]
        else:
            self.shards[row.id] = known._replace(read_at=now)

    def on_shard_gone(self, shard_id: str) -> None:
        self.shards.pop(shard_id, None)
        self._set_row(shard_id, None)
        self._left.pop(shard_id, None)

    def _set_row(self, shard_id: str, row: ShardRow | None) -> None:
        self.version += 1
        known = self.rows.pop(shard_id, None)
        if known is not None and known.owner is not None:
            self._owned[known.owner] -= 1
            if not self._owned[known.owner]:
                del self._owned[known.owner]
        if row is not None:
            self.rows[shard_id] = row
            if row.owner is not None:
                self._owned[row.owner] += 1

    def restart_counts(self) -> None:
        self._liveness.restart()
        self._near_read_at = -inf

    # ---- who is there

    @property
    def is_large(self) -> bool:
        """Whether it is too many to read all their rows each second."""
        return len(self.workers) > self._timing.all_max

    @property
    def is_beginning(self) -> bool:
        """Whether rows are still being created, as far as we saw: none is owned yet, or the last
        read of all showed some that nobody ever owned for the first time. There may be more soon,
        and who shares out what he knows of by places must know of all."""
        return self._has_new or not self._owned

    def is_current(self, now: float) -> bool:
        """Whether worker rows were read lately enough to act on them."""
        return now - self._near_read_at <= self._timing.gap_max_s

    def to_bury(self, now: float) -> list[WorkerRow]:
        rows = (self.workers[one] for one in self._near if one in self.workers)
        return [row for row in rows if not row.buried and self._liveness.is_dead(row.id, now)]

    def deaths_at(self) -> list[float]:
        """When each of those whom we watch is dead unless a read shows a change."""
        rows = (self.workers[one] for one in self._near if one in self.workers)
        moments = (self._liveness.due_at(row.id) for row in rows if not row.buried)
        return [at for at in moments if at is not None]

    def is_gone(self, worker_id: str, now: float) -> bool:
        """Buried, or without a row for as long as a last heartbeat could be valid."""
        if worker_id in self.workers:
            return self.workers[worker_id].buried
        gone = self.gone.get(worker_id)
        return gone is not None and (gone.is_buried or now - gone.at >= self._timing.dead_after_s)

    def to_forget(self, shards_read_at: float) -> list[str]:
        """Buried workers in whose name no shard is: their rows can go.

        Only by shard rows that were read after the burial, for they may have claimed before it.
        """
        buried = [
            one
            for one, how in self.gone.items()
            if one in self.workers and how.at <= shards_read_at
        ]
        return [one for one in buried if one not in self._owned]

    def live(self) -> list[str]:
        return [row.id for row in self.workers.values() if not row.buried]

    def takers(self, now: float) -> list[str]:
        return [one for one in self.workers if one != self.me and self.can_take(one, now)]

    def can_take(self, worker_id: str, now: float) -> bool:
        """Who may be given shards: not draining, and seen alive lately: within a lease's validity,
        or from one to the next of the reads that show those whom we don't watch."""
        row = self.workers.get(worker_id)
        if row is None or row.buried or row.draining:
            return False
        is_watched = self._liveness.is_watched(worker_id, now)
        within_s = self._timing.validity_s if is_watched else 2 * self._timing.all_s
        return self._liveness.is_fresh(worker_id, within_s, now)

    def is_prompt(self, worker_id: str, now: float) -> bool:
        """Whether a hand-off need not wait for it: no heartbeat of its is missing."""
        is_watched = self._liveness.is_watched(worker_id, now)
        within_s = 1.5 * self._timing.heartbeat_s
        is_fresh = self._liveness.is_fresh(worker_id, within_s, now)
        return self.can_take(worker_id, now) and (is_fresh or not is_watched)

    def watchers(self, worker_id: str) -> list[str]:
        """Who reads that worker's row each second, the nearest first; leaving ones don't count."""
        if self._ring is None:
            rows = self.workers.values()
            self._ring = sorted(row.id for row in rows if not (row.buried or row.draining))
        return before(worker_id, self._ring, self._timing.near)

    def is_near(self, worker_id: str) -> bool:
        return worker_id in self._near

    # ---- who holds what

    def is_ready(self, worker_id: str, shard_id: str, epoch: int) -> bool:
        row = self.workers.get(worker_id)
        return row is not None and Ready(shard_id, epoch) in row.ready

    def free(self, mine: Mapping[str, Held]) -> list[str]:
        """Shards that no worker row holds, as far as they are readable; `mine` are ours."""
        held = self.holdings.shards()
        loose = (self.rows.keys() - held) | (self._left.keys() - held)
        return sorted(
            key
            for key in loose - mine.keys()
            if key in self._left or is_readable(self.rows[key], self.rows)
        )

    def may_claim(self, shard_id: str) -> bool:
        """Whether its state, as last seen, is of our generation of the pipeline or an older one."""
        row = self.rows.get(shard_id)
        return row is None or state_generation(row, self.rows) <= self.generation

    def generation_of(self, worker_id: str) -> int:
        return self.generation if worker_id == self.me else self.workers[worker_id].generation

    def last_owner(self, shard_id: str) -> str | None:
        """Whom its row names, or who held it when he went, if that is newer."""
        left = self._left.get(shard_id)
        return self.rows[shard_id].owner if left is None else left.owner

    def is_claimable(self, shard_id: str, now: float) -> bool:
        """Whether the row, as last seen, is nobody's (released, a dead worker's, or our own), and
        there is something to read."""
        if shard_id in self._left or shard_id not in self.rows:
            return False
        row = self.rows[shard_id]
        if self.holdings.epoch(shard_id) > row.epoch:
            return False  # somebody claimed it since
        is_free = row.owner is None or row.owner == self.me or self.is_gone(row.owner, now)
        return is_free and is_readable(row, self.rows) and self.may_claim(shard_id)

    def read_at(self, shard_id: str) -> float:
        seen = self.shards.get(shard_id)
        return -inf if seen is None else seen.read_at

    def _epoch(self, shard_id: str) -> int:
        return self.rows[shard_id].epoch if shard_id in self.rows else 0


def _ownership(row: ShardRow) -> tuple[int, bool]:
    return row.epoch, row.owner is None


def _age(row: ShardRow) -> tuple[int, bool, int]:
    """Rows of a shard in the order in which they came to be: a release ends its epoch."""
    return row.epoch, row.owner is None, row.commit
