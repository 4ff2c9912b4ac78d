"""Whether every hash key has a shard that is read, or will be: the audit of a complete listing.

Rows of shards that have not ended must cover the whole 128-bit range between them. They may overlap
(a parent that is still read, beside its children); a hole means that somebody's records are read by
nobody. One audit may see a hole that is none, because a stream's shards and a table's buckets are
read one after the other; what two in a row see is real.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from processor.core.leases.rows import ShardRow
from processor.model import Shard

HASH_MAX = 2**128 - 1


class Span(Protocol):
    """A part of the hash keys, both ends included: a shard's, or a hole between shards."""

    @property
    def first_hash(self) -> int: ...
    @property
    def last_hash(self) -> int: ...


class Hole(NamedTuple):
    """Hash keys that nobody reads, both ends included."""

    first_hash: int
    last_hash: int


def holes(rows: Iterable[ShardRow]) -> list[Hole]:
    """What no shard that has not ended covers, in order and apart from each other."""
    ranges = sorted((row.shard.first_hash, row.shard.last_hash) for row in rows if not row.ended)
    found, reached = [], 0
    for first, last in ranges:
        if first > reached:
            found.append(Hole(reached, first - 1))
        reached = max(reached, last + 1)
    if reached <= HASH_MAX:
        found.append(Hole(reached, HASH_MAX))
    return found


def lasting(before: Iterable[Hole], now: Sequence[Hole]) -> list[Hole]:
    """What lies in a hole of both audits."""
    return [common for one in before for other in now if (common := overlap(one, other))]


def fillers(hole: Hole, listing: Iterable[Shard], rows: Iterable[ShardRow]) -> list[Shard]:
    """Listed shards without a row that would cover some of the hole."""
    known = {row.id for row in rows}
    return [shard for shard in listing if shard.id not in known and overlap(shard, hole)]


def overlap(one: Span, other: Span) -> Hole | None:
    """The hash keys of both; None where they have none in common."""
    first = max(one.first_hash, other.first_hash)
    last = min(one.last_hash, other.last_hash)
    return Hole(first, last) if first <= last else None


def describe(hole: Hole) -> str:
    """For a log line: 32 hexadecimal digits each."""
    return f"{hole.first_hash:032x}-{hole.last_hash:032x}"
