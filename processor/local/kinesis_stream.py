"""One stream of our Kinesis: which shard takes which hash key, and how shards split and merge.

A reshard is complete when the call returns: the service's UPDATING phase has no counterpart here.
What may follow a closed shard is kept as long as the service keeps it: a retention period.
"""

from bisect import bisect_right
from hashlib import md5
from typing import Literal

from processor.local.kinesis_errors import invalid_argument, limit_exceeded, not_found
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_shards import HASH_KEY_MAX, HashRange, Shard, even_ranges

HOUR_MS = 3_600_000
RETENTION_MIN_H = 24
RETENTION_MAX_H = 8_760
SHARDS_MAX = 10_000
TRIM_STEP_MS = 1_000  # a stream of 1,000 shards isn't searched at each request

Mode = Literal["PROVISIONED", "ON_DEMAND"]
Distribution = Literal["USER_PARTITION_KEY", "AUTO"]


class Stream:
    """Shards in the order of their opening, and the open ones in the order of their hash keys."""

    def __init__(
        self,
        name: str,
        arn: str,
        shard_count: int,
        limits: Limits,
        now_ms: int,
        *,
        mode: Mode = "PROVISIONED",
        distribution: Distribution = "USER_PARTITION_KEY",
    ) -> None:
        self.name = name
        self.arn = arn
        self.mode = mode
        self.distribution = distribution
        self.created_ms = now_ms
        self.retention_h = RETENTION_MIN_H
        self.shards: dict[str, Shard] = {}
        self.open_shards: list[Shard] = []
        self._first_keys: list[int] = []
        self.limits = limits
        self._trimmed_to_ms = now_ms
        self._opened = 0
        self._turn = 0
        for hash_range in even_ranges(shard_count):
            self._open(hash_range, (), now_ms)
        self._index_open()

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.open_shards)} open of {len(self.shards)} shards>"

    # Asking

    def shard(self, shard_id: str) -> Shard:
        """The shard of that id; ResourceNotFoundException if there is none (any more)."""
        found = self.shards.get(shard_id)
        if found is None:
            raise not_found(f"Shard {shard_id} in stream {self.name} does not exist.")
        return found

    def shard_for(self, hash_key: int) -> Shard:
        return self.open_shards[bisect_right(self._first_keys, hash_key) - 1]

    def next_shard(self) -> Shard:
        """The open shards in turn: how AUTO distribution places records."""
        self._turn = (self._turn + 1) % len(self.open_shards)
        return self.open_shards[self._turn]

    def children_of(self, shard_id: str) -> list[Shard]:
        return [shard for shard in self.shards.values() if shard_id in shard.parent_ids]

    def horizon_ms(self, now_ms: int) -> int:
        """The trim horizon as a time: never before the stream itself."""
        return max(self.created_ms, now_ms - self.retention_h * HOUR_MS)

    # Changing

    def trim(self, now_ms: int) -> None:
        """Forget what retention has passed: records, then the closed shards that held them."""
        horizon_ms = now_ms - self.retention_h * HOUR_MS
        if horizon_ms <= self._trimmed_to_ms + TRIM_STEP_MS:
            return
        self._trimmed_to_ms = horizon_ms
        for shard in list(self.shards.values()):
            shard.trim(horizon_ms)
            if shard.closed_at_ms is not None and shard.closed_at_ms < horizon_ms:
                del self.shards[shard.shard_id]

    def split(self, shard_id: str, first_key: int, now_ms: int) -> None:
        """Close a shard and open two, the second from `first_key`, which must lie well inside."""
        shard = self._shard_to_reshard(shard_id)
        if not shard.hash_range.first + 1 < first_key < shard.hash_range.last:
            raise invalid_argument(
                f"NewStartingHashKey {first_key} used in SplitShard() on shard {shard_id} in stream"
                f" {self.name} is not both greater than one plus the shard's StartingHashKey"
                f" {shard.hash_range.first} and less than the shard's EndingHashKey"
                f" {shard.hash_range.last}."
            )
        self._split(shard, first_key, now_ms)
        self._index_open()

    def merge(self, shard_id: str, adjacent_id: str, now_ms: int) -> None:
        """Close two neighbours and open one; InvalidArgumentException if they aren't neighbours."""
        pair = (self._shard_to_reshard(shard_id), self._shard_to_reshard(adjacent_id))
        left, right = sorted(pair, key=lambda shard: shard.hash_range.first)
        if left.hash_range.last + 1 != right.hash_range.first:
            raise invalid_argument(
                f"Shards {shard_id} and {adjacent_id} in stream {self.name} are not an adjacent"
                " pair of shards eligible for merging."
            )
        self._merge(*pair, now_ms)
        self._index_open()

    def scale(self, target: int, now_ms: int) -> None:
        """Uniform scaling to `target` shards, by splits and merges through short-lived shards.

        From half to double the open shards, as in the service; else LimitExceededException.
        """
        self._check_scale(target)
        ranges = even_ranges(target)
        for hash_range in ranges:
            shard = self.shard_for(hash_range.first)
            if shard.hash_range.first < hash_range.first:
                self._split(shard, hash_range.first, now_ms)
                self._index_open()
        for hash_range in ranges:
            self._merge_within(hash_range, now_ms)
        self._index_open()

    def _check_scale(self, target: int) -> None:
        count = len(self.open_shards)
        counts = f"current open shard count. Current: {count} Target: {target}"
        if target > min(2 * count, SHARDS_MAX):
            raise limit_exceeded(f"UpdateShardCount cannot scale up over double your {counts}")
        if target * 2 < count:
            raise limit_exceeded(f"UpdateShardCount cannot scale down below half your {counts}")

    def _merge_within(self, hash_range: HashRange, now_ms: int) -> None:
        pieces = [shard for shard in self.open_shards if _lies_within(shard, hash_range)]
        merged = pieces[0]
        for piece in pieces[1:]:
            merged = self._merge(merged, piece, now_ms)

    def _shard_to_reshard(self, shard_id: str) -> Shard:
        shard = self.shard(shard_id)
        if not shard.is_open:
            raise invalid_argument(f"Shard {shard_id} in stream {self.name} is closed already.")
        return shard

    def _split(self, shard: Shard, first_key: int, now_ms: int) -> None:
        shard.close(now_ms)
        self._open(HashRange(shard.hash_range.first, first_key - 1), (shard,), now_ms)
        self._open(HashRange(first_key, shard.hash_range.last), (shard,), now_ms)

    def _merge(self, shard: Shard, adjacent: Shard, now_ms: int) -> Shard:
        first = min(shard.hash_range.first, adjacent.hash_range.first)
        last = max(shard.hash_range.last, adjacent.hash_range.last)
        shard.close(now_ms)
        adjacent.close(now_ms)
        return self._open(HashRange(first, last), (shard, adjacent), now_ms)

    def _open(self, hash_range: HashRange, parents: tuple[Shard, ...], now_ms: int) -> Shard:
        shard = Shard(self._opened, hash_range, parents, self.limits, now_ms)
        self._opened += 1
        self.shards[shard.shard_id] = shard
        return shard

    def _index_open(self) -> None:
        still_open = (shard for shard in self.shards.values() if shard.is_open)
        self.open_shards = sorted(still_open, key=lambda shard: shard.hash_range.first)
        self._first_keys = [shard.hash_range.first for shard in self.open_shards]


def hash_key_of(partition_key: str) -> int:
    """The service's routing: MD5 of the key's UTF-8, as a 128-bit whole number."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


def hash_key_from(text: str) -> int:
    """An explicit hash key; InvalidArgumentException outside [0, 2^128-1]."""
    if not (text.isascii() and text.isdigit() and int(text) <= HASH_KEY_MAX):
        raise invalid_argument(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]."
            f" Specified value was {text}"
        )
    return int(text)


def _lies_within(shard: Shard, hash_range: HashRange) -> bool:
    return hash_range.first <= shard.hash_range.first and shard.hash_range.last <= hash_range.last
