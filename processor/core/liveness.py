"""Who is dead: a worker whose row stood unchanged for long enough, as far as we could see.

Unchanged time counts only over successful consistent reads close together, and not across a time in
which we could not write ourselves: an outage of the table is nobody's death. An owner without a
row counts like one whose counter stands still, for its last heartbeat may be just as young.
"""

from __future__ import annotations

from collections.abc import Iterable

from processor.core.rows import WorkerRow


class Liveness:
    """When each worker was last seen to change, in this worker's own time."""

    def __init__(self, dead_after_s: float, gap_max_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._gap_max_s = gap_max_s
        self._seen: dict[str, tuple[int | None, float]] = {}  # id → counter (None: absent), since
        self._read_at: float | None = None

    def on_read(self, rows: Iterable[WorkerRow], owners: Iterable[str], now: float) -> None:
        """A consistent read that was complete at `now`; `owners`: ids that shard rows name."""
        if not self.is_current(now):
            self.restart()
        self._read_at = now
        counters: dict[str, int | None] = dict.fromkeys(owners)
        counters.update((row.id, row.counter) for row in rows)
        self._seen = {
            worker_id: self._since(worker_id, counter, now)
            for worker_id, counter in counters.items()
        }

    def restart(self) -> None:
        """Nothing that was seen so far counts: a read failed, or we could not write ourselves."""
        self._seen = {}
        self._read_at = None

    def is_dead(self, worker_id: str, now: float) -> bool:
        """Whether it stood still for long enough, by reads that are recent enough."""
        due_at = self.due_at(worker_id)
        return self.is_current(now) and due_at is not None and due_at <= now

    def is_current(self, now: float) -> bool:
        """Whether the last read succeeded, and not too long ago."""
        return self._read_at is not None and now - self._read_at <= self._gap_max_s

    def due_at(self, worker_id: str) -> float | None:
        """When the worker is dead unless a read shows a change; None if it is unknown."""
        if worker_id not in self._seen:
            return None
        return self._seen[worker_id][1] + self._dead_after_s

    def is_fresh(self, worker_id: str, within_s: float, now: float) -> bool:
        """Whether it was seen to change that lately."""
        return worker_id in self._seen and now - self._seen[worker_id][1] <= within_s

    def _since(self, worker_id: str, counter: int | None, now: float) -> tuple[int | None, float]:
        known = self._seen.get(worker_id)
        return known if known is not None and known[0] == counter else (counter, now)
