"""Every group of every window against a batch engine's own group-by, over a million events.

What counts at all (late, duplicate) is worked out by the batch engine too; see `shop`. One rule is
by store, which lives on one shard each; the other by region, over all sixteen, through the merge
stage.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import NamedTuple

import orjson
import polars as pl
import pytest
from msgspec.structs import replace

from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    AggregateSpec,
    DerivedEvent,
    Mark,
    MergeSpec,
    Partial,
    Position,
    RuleSpec,
    Step,
    WindowSpec,
)
from tests.core import streams
from tests.core.merge import stages
from tests.truth import shop

EVENTS = 1_000_000
SHARDS = 16
SEED = 20_261
MINUTES_10 = 600_000
LAST = Position("after", "9" * 30)
AFTER_ALL = Mark(LAST, "idle", shop.START_MS + 10 * shop.HOUR_MS)

FIGURES = (
    AggregateSpec("count", "count"),
    AggregateSpec("sum", "sum", "amount"),
    AggregateSpec("min", "min", "amount"),
    AggregateSpec("max", "max", "amount"),
    AggregateSpec("mean", "mean", "amount"),
    AggregateSpec("variance", "variance", "amount"),
    AggregateSpec("stddev", "stddev", "amount"),
    AggregateSpec("first", "first", "amount"),
    AggregateSpec("last", "last", "amount"),
    AggregateSpec("users", "distinct", "user"),
    AggregateSpec("median", "quantile", "amount", options={"q": 0.5}),
    AggregateSpec("p99", "quantile", "amount", options={"q": 0.99}),
    AggregateSpec("failed", "count", where={"failed": [True]}),
    AggregateSpec("lost", "sum", "amount", where={"failed": [True]}),
    AggregateSpec("failure_ratio", "ratio", of=("failed", "count")),
)
WINDOW = WindowSpec(MINUTES_10)
RULES = {
    "store": RuleSpec("stores", {}, ("store",), WINDOW, FIGURES, emit_windows="bus"),
    "region": RuleSpec("regions", {}, ("region",), WINDOW, FIGURES, emit_windows="bus"),
}


def _exact_sum(amounts: pl.Expr) -> pl.Expr:
    """The batch engine's own sums are rounded at each step."""
    return amounts.map_batches(lambda each: math.fsum(each), pl.Float64, returns_scalar=True)


def _at(time: pl.Expr) -> pl.Expr:
    """The amounts of that time."""
    return AMOUNT.filter(pl.col("at") == time)


AMOUNT, FAILED = pl.col("amount"), pl.col("failed")
IN_TIME = AMOUNT.sort_by("at", "arrival")
# The order statistic that the quantile's own definition names: of n values, that of rank ⌈q n⌉.
BATCH = {
    "count": pl.len().cast(pl.Int64),
    "sum": _exact_sum(AMOUNT),
    "min": AMOUNT.min(),
    "max": AMOUNT.max(),
    "mean": AMOUNT.mean(),
    "variance": AMOUNT.var(),
    "stddev": AMOUNT.std(),
    "first": IN_TIME.first(),
    "last": IN_TIME.last(),
    "firsts": _at(pl.min("at")),
    "lasts": _at(pl.max("at")),
    "users": pl.col("user").n_unique().cast(pl.Float64),
    "median": AMOUNT.quantile(0.5, "lower"),
    "p99": AMOUNT.quantile(0.99, "lower"),
    "failed": FAILED.sum().cast(pl.Int64),
    "lost": _exact_sum(AMOUNT.filter(FAILED)),
    "failure_ratio": FAILED.sum() / pl.len(),
}
EXACT = ("count", "sum", "min", "max", "failed", "lost", "failure_ratio")
WITHIN = {"mean": 1e-9, "variance": 1e-9, "stddev": 1e-9, "users": 0.05}
QUANTILES = {"median": 0.5, "p99": 0.99}


class Told(NamedTuple):
    """What each stage tells of its own rules."""

    store: list[DerivedEvent]
    region: list[DerivedEvent]


@pytest.fixture(scope="module")
def arrived() -> pl.DataFrame:
    return shop.events(EVENTS, SHARDS, SEED)


@pytest.fixture(scope="module")
def told(arrived: pl.DataFrame) -> Told:
    made = streams.plan(*RULES.values(), out_of_orderness_ms=shop.OUT_OF_ORDERNESS_MS)
    plan = compile(replace(made.pipeline, merge=MergeSpec("merge", buckets=4)))
    events: list[DerivedEvent] = []
    partials: dict[int, list[Partial]] = {}
    for number, shard in enumerate(shop.shards(SHARDS)):
        pipeline = ShardPipeline(plan, shard, stages.INCARNATION)
        steps = [pipeline.feed(page) for page in shop.pages(arrived, number, SEED + number)]
        steps += [pipeline.mark(AFTER_ALL), pipeline.mark(Mark(LAST, "quiet", 0))]
        events += [event for step in steps for event in step.events]
        partials[number] = [partial for step in steps for partial in step.partials]
    return Told(events, _merged(plan, partials))


