"""What a scene's records are, and what must come of them: counts and sums of ticks by window."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from processor.local.kinesis_shards import HASH_KEY_MAX

KEYS = [f"key-{n}" for n in range(16)]
TICK_MS, WINDOW_MS = 100, 5_000
DAY_MS, HOUR_MS = 86_400_000, 3_600_000

Pair = tuple[str, bytes]  # partition key, payload
Windows = dict[tuple[str, int], tuple[int, int]]  # (key, window's start) → (count, sum)


@dataclass
class Ticks:
    """All ticks sent so far, and the time of the next one."""

    sent: list[tuple[str, int, int]] = field(default_factory=list)  # key, time, value
    now_ms: int = int(time.time() * 1000) // DAY_MS * DAY_MS - DAY_MS

    def more(self, ticks: int, keys: Sequence[str]) -> list[Pair]:
        """So many more, over all keys, their times going on where the last ones ended."""
        first = len(self.sent)
        fresh = [
            (keys[i % len(keys)], self.now_ms + (i - first) * TICK_MS, i)
            for i in range(first, first + ticks)
        ]
        self.now_ms += ticks * TICK_MS
        self.sent += fresh
        return [(key, tick(key, at_ms, value)) for key, at_ms, value in fresh]

    def flush(self, shards: int) -> list[Pair]:
        """One record a shard that no rule wants, an hour later: every window closes."""
        self.now_ms += HOUR_MS
        wanted = {shard_of(KEYS[0], 1)} if shards == 1 else set(range(shards))
        pairs = []
        for n in range(10_000):
            key = f"flush-{n}"
            if (shard := shard_of(key, shards)) in wanted:
                wanted.remove(shard)
                body = {"type": "flush", "key": key, "at": self.now_ms}
                pairs.append((key, orjson.dumps(body)))
            if not wanted:
                return pairs
        raise AssertionError("no key for some shard")

    def expected(self) -> Windows:
        counts: Counter[tuple[str, int]] = Counter()
        sums: Counter[tuple[str, int]] = Counter()
        for key, at_ms, value in self.sent:
            window = (key, at_ms // WINDOW_MS * WINDOW_MS)
            counts[window] += 1
            sums[window] += value
        return {window: (n, sums[window]) for window, n in counts.items()}


@dataclass
class Arrivals:
    """The details of the events in a queue's bodies, by id; each body is read once."""

    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: int = 0

    def take(self, bodies: Sequence[bytes]) -> dict[str, dict[str, Any]]:
        """All so far; an AssertionError if one id ever came with another content."""
        fresh, self.read = bodies[self.read :], len(bodies)
        for body in fresh:
            detail = orjson.loads(body)["detail"]
            known = self.details.setdefault(detail["id"], detail)
            assert known == detail, f"{known} and {detail}"
        return self.details


def windows_of(details: Iterable[dict[str, Any]]) -> Windows:
    """Like `Ticks.expected`; an AssertionError if two ids speak of one window."""
    found: Windows = {}
    for detail in details:
        window = (detail["key"]["key"], detail["window"]["start"])
        assert window not in found, f"{window} came under two ids"
        found[window] = (detail["values"]["n"], detail["values"]["total"])
    return found


def tick(key: str, at_ms: int, value: int) -> bytes:
    return orjson.dumps({"type": "tick", "key": key, "at": at_ms, "value": value, "trip": key})


def shard_of(key: str, shards: int) -> int:
    """The shard of an evenly cut stream that a partition key leads to."""
    hashed = int.from_bytes(hashlib.md5(key.encode()).digest(), "big")
    return min(shards - 1, hashed // ((HASH_KEY_MAX + 1) // shards))
