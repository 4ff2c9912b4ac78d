"""The lease table of the Kinesis Client Library 2.x and 3.x: where each shard's lease goes on.

As KCL itself reads it (DynamoDBLeaseSerializer, DynamoDBMultiStreamLeaseSerializer, EntityType of
amazon-kinesis-client 3.x). A checkpoint (sequence number, sub-sequence number) names the last user
record that was done: KCL reads AT the number and drops what is not past both. So do we.

A pending checkpoint (`prepareCheckpoint`) is passed over: KCL only tells it to the application, and
begins at the checkpoint all the same, for what lies between was announced, not done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from processor.core.leases.placing import Place
from processor.core.leases.rows import StreamKey
from processor.errors import ConfigError, Refused, UsageError
from processor.model import END, TRIM_HORIZON, Position

# What else may stand in the table since 3.x; an unknown type is a lease, as KCL has it.
NO_LEASES = frozenset(
    {
        "STREAM",
        "LEADER",
        "CLIENT_VERSION_MIGRATION",
        "TABLE_MIGRATION",
        "WORKER_METRIC_STATS",
    }
)
# Positions that are only the application's configuration, stored: nothing was checkpointed yet.
UNSTARTED = ("LATEST", "AT_TIMESTAMP")


class KclLease(Struct, frozen=True):
    """One lease. `stream` is None in a table of a single stream, else `account:name:epoch`."""

    key: str
    shard_id: str
    stream: str | None
    checkpoint: str
    sub: int
    owner: str | None
    counter: int
    is_pending: bool


def leases_of(items: Iterable[Mapping[str, Any]], table: str) -> list[KclLease]:
    """The leases among a table's items, whose values are plain (text, int, …)."""
    found = [_lease(item, table) for item in items if item.get("entityType") not in NO_LEASES]
    return sorted(found, key=lambda lease: lease.key)


def of_stream(leases: Sequence[KclLease], stream: StreamKey, wanted: str | None) -> list[KclLease]:
    """Those of our stream. `wanted`: its `account:name:epoch`, where several have that name."""
    streams = sorted({lease.stream for lease in leases if lease.stream is not None})
    if not streams:
        return list(leases)
    ours = [one for one in streams if one.split(":")[1] == stream.name]
    if wanted is None and len(ours) > 1:
        # Made again under its name, it is another stream; the epoch says which, if it was set so.
        exact = [one for one in ours if one.rpartition(":")[2] == str(stream.created_ms // 1000)]
        ours = exact or ours
    chosen = ours if wanted is None else [one for one in streams if one == wanted]
    if len(chosen) != 1:
        raise UsageError(
            f"the KCL table has leases of {', '.join(streams)}; which of these is stream"
            f" {stream.name}? Name it with --kcl-stream"
        )
    return [lease for lease in leases if lease.stream == chosen[0]]


def place_of(lease: KclLease, initial: Position | None, *, splits: bool) -> Place:
    """Where we go on after it. `splits`: whether we take aggregates apart; `initial`: where a lease
    begins that was never checkpointed."""
    note = "a pending checkpoint is passed over" if lease.is_pending else ""
    match lease.checkpoint:
        case "TRIM_HORIZON":
            return Place(lease.shard_id, TRIM_HORIZON, note)
        case "SHARD_END":
            return Place(lease.shard_id, END, note)
        case "LATEST" | "AT_TIMESTAMP" if initial is not None:
            return Place(lease.shard_id, initial, f"{lease.checkpoint}: --initial")
        case "LATEST" | "AT_TIMESTAMP":
            raise UsageError(
                f"{lease.key} is at {lease.checkpoint}: KCL never checkpointed it, so how far it"
                " came is not known. Say with --initial where to begin: trim_horizon repeats,"
                " latest loses what has come since KCL was stopped; for AT_TIMESTAMP it is the"
                " time that the application was given"
            )
    return Place(lease.shard_id, _after(lease, splits=splits), note)


def _after(lease: KclLease, *, splits: bool) -> Position:
    number = str(int(lease.checkpoint))
    if splits:
        return Position("at", number, lease.sub + 1)
    if lease.sub == 0:
        return Position("after", number)
    raise ConfigError(
        "source.decode",
        f"no kpl, where KCL's {lease.key} is at sub-sequence number {lease.sub} of a record",
        "[kpl, json]: the stream has aggregates of the KPL",
    )


# ---- who is alive -----------------------------------------------------------------------------


def owners(leases: Iterable[KclLease]) -> set[str]:
    return {lease.owner for lease in leases if lease.owner is not None}


def require_still(before: Sequence[KclLease], now: Sequence[KclLease]) -> None:
    """Refused if somebody worked on a lease between two looks at the table."""
    first = {lease.key: lease for lease in before}
    for lease in now:
        old = first.get(lease.key)
        if old is None or old != lease:
            what = "is new" if old is None else _difference(old, lease)
            raise Refused(
                f"the KCL application is alive: {lease.key} {what} while we watched; nothing was"
                " changed. Stop all its workers first"
            )


def _difference(old: KclLease, new: KclLease) -> str:
    for name in ("counter", "owner", "checkpoint", "sub"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            return f"(owner {new.owner}) went from {name} {before} to {after}"
    return "changed"


# ---- one item ---------------------------------------------------------------------------------


def _lease(item: Mapping[str, Any], table: str) -> KclLease:
    key = item.get("leaseKey")
    if not isinstance(key, str):
        raise UsageError(f"--kcl-table {table}: an item without leaseKey; it is no KCL lease table")
    checkpoint, sub = item.get("checkpoint"), item.get("checkpointSubSequenceNumber", 0)
    if not _is_checkpoint(checkpoint) or not isinstance(sub, int) or sub < 0:
        raise UsageError(
            f"--kcl-table {table}: {key}: found checkpoint {checkpoint!r}, sub-sequence number"
            f" {sub!r}; expected a number, TRIM_HORIZON, LATEST, AT_TIMESTAMP or SHARD_END"
        )
    stream, _, shard_id = key.rpartition(":")
    if stream and len(stream.split(":")) != 3:
        raise UsageError(f"--kcl-table {table}: {key}: expected account:stream:epoch:shard")
    return KclLease(
        key,
        item.get("shardId") or shard_id,
        item.get("streamName") or stream or None,
        str(checkpoint),
        sub,
        # While KCL 3 hands a lease over, the one who still works on it is `checkpointOwner`.
        item.get("checkpointOwner") or item.get("leaseOwner"),
        int(item.get("leaseCounter", 0)),
        bool(item.get("pendingCheckpoint")),
    )


def _is_checkpoint(value: Any) -> bool:
    if value in ("TRIM_HORIZON", "SHARD_END", *UNSTARTED):
        return True
    return isinstance(value, str) and value.isascii() and value.isdigit()
