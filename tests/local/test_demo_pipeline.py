"""The demo's pipeline file on the demo's traffic, without a process: exact, and all is found.

plan ──→ ring, one pipeline a shard ──→ events, dead letters ──→ check
                       └→ partials ──→ ring, the merge stage ──┘
"""

from pathlib import Path

import numpy as np
import orjson
import pytest

from processor import config
from processor.core import plan as compiler
from processor.core.merge.partials import enveloped
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.local import check
from processor.local.check import HOUR_MS
from processor.local.stage import APP, BUS, LETTERS_QUEUE, MERGE_SHARDS, MERGE_STREAM, STREAM, TABLE
from processor.local.traffic import (
    SHARDS,
    STORES,
    Plan,
    flush_ms,
    flush_record,
    plan_traffic,
    shard_of,
)
from processor.local.workers import PIPELINE
from processor.model import Page, Partial, Pipeline, Shard, Step

END_MS = 1_760_000_400_000 // HOUR_MS * HOUR_MS
PAGE = 250


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return config.load(PIPELINE, {"DEMO_FOLDER": str(tmp_path)})


def test_the_pipeline_file_names_what_the_stage_makes(pipeline: Pipeline) -> None:
    assert pipeline.app == APP
    assert pipeline.source.stream == STREAM
    assert pipeline.state.table == TABLE
    assert pipeline.merge is not None
    assert pipeline.merge.stream == MERGE_STREAM
    assert [sink.target for sink in pipeline.sinks.values()] == [BUS]
    assert pipeline.dead_letters is not None
    assert pipeline.dead_letters.sqs == LETTERS_QUEUE


def test_the_check_knows_the_pipeline_file_s_windows(pipeline: Pipeline) -> None:
    assert {rule.name: rule.window.size_ms for rule in pipeline.rules} == check.WINDOW_MS
    groups = {
        rule.spec.name: rule.spec.group_by
        for rule in compiler.compile(pipeline).rules
        if rule.is_global
    }
    assert groups == {name: (field,) if field else () for name, field in check.GLOBAL.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fortnight_is_exact_and_every_anomaly_is_found(pipeline: Pipeline, seed: int) -> None:
    plan = plan_traffic(seed, END_MS + seed * 7 * HOUR_MS, duration_s=60)
    pipelines, steps = process(pipeline, plan)
    merged = merge(pipeline, [partial for step in steps for partial in step.partials])
    events = [event for step in (*steps, *merged) for event in step.events]
    service = check.Service(
        records=sum(one.totals.records for one in pipelines) - SHARDS,
        duplicates=sum(one.totals.duplicates for one in pipelines),
        late=sum(one.totals.late for one in pipelines),
        events_published=len(events),
        shards_moved=0,
        p50_ms=0,
        p99_ms=0,
    )
    envelopes = [
        {"source": e.source, "detail-type": e.detail_type, "detail": orjson.loads(e.detail)}
        for e in events
    ]
    letters = [{"id": letter.id} for step in steps for letter in step.dead_letters]
    outcome = check.judge(
        check.Run(
            seed=seed,
            start_ms=plan.start_ms,
            end_ms=plan.end_ms,
            until_ms=plan.end_ms,
            sent=[record.sent for shard in plan.shards for record in shard],
            planted=plan.planted,
            events=[orjson.dumps(envelope) for envelope in envelopes],
            letters=[orjson.dumps(letter) for letter in letters],
            service=service,
        )
    )
    assert outcome.failures == []
    assert outcome.report["anomalies_found"] == 4
    assert outcome.report["false_alarms"] == 0
    assert outcome.report["windows_expected"] > 20_000
    assert outcome.report["global_windows"] > 7_000


def process(pipeline: Pipeline, plan: Plan) -> tuple[list[ShardPipeline], list[Step]]:
    """Every shard's records and its flush record, page by page."""
    compiled = compiler.compile(pipeline)
    pipelines, steps = [], []
    for number, records in enumerate(plan.shards):
        shard = Shard(f"shardId-{number:012d}", number << 126, ((number + 1) << 126) - 1)
        one = ShardPipeline(compiled, shard, "1")
        store = next(store for store in STORES if shard_of(store) == number)
        pairs = [(record.store, record.payload) for record in records]
        pairs.append((store, flush_record(flush_ms(plan.end_ms), store)))
        steps += [
            one.feed(page(pairs[first : first + PAGE], first, plan.end_ms + 3 * HOUR_MS))
            for first in range(0, len(pairs), PAGE)
        ]
        pipelines.append(one)
    return pipelines, steps


def merge(pipeline: Pipeline, told: list[Partial]) -> list[Step]:
    """What the merge stage makes of it; a shard of the source may come whole, before the next."""
    compiled = compiler.compile(pipeline)
    steps = []
    for number in range(MERGE_SHARDS):
        first, last = (at * 2**128 // MERGE_SHARDS for at in (number, number + 1))
        shard = Shard(f"shardId-{number:012d}", first, last - 1)
        one = MergePipeline(compiled, shard, "1")
        here = [each for each in told if first <= each.hash_key < last]
        pairs = [(each.shard_id, enveloped(each.body, 1)) for each in here]
        for at in range(0, len(pairs), PAGE):
            steps += one.steps(page(pairs[at : at + PAGE], at, END_MS))
    return steps


def page(pairs: list[tuple[str, bytes]], first: int, now_ms: int) -> Page:
    return Page(
        payloads=[payload for _, payload in pairs],
        sequence_numbers=[str(first + i + 1) for i in range(len(pairs))],
        partition_keys=[key for key, _ in pairs],
        arrivals_ms=np.full(len(pairs), now_ms, dtype=np.int64),
        millis_behind=0,
        date_ms=now_ms,
    )