def _merged(plan: Plan, partials: dict[int, list[Partial]]) -> list[DerivedEvent]:
    """The second stage, over what the shards tell in any order that keeps each one's own."""
    rng = random.Random(SEED)
    turns = [number for number, own in partials.items() for _ in own]
    rng.shuffle(turns)
    left = {number: iter(own) for number, own in partials.items()}
    put = [next(left[number]) for number in turns]
    pipeline = MergePipeline(plan, stages.streams.SHARD, stages.INCARNATION, 1)
    pages = (stages.page(put[at : at + 500], at) for at in range(0, len(put), 500))
    return [event for page in pages for event in _told(pipeline.feed(page))]


def _told(step: Step) -> list[DerivedEvent]:
    assert step.dead_letters == []
    return step.events


@pytest.fixture(scope="module", params=list(RULES))
def both(request: pytest.FixtureRequest, told: Told, arrived: pl.DataFrame) -> pl.DataFrame:
    """What was told of each group, beside what the batch engine says."""
    key = request.param
    batch = (
        shop.counted(arrived, MINUTES_10)
        .group_by(key, "start")
        .agg(*(figure.alias(name) for name, figure in BATCH.items()), AMOUNT.alias("amounts"))
    )
    ours = _as_frame(getattr(told, key), key).rename({key: "key"})
    theirs = batch.rename({key: "key"})
    return ours.join(theirs, ["key", "start"], how="full", coalesce=True, suffix="_batch")


def _as_frame(events: Iterable[DerivedEvent], key: str) -> pl.DataFrame:
    details = [orjson.loads(event.detail) for event in events]
    rows = [
        {key: d["key"][key], "start": d["window"]["start"], "n": d["count"], **d["values"]}
        for d in details
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def test_the_stream_holds_what_makes_it_hard(arrived: pl.DataFrame) -> None:
    distinct = arrived["id"].n_unique()
    late = distinct - len(shop.counted(arrived, MINUTES_10))
    assert distinct == EVENTS
    assert len(arrived) - distinct == EVENTS // 100
    assert 0.005 < late / EVENTS < 0.02


def test_the_same_groups_are_told_and_each_once(both: pl.DataFrame) -> None:
    assert both.filter(pl.col("n").is_null()).height == 0, "a group is missing"
    assert both.filter(pl.col("count_batch").is_null()).height == 0, "a group too many"
    assert both.select("key", "start").is_unique().all()
    assert both["key"].n_unique() in (7, shop.STORES)


@pytest.mark.parametrize("figure", EXACT)
def test_what_is_exact_is_equal_to_the_last_bit(both: pl.DataFrame, figure: str) -> None:
    wrong = both.filter(pl.col(figure).ne_missing(pl.col(f"{figure}_batch")))
    assert wrong.height == 0, wrong.select("key", "start", figure, f"{figure}_batch")


@pytest.mark.parametrize("figure", ["first", "last"])
def test_first_and_last_go_by_time_then_by_place_in_the_shard(
    both: pl.DataFrame, figure: str
) -> None:
    """Of two shards' records at one time, either will do."""
    is_one_shard = both["key"].n_unique() == shop.STORES
    one = pl.col(figure) == pl.col(f"{figure}_batch")
    any_ = pl.col(f"{figure}s").list.contains(pl.col(figure))
    assert both.select((one if is_one_shard else any_).all()).item()


@pytest.mark.parametrize(("figure", "relative"), WITHIN.items())
def test_other_figures_are_within_their_bounds(
    both: pl.DataFrame, figure: str, relative: float
) -> None:
    ours, theirs = pl.col(figure), pl.col(f"{figure}_batch")
    # Amounts of both signs may have a mean near 0: what is lost there is judged by the amounts.
    scale = pl.max_horizontal(theirs.abs(), pl.col("max_batch").abs() * 1e-3)
    near = (ours - theirs).abs() <= relative * scale
    # Of one record there is no variance: both say null.
    wrong = both.filter(~(near | (ours.is_null() & theirs.is_null())))
    assert wrong.height == 0, wrong.select("key", "start", figure, f"{figure}_batch")


@pytest.mark.parametrize(("figure", "q"), QUANTILES.items())
def test_quantiles_are_within_one_per_cent_of_a_value_of_that_rank(
    both: pl.DataFrame, figure: str, q: float
) -> None:
    """Batch engines differ in which of two neighbours has the rank: either will do."""
    for row in both.iter_rows(named=True):
        amounts = sorted(row["amounts"])
        rank = q * (len(amounts) - 1)
        beside = amounts[math.floor(rank)], amounts[math.ceil(rank)]
        assert any(abs(row[figure] - value) <= 0.01 * abs(value) + 1e-9 for value in beside), row
