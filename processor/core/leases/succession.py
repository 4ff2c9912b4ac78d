"""The children of shards that this worker ended: whoever ended the last parent claims them at once.

Two workers may end the two parents of a merged child at the same moment, each still taking the
other's for open. So after an end the child's row and those of its other parents are read again. Of
the two transactions one came second, and the read that follows it sees both parents ended. Worker
rows and balance have no say here: the claim's own condition settles who was first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from processor.core.leases.lineage import is_readable
from processor.core.leases.rows import ShardRow


class Succession:
    """Children by id: those whose family is still to be read, and those that may be claimed."""

    def __init__(self) -> None:
        self._unread: dict[str, tuple[str, ...]] = {}  # child → rows to read, its own first
        self._ours: set[str] = set()

    def __repr__(self) -> str:
        return f"<Succession to read {sorted(self._unread)}, to claim {sorted(self._ours)}>"

    def on_ended(self, parent: ShardRow, children: Iterable[ShardRow]) -> None:
        """We ended `parent`, and in the same transaction its children came to be."""
        for child in children:
            others = (other for other in child.shard.parents if other != parent.id)
            self._unread[child.id] = (child.id, *others)

    def on_family(self, child_id: str, rows: Mapping[str, ShardRow]) -> None:
        """The child's family was read after the parent's end; `rows`: all as last seen.

        Where another parent has not ended, the child is left to whoever will end that one.
        """
        self._unread.pop(child_id, None)
        if _is_free(child_id, rows):
            self._ours.add(child_id)

    def families(self) -> dict[str, tuple[str, ...]]:
        """What to read: each child, and the ids of the rows that decide on it."""
        return dict(self._unread)

    def claimable(self, rows: Mapping[str, ShardRow]) -> list[str]:
        """Children to claim now; what got an owner is forgotten."""
        self._ours = {child_id for child_id in self._ours if _is_free(child_id, rows)}
        return sorted(self._ours)


def _is_free(child_id: str, rows: Mapping[str, ShardRow]) -> bool:
    row = rows.get(child_id)
    return row is not None and row.owner is None and row.epoch == 0 and is_readable(row, rows)
