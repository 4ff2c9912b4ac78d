"""A shop's stream for tests of the ring: seeded records, a pipeline over them, and a plain truth.

The truth is worked out record by record with dicts and fractions; it shares no code with the ring.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    Page,
    Pipeline,
    RuleSpec,
    Shard,
    SourceSpec,
    StateSpec,
    Step,
    WindowSpec,
)

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
SHARD = Shard("shardId-000000000000")
TIMELY = (0, 0, 1_000, 4_999)  # how far behind an event may be; the bound is 5 s
DISORDER = (*TIMELY, 5_001, 200_000)
AGGREGATES = (
    AggregateSpec("orders", "count"),
    AggregateSpec("revenue", "sum", "amount"),
    AggregateSpec("average", "mean", "amount"),
    AggregateSpec("spread", "variance", "amount"),
    AggregateSpec("highest", "max", "amount"),
    AggregateSpec("lowest", "min", "amount"),
)
DETECTS = (
    DetectSpec("novelty", "novelty", "orders", {"warm_up": 5}),
    DetectSpec("absence", "absence", "orders"),
    DetectSpec("threshold", "threshold", "highest", {"above": 95}),
)


class Record(NamedTuple):
    payload: bytes
    partition_key: str
    arrival_ms: int
    sequence_number: str


def plan(*rules: RuleSpec, **event: Any) -> Plan:
    return compile(pipeline(*rules, **event))


def pipeline(*rules: RuleSpec, **event: Any) -> Pipeline:
    """A pipeline over `records`; without rules, two: orders a minute, payments in three."""
    settings: dict[str, Any] = {
        "id": "id",
        "time": "at",
        "partition_key": "store",
        "correlation_id": "request",
        "out_of_orderness_ms": 5_000,
        "dedupe_horizon_ms": 10 * MINUTE_MS,
    }
    return Pipeline(
        "shop",
        SourceSpec("orders"),
        EventSpec(**(settings | event)),
        {},
        rules or (rule(), rule("payments", "payment", 3 * MINUTE_MS)),
        StateSpec("processor-shop"),
        DeadLetterSpec("processor-shop-dead-letters"),
    )


def rule(
    name: str = "orders", type_: str = "order", size_ms: int = MINUTE_MS, **more: Any
) -> RuleSpec:
    settings: dict[str, Any] = {
        "where": {"type": [type_]},
        "group_by": ("store",),
        "window": WindowSpec(size_ms),
        "aggregates": AGGREGATES,
        "detect": DETECTS,
        "emit_windows": "bus",
        "emit_anomalies": "bus",
    }
    return RuleSpec(name=name, **(settings | more))


def records(seed: int, n: int, *, is_timely: bool = False) -> list[Record]:
    """n records of six stores: in disorder within and beyond the bound, some broken or repeated.

    `is_timely`: within the bound only.
    """
    rng = random.Random(seed)
    made: list[Record] = []
    at_ms = START_MS
    for i in range(n):
        at_ms += rng.choice((0, 50, 400, 2_000, 90_000 if rng.random() < 0.02 else 100))
        event = _event(rng, i, at_ms, TIMELY if is_timely else DISORDER)
        payload = json.dumps(event).encode()
        if rng.random() < 0.03:
            payload = _broken(rng, event, at_ms)
        if made and rng.random() < 0.05:
            old = rng.choice(made[-40:])
            payload, event = old.payload, {"store": old.partition_key}
        made.append(Record(payload, str(event["store"]), at_ms + 1_000, str(10**55 + i)))
    return made


def _event(rng: random.Random, i: int, at_ms: int, disorder: Sequence[int]) -> dict[str, Any]:
    behind = rng.choice(disorder)
    if behind > 5_001 and rng.random() > 0.1:
        behind = 0
    return {
        "id": f"e{i}",
        "at": at_ms - behind,
        "type": rng.choice(("order", "order", "payment", "view")),
        "store": f"store-{rng.randrange(6)}",
        "amount": rng.choice((round(rng.uniform(1, 100), 2), rng.uniform(-1, 1) * 1e-7, 3)),
        "request": f"r{i}",
    }


def _broken(rng: random.Random, event: dict[str, Any], at_ms: int) -> bytes:
    return rng.choice(
        (
            b"",
            b"{",
            b"\xff\xfe",
            b"[1]",
            b'{"a":' * 3_000,
            json.dumps(event | {"at": at_ms + 10**9}).encode(),
            json.dumps(event | {"at": None}).encode(),
            json.dumps(event | {"store": 1.5}).encode(),
            json.dumps(event | {"type": "order", "amount": 10**30}).encode(),
            json.dumps(event | {"id": "x" * 600}).encode(),
        )
    )


def page(part: Sequence[Record], **more: Any) -> Page:
    return Page(
        payloads=[r.payload for r in part],
        sequence_numbers=[r.sequence_number for r in part],
        partition_keys=[r.partition_key for r in part],
        arrivals_ms=np.array([r.arrival_ms for r in part], dtype=np.int64),
        millis_behind=0,
        date_ms=part[-1].arrival_ms if part else 0,
        **more,
    )


def pages(stream: Sequence[Record], cuts: Iterable[int]) -> list[Page]:
    """The stream cut at these indices."""
    at = [0, *sorted(set(cuts) & set(range(1, len(stream)))), len(stream)]
    return [page(stream[a:b]) for a, b in pairwise(at) if b > a]


def fresh(plan: Plan) -> ShardPipeline:
    return ShardPipeline(plan, SHARD, "1")


def yielded(steps: Iterable[Step]) -> tuple[list[Any], list[Any]]:
    """All that goes out, in order: events with their bytes, dead letters."""
    events, letters = [], []
    for step in steps:
        events += step.events
        letters += step.dead_letters
    return events, letters


def truth(
    stream: Sequence[Record], size_ms: int, type_: str, until_ms: int = 0
) -> dict[tuple[str, int], dict[str, Any]]:
    """Closed windows by (store, start): what a rule over good, fresh, timely records must say.

    `until_ms`: where the watermark has moved in the end, if further than the records move it.
    """
    watermark, seen = -(2**62), {}
    open_: dict[tuple[str, int], list[Fraction]] = {}
    for record in stream:
        event = _readable(record)
        if event is None:
            continue
        before, watermark = watermark, max(watermark, event["at"] - 5_000)
        entered = seen.get(event["id"])
        if entered is not None and before <= entered + 10 * MINUTE_MS:
            continue
        sizes = {"order": MINUTE_MS, "payment": 3 * MINUTE_MS}
        own = sizes.get(event["type"])
        if own is not None and before >= event["at"] // own * own + own:
            continue
        seen[event["id"]] = event["at"]
        if event["type"] == type_:
            start = event["at"] // size_ms * size_ms
            open_.setdefault((event["store"], start), []).append(Fraction(event["amount"]))
    watermark = max(watermark, until_ms)
    closed = {at: values for at, values in open_.items() if at[1] + size_ms <= watermark}
    return {at: _figures(values) for at, values in closed.items()}


def _readable(record: Record) -> dict[str, Any] | None:
    """The event, unless something about it is broken."""
    try:
        event = json.loads(record.payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("at"), int):
        return None
    is_good = (
        event["at"] <= record.arrival_ms + 3_600_000
        and isinstance(event["store"], str)
        and len(event["id"]) <= 512
        and not (event["type"] in ("order", "payment") and abs(event["amount"]) > 2**53)
    )
    return event if is_good else None


def _figures(values: list[Fraction]) -> dict[str, Any]:
    n, total = len(values), sum(values)
    spread = sum((v - total / n) ** 2 for v in values) / (n - 1) if n > 1 else None
    return {
        "orders": n,
        "revenue": float(total),
        "average": float(total) / n,
        "spread": None if spread is None else float(spread),
        "highest": float(max(values)),
        "lowest": float(min(values)),
    }
