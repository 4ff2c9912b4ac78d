"""What one worker knows of all workers and shards, and who should own what by that knowledge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from processor.core.balance import Move, assign, moves
from processor.core.commands import Timing
from processor.core.lineage import is_readable
from processor.core.liveness import Liveness
from processor.core.rows import Held, Ready, ShardRow, WorkerRow


class Seen(NamedTuple):
    """A shard's row: since when its ownership was seen so, and when it was last read."""

    row: ShardRow
    since: float
    read_at: float


class Fleet:
    """Worker rows, shard rows and liveness as of the last reads.

    Our own row (`me`) counts among the `live`, and nowhere else: what we hold comes as an argument,
    for it is newer than our row.
    """

    def __init__(self, me: str, timing: Timing) -> None:
        self.me = me
        self._timing = timing
        self._liveness = Liveness(timing.dead_after_s, timing.gap_max_s)
        self.workers: dict[str, WorkerRow] = {}
        self.shards: dict[str, Seen] = {}
        self.rows: dict[str, ShardRow] = {}  # those of `shards`, for functions of rows

    # ---- facts

    def on_workers(self, rows: Iterable[WorkerRow], now: float) -> None:
        self.workers = {row.id: row for row in rows}
        owners = {seen.row.owner for seen in self.shards.values() if seen.row.owner}
        self._liveness.on_read(self.workers.values(), owners, now)

    def on_shards(self, rows: Iterable[ShardRow], now: float) -> None:
        """All shard rows; what is not among them is gone."""
        rows = list(rows)
        listed = {row.id for row in rows}
        for key in self.shards.keys() - listed:
            self.on_shard_gone(key)
        for row in rows:
            self.on_shard(row, now)

    def on_shard(self, row: ShardRow, now: float) -> None:
        """One row; an answer that was overtaken by a newer one changes nothing."""
        known = self.shards.get(row.id)
        if known is None or _age(row) > _age(known.row):
            since = known.since if known and _owned(known.row) == _owned(row) else now
            self.shards[row.id] = Seen(row, since, now)
            self.rows[row.id] = row
        else:
            self.shards[row.id] = known._replace(read_at=now)

    def on_shard_gone(self, shard_id: str) -> None:
        self.shards.pop(shard_id, None)
        self.rows.pop(shard_id, None)

    def restart_counts(self) -> None:
        self._liveness.restart()

    # ---- who is there

    def is_current(self, now: float) -> bool:
        """Whether worker rows were read lately enough to act on them."""
        return self._liveness.is_current(now)

    def to_bury(self, now: float) -> list[WorkerRow]:
        return [
            row
            for row in self.workers.values()
            if not row.buried and row.id != self.me and self._liveness.is_dead(row.id, now)
        ]

    def deaths_at(self) -> list[float]:
        """When each of the others is dead unless a read shows a change."""
        moments = (self._liveness.due_at(row.id) for row in self._others() if not row.buried)
        return [at for at in moments if at is not None]

    def is_gone(self, worker_id: str, now: float) -> bool:
        """Buried, or without a row for as long as a last heartbeat could be valid."""
        row = self.workers.get(worker_id)
        return row.buried if row is not None else self._liveness.is_dead(worker_id, now)

    def to_forget(self) -> list[str]:
        """Buried workers of whom no shard's row speaks any more: their rows can go."""
        owners = {seen.row.owner for seen in self.shards.values()}
        return [row.id for row in self.workers.values() if row.buried and row.id not in owners]

    def live(self) -> list[str]:
        return [row.id for row in self.workers.values() if not row.buried]

    def takers(self, now: float) -> list[str]:
        return [row.id for row in self._others() if self.can_take(row.id, now)]

    def can_take(self, worker_id: str, now: float) -> bool:
        """Who may be given shards: not draining, and seen alive within a lease's validity."""
        row = self.workers.get(worker_id)
        if row is None or row.buried or row.draining:
            return False
        return self._liveness.is_fresh(worker_id, self._timing.validity_s, now)

    # ---- who holds what

    def held_by_others(self) -> dict[str, tuple[str, Held]]:
        """shard → (worker, lease) by the worker rows; of two, the one with the higher epoch."""
        held: dict[str, tuple[str, Held]] = {}
        for row in self._others():
            for lease in () if row.buried else row.held:
                known = held.get(lease.shard_id)
                if known is None or known[1].epoch < lease.epoch:
                    held[lease.shard_id] = (row.id, lease)
        return held

    def announced(self) -> dict[str, int]:
        """Shards that others are about to release to us, and their epochs."""
        held = self.held_by_others().items()
        return {key: lease.epoch for key, (_, lease) in held if lease.to == self.me}

    def holds(self, shard_id: str, epoch: int) -> bool:
        """Whether another worker's row says that it holds the shard under that epoch."""
        held = self.held_by_others().get(shard_id)
        return held is not None and held[1].epoch == epoch

    def is_ready(self, worker_id: str, shard_id: str, epoch: int) -> bool:
        row = self.workers.get(worker_id)
        return row is not None and Ready(shard_id, epoch) in row.ready

    def free(self, mine: Mapping[str, Held]) -> list[str]:
        """Readable shards that no worker row holds; `mine` are ours."""
        held = self.held_by_others()
        rows = self.rows
        return [
            key
            for key, row in rows.items()
            if key not in mine and key not in held and is_readable(row, rows)
        ]

    def is_claimable(self, shard_id: str, now: float) -> bool:
        """Whether the row, as last seen, is nobody's (released, a dead worker's, or our own), and
        there is something to read."""
        row = self.shards[shard_id].row
        is_free = row.owner is None or row.owner == self.me or self.is_gone(row.owner, now)
        return is_free and is_readable(row, self.rows)

    # ---- who should

    def wanted(self, mine: Mapping[str, Held], now: float) -> set[str]:
        """Free shards that are ours to take: left to us, our share, or long left by everybody."""
        counts = self._counts(mine, now)
        free = self.free(mine)
        left_to = {key: self._precedence(key, counts, now) for key in free}
        ours = {key for key, worker in left_to.items() if worker == self.me}
        shared = assign(counts, [key for key in free if left_to[key] is None])
        overdue = {key for key in free if self._is_overdue(key, now)}
        return ours | overdue | {key for key, worker in shared.items() if worker == self.me}

    def next_move(self, mine: Mapping[str, Held], movable: set[str], now: float) -> Move | None:
        """The first of the moves that even out the fleet which is ours to make.

        `movable`: of `mine`, what runs and does not rest.
        """
        counts = self._counts(mine, now)
        takers = set(counts)
        for worker in assign(counts, self.free(mine)).values():
            counts[worker] += 1
        can_go: dict[str, list[str]] = {self.me: sorted(movable)}
        for key, (worker, lease) in self.held_by_others().items():
            if not lease.rests and lease.to is None and worker in takers:
                can_go.setdefault(worker, []).append(key)
        planned = moves(counts, can_go, takers)
        return next((move for move in planned if move.giver == self.me), None)

    def heirs(self, mine: Mapping[str, Held], needy: Iterable[str], now: float) -> dict[str, str]:
        """Who should get the `needy` of our shards when we go."""
        counts = self._counts(mine, now)
        del counts[self.me]
        return assign(counts, needy)

    def _counts(self, mine: Mapping[str, Held], now: float) -> dict[str, int]:
        """Leases of each that may take shards, those on their way to it included."""
        counts: Counter[str] = Counter(dict.fromkeys(self.takers(now), 0))
        counts[self.me] = 0
        holders = {
            key: lease.to or worker for key, (worker, lease) in self.held_by_others().items()
        }
        for key, lease in mine.items():
            holders[key] = lease.to or self.me
        for worker in holders.values():
            if worker in counts:
                counts[worker] += 1
        return dict(counts)

    def _precedence(self, shard_id: str, counts: Mapping[str, int], now: float) -> str | None:
        """The successor whom the release named, while its time lasts and it is there to claim."""
        row, since, _ = self.shards[shard_id]
        if row.owner is not None or row.successor not in counts:
            return None
        return row.successor if now - since < self._timing.successor_s else None

    def _is_overdue(self, shard_id: str, now: float) -> bool:
        row, since, _ = self.shards[shard_id]
        return row.owner is None and now - since >= 2 * self._timing.successor_s

    def _others(self) -> list[WorkerRow]:
        return [row for row in self.workers.values() if row.id != self.me]


def _owned(row: ShardRow) -> tuple[int, bool]:
    return row.epoch, row.owner is None


def _age(row: ShardRow) -> tuple[int, bool, int]:
    """Rows of a shard in the order in which they came to be: a release ends its epoch."""
    return row.epoch, row.owner is None, row.commit
