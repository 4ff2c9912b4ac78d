"""Watermark floors: what a merged child knows of the parent that was further.

A merged child's own watermark begins at the lowest of its parents', or what the slower one still
had in flight would be late. But the further one has told windows behind its own watermark: a
record of its hash range is judged (late, duplicate) by the later of the child's watermark and that
parent's, its floor. Windows close by the child's own watermark alone: those that the further
parent left open end past its floor. A floor is over once the own watermark has passed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from processor.core.homes import HashRange, places_of
from processor.model import Ints


class Floor(Struct, frozen=True, order=True):
    """No record whose partition key lies in `range` is judged by an earlier watermark."""

    range: HashRange
    watermark_ms: int


def inherited(parents: Iterable[tuple[Floor, Sequence[Floor]]], child: HashRange) -> list[Floor]:
    """A child's floors, in order: of each parent its own watermark, and the floors it had."""
    floors = {
        Floor(shared, floor.watermark_ms)
        for own, others in parents
        for floor in (own, *others)
        if (shared := floor.range.overlap(child)) is not None
    }
    return sorted(floors)


def standing(floors: Iterable[Floor], watermark_ms: int) -> tuple[Floor, ...]:
    """Those that the watermark has not passed."""
    return tuple(floor for floor in floors if floor.watermark_ms > watermark_ms)


def raised(floors: Sequence[Floor], watermarks: Ints, partition_keys: Sequence[str]) -> Ints:
    """What n records are judged by: the watermark before each, or the floor where that is later."""
    if not floors or not len(watermarks):
        return watermarks
    places = places_of(partition_keys)  # about a microsecond a record, while a floor stands
    for floor in floors:
        floored = np.maximum(watermarks, floor.watermark_ms)
        watermarks = np.where(floor.range.mask(places), floored, watermarks)
    return watermarks
