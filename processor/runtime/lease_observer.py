"""What leases tell metrics and logs: do-nothing methods; an observer overrides what it wants.

Called from the event loop, synchronously: an observer must neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from processor.core.leases.rows import ShardRow
from processor.errors import StreamReplaced

CheckpointOutcome = Literal["committed", "lost", "failed"]
# Of a hand-off, where it happens: the giver waits for its taker while it works on (`ready`), then
# stops, commits and releases (`release`); the taker claims and loads the state (`load`).
HandoffPart = Literal["ready", "release", "load"]


class LeaseObserver(Protocol):
    """Hears of every change of a lease; does nothing with it."""

    def on_joined(self, worker_id: str) -> None:
        """A new worker's row stands; a second one in a process follows `on_buried_self`."""

    def on_buried_self(self, worker_id: str) -> None:
        """Others took us for dead, or our row was deleted: everything was dropped."""

    def on_buried(self, worker_id: str) -> None:
        """We buried a worker whose heartbeats had stopped."""

    def on_heartbeat(self, seconds: float) -> None:
        """A heartbeat was answered, after so long."""

    def on_claimed(self, row: ShardRow) -> None: ...

    def on_released(self, shard_id: str, successor: str | None) -> None: ...

    def on_lost(self, shard_id: str, epoch: int) -> None:
        """Somebody else owns the shard: its task ends here."""

    def on_ended(self, row: ShardRow, children: tuple[str, ...]) -> None: ...

    def on_audit(self, holes: Sequence[str]) -> None:
        """Hash keys (`first-last`) that no shard has covered in two audits; mostly none."""

    def on_stream_replaced(self, error: StreamReplaced) -> None:
        """The stream was deleted and made again: its old shards were dropped, its new ones begin
        under ids of their own."""

    def on_registered(self, generation: int, is_newest: bool) -> None:
        """Our pipeline's number among those that the application ran."""

    def on_barred(self, shard_ids: Sequence[str], generation: int) -> None:
        """Free shards that we may not claim, as a newer pipeline holds their state; mostly none."""

    def on_checkpoint(
        self, shard_id: str, outcome: CheckpointOutcome, stored_bytes: int, seconds: float
    ) -> None: ...

    def on_task_failed(self, shard_id: str, error: Exception, setbacks: int) -> None:
        """The shard goes back to its last checkpoint, for so many times in a row without getting on
        (0 if that is left to its next owner)."""

    def on_parked(self, shard_id: str, error: Exception) -> None:
        """The shard stays owned and unread until a person looks at it."""

    def on_stalled(self, shard_id: str, reason: str) -> None:
        """The shard's task did not get on: it is cancelled, and the shard left to others."""

    def on_handoff(self, shard_id: str, part: HandoffPart, seconds: float) -> None:
        """A part of a hand-off is done (`HandoffPart`)."""

    def on_fallback(self, shard_id: str, reason: str) -> None:
        """A state could not be read; the pair before it is used."""

    def on_error(self, operation: str, error: Exception) -> None:
        """A call failed and will be repeated, or left something behind for a later sweep."""


class Unobserved(LeaseObserver):
    """The observer that looks away."""
