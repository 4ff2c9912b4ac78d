"""Our side: the pipeline of the benchmarks, its variants, and pages as a source yields them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from bench.data import Event
from processor import config
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import Page, Pipeline, Shard

PIPELINE = Path(__file__).with_name("pipeline.yaml")
SHARD = Shard("shardId-000000000000")
_FIRST_NUMBER = 10**55  # real sequence numbers have 56 digits


def full() -> Pipeline:
    """Duplicates dropped, windows, novelty on the counts."""
    return config.load(PIPELINE, {})


def variants() -> dict[str, Pipeline]:
    """From what the plain way does to all that a rule can ask for; each adds to the one before."""
    pipeline = full()
    (rule,) = pipeline.rules
    bare = replace(rule, detect=(), emit_anomalies=None)
    emitting = replace(rule, emit_windows="out")
    return {
        "windows": replace(pipeline, event=replace(pipeline.event, id=None), rules=(bare,)),
        "+ duplicates": replace(pipeline, rules=(bare,)),
        "+ novelty": pipeline,
        "+ an event a window": replace(pipeline, rules=(emitting,)),
    }


def plan_of(pipeline: Pipeline) -> Plan:
    return compile(pipeline)


def fresh(plan: Plan) -> ShardPipeline:
    return ShardPipeline(plan, SHARD, "1")


def take(pipeline: ShardPipeline, pages: Iterable[Page]) -> None:
    """Count pages as a worker does: small ones may wait for each other, and none at the end."""
    for page in pages:
        for _ in pipeline.steps(page, may_wait=True):
            pass
    for _ in pipeline.settle():
        pass


def pages(events: Sequence[Event], size: int) -> list[Page]:
    """The events cut into pages of `size`."""
    return [_page(events[at : at + size], at) for at in range(0, len(events), size)]


def _page(events: Sequence[Event], first: int) -> Page:
    return Page(
        payloads=[event.payload for event in events],
        sequence_numbers=[str(_FIRST_NUMBER + first + i) for i in range(len(events))],
        partition_keys=[event.partition_key for event in events],
        arrivals_ms=np.array([event.arrival_ms for event in events], dtype=np.int64),
        millis_behind=0,
        date_ms=events[-1].arrival_ms,
    )
