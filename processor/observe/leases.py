"""What the lease loop tells: a line for every change of a lease, and how upkeep goes.

Implements the runtime's observer of leases by its shape: nothing here imports the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

from processor.core.leases.generations import advice
from processor.core.leases.rows import ShardRow
from processor.errors import Outage, StreamReplaced, Throttled
from processor.observe.board import Board


class LeaseReporter:
    """`held` is what this worker owns, parked shards included."""

    def __init__(self, board: Board):
        self.held: set[str] = set()
        self._holes: tuple[str, ...] = ()
        self._barred: tuple[str, ...] = ()
        self._board = board

    def __repr__(self) -> str:
        return f"<LeaseReporter holds {sorted(self.held)}>"

    # ---- workers ----------------------------------------------------------------------------

    def on_joined(self, worker_id: str) -> None:
        """From here on all lines of all observers name this worker."""
        self._count("joined")
        self._board.log = self._board.log.bind(worker_id=worker_id)
        self._board.log.info("worker_joined", message="joined the application's workers")

    def on_buried_self(self, worker_id: str) -> None:
        self._count("buried_self")
        for shard_id in tuple(self.held):
            self._drop(shard_id)
        self._board.log.error(
            "worker_buried_self",
            message="others took this worker for dead: it dropped all and joins anew",
            worker_id=worker_id,
        )

    def on_buried(self, worker_id: str) -> None:
        self._count("buried")
        message = f"buried worker {worker_id}: its heartbeats had stopped"
        self._board.log.warning("worker_buried", message=message)

    def on_heartbeat(self, seconds: float) -> None:
        self._board.metrics.observe("heartbeat_duration_seconds", seconds)

    # ---- leases -----------------------------------------------------------------------------

    def on_claimed(self, row: ShardRow) -> None:
        self._count("claimed")
        self.held.add(row.id)
        self._board.metrics.set("leases_held", len(self.held))
        message = f"claimed under epoch {row.epoch} at {row.position}"
        self._board.log.info("lease_claimed", message=message, shard_id=row.id)

    def on_released(self, shard_id: str, successor: str | None) -> None:
        self._drop(shard_id, "released")
        message = f"released to {successor}" if successor else "released to whoever comes"
        self._board.log.info("lease_released", message=message, shard_id=shard_id)

    def on_lost(self, shard_id: str, epoch: int) -> None:
        self._drop(shard_id, "lost")
        message = f"somebody else owns it now; we had epoch {epoch}"
        self._board.log.info("lease_lost", message=message, shard_id=shard_id)

    def on_ended(self, row: ShardRow, children: tuple[str, ...]) -> None:
        self._drop(row.id, "ended")
        message = f"the shard ended; its children: {', '.join(children) or 'none'}"
        self._board.log.info("lease_ended", message=message, shard_id=row.id)

    def on_audit(self, holes: Sequence[str]) -> None:
        """One line when it changes, for audits repeat."""
        self._board.metrics.set("hash_range_holes", len(holes))
        if holes and tuple(holes) != self._holes:
            message = (
                f"no shard covers hash keys {', '.join(holes)}, and ListShards names none that"
                " could: look for a lease that was deleted or ended by hand"
            )
            self._board.log.error("hash_range_hole", message=message)
        self._holes = tuple(holes)

    def on_stream_replaced(self, error: StreamReplaced) -> None:
        self._count("stream_replaced")
        for shard_id in tuple(self.held):
            self._drop(shard_id)
        self._board.log.warning(
            "stream_replaced",
            message="its old shards are dropped, and the new stream is read from its beginning",
            error=error,
        )

    def on_registered(self, generation: int, is_newest: bool) -> None:
        self._board.metrics.set("pipeline_generation", generation)
        if is_newest:
            message = f"this pipeline file is number {generation} of those that the app ran"
            self._board.log.info("generation", message=message)
        else:
            message = (
                f"this pipeline file is number {generation} of those that the app ran, and a newer"
                " one has been seen: what that holds is left to its workers"
            )
            self._board.log.warning("generation_old", message=message)

    def on_barred(self, shard_ids: Sequence[str], generation: int) -> None:
        """One line when it changes, for reads repeat."""
        self._board.metrics.set("leases_barred", len(shard_ids))
        if shard_ids and tuple(shard_ids) != self._barred:
            message = advice(len(shard_ids), generation)
            self._board.log.error("leases_barred", message=message)
        self._barred = tuple(shard_ids)

    def on_checkpoint(self, shard_id: str, outcome: str, stored_bytes: int, seconds: float) -> None:
        metrics = self._board.metrics
        metrics.add("checkpoints_total", outcome=outcome)
        metrics.observe("stage_seconds", seconds, stage="checkpoint")
        if outcome == "committed":
            metrics.set("last_checkpoint_timestamp_seconds", self._board.wall_s(), shard=shard_id)
            metrics.set("snapshot_bytes", stored_bytes, shard=shard_id)
        message = f"{outcome} after {seconds:.3f} s, {stored_bytes} bytes of state"
        log = self._board.log.warning if outcome == "failed" else self._board.log.debug
        log("checkpoint", message=message, shard_id=shard_id)

    # ---- what goes wrong --------------------------------------------------------------------

    def on_task_failed(self, shard_id: str, error: Exception, setbacks: int) -> None:
        self._count_error("shard", error)
        self._board.log.error(
            "shard_failed",
            message=_back(setbacks),
            shard_id=shard_id,
            exc_info=error,
        )

    def on_parked(self, shard_id: str, error: Exception) -> None:
        self._count("parked")
        self._board.log.error(
            "shard_parked",
            message="it stays owned and unread until a person looks at it",
            shard_id=shard_id,
            error=error,
        )

    def on_stalled(self, shard_id: str, reason: str) -> None:
        self._count("stalled")
        self._board.log.error(
            "shard_stalled",
            message=f"{reason}: its task is cancelled, and it is left to another worker",
            shard_id=shard_id,
        )

    def on_handoff(self, shard_id: str, part: str, seconds: float) -> None:
        self._board.metrics.observe("handoff_seconds", seconds, part=part)
        message = f"{part} took {seconds:.3f} s"
        self._board.log.debug("lease_handoff", message=message, shard_id=shard_id)

    def on_fallback(self, shard_id: str, reason: str) -> None:
        self._board.metrics.add("errors_total", stage="restore", kind="StateUnreadable")
        self._board.log.error(
            "state_fallback",
            message="a state can't be read: the one before it is tried",
            shard_id=shard_id,
            error_kind="StateUnreadable",
            error=reason,
        )

    def on_error(self, operation: str, error: Exception) -> None:
        service = error.service.lower() if isinstance(error, Outage) else "state"
        self._count_error("lease", error)
        metrics = self._board.metrics
        metrics.add("retries_total", service=service, reason=type(error).__name__)
        if isinstance(error, Throttled):
            metrics.add("throttled_total", service=service, operation=error.operation)
        self._board.log.warning("lease_call_failed", message=operation, error=error)

    # ---- how --------------------------------------------------------------------------------

    def _drop(self, shard_id: str, event: str | None = None) -> None:
        """The lease is gone: so are the shard's series. A shard not held is no error."""
        if event is not None:
            self._count(event)
        self.held.discard(shard_id)
        self._board.metrics.forget_shard(shard_id)
        self._board.metrics.set("leases_held", len(self.held))

    def _count(self, event: str) -> None:
        self._board.metrics.add("lease_events_total", event=event)

    def _count_error(self, stage: str, error: Exception) -> None:
        self._board.metrics.add("errors_total", stage=stage, kind=type(error).__name__)


def _back(setbacks: int) -> str:
    """What becomes of a shard whose task ended by an error."""
    message = "it goes back to its last checkpoint"
    return f"{message}, {setbacks} times in a row now" if setbacks > 1 else message
