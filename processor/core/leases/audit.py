"""Whether every hash key has a shard that is read, or will be: the audit of a complete listing.

Rows of shards that have not ended must cover the whole 128-bit range between them. They may overlap
(a parent that is still read, beside its children); a hole means that somebody's records are read by
nobody. One audit may see a hole that is none, because a stream's shards and a table's buckets are
read one after the other; what two in a row see is real.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from processor.core.leases.rows import ShardRow
from processor.model import Shard

HASH_MAX = 2**128 - 1


class HashRange(NamedTuple):
    """Hash keys from `first` to `last`, both included."""

    first: int
    last: int


def holes(rows: Iterable[ShardRow]) -> list[HashRange]:
    """What no shard that has not ended covers, in order and apart from each other."""
    ranges = sorted((row.shard.first_hash, row.shard.last_hash) for row in rows if not row.ended)
    found, reached = [], 0
    for first, last in ranges:
        if first > reached:
            found.append(HashRange(reached, first - 1))
        reached = max(reached, last + 1)
    if reached <= HASH_MAX:
        found.append(HashRange(reached, HASH_MAX))
    return found


def lasting(before: Iterable[HashRange], now: Sequence[HashRange]) -> list[HashRange]:
    """What lies in a hole of both audits."""
    return [common for one in before for other in now if (common := _common(one, other))]


def fillers(hole: HashRange, listing: Iterable[Shard], rows: Iterable[ShardRow]) -> list[Shard]:
    """Listed shards without a row that would cover some of the hole."""
    known = {row.id for row in rows}
    return [shard for shard in listing if shard.id not in known and overlaps(shard, hole)]


def overlaps(shard: Shard, hashes: HashRange) -> bool:
    return shard.first_hash <= hashes.last and hashes.first <= shard.last_hash


def _common(one: HashRange, other: HashRange) -> HashRange | None:
    first, last = max(one.first, other.first), min(one.last, other.last)
    return HashRange(first, last) if first <= last else None


def describe(hashes: HashRange) -> str:
    """For a log line: 32 hexadecimal digits each."""
    return f"{hashes.first:032x}-{hashes.last:032x}"
