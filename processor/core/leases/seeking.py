"""Positions set by hand: what a seek, a reset or an import makes of rows, and what it refuses.

Each drops state and begins a new incarnation (one more seek), so that the events that follow have
ids of their own; epoch and commit number go up, so that whoever still holds the row as it was can
write no more. What the dropped states were stored as, the next claim sweeps away.

A shard that is set by hand begins with nothing, not even with what its parents left. Only behind a
parent that is read (again) too, it inherits, as any child does.

    the row            seek one            seek all               reset
    being read         moved               moved                  stays, without state
    not begun          moved               moved                  stays
    ended, listed      refused: children   read again, but not    its state dropped, unless
                       go on after it      for `latest`           a child has begun
    ended, not listed  the same            stays                  the same
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from processor.core.leases.lineage import parents_first
from processor.core.leases.rows import Pair, ShardRow
from processor.core.progress import START_WORDS, start_position
from processor.errors import ConfigError, UsageError
from processor.model import TRIM_HORIZON, Position

_TIME = "a time with its zone (2026-01-31T12:00:00Z)"
TARGETS = f"trim_horizon, latest, a sequence number, or {_TIME}"
STARTS = f"trim_horizon, latest, or {_TIME}"
ANY_DATE_MS = 2**63  # for a check of the words alone, before the service's date is known


class Change(Struct, frozen=True):
    """One row to write, if it still is what `before` says."""

    before: ShardRow
    after: ShardRow


# ---- where to ---------------------------------------------------------------------------------


def target(text: str, service_date_ms: int) -> Position:
    """What `--to` means; `latest` is pinned to the service's time. UsageError if it is none."""
    if text.isascii() and text.isdigit():
        return Position("at", str(int(text)))
    return _start(text, service_date_ms, "--to", TARGETS)


def initial(text: str, service_date_ms: int) -> Position:
    """What `--initial` means: as `target`, but for any shard, so no sequence number."""
    return _start(text, service_date_ms, "--initial", STARTS)


def _start(text: str, service_date_ms: int, option: str, expected: str) -> Position:
    word = text.lower().replace("-", "_")
    start = word if word in START_WORDS else text
    try:
        return start_position(start, service_date_ms)
    except ConfigError as error:
        raise UsageError(f"{option}: found {error.found}, expected {expected}") from None


# ---- one row ----------------------------------------------------------------------------------


def moved_to(row: ShardRow, position: Position, write_id: str, *, inherits: bool) -> ShardRow:
    """Nobody's, at `position`, without state; what was read before it is known only if it stays.

    A pair with a commit number but no state was set by hand; one without either is a beginning.
    """
    commit = row.commit + 1
    return replace(
        row,
        pairs=(Pair(position, 0 if inherits else commit),),
        owner=None,
        epoch=row.epoch + 1,
        commit=commit,
        write_id=write_id,
        seeks=row.seeks + 1,
        ended=position.kind == "end",
        successor=None,
        moved=False,
        marks=(),
        generation=0,  # there is no state that an older pipeline file could not read
        caught_up_at_ms=row.caught_up_at_ms if position == row.position else None,
    )


def inherits(pair: Pair) -> bool:
    """Whether a shard that starts from `pair`, which has no state, begins with its parents'."""
    return pair.commit == 0


# ---- many rows --------------------------------------------------------------------------------


def seek_one(
    rows: Mapping[str, ShardRow], shard_id: str, position: Position, write_id: str
) -> list[Change]:
    """UsageError for a shard that ended: its children went on from what it left."""
    row = known(rows, shard_id)
    if row.ended:
        children = ", ".join(children_of(rows, shard_id)) or "none that is known"
        raise UsageError(
            f"{shard_id} has ended, and what follows it goes on from there (children: {children});"
            " nothing was changed. Seek those, or all shards: --all reads ended ones again"
        )
    behind_parent = not _have_ended(rows, row)
    return [Change(row, moved_to(row, position, write_id, inherits=behind_parent))]


def seek_all(
    rows: Mapping[str, ShardRow],
    listed: Collection[str],
    position: Position,
    write_id: str,
    *,
    reopen: bool,
) -> list[Change]:
    """Parents first. `listed`: ids of the shards that the stream still has; `reopen`: read ended
    ones again, if listed (not where the position lies past them all)."""
    wanted = {row.id for row in rows.values() if not row.ended or (reopen and row.id in listed)}
    changes = []
    for row in parents_first(list(rows.values())):
        if row.id in wanted:
            behind_parent = bool(wanted.intersection(row.shard.parents))
            after = moved_to(row, position, write_id, inherits=behind_parent)
            changes.append(Change(row, after))
    return changes


def reset(rows: Mapping[str, ShardRow], shard_id: str | None, write_id: str) -> list[Change]:
    """One shard, or all, without state where they are.

    Of a parent whose children went on from its state, there is none left to drop: refused if it is
    named, left alone among all.
    """
    one = [] if shard_id is None else [known(rows, shard_id)]
    changes = []
    for row in one or parents_first(list(rows.values())):
        begun = [child for child in children_of(rows, row.id) if rows[child].epoch > 0]
        if row.ended and begun and one:
            raise UsageError(
                f"{row.id} has ended, and {', '.join(begun)} went on from its state; nothing was"
                " changed. Reset those"
            )
        if not (row.ended and begun):
            behind_parent = row.position == TRIM_HORIZON and not _have_ended(rows, row)
            after = moved_to(row, row.position, write_id, inherits=behind_parent)
            changes.append(Change(row, after))
    return changes


def known(rows: Mapping[str, ShardRow], shard_id: str) -> ShardRow:
    if shard_id not in rows:
        some = ", ".join(sorted(rows)[:5]) or "no shard at all"
        raise UsageError(f"no lease of a shard {shard_id!r}; the table has {some}")
    return rows[shard_id]


def children_of(rows: Mapping[str, ShardRow], shard_id: str) -> list[str]:
    return sorted(row.id for row in rows.values() if shard_id in row.shard.parents)


def _have_ended(rows: Mapping[str, ShardRow], row: ShardRow) -> bool:
    """Whether all parents ended, or are gone."""
    return all(rows[parent].ended for parent in row.shard.parents if parent in rows)
