"""Parts of what was taken out of a window table: those of a bucket, and those of a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from processor.core import windows
from processor.core.merge.partials import SPLIT_BYTES_MAX, Deltas, bucket_of
from processor.core.windows import WindowTable
from processor.model import Bools, Ints, Partial

Record = Callable[[int, Deltas | None, int, int], Partial]  # bucket, deltas, split, splits
_ORDINAL_BITS = 40


def rows_of(saved: windows.Saved) -> Ints:
    """The key of each slot, int64[n]."""
    return (np.frombuffer(saved.codes, np.uint64) >> np.uint64(_ORDINAL_BITS)).astype(np.int64)


def named(
    saved: windows.Saved, values_of: Callable[[int], list[str | int]], like: WindowTable
) -> Deltas:
    """Slots with the names of just their keys, which are numbered anew."""
    used = np.unique(rows_of(saved))
    heirs = np.full(int(used.max(initial=-1)) + 1, -1)
    heirs[used] = np.arange(len(used))
    return Deltas([values_of(row) for row in used.tolist()], _renumbered(saved, heirs, like))


def some(whole: Deltas, keys: Bools, like: WindowTable) -> Deltas:
    """Those of some keys, bool[n_keys]."""
    heirs = np.where(keys, np.cumsum(keys) - 1, -1)
    names = [whole.keys[i] for i in np.flatnonzero(keys).tolist()]
    return Deltas(names, _renumbered(whole.windows, heirs, like))


def counts(saved: windows.Saved) -> Ints:
    """The records of each slot, int64[n]."""
    return np.frombuffer(saved.columns["n"], "<i8")


def first_ends(table: WindowTable, saved: windows.Saved) -> Ints:
    """The end of the first window that counts each slot, int64[n]."""
    return table.grid.first_ends(_times(table, saved))


def last_ends(table: WindowTable, saved: windows.Saved) -> Ints:
    """The end of the last one."""
    return table.grid.last_ends(_times(table, saved))


def _times(table: WindowTable, saved: windows.Saved) -> Ints:
    mask = np.uint64(2**_ORDINAL_BITS - 1)
    ordinals = (np.frombuffer(saved.codes, np.uint64) & mask).astype(np.int64) - 1
    return table.grid.unit_times(ordinals)


def joined(deltas: Deltas, rows: Ints, row: int, like: WindowTable) -> tuple[Deltas, Ints]:
    """All keys that go to one row as one key, in rounds that halve them; with the new rows."""
    while (at := np.flatnonzero(rows == row)).size > 1:
        table = like.bare()
        heirs = np.empty(len(rows), dtype=np.int64)
        pairs = np.arange(len(at)) // 2
        kept = np.concatenate([np.flatnonzero(rows != row), at[::2]])
        kept.sort()
        heirs[kept] = np.arange(len(kept))
        heirs[at[1::2]] = -1
        table.adopt(deltas.windows, heirs)
        heirs[kept] = -1
        heirs[at[1::2]] = np.searchsorted(kept, at[::2])[pairs[1::2]]
        others = like.bare()
        others.adopt(deltas.windows, heirs)
        table.merge(others)
        deltas = Deltas([deltas.keys[i] for i in kept.tolist()], table.snapshot())
        rows = rows[kept]
    return deltas, rows


def _renumbered(saved: windows.Saved, heirs: Ints, like: WindowTable) -> windows.Saved:
    table = like.bare()
    table.adopt(saved, heirs)
    return table.snapshot()


def by_bucket(whole: Deltas, buckets: int, like: WindowTable) -> dict[int, Deltas]:
    """What each bucket has to be told; nothing for those without a key."""
    of_key = np.array([bucket_of(values, buckets) for values in whole.keys], dtype=np.int64)
    return {bucket: some(whole, of_key == bucket, like) for bucket in np.unique(of_key).tolist()}


def split(
    bucket: int, whole: Deltas | None, record: Record, like: WindowTable
) -> Iterator[Partial]:
    """As few records as hold them, none too large."""
    one = record(bucket, whole, 0, 1)
    if whole is None or len(one.body) <= SPLIT_BYTES_MAX:
        yield one
        return
    parts = list(_halved(whole, lambda part: len(record(bucket, part, 0, 1).body), like))
    for i, part in enumerate(parts):
        yield record(bucket, part, i, len(parts))


def _halved(
    whole: Deltas, bytes_of: Callable[[Deltas], int], like: WindowTable
) -> Iterator[Deltas]:
    """Parts in order, each small enough."""
    # Room for larger numbers of splits.
    halves = [whole] if bytes_of(whole) < SPLIT_BYTES_MAX - 100 else _halves(whole, like)
    if len(halves) == 1:
        yield whole
        return
    for half in halves:
        yield from _halved(half, bytes_of, like)


def _halves(whole: Deltas, like: WindowTable) -> list[Deltas]:
    """By keys; of one key by its units, of which a jump of time can end thousands. One unit of one
    key stays whole: it is far below the bound."""
    n = len(whole.keys)
    if n > 1:
        is_first = np.arange(n) < n // 2
        return [some(whole, is_first, like), some(whole, ~is_first, like)]
    table = like.fresh()
    table.adopt(whole.windows, np.zeros(1, dtype=np.int64))
    units = table.open
    if len(units) == 1:
        return [whole]
    earlier = table.take_out(units[: len(units) // 2])
    return [Deltas(whole.keys, earlier), Deltas(whole.keys, table.snapshot())]
