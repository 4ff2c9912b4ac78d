"""Duplicates: an event id seen within the horizon is dropped.

An id enters when its event was neither rejected nor late, and leaves when the watermark passes its
event time + horizon. Whether a record is a duplicate is judged at its position: against what
entered before it, by the watermark before it; so page cuts don't show.

Memory is swept when the watermark crosses a multiple of a quarter of the horizon, and how full it
is counts from sweep to sweep, as if each had come at its record: so page cuts, restores and the
time of the actual sweep don't show at the bound either.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from processor.core.columns import SlotMap
from processor.model import Bools, Hashes, Ints

# 2^22 ids in a quarter-full table are 256 MiB: four hours of a full shard. Past that no id enters.
IDS_MAX = 2**22
_SWEEPS = 4  # a horizon: memory holds at most 5/4 of what it must


class Dedupe:
    """The ids of one shard within the horizon: 64-bit hash → event time."""

    def __init__(self, horizon_ms: int, ids_max: int = IDS_MAX):
        self.horizon_ms = horizon_ms
        self._ids_max = ids_max
        self._step_ms = max(1, horizon_ms // _SWEEPS)
        self._seen = SlotMap()
        self._swept_ms: int | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def __repr__(self) -> str:
        return f"<Dedupe {len(self)} ids over {self.horizon_ms} ms>"

    def duplicates(
        self,
        ids: Hashes,
        times: Ints,
        watermarks: Ints,
        enters: Bools,
        swept_by: Ints | None = None,
    ) -> Bools:
        """Which of n records repeat an earlier one; the others' ids enter where `enters` is true.

        `ids` uint64[n], `times` int64[n] ≥ 0, `watermarks` int64[n]: before each record.
        `swept_by` int64[n]: the shard's own watermark, where some are judged by a later one.
        """
        swept_by = watermarks if swept_by is None else swept_by
        enters = enters & (watermarks <= times + self.horizon_ms)  # it would leave at once
        if len(self._seen) + len(ids) <= self._ids_max:
            return self._take(ids, times, watermarks, enters)
        parts = [np.zeros(0, dtype=np.bool_)]
        for start, stop in pairwise([0, *_changes(swept_by // self._step_ms), len(ids)]):
            self.sweep(int(swept_by[start]))
            part = slice(start, stop)
            parts.append(self._take(ids[part], times[part], watermarks[part], enters[part]))
        return np.concatenate(parts)

    def sweep(self, watermark_ms: int) -> None:
        """Forget what has left; cheap, and without effect on any verdict."""
        swept_ms = self._floor(watermark_ms)
        if swept_ms == self._swept_ms:
            return
        self._swept_ms = swept_ms
        self._seen.keep_from(swept_ms - self.horizon_ms)

    def snapshot(self, watermark_ms: int) -> tuple[bytes, bytes]:
        """Ids and times that still count, in order of id."""
        ids, times = self._seen.items()
        live = times + self.horizon_ms >= self._floor(watermark_ms)
        return ids[live].tobytes(), times[live].tobytes()

    def restore(self, saved: tuple[bytes, bytes]) -> None:
        """The inverse of `snapshot`; raises ValueError where the bytes are none of its."""
        ids, times = np.frombuffer(saved[0], np.uint64), np.frombuffer(saved[1], np.int64)
        if len(ids) != len(times) or (times < 0).any() or (ids[1:] <= ids[:-1]).any():
            raise ValueError(f"{len(ids)} ids and {len(times)} times, expected pairs in order")
        self._seen = SlotMap()
        self._seen.add(ids, times)

    def merge(self, saved: tuple[bytes, bytes]) -> None:
        """Know another's ids too, each until the later of its times; raises as `restore`."""
        other = Dedupe(self.horizon_ms)
        other.restore(saved)
        ids, times = other._seen.items()
        known = self._seen.get(ids)
        both = known >= 0
        self._seen.set(ids[both], np.maximum(known, times)[both])
        self._seen.add(ids[~both], times[~both])

    def _floor(self, watermark_ms: int) -> int:
        return watermark_ms // self._step_ms * self._step_ms

    def _take(self, ids: Hashes, times: Ints, watermarks: Ints, enters: Bools) -> Bools:
        """`duplicates`, of records between two sweeps or where there is room for all."""
        room = self._ids_max - len(self._seen)
        suspects = (self._seen.get(ids) >= 0) | _repeated(ids)
        if len(ids) > room:
            suspects[:] = True  # first come, first in
        fresh = np.flatnonzero(enters & ~suspects)
        duplicate = suspects
        if suspects.any():
            duplicate = self._judge(np.flatnonzero(suspects), ids, times, watermarks, enters)
        self._seen.add(ids[fresh], times[fresh])
        return duplicate

    def _judge(
        self, suspects: Ints, ids: Hashes, times: Ints, watermarks: Ints, enters: Bools
    ) -> Bools:
        """The few records whose id stands elsewhere too, one by one in order."""
        duplicate = np.zeros(len(ids), dtype=np.bool_)
        room = self._ids_max - len(self._seen)
        at = self._seen.get(ids[suspects])
        seen = {int(ids[i]): int(t) for i, t in zip(suspects, at, strict=True) if t >= 0}
        changed: dict[int, int] = {}
        for i in suspects.tolist():
            id_ = int(ids[i])
            entered = seen.get(id_)
            if entered is not None and watermarks[i] <= entered + self.horizon_ms:
                duplicate[i] = True
            elif enters[i] and (entered is not None or room > 0):
                room -= entered is None
                seen[id_] = changed[id_] = int(times[i])
        self._upsert(changed)
        return duplicate

    def _upsert(self, changed: dict[int, int]) -> None:
        ids = np.array(list(changed), dtype=np.uint64)
        times = np.array(list(changed.values()), dtype=np.int64)
        known = self._seen.get(ids) >= 0
        self._seen.set(ids[known], times[known])
        self._seen.add(ids[~known], times[~known])


def _changes(values: Ints) -> list[int]:
    """Where a value differs from the one before it."""
    at: list[int] = (np.flatnonzero(values[1:] != values[:-1]) + 1).tolist()
    return at


def _repeated(ids: Hashes) -> Bools:
    """Which values stand more than once."""
    in_order = np.sort(ids)  # far cheaper than argsort, and as a rule all there is to do
    if not (in_order[1:] == in_order[:-1]).any():
        return np.zeros(len(ids), dtype=np.bool_)
    order = np.argsort(ids)
    same = ids[order][1:] == ids[order][:-1]
    repeated = np.zeros(len(ids), dtype=np.bool_)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated
