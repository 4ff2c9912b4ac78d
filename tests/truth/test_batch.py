"""Every group of every window against a batch engine's own group-by, over a million events.

What counts at all (late, duplicate) is worked out by the batch engine too; see `shop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import orjson
import polars as pl
import pytest

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import AggregateSpec, DerivedEvent, Mark, Position, RuleSpec, WindowSpec
from tests.core import streams
from tests.truth import shop

EVENTS = 1_000_000
SHARDS = 16
SEED = 20_261
MINUTES_10 = 600_000
AFTER_ALL = Mark(Position("after", "9" * 30), "idle", shop.START_MS + 10 * shop.HOUR_MS)

FIGURES = (
    AggregateSpec("count", "count"),
    AggregateSpec("sum", "sum", "amount"),
    AggregateSpec("min", "min", "amount"),
    AggregateSpec("max", "max", "amount"),
    AggregateSpec("mean", "mean", "amount"),
    AggregateSpec("variance", "variance", "amount"),
)
BY_STORE = RuleSpec("stores", {}, ("store",), WindowSpec(MINUTES_10), FIGURES, emit_windows="bus")

AMOUNT = pl.col("amount")
# The batch engine's sums are rounded at each step: these are summed exactly, in `fsum`.
BATCH = (
    pl.len().cast(pl.Int64).alias("count"),
    AMOUNT.map_batches(lambda each: math.fsum(each), pl.Float64, returns_scalar=True).alias("sum"),
    AMOUNT.min().alias("min"),
    AMOUNT.max().alias("max"),
    AMOUNT.mean().alias("mean"),
    AMOUNT.var().alias("variance"),
)
EXACT = ("count", "sum", "min", "max")
WITHIN = {"mean": 1e-9, "variance": 1e-9}


@pytest.fixture(scope="module")
def arrived() -> pl.DataFrame:
    return shop.events(EVENTS, SHARDS, SEED)


@pytest.fixture(scope="module")
def both(arrived: pl.DataFrame) -> pl.DataFrame:
    """What the pipeline told of each group, beside what the batch engine says."""
    plan = streams.plan(BY_STORE, out_of_orderness_ms=shop.OUT_OF_ORDERNESS_MS)
    ours = _as_frame(_stream(plan, arrived), "store")
    batch = shop.counted(arrived, MINUTES_10).group_by("store", "start").agg(BATCH)
    return ours.join(batch, ["store", "start"], how="full", coalesce=True, suffix="_batch")


def _stream(plan: Plan, arrived: pl.DataFrame) -> Iterator[DerivedEvent]:
    """What all shards tell, in random pages."""
    for number, shard in enumerate(shop.shards(SHARDS)):
        pipeline = ShardPipeline(plan, shard, "1")
        for page in shop.pages(arrived, number, SEED + number):
            yield from pipeline.feed(page).events
        yield from pipeline.mark(AFTER_ALL).events


def _as_frame(events: Iterator[DerivedEvent], key: str) -> pl.DataFrame:
    details = (orjson.loads(event.detail) for event in events)
    rows = [
        {key: detail["key"][key], "start": detail["window"]["start"], **detail["values"]}
        for detail in details
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def test_the_stream_holds_what_makes_it_hard(arrived: pl.DataFrame) -> None:
    distinct = arrived["id"].n_unique()
    late = distinct - len(shop.counted(arrived, MINUTES_10))
    assert distinct == EVENTS
    assert len(arrived) - distinct == EVENTS // 100
    assert 0.005 < late / EVENTS < 0.02


def test_the_same_groups_are_told_and_each_once(both: pl.DataFrame) -> None:
    assert both.filter(pl.col("count").is_null()).height == 0, "a group is missing"
    assert both.filter(pl.col("count_batch").is_null()).height == 0, "a group too many"
    assert both.select("store", "start").is_unique().all()
    assert both.height > 4_000


@pytest.mark.parametrize("figure", EXACT)
def test_counts_sums_and_extremes_are_equal_to_the_last_bit(
    both: pl.DataFrame, figure: str
) -> None:
    wrong = both.filter(pl.col(figure).ne_missing(pl.col(f"{figure}_batch")))
    assert wrong.height == 0, wrong.select("store", "start", figure, f"{figure}_batch")


@pytest.mark.parametrize(("figure", "relative"), WITHIN.items())
def test_means_and_variances_are_equal_but_for_rounding(
    both: pl.DataFrame, figure: str, relative: float
) -> None:
    ours, theirs = pl.col(figure), pl.col(f"{figure}_batch")
    # Of one record there is no variance: both say null. Means near 0 are judged by their terms.
    scale = pl.max_horizontal(theirs.abs(), pl.col("max_batch").abs() * 1e-3)
    near = (ours - theirs).abs() <= relative * scale
    wrong = both.filter(~(near | (ours.is_null() & theirs.is_null())))
    assert wrong.height == 0, wrong.select("store", "start", figure, f"{figure}_batch")
