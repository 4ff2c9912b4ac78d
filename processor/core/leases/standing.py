"""Our own row: the counter that keeps us alive, and how long what we hold is surely ours."""

from __future__ import annotations

from math import inf

from processor.core.leases.commands import Timing
from processor.core.leases.rows import Held, Ready, WorkerRow


class Standing:
    """Validity counts from the send of the last good heartbeat: when it landed, nobody knows.

    Once it lapsed, others may have come to own what was ours; then a good heartbeat alone is not
    enough, and a consistent read of the shard rows must follow it.
    """

    def __init__(self, worker_id: str, timing: Timing, generation: int = 0) -> None:
        self.has_joined = False
        self.heartbeat_at = 0.0
        self.behind_ms: int | None = None  # as `WorkerRow` has it
        self._worker_id = worker_id
        self._generation = generation
        self._timing = timing
        self._sent = WorkerRow(worker_id)
        self._said = _said_by(self._sent)
        self._sent_at = 0.0
        self._valid_until = 0.0
        self._lapsed_at: float | None = None

    def valid_for_s(self, now: float) -> float:
        """Seconds in which effects may still start; 0 and less: none may."""
        if self._lapsed_at is not None:
            return -inf
        return self._valid_until - self._timing.margin_s - now

    def next_row(
        self, held: tuple[Held, ...], ready: tuple[Ready, ...], draining: bool
    ) -> WorkerRow:
        counter = self._sent.counter + 1
        return WorkerRow(
            self._worker_id,
            counter,
            draining=draining,
            held=held,
            ready=ready,
            generation=self._generation,
            behind_ms=self.behind_ms,
        )

    def news_at(self, row: WorkerRow) -> float:
        """When to send `row`: soon if it says something new, else when the next beat is due."""
        if _said_by(row) == self._said:
            return self.heartbeat_at
        return min(self.heartbeat_at, self._sent_at + self._timing.poll_s)

    def on_sent(self, row: WorkerRow, now: float) -> None:
        self._sent, self._sent_at = row, now
        self._said = _said_by(row)

    def on_alive(self, sent_at: float, now: float) -> bool:
        """A heartbeat was good; False if validity had lapsed before we learnt of it."""
        has_lapsed = self.has_joined and now > self._valid_until
        if has_lapsed:
            self._lapsed_at = now
        self.has_joined = True
        self._valid_until = max(self._valid_until, sent_at + self._timing.validity_s)
        self.heartbeat_at = sent_at + self._timing.heartbeat_s
        return not has_lapsed

    def on_reread(self, sent_at: float) -> None:
        """All shard rows were read after `sent_at`, and what is no longer ours was dropped."""
        if self._lapsed_at is not None and sent_at >= self._lapsed_at:
            self._lapsed_at = None


def _said_by(row: WorkerRow) -> tuple[object, ...]:
    """What others wait for; rates come along with the next beat."""
    held = [(one.shard_id, one.epoch, one.rests, one.to) for one in row.held]
    return row.draining, row.ready, held
