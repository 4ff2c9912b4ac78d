"""A million events of a shop on several shards, as a polars frame, and what of them counts.

Nothing here is the processor's: what is late or a duplicate is worked out by a batch engine, column
by column over each shard's arrivals.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import numpy as np
import polars as pl

from processor.model import Page, Shard

HOUR_MS = 3_600_000
START_MS = 1_700_006_400_000  # a multiple of every window's size here
OUT_OF_ORDERNESS_MS = 10_000
# Times are odd and the bound is even, so a watermark never equals a window's end: what is late then
# is a question of the watermark alone, not of what came before.
LATE_SHARE = 0.01
DUPLICATE_SHARE = 0.01
STORES = 997
HASHES = 2**128


def shards(n: int) -> list[Shard]:
    """n shards that share the hash keys evenly."""
    edges = [HASHES * i // n for i in range(n + 1)]
    return [Shard(f"shardId-{i:012d}", edges[i], edges[i + 1] - 1) for i in range(n)]


def events(n: int, n_shards: int, seed: int) -> pl.DataFrame:
    """n distinct events and their repeats in order of arrival, each with its shard's number."""
    rng = np.random.default_rng(seed)
    behind = rng.integers(0, OUT_OF_ORDERNESS_MS // 2, n)
    is_late = rng.random(n) < LATE_SHARE
    behind[is_late] += rng.integers(OUT_OF_ORDERNESS_MS, HOUR_MS // 2, int(is_late.sum()))
    due = np.sort(rng.integers(0, HOUR_MS, n)) + START_MS
    store = rng.zipf(1.3, n) % STORES
    first = pl.DataFrame(
        {
            "id": np.arange(n),
            "due": due,
            "at": (due - behind) | 1,
            "store": np.array([f"s{i}" for i in range(STORES)])[store],
            "region": store % 7,
            "user": rng.integers(0, 20_000, n) * (1 + store % 3),
            "amount": np.round(rng.lognormal(3, 1.5, n), 2) * rng.choice([1, 1, 1, -1], n),
            "failed": rng.random(n) < 0.03,
        }
    )
    again = first.sample(fraction=DUPLICATE_SHARE, seed=seed)
    delays = pl.Series("due", rng.integers(1, 60_000, len(again)))
    repeated = again.with_columns(due=again["due"] + delays)
    both = pl.concat([first, repeated]).sort("due", maintain_order=True)
    homes = {f"s{i}": _shard_of(f"s{i}", n_shards) for i in range(STORES)}
    return both.with_columns(
        arrival=pl.int_range(pl.len()),
        shard=pl.col("store").replace_strict(homes, return_dtype=pl.Int64),
    )


def _shard_of(partition_key: str, n_shards: int) -> int:
    place = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())
    return place * n_shards // HASHES


def counted(arrived: pl.DataFrame, size_ms: int) -> pl.DataFrame:
    """Records that count in tumbling windows of `size_ms`, with the `start` of each one's window.

    A repeat counts if what it repeats did not, being late; but then it is later still.
    """
    moved = pl.col("at") - OUT_OF_ORDERNESS_MS
    before = moved.cum_max().shift(1, fill_value=-(2**62)).over("shard")
    start = pl.col("at") // size_ms * size_ms
    once = arrived.with_columns(watermark=before, start=start).unique(
        "id", keep="first", maintain_order=True
    )
    return once.filter(pl.col("watermark") < pl.col("start") + size_ms)


def pages(arrived: pl.DataFrame, shard: int, seed: int) -> Iterator[Page]:
    """A shard's records, cut at random."""
    rng = random.Random(seed)
    own = arrived.filter(pl.col("shard") == shard)
    payloads = own.select(pl.struct("id", "at", "store", "region", "user", "amount", "failed"))
    rows = payloads.to_series().struct.json_encode().to_list()
    keys = own["store"].to_list()
    places = [f"{10**20 + i}" for i in own["arrival"].to_list()]
    arrivals = own["due"].to_numpy()
    at = 0
    while at < len(rows):
        cut = slice(at, at + rng.randrange(1, 3_000))
        yield Page([row.encode() for row in rows[cut]], places[cut], keys[cut], arrivals[cut], 0, 0)
        at = cut.stop
