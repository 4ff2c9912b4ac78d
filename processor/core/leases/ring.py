"""Worker ids as a ring: who comes after whom, so that each is watched by a few and by nobody twice.

Ids are random, so a worker's neighbours are any eight of the fleet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


def is_within(one: str, first: str, last: str) -> bool:
    """Whether `one` is met on the way from `first` to `last`, both included."""
    if first <= last:
        return first <= one <= last
    return one >= first or one <= last


def before(one: str, ring: Sequence[str], count: int) -> list[str]:
    """The `count` of `ring` (sorted) that come before `one`, the nearest first; itself left out."""
    at = bisect_left(ring, one)
    others = len(ring) - (at < len(ring) and ring[at] == one)
    return [ring[at - 1 - n] for n in range(min(count, others))]
