"""What a complete listing of the stream's shards, and the rows read after it, ask for.

Rows to create for new shards and for holes that last; rows to remove of shards that nobody needs
any more; what no shard covers; and whether a reshard is under way, so that one looks again soon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from processor.core.leases import audit
from processor.core.leases.audit import Hole
from processor.core.leases.lineage import refilled, removable, undiscovered
from processor.core.leases.rows import ShardRow, StreamKey
from processor.model import Position, Shard

OMISSIONS = 2  # listings in a row that must leave a shard out, for one may be cut by a mishap
# A parent with a day's backlog is closed for hours. What is under way then is catching up, and
# listing all shards each 5 s for it would cost a large fleet's table more than it is worth.
RESHARD_S_MAX = 120.0


class Found(Struct, frozen=True):
    """`create`: parents before children. `holes`: nobody's hash keys, twice in a row now."""

    create: list[ShardRow]
    remove: list[ShardRow]
    holes: list[Hole]
    is_resharding: bool


class Discovery:
    """Listing after listing of one stream by one worker; `start` is the application's, pinned."""

    def __init__(self, stream: StreamKey, start: Position) -> None:
        self._stream = stream
        self._start = start
        self._omitted: dict[str, int] = {}  # by shard with a row: how often in a row
        self._holes: list[Hole] = []
        self._shape: frozenset[tuple[str, bool]] | None = None
        self._changed_at: float | None = None

    def __repr__(self) -> str:
        return f"<Discovery of {self._stream}, holes {self._holes}>"

    def on_listing(
        self, listing: Sequence[Shard], rows: Mapping[str, ShardRow], now: float
    ) -> Found:
        """`listing` is complete, and `rows` are all that there are, read after it."""
        fresh = undiscovered(self._stream, listing, rows, self._start)
        filled, holes = self._audit(listing, {**rows, **{row.id: row for row in fresh}})
        return Found(
            fresh + filled,
            removable(rows, self._omissions(listing, rows)),
            holes,
            self._is_resharding(listing, rows, now),
        )

    def _audit(
        self, listing: Sequence[Shard], rows: Mapping[str, ShardRow]
    ) -> tuple[list[ShardRow], list[Hole]]:
        """Rows that fill holes which last, and what remains of those."""
        seen = audit.holes(rows.values())
        lasting = audit.lasting(self._holes, seen)
        self._holes = seen
        fillers = {
            shard.id: shard
            for hole in lasting
            for shard in audit.fillers(hole, listing, rows.values())
        }
        filled = refilled(self._stream, list(fillers.values()), rows, self._start)
        left = audit.holes([*rows.values(), *filled])
        return filled, audit.lasting(lasting, left)

    def _omissions(self, listing: Sequence[Shard], rows: Mapping[str, ShardRow]) -> set[str]:
        """Shards that were left out often enough."""
        absent = rows.keys() - {shard.id for shard in listing}
        self._omitted = {key: self._omitted.get(key, 0) + 1 for key in absent}
        return {key for key, times in self._omitted.items() if times >= OMISSIONS}

    def _is_resharding(
        self, listing: Sequence[Shard], rows: Mapping[str, ShardRow], now: float
    ) -> bool:
        """A listing differed from the one before, and since then not all children are owned yet."""
        shape = frozenset((shard.id, shard.is_closed) for shard in listing)
        before, self._shape = self._shape, shape
        if before is not None and shape - before:  # shards that only went are no reshard
            self._changed_at = now
        if self._changed_at is None or now - self._changed_at > RESHARD_S_MAX:
            return False
        if all(_is_settled(shard, rows.get(shard.id)) for shard in listing):
            self._changed_at = None
        return self._changed_at is not None


def _is_settled(shard: Shard, row: ShardRow | None) -> bool:
    """Whether a listed shard is past its part in a reshard: ended, or open and owned."""
    if row is None:
        return False
    return row.ended or (row.owner is not None and not shard.is_closed)
