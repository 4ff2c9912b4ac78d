"""Which shards there are, which may be read yet, and which row a new one starts with.

A child is read only after all its parents ended, or order per key would be lost. A parent that was
already gone when the child was discovered (no row, and in no listing) counts as ended: what it held
was past retention before we came. If older ancestors are still in the table, past retention too and
not ended yet, they are waited for in its place: they end soon, and have state to leave.

A parent's row stays until all its children stand on states of their own, and is removed when the
stream no longer names the shard; a late listing that still does must not bring it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from processor.core.leases.audit import overlap
from processor.core.leases.rows import ShardRow, StreamKey, fresh_row
from processor.model import Position, Shard


def undiscovered(
    stream: StreamKey,
    listing: Sequence[Shard],
    rows: Mapping[str, ShardRow],
    start: Position,
) -> list[ShardRow]:
    """Rows to create for listed shards that have none; parents come before their children.

    `listing` must be complete, and `rows` read after it. Each starts at the application's pinned
    start: where that is a time, a shard opened later holds nothing older.
    """
    listed = {shard.id for shard in listing}
    known = listed | rows.keys()
    past = _outlived(rows.values())
    left = [row for row in rows.values() if not row.ended and row.id not in listed]
    fresh = [
        fresh_row(stream, _with_ancestors(shard, known, left), start)
        for shard in listing
        if shard.id not in rows and shard.id not in past
    ]
    return parents_first(fresh)


def refilled(
    stream: StreamKey, shards: Sequence[Shard], rows: Mapping[str, ShardRow], start: Position
) -> list[ShardRow]:
    """Rows for shards that had one, parents first; parents that have none any more had ended."""
    known = rows.keys() | {shard.id for shard in shards}
    return parents_first([fresh_row(stream, _with_parents(one, known), start) for one in shards])


def children_of(
    row: ShardRow,
    children: Iterable[Shard],
    known: Collection[str],
    start: Position,
    successor: str,
) -> list[ShardRow]:
    """Rows of the shards that follow `row`, to be claimed first by `successor`, who ended it.

    `known`: ids of all shards with a row; a parent outside of it counts as ended.
    """
    return [
        replace(
            fresh_row(row.stream, _with_ancestors(child, {row.id, *known}, [row]), start),
            seeks=row.seeks,
            successor=successor,
        )
        for child in children
    ]


def is_older(listing: Sequence[Shard], shards: Iterable[Shard]) -> bool:
    """Whether a listing is of before those shards were opened: the service numbers them as it does,
    and a newer listing has them, or later ones. What it does not show may be there all the same."""
    newest = max((shard.id for shard in listing), default="")
    return newest < max((shard.id for shard in shards), default="")


def is_readable(row: ShardRow, rows: Mapping[str, ShardRow]) -> bool:
    """Whether a shard may be owned: not ended, and nothing before it is left to read.

    A parent that is missing in `rows` has not ended: buckets are read one after the other, and its
    row may have come after its bucket's turn. Once the shard was claimed, its parents had ended: a
    missing one is gone for good, and one that has not ended is read again, by an operator's seek.
    """
    if row.ended or not row.shard.parents:
        return not row.ended
    known = [rows[parent].ended for parent in row.shard.parents if parent in rows]
    return all(known) and (row.epoch > 0 or len(known) == len(row.shard.parents))


def seeks_of(row: ShardRow, rows: Mapping[str, ShardRow]) -> int:
    """A child takes its parents' highest number of seeks, so that ids stay new after a seek."""
    parents = (rows[parent].seeks for parent in row.shard.parents if parent in rows)
    return max((row.seeks, *parents))


def removable(rows: Mapping[str, ShardRow], omitted: Collection[str]) -> list[ShardRow]:
    """Rows of ended shards that nobody needs any more; `omitted`: by two complete listings.

    A child needs its parents' states as long as one of its pairs is its very beginning.
    """
    needed = {
        parent
        for row in rows.values()
        if not row.ended and any(pair.commit == 0 for pair in row.pairs)
        for parent in row.shard.parents
    }
    return [
        row for row in rows.values() if row.ended and row.id in omitted and row.id not in needed
    ]


def heirs(shard: Shard, listing: Sequence[Shard]) -> tuple[Shard, ...]:
    """Who follows a shard by a listing: its children, or where they are gone too, the oldest that
    are listed of its hash range."""
    children = tuple(one for one in listing if shard.id in one.parents)
    if children:
        return children
    listed = {one.id for one in listing}
    return tuple(
        one
        for one in listing
        if one.id != shard.id and overlap(one, shard) and not listed & set(one.parents)
    )


def _outlived(rows: Iterable[ShardRow]) -> set[str]:
    """Shards whose children were claimed, after they had ended: a row that is gone was removed."""
    return {parent for row in rows if row.epoch > 0 for parent in row.shard.parents}


def _with_ancestors(shard: Shard, known: Collection[str], left: Iterable[ShardRow]) -> Shard:
    """With its parents; where none is known any more, with those of `left` that it comes from."""
    found = _with_parents(shard, known)
    if found.parents or not shard.parents:
        return found
    older = (row.id for row in left if overlap(row.shard, shard))
    return replace(found, parents=tuple(sorted(older)))


def _with_parents(shard: Shard, known: Collection[str]) -> Shard:
    parents = tuple(parent for parent in shard.parents if parent in known)
    return replace(shard, parents=parents, is_closed=False)


def parents_first(rows: Sequence[ShardRow]) -> list[ShardRow]:
    """In order of ancestry, then of ids: a child's row is never written before its parents'."""
    waiting = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
    ordered: list[ShardRow] = []
    while waiting:
        ready = [row for row in waiting.values() if not waiting.keys() & set(row.shard.parents)]
        assert ready, f"shards are each other's parents: {sorted(waiting)}"
        ordered.extend(ready)
        for row in ready:
            del waiting[row.id]
    return ordered
