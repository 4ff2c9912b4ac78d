"""A flood of keys through one shard's pipeline, in a process of its own: what memory it takes.

    python -m bench.flood CASE SECONDS      prints `Flood` as JSON
    python -m bench.flood footprint         prints `Footprint`; --traced: by Python's own account
                                            too, --samples: with correlation ids

No sockets: pages of records that were never seen before go into the pipeline as fast as it takes
them, and what it tells is dropped.
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    EventSpec,
    Page,
    Pipeline,
    RuleSpec,
    Shard,
    SourceSpec,
    StateSpec,
    WindowSpec,
)

START_MS = 1_700_000_000_000
PAGE = 1_000
RECORDS_PER_S = 500  # of event time: half of what a shard takes
WINDOW_MS = 10_000
FOOTPRINT_KEYS = 100_000
_KEY = "customer-{:08d}"
AGGREGATES = (
    AggregateSpec("orders", "count"),
    AggregateSpec("revenue", "sum", "amount"),
    AggregateSpec("average", "mean", "amount"),
    AggregateSpec("highest", "max", "amount"),
)


class Case(NamedTuple):
    """How a rule is bounded, and what comes."""

    rule: Mapping[str, Any]
    fields: tuple[str, ...] = ("customer",)
    ahead_ms: int = 0  # up to so far ahead of its arrival a record may be
    event: Mapping[str, Any] = {"id": "id", "correlation_id": "request"}


CASES: Mapping[str, Case] = {
    "other": Case({}),
    "evict": Case({"overflow": "evict"}),
    "evict, by two fields": Case({"overflow": "evict"}, ("customer", "type")),
    "dead_letter": Case({"overflow": "dead_letter"}),
    "forget_after": Case({"max_groups": 100_000, "forget_after_ms": 30_000}),
    # Without ids: those of an hour to come are remembered for an hour, up to their own bound.
    "seconds up to an hour ahead": Case(
        {"window": WindowSpec(1_000)},
        ahead_ms=3_600_000,
        event={"correlation_id": "request"},
    ),
}


class Sample(Struct, frozen=True):
    """One look at the process."""

    at_s: float
    rss_bytes: int
    records: int
    groups: int
    windows_open: int


class Flood(Struct, frozen=True):
    samples: list[Sample]
    cpu_s: float


class Footprint(Struct, frozen=True):
    """What a process grew by, with all keys known and windows of all of them open and closed."""

    rss_bytes: int  # at the end
    rss_max_bytes: int  # at its highest, as all windows close at once
    traced_bytes: int  # 0 where Python does not trace
    traced_max_bytes: int


def flood(name: str, seconds: float) -> Flood:
    case = CASES[name]
    pipeline, rng = ShardPipeline(_plan(case), Shard("shardId-000000000000"), "1"), random.Random(1)
    samples: list[Sample] = []
    began_at, next_at, records = time.perf_counter(), 0.0, 0
    for page in _pages(case, rng):
        _feed(pipeline, page)
        records += PAGE
        at_s = time.perf_counter() - began_at
        if at_s >= next_at:
            next_at = at_s + seconds / 60
            (groups,) = pipeline.groups.values()
            samples.append(Sample(at_s, _rss_bytes(), records, groups, pipeline.windows_open))
        if at_s >= seconds:
            break
    return Flood(samples, time.process_time())


def footprint(*, is_traced: bool, has_samples: bool) -> Footprint:
    """100,000 groups with four figures, known all, for some windows."""
    event = {"correlation_id": "request"} if has_samples else {}
    case = Case({"max_groups": FOOTPRINT_KEYS, "window": WindowSpec(60_000)}, event=event)
    of = _plan(case)
    warm = ShardPipeline(of, Shard("shardId-000000000000"), "1")
    for window in range(3):
        _feed(warm, _page(range(PAGE), window * PAGE, START_MS + window * 60_000, case))
    del warm
    gc.collect()
    before, traced = _rss_bytes(), (0, 0)
    if is_traced:
        tracemalloc.start()
    pipeline = ShardPipeline(of, Shard("shardId-000000000000"), "1")
    for window in range(3):
        for first in range(0, FOOTPRINT_KEYS, PAGE):
            at_ms = START_MS + window * 60_000 + first * 40_000 // FOOTPRINT_KEYS
            keys = range(first, first + PAGE)
            _feed(pipeline, _page(keys, window * FOOTPRINT_KEYS + first, at_ms, case))
    gc.collect()
    if is_traced:
        traced = tracemalloc.get_traced_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    assert len(pipeline._rules[0].keys) == FOOTPRINT_KEYS
    return Footprint(_rss_bytes() - before, peak - before, *traced)


def _feed(pipeline: ShardPipeline, page: Page) -> None:
    for _ in pipeline.steps(page):
        pass


def _pages(case: Case, rng: random.Random) -> Iterator[Page]:
    first = 0
    while True:
        at_ms = START_MS + first * 1_000 // RECORDS_PER_S
        yield _page(range(first, first + PAGE), first, at_ms, case, rng)
        first += PAGE


def _page(
    keys: range, first: int, at_ms: int, case: Case, rng: random.Random | None = None
) -> Page:
    """A record a key; its number in the stream begins at `first`."""
    names = [_KEY.format(key) for key in keys]
    times = [at_ms + (i * 1_000 // RECORDS_PER_S if rng else 0) for i in range(len(keys))]
    arrivals = np.array(times, dtype=np.int64)
    if rng is not None and case.ahead_ms:
        times = [time_ms + rng.randrange(case.ahead_ms) for time_ms in times]
    payloads = [
        b'{"id":"e-%d","at":%d,"type":"order","customer":"%s","amount":%d.25,"request":"r-%d"}'
        % (first + i, time_ms, name.encode(), i, first + i)
        for i, (time_ms, name) in enumerate(zip(times, names, strict=True))
    ]
    numbers = [str(10**55 + first + i) for i in range(len(keys))]
    return Page(payloads, numbers, names, arrivals, 0, at_ms)


def _plan(case: Case) -> Plan:
    settings: dict[str, Any] = {"max_groups": 10_000, "window": WindowSpec(WINDOW_MS)}
    rule = RuleSpec(
        name="flood",
        where={"type": ["order"]},
        group_by=case.fields,
        aggregates=AGGREGATES,
        emit_windows="bus",
        **(settings | dict(case.rule)),
    )
    event = EventSpec(time="at", partition_key="customer", dedupe_horizon_ms=60_000, **case.event)
    state, letters = StateSpec("processor-flood"), DeadLetterSpec("processor-flood-dead-letters")
    return compile(Pipeline("flood", SourceSpec("flood"), event, {}, (rule,), state, letters))


def _rss_bytes() -> int:
    """As Linux tells it; elsewhere the highest so far."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    name, *more = sys.argv[1:]
    if name == "footprint":
        found: Struct = footprint(is_traced="--traced" in more, has_samples="--samples" in more)
    else:
        found = flood(name, float(more[0]))
    sys.stdout.buffer.write(msgspec.json.encode(found))
