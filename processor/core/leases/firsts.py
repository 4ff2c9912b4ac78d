"""The first state of shards that nobody has read yet, as a warm start writes it.

Shards begin with it that are read first: those that no parent has to end for. Their children
inherit it. A warm start is refused where there is a state already, unless a former warm start left
it and nobody has claimed the shard since: then it is replaced, for nothing was told of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from processor.core.leases.rows import Pair, ShardRow, StateRef, state_epoch
from processor.errors import Refused
from processor.model import END, Position, StreamInfo

MARK = "warm"  # begins the write ids of warm starts


def takers(rows: Mapping[str, ShardRow]) -> list[ShardRow]:
    """Shards that are read first, in order of ids."""
    return [row for _, row in sorted(rows.items()) if not row.ended and not _waits(rows, row)]


def _waits(rows: Mapping[str, ShardRow], row: ShardRow) -> bool:
    return any(parent in rows and not rows[parent].ended for parent in row.shard.parents)


def is_untouched(row: ShardRow) -> bool:
    """Whether a warm start wrote it, and nobody has claimed it since."""
    refs = [pair.state for pair in row.pairs if pair.state is not None]
    return row.write_id.startswith(MARK) and all(state_epoch(r.key) == row.epoch for r in refs)


def require_none(rows: Iterable[ShardRow], app: str) -> None:
    """Refused where one has a state."""
    for row in rows:
        if any(pair.state is not None for pair in row.pairs) and not is_untouched(row):
            raise Refused(
                f"{row.id} has a state already, of commit {row.commit}; nothing was changed. A warm"
                " start is for what nobody has read yet: stop the workers, and drop the state by"
                f" `processor leases reset --all --yes {app}`"
            )


def require_unread(rows: Iterable[ShardRow]) -> None:
    """Refused where an operator set a position: what follows it is still to be told."""
    for row in rows:
        if any(pair.commit for pair in row.pairs) and not is_untouched(row):
            raise Refused(
                f"{row.id} goes on at {row.position}, where a seek or an import put it; to learn"
                " from the stream itself would pass over what comes after it. Nothing was changed:"
                " learn from files by --from, which keeps positions"
            )


def begun(
    row: ShardRow,
    position: Position,
    state: StateRef | None,
    write_id: str,
    generation: int,
    caught_up_at_ms: int | None,
) -> ShardRow:
    """Nobody's, at `position`, with its first state; at END it needs none: its children have it."""
    assert write_id.startswith(MARK), write_id
    commit = row.commit + 1
    return replace(
        row,
        pairs=(Pair(position, commit, state),),
        owner=None,
        epoch=row.epoch + 1,
        commit=commit,
        write_id=write_id,
        ended=position == END,
        successor=None,
        moved=False,
        marks=(),
        generation=generation,
        caught_up_at_ms=caught_up_at_ms,
    )


def begins_at_ms(row: ShardRow, info: StreamInfo) -> int | None:
    """Records that arrived from then on, the stream gives itself; None where that is unknown."""
    position = row.position
    if position.kind == "trim_horizon":
        return max(info.created_ms, info.service_date_ms - info.retention_ms)
    return int(position.value) if position.kind == "at_time" else None
