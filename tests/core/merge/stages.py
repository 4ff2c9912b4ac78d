"""Both stages of global rules, with everything that may happen between them, from one seed.

The source's shards split and merge; each is cut into pages, crashes and repeats what it told since
its last checkpoint; what they tell is put into the merge stream in any order that keeps each
shard's own, and a child's after its parents'. The merge stream is resharded too, and its workers
cut pages, restore and crash likewise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor.core.merge import partials
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    END,
    Counts,
    DerivedEvent,
    Mark,
    MergeSpec,
    Page,
    Partial,
    Position,
    RuleSpec,
    Shard,
    Step,
)
from tests.core import reshards, streams
from tests.core.reshards import History, Node
from tests.core.streams import Record

BUCKETS = 4
INCARNATION = "1700000000000.0"
BASE_NUMBER = 10**55
ALL_TYPES: dict[str, Any] = {"type": ["order", "payment"]}


def plan(*rules: RuleSpec, buckets: int = BUCKETS, **event: Any) -> Plan:
    """As `streams.plan`; its rules are global, as nobody groups by the partition key."""
    made = streams.plan(*rules, **({"partition_key": "nothing"} | event)).pipeline
    return compile(replace(made, merge=MergeSpec("merge", buckets)))


def alone(plan: Plan) -> Plan:
    """The same rules, for one shard that has all records."""
    return compile(replace(plan.pipeline, merge=None))


def rule(name: str = "all", size_ms: int = 10_000, **more: Any) -> RuleSpec:
    """In tumbling windows of `size_ms`, unless `window` says otherwise."""
    settings: dict[str, Any] = {"where": ALL_TYPES, "group_by": ("type",)}
    return streams.rule(name, size_ms=size_ms, **(settings | more))


# ---- the first stage --------------------------------------------------------------------------


class Told(NamedTuple):
    """What a source told: by shard, in the order in which it was put, repeats included."""

    by_shard: dict[str, list[Partial]]
    counts: list[Counts]
    pipelines: list[ShardPipeline]


def tell(
    plan: Plan,
    base: Sequence[Record],
    history: History,
    rng: random.Random,
    until_ms: int,
    quiet: float = 0.0,
) -> Told:
    """All shards, one after the other; leaves go on to `until_ms`, and are quiet then.

    `quiet`: how likely it is that a shard falls quiet after a page.
    """
    parts, states = reshards.routed(history, base), dict[str, bytes]()
    told = Told({}, [], [])
    for node in history.nodes:
        pipeline = ShardPipeline(plan, node.shard, INCARNATION)
        pipeline.inherit([states[parent] for parent in node.shard.parents])
        items: list[Page | Mark] = list(_items(base, parts[node.shard.id], rng, quiet))
        if not node.children:
            items += [Mark(END, "idle", until_ms), Mark(END, "quiet", 0)]
        pipeline, out = _crashing(plan, pipeline, items, rng, told.counts)
        if node.children:
            out += _partials(pipeline.finish())
            states[node.shard.id] = pipeline.snapshot()
        told.by_shard[node.shard.id] = out
        told.pipelines.append(pipeline)
    return told


def _items(
    base: Sequence[Record], part: Sequence[int], rng: random.Random, quiet: float
) -> Iterable[Page | Mark]:
    at = 0
    while at < len(part):
        size = rng.choice((1, 2, 7, 30, 200))
        if rng.random() < 0.2:  # a mark that makes nothing late
            safe_ms = base[part[at]].arrival_ms - 6_000
            yield Mark(Position("after", "1"), "idle", safe_ms)
        yield streams.page([base[i] for i in part[at : at + size]])
        if rng.random() < quiet:
            yield Mark(Position("after", "1"), "quiet", 0)
        at += size


def _crashing(
    plan: Plan,
    pipeline: ShardPipeline,
    items: Sequence[Page | Mark],
    rng: random.Random,
    counts: list[Counts],
) -> tuple[ShardPipeline, list[Partial]]:
    """Feed the items; now and then everything since a checkpoint is done and told again."""
    out: list[Partial] = []
    checkpoint, position = pipeline.snapshot(), pipeline.position
    at = since = done = 0
    while at < len(items):
        steps = list(pipeline.steps(items[at]))
        out += _partials(steps)
        if at >= done:
            counts += [step.counts for step in steps]
            done = at + 1
        at += 1
        if rng.random() < 0.2:
            checkpoint, since, position = pipeline.snapshot(), at, pipeline.position
        elif rng.random() < 0.3:
            at = since
            pipeline = ShardPipeline(plan, pipeline.shard, INCARNATION)
            pipeline.restore(checkpoint, position or Position("trim_horizon"))
    return pipeline, out


def _partials(steps: Iterable[Step]) -> list[Partial]:
    return [partial for step in steps for partial in step.partials]


def interleaved(told: Told, history: History, rng: random.Random) -> list[Partial]:
    """In any order that may be: children tell after their parents have told all."""
    left = {shard_id: list(reversed(out)) for shard_id, out in told.by_shard.items()}
    order = []
    while left:
        ready = [
            node.shard.id
            for node in history.nodes
            if node.shard.id in left and not any(p in left for p in node.shard.parents)
        ]
        shard_id = rng.choice(ready)
        n = min(rng.choice((1, 4, 40)), len(left[shard_id]))
        order += [left[shard_id].pop() for _ in range(n)]
        if not left[shard_id]:
            del left[shard_id]
    return order


# ---- the second stage -------------------------------------------------------------------------


class Merged(Struct):
    events: list[DerivedEvent]
    pipelines: list[MergePipeline]

    @property
    def late(self) -> int:
        return sum(pipeline.totals.late for pipeline in self.pipelines)

    @property
    def counted(self) -> int:
        return sum(pipeline.totals.counted for pipeline in self.pipelines)


def merge(
    plan: Plan, put: Sequence[Partial], history: History, rng: random.Random, until_ms: int
) -> Merged:
    """Every shard of the merge stream, one after the other; leaves go on to `until_ms`."""
    routed = _routed(history, put)
    states: dict[str, bytes] = {}
    merged = Merged([], [])
    seen: dict[str, DerivedEvent] = {}
    for node in history.nodes:
        pipeline = _inheriting(plan, node.shard, [states[p] for p in node.shard.parents], rng)
        checkpoint, since, at = pipeline.snapshot(), 0, 0
        records = routed[node.shard.id]
        while at < len(records):
            size = rng.choice((1, 3, 20, 200))
            stop = min(at + size, len(records))
            for step in pipeline.steps(page([put[i] for i in records[at:stop]], records[at])):
                assert step.dead_letters == []
                _collect(step, merged, seen)
            at = stop
            if rng.random() < 0.3:
                checkpoint, since = pipeline.snapshot(), at
                pipeline = _restored(plan, node.shard, checkpoint)
            elif rng.random() < 0.2:
                pipeline, at = _restored(plan, node.shard, checkpoint), since
        if node.children:
            assert list(pipeline.finish()) == [Step([], [], Counts())]
        else:
            _collect(pipeline.mark(Mark(END, "idle", until_ms)), merged, seen)
        states[node.shard.id] = pipeline.snapshot()
        merged.pipelines.append(pipeline)
    return merged


def _collect(step: Step, merged: Merged, seen: dict[str, DerivedEvent]) -> None:
    """A repeat must be what it repeats, but for how long it took to arrive."""
    for event in step.events:
        known = seen.setdefault(event.id, event)
        assert replace(known, arrival_ms=0) == replace(event, arrival_ms=0)
        if known is event:
            merged.events.append(event)


def _inheriting(
    plan: Plan, shard: Shard, states: Sequence[bytes], rng: random.Random
) -> MergePipeline:
    pipeline = MergePipeline(plan, shard, INCARNATION, 1)
    pipeline.inherit(rng.sample(states, len(states)))
    again = MergePipeline(plan, shard, INCARNATION, 1)
    again.inherit(states)
    assert again.snapshot() == pipeline.snapshot()
    return pipeline


def _restored(plan: Plan, shard: Shard, state: bytes) -> MergePipeline:
    pipeline = MergePipeline(plan, shard, INCARNATION, 1)
    pipeline.restore(state, Position("after", "1"))
    assert pipeline.snapshot() == state
    return pipeline


def _routed(history: History, put: Sequence[Partial]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {node.shard.id: [] for node in history.nodes}
    for i, partial in enumerate(put):
        (node,) = [node for node in history.roots if node.holds(partial.hash_key)]
        while node.children and i >= node.until:
            (node,) = [child for child in node.children if child.holds(partial.hash_key)]
        found[node.shard.id].append(i)
    return found


def page(put: Sequence[Partial], first: int = 0, generation: int = 1) -> Page:
    """Records of the merge stream, a second apart."""
    return Page(
        payloads=[partials.enveloped(one.body, generation) for one in put],
        sequence_numbers=[str(BASE_NUMBER + first + i) for i in range(len(put))],
        partition_keys=[one.shard_id for one in put],
        arrivals_ms=streams.START_MS + 1_000 * np.arange(first, first + len(put)),
        millis_behind=0,
        date_ms=0,
    )


def whole() -> History:
    """One shard for good."""
    node = Node(Shard("shardId-000000000000"), 0, 10**9)
    return History((node,), [node])


# ---- what both are to tell --------------------------------------------------------------------


def results(events: Iterable[DerivedEvent]) -> dict[tuple[str, str, int, int], Any]:
    """By rule, key and window: what was counted in the end. (Whether the last word of a window is
    its pane on time or a closing one depends on how far the watermark went at once.)"""
    found = {}
    for event in events:
        detail = json.loads(event.detail)
        if detail["kind"] == "window" and detail["is_final"]:
            window = detail["window"]["start"], detail["window"]["end"]
            at = detail["rule"], json.dumps(detail["key"]), *window
            assert at not in found, "a window is told once"
            assert not detail.keys() & {"partial", "complete"}
            found[at] = detail["count"], detail["values"]
    return found


def anomalies(events: Iterable[DerivedEvent]) -> list[Any]:
    """In order of (rule, key, detector, window): what detectors said."""
    details = (json.loads(event.detail) for event in events)
    return sorted(
        (
            d["rule"],
            json.dumps(d["key"]),
            d["anomaly"]["detector"],
            d["window"]["start"],
            d["anomaly"]["state"],
            json.dumps(d["anomaly"]),
        )
        for d in details
        if d["kind"] == "anomaly"
    )


def by_one(plan: Plan, base: Sequence[Record], until_ms: int) -> list[DerivedEvent]:
    """What one shard tells that has all records."""
    pipeline = ShardPipeline(alone(plan), streams.SHARD, INCARNATION)
    events = list(pipeline.feed(streams.page(base)).events)
    return events + pipeline.mark(Mark(END, "idle", until_ms)).events
