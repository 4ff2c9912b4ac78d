"""Who is dead: a worker whose row stood unchanged for long enough, as far as we could see.

Unchanged time counts only over successful consistent reads close together, and not across a time in
which we could not write ourselves: an outage of the table is nobody's death. Of workers that we
read seldom, we know whether they changed from one read to the next, and judge nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from processor.core.leases.rows import WorkerRow


class _Seen(NamedTuple):
    counter: int | None  # None: there is no row
    changed_at: float  # when we first saw this counter
    still_since: float  # since when we have seen it without a gap between our reads
    read_at: float


class Liveness:
    """When each worker was last seen to change, in this worker's own time."""

    def __init__(self, dead_after_s: float, gap_max_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._gap_max_s = gap_max_s
        self._seen: dict[str, _Seen] = {}

    def on_read(self, rows: Iterable[WorkerRow], now: float, owners: Iterable[str] = ()) -> None:
        """A consistent read that was complete at `now`, and so would have shown the `owners` too.

        An owner without a row counts like one whose counter stands still: its last heartbeat may be
        as young.
        """
        counters: dict[str, int | None] = dict.fromkeys(owners)
        counters.update((row.id, row.counter) for row in rows)
        for worker_id, counter in counters.items():
            self._seen[worker_id] = self._sight(worker_id, counter, now)

    def forget(self, worker_id: str) -> None:
        """Its row is gone."""
        self._seen.pop(worker_id, None)

    def restart(self) -> None:
        """Nothing that was seen so far counts: a read failed, or we could not write ourselves."""
        self._seen = {
            worker_id: seen._replace(read_at=-inf) for worker_id, seen in self._seen.items()
        }

    def is_dead(self, worker_id: str, now: float) -> bool:
        """Whether it stood still for long enough, by reads that are recent enough."""
        due_at = self.due_at(worker_id)
        return due_at is not None and due_at <= now and self.is_watched(worker_id, now)

    def is_watched(self, worker_id: str, now: float) -> bool:
        """Whether it was read lately enough to judge it."""
        seen = self._seen.get(worker_id)
        return seen is not None and now - seen.read_at <= self._gap_max_s

    def due_at(self, worker_id: str) -> float | None:
        """When the worker is dead unless a read shows a change; None if it is unknown."""
        seen = self._seen.get(worker_id)
        return None if seen is None else seen.still_since + self._dead_after_s

    def is_fresh(self, worker_id: str, within_s: float, now: float) -> bool:
        """Whether it was seen to change that lately."""
        seen = self._seen.get(worker_id)
        return seen is not None and now - seen.changed_at <= within_s

    def _sight(self, worker_id: str, counter: int | None, now: float) -> _Seen:
        known = self._seen.get(worker_id)
        if known is None or known.counter != counter:
            return _Seen(counter, now, now, now)
        has_gap = now - known.read_at > self._gap_max_s
        return known._replace(still_since=now if has_gap else known.still_since, read_at=now)
