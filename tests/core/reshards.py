"""Random histories of a stream's shards: who splits, who merges, and which shard gets which record.

Each shard's records are a part of one base sequence, in its order: so disorder that is within bound
in the base is so in each shard. A shard ends at a place of the base that is its own (`until`), so
two parents that merge may have come to different times.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from msgspec import Struct

from processor.core.homes import place_of
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.model import DerivedEvent, Mark, Page, Position, Shard, Step
from tests.core import streams
from tests.core.streams import Record

FULL = 2**128


class Node(Struct):
    """A shard in the history; `until` is the first index of the base that goes to its children."""

    shard: Shard
    since: int
    until: int
    children: tuple[Node, ...] = ()

    def holds(self, hash_: int) -> bool:
        return self.shard.first_hash <= hash_ <= self.shard.last_hash


class History(NamedTuple):
    """Shards of a stream's beginning, and all of them, parents before their children."""

    roots: tuple[Node, ...]
    nodes: list[Node]


def history(rng: random.Random, n: int, reshards: int, *, at_once: bool = False) -> History:
    """`at_once`: the parents of a merged child end at the same place of the base."""
    n_roots = rng.randint(1, 3)
    bounds = [FULL * i // n_roots for i in range(n_roots + 1)]
    nodes = [_node(i, first, last - 1, n) for i, (first, last) in enumerate(_pairs(bounds))]
    roots, leaves = tuple(nodes), list(nodes)
    for _ in range(reshards):
        if len(leaves) > 1 and rng.random() < 0.5:
            at = rng.randrange(len(leaves) - 1)
            parents = leaves[at : at + 2]
            ends = [rng.randint(parent.since, n) for parent in parents]
            if at_once:
                ends = [rng.randint(max(parent.since for parent in parents), n)] * 2
            cuts: list[int] = []
        else:
            at = rng.randrange(len(leaves))
            parents = leaves[at : at + 1]
            ends = [rng.randint(parents[0].since, n)]
            whole = parents[0].shard
            if whole.last_hash - whole.first_hash < 2:
                continue
            cuts = [rng.randint(whole.first_hash + 1, whole.last_hash)]
        leaves[at : at + len(parents)] = children = _reshard(parents, ends, cuts, len(nodes), n)
        nodes += children
    return History(roots, nodes)


def scaled(n: int) -> History:
    """UpdateShardCount from 2 to 4 to 3, all in the first and the second third of the base."""
    half, quarter, third = FULL // 2, FULL // 4, FULL // 3
    roots = [_node(i, i * half, (i + 1) * half - 1, n) for i in range(2)]
    nodes, at = list(roots), [n // 3, n // 3 + 9, n // 2, n // 2 + 7, n // 2 + 20, n // 2 + 30]

    def reshard(parents: Sequence[Node], until: Sequence[int], *cuts: int) -> list[Node]:
        children = _reshard(parents, until, cuts, len(nodes), n)
        nodes.extend(children)
        return children

    first, second = reshard(roots[:1], at[:1], quarter)
    third_, fourth = reshard(roots[1:], at[1:2], 3 * quarter)
    low, high = reshard([second], at[2:3], third)
    reshard([first, low], at[3:5])
    left, right = reshard([third_], at[2:3], 2 * third)
    reshard([high, left], at[4:6])
    reshard([right, fourth], at[3:5])
    return History(tuple(roots), nodes)


def _reshard(
    parents: Sequence[Node], ends: Sequence[int], cuts: Sequence[int], n_known: int, n: int
) -> list[Node]:
    bounds = [parents[0].shard.first_hash, *cuts, parents[-1].shard.last_hash + 1]
    ids = tuple(parent.shard.id for parent in parents)
    children = [
        _node(n_known + i, first, last - 1, n, ids, min(ends))
        for i, (first, last) in enumerate(_pairs(bounds))
    ]
    for parent, end in zip(parents, ends, strict=True):
        parent.until, parent.children = end, tuple(children)
    return children


def _node(
    i: int, first: int, last: int, n: int, parents: tuple[str, ...] = (), since: int = 0
) -> Node:
    return Node(Shard(f"shardId-{i:012d}", first, last, parents), since, n)


def _pairs(bounds: Sequence[int]) -> Iterator[tuple[int, int]]:
    return pairwise(bounds)


def routed(history: History, base: Sequence[Record]) -> dict[str, list[int]]:
    """Indices of the base by shard."""
    found: dict[str, list[int]] = {node.shard.id: [] for node in history.nodes}
    for i, record in enumerate(base):
        hash_ = int.from_bytes(place_of(record.partition_key), "big")
        (node,) = [node for node in history.roots if node.holds(hash_)]
        while node.children and i >= node.until:
            (node,) = [child for child in node.children if child.holds(hash_)]
        found[node.shard.id].append(i)
    return found


class Told(NamedTuple):
    """All that a history of shards yields."""

    events: list[DerivedEvent]
    pipelines: list[ShardPipeline]


def run(
    plan: Plan, base: Sequence[Record], history: History, rng: random.Random, until_ms: int
) -> Told:
    """Each shard in its turn: random page cuts, idle marks, crashes; leaves go on to `until_ms`."""
    parts, states = routed(history, base), dict[str, bytes]()
    events: list[DerivedEvent] = []
    pipelines = []
    for node in history.nodes:
        pipeline = _begun(plan, node.shard, states, rng)
        for item in _items(base, parts[node.shard.id], rng):
            if rng.random() < 0.2:
                pipeline = _restored(plan, pipeline)
            events += _events(pipeline.steps(item))
        if node.children:
            events += _events(pipeline.finish())
            states[node.shard.id] = pipeline.snapshot()
        else:
            pipeline = _restored(plan, pipeline)
            events += pipeline.mark(Mark(Position("end"), "idle", until_ms)).events
        pipelines.append(pipeline)
    return Told(events, pipelines)


def _events(steps: Iterable[Step]) -> list[DerivedEvent]:
    return [event for step in steps for event in step.events]


def _begun(plan: Plan, shard: Shard, states: dict[str, bytes], rng: random.Random) -> ShardPipeline:
    """A child's beginning must not depend on the order in which its parents' states are read."""
    inherited = [states[parent] for parent in shard.parents]
    pipeline = ShardPipeline(plan, shard, "1")
    pipeline.inherit(rng.sample(inherited, len(inherited)))
    again = ShardPipeline(plan, shard, "1")
    again.inherit(inherited)
    assert again.snapshot() == pipeline.snapshot()
    return pipeline


def _restored(plan: Plan, pipeline: ShardPipeline) -> ShardPipeline:
    successor = ShardPipeline(plan, pipeline.shard, "1")
    successor.restore(pipeline.snapshot(), pipeline.position or Position("trim_horizon"))
    assert successor.snapshot() == pipeline.snapshot()
    return successor


def _items(
    base: Sequence[Record], part: Sequence[int], rng: random.Random
) -> Iterator[Page | Mark]:
    """Pages of the shard's records; between them marks that make nothing late in the base."""
    at = 0
    while at < len(part):
        size = rng.choice((1, 2, 7, 30, 200))
        if rng.random() < 0.2:
            yield Mark(Position("after", "1"), "idle", _safe_ms(base, part[at]))
        yield streams.page([base[i] for i in part[at : at + size]])
        at += size


def _safe_ms(base: Sequence[Record], i: int) -> int:
    """A watermark that no timely record from index i on is behind of."""
    return base[i].arrival_ms - 1_000 - 5_000


def in_disorder(base: Sequence[Record], rng: random.Random) -> list[Record]:
    """Dealt in blocks, far beyond any bound."""
    blocks = [base[at : at + 25] for at in range(0, len(base), 25)]
    return [record for block in rng.sample(blocks, len(blocks)) for record in block]


def shown(events: Iterable[DerivedEvent]) -> list[Any]:
    """What goes out, whoever told it and when."""
    return sorted((e.id, e.detail_type, e.time_ms, e.group, e.sink, e.detail) for e in events)
