"""Positions that come from elsewhere: an export of ours, or another consumer's lease table.

Every shard that the stream has gets a place, or the import is refused: one that is left out would
be a gap or a repeat. A shard that the other side does not know of is told from its family:

    a descendant is known      ended: the other side was through with it, and forgot it
    an ancestor is known       its beginning: the other side did not come to it yet
    neither                    as `initial` says; refused where nothing is said
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from processor.core.leases.lineage import parents_first
from processor.core.leases.rows import ShardRow, StreamKey, position_of
from processor.core.leases.seeking import Change, moved_to
from processor.errors import ConfigError, UsageError
from processor.model import END, TRIM_HORIZON, Position, Shard

FORMAT = "processor positions"
VERSION = 1


class Place(Struct, frozen=True):
    """Where a shard goes on. `seeks` and `caught_up_at_ms`: those of the row that it comes from;
    `note` tells a person why it is there."""

    shard_id: str
    position: Position
    note: str = ""
    seeks: int = 0
    caught_up_at_ms: int | None = None


def places(
    listing: Sequence[Shard], known: Iterable[Place], initial: Position | None
) -> list[Place]:
    """One for each listed shard, in the listing's order; UsageError where one can't be told."""
    by_id = {place.shard_id: place for place in known}
    parents = {shard.id: shard.parents for shard in listing}
    forgotten = _ancestors(by_id, parents)
    found = []
    for shard in listing:
        if shard.id in by_id:
            found.append(by_id[shard.id])
        elif shard.id in forgotten:
            found.append(Place(shard.id, END, "not known there, but its children are"))
        elif _ancestors([shard.id], parents) & by_id.keys():
            found.append(Place(shard.id, TRIM_HORIZON, "not known there, but its parents are"))
        elif initial is not None:
            found.append(Place(shard.id, initial, "not known there: --initial"))
        else:
            raise UsageError(
                f"{shard.id} is not known there, nor is any shard that it comes from or that comes"
                " from it; say with --initial where to begin: trim_horizon, latest or a time"
            )
    return found


def left_out(listing: Sequence[Shard], known: Iterable[Place]) -> list[Place]:
    """Places of shards that the stream no longer has."""
    listed = {shard.id for shard in listing}
    return [place for place in known if place.shard_id not in listed]


def require_free(rows: Mapping[str, ShardRow], found: Sequence[Place], *, overwrite: bool) -> None:
    """UsageError where we got on by ourselves, unless that is to be overwritten."""
    ours = [place.shard_id for place in found if has_begun(rows.get(place.shard_id))]
    if ours and not overwrite:
        raise UsageError(
            f"this application has progress of its own on {len(ours)} shards ({ours[0]}, …), which"
            " an import would drop; nothing was changed. Say so with --overwrite"
        )


def changes(rows: Mapping[str, ShardRow], found: Sequence[Place], write_id: str) -> list[Change]:
    """Each place's row, parents first; `rows` has one for each."""
    by_id = {place.shard_id: place for place in found}
    made = []
    for row in parents_first([rows[place.shard_id] for place in found]):
        place = by_id[row.id]
        behind_parent = any(
            parent in by_id and by_id[parent].position != END for parent in row.shard.parents
        )
        counted = replace(row, seeks=max(row.seeks, place.seeks))
        after = moved_to(counted, place.position, write_id, inherits=behind_parent)
        made.append(Change(row, replace(after, caught_up_at_ms=place.caught_up_at_ms)))
    return made


def has_begun(row: ShardRow | None) -> bool:
    """Whether there is something to lose: an owner's or an operator's work."""
    return row is not None and (row.epoch > 0 or row.commit > 0)


def _ancestors(ids: Iterable[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """All shards that these come from, without themselves, as far as they are listed."""
    found: set[str] = set()
    waiting = [parent for id_ in ids for parent in parents.get(id_, ())]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(parents.get(one, ()))
    return found


# ---- our own file -----------------------------------------------------------------------------


class _Exported(Struct, frozen=True):
    shard: str
    position: str
    seeks: int = 0
    caught_up_at_ms: int | None = None


class _Export(Struct, frozen=True):
    format: str
    version: int
    app: str
    stream: str
    created_ms: int
    exported_at_ms: int
    shards: list[_Exported]


def export(app: str, stream: StreamKey, rows: Mapping[str, ShardRow], exported_at_ms: int) -> bytes:
    """Positions as JSON; state stays where it is."""
    shards = [
        _Exported(row.id, str(row.position), row.seeks, row.caught_up_at_ms)
        for _, row in sorted(rows.items())
    ]
    whole = _Export(FORMAT, VERSION, app, stream.name, stream.created_ms, exported_at_ms, shards)
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def read_export(raw: bytes, file: str, stream: StreamKey) -> list[Place]:
    """The places in an export; ConfigError if it is none, or one of another stream."""
    try:
        whole = msgspec.json.decode(raw, type=_Export)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        expected = "a file that `processor leases export` wrote"
        raise ConfigError("", str(error), expected, file=file) from None
    told = (whole.format, whole.version)
    if told != (FORMAT, VERSION):
        expected = f"{FORMAT}, version {VERSION}"
        raise ConfigError("format", f"{told[0]}, version {told[1]}", expected, file=file)
    if StreamKey(whole.stream, whole.created_ms) != stream:
        found = f"{whole.stream} made at {whole.created_ms}"
        expected = f"{stream.name} made at {stream.created_ms}: positions are of one stream only"
        raise ConfigError("stream", found, expected, file=file)
    return [_place(i, one, file) for i, one in enumerate(whole.shards)]


def _place(i: int, one: _Exported, file: str) -> Place:
    try:
        position = position_of(one.position)
        return Place(one.shard, position, "", one.seeks, one.caught_up_at_ms)
    except ValueError:
        path, expected = f"shards[{i}].position", "after:NUMBER, at_time:MS, trim_horizon or end"
        raise ConfigError(path, repr(one.position), expected, file=file) from None
