"""Hash homes: where a partition key lies in the stream's 128-bit hash space, and who holds that.

The service routes a record by the MD5 of its partition key to the shard whose hash range holds it;
at a reshard the child whose range holds it is the key's heir. Places are 16 bytes, big-endian, so
that they sort as the integers do and an array of them can be compared at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from processor.model import Bools, Shard

PLACE_BYTES = 16
NOWHERE = bytes(PLACE_BYTES)  # stands for the place of what has no home
Place = Annotated[bytes, Meta(min_length=PLACE_BYTES, max_length=PLACE_BYTES)]


class HashRange(Struct, frozen=True, order=True):
    """A part of the hash space, both ends included."""

    first: Place
    last: Place

    def __contains__(self, place: bytes) -> bool:
        return self.first <= place <= self.last

    def mask(self, places: bytes) -> Bools:
        """Which of n places, 16 bytes each, lie in the range: bool[n]."""
        # Shorter texts are filled up with zero bytes where they are compared: no harm here.
        each = np.frombuffer(places, f"S{PLACE_BYTES}")
        inside: Bools = (each >= self.first) & (each <= self.last)
        return inside

    def overlap(self, other: HashRange) -> HashRange | None:
        """What lies in both."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return HashRange(first, last) if first <= last else None


def range_of(shard: Shard) -> HashRange:
    return HashRange(
        shard.first_hash.to_bytes(PLACE_BYTES, "big"), shard.last_hash.to_bytes(PLACE_BYTES, "big")
    )


def shard_of(shard_id: str, held: HashRange) -> Shard:
    """The inverse of `range_of`, but for what a shard has besides."""
    return Shard(shard_id, int.from_bytes(held.first, "big"), int.from_bytes(held.last, "big"))


def place_of(partition_key: str) -> bytes:
    return hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()


def places_of(partition_keys: Iterable[str]) -> bytes:
    return b"".join(map(place_of, partition_keys))
