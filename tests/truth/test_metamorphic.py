"""What may be done to a stream without changing its final results, for rules of all kinds at once.

    cut       into any pages
    shuffle   within the out-of-orderness, arrivals change places
    split     over any number of shards, each with a worker of its own; what they tell of global
              rules meets in any order, in a merge stream of any number of shards
    crash     at any page: what follows the last checkpoint is read again, by another worker
    repeat    any event, within the horizon

Early panes, top-k and ties of first and last are left out: they may show the order of arrivals.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor import zones
from processor.core.homes import place_of
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    DerivedEvent,
    Mark,
    MergeSpec,
    PanesSpec,
    Partial,
    Position,
    RuleSpec,
    Shard,
    Step,
    WindowSpec,
)
from tests.core import streams
from tests.core.merge import stages
from tests.core.streams import MINUTE_MS, START_MS, Record
from tests.truth import shop

N = 160
OUT_OF_ORDERNESS_MS = 5_000
LAST = Position("after", "9" * 30)
AFTER_ALL = Mark(LAST, "idle", START_MS + 100 * 3_600_000)
QUIET = Mark(LAST, "quiet", 0)

BUCKETS = 3
RULES: tuple[RuleSpec, ...] = (
    streams.rule("tumbling", detect=()),
    streams.rule("shifted", window=WindowSpec(MINUTE_MS, 7_000), detect=()),
    streams.rule("hopping", window=WindowSpec(3 * MINUTE_MS, 0, "hopping", MINUTE_MS), detect=()),
    streams.rule("odd hops", window=WindowSpec(100_000, 0, "hopping", 70_000), detect=()),
    streams.rule("sessions", window=WindowSpec(kind="session", gap_ms=20_000), detect=()),
    streams.rule(
        "days", window=WindowSpec(kind="calendar", calendar="day", zone="Europe/Berlin"), detect=()
    ),
    streams.rule("patient", lateness_ms=2 * MINUTE_MS, panes=PanesSpec(late_count=1), detect=()),
    streams.rule("regions", group_by=("region",), where={}, detect=()),
    streams.rule("everything", group_by=(), size_ms=2 * MINUTE_MS, detect=()),
)

Result = tuple[str, str, int, int]  # rule, key, start, end
Results = dict[Result, Any]
seeds = st.integers(0, 2**32)
examples = settings(max_examples=7, deadline=None)


class Layout(NamedTuple):
    """How a stream is read."""

    shards: int = 1
    pages: int = 1  # a shard, at most
    crashes: bool = False
    seed: int = 0


def made(seed: int) -> list[dict[str, Any]]:
    """Events in order of their times, no two at one."""
    rng = random.Random(seed)
    at, events = START_MS, []
    for i in range(N):
        at += rng.choice((1, 40, 700, 3_000, rng.choice((100, 100, 90_000))))
        events.append(
            {
                "id": f"e{i}",
                "at": at,
                "type": rng.choice(("order", "order", "payment")),
                "store": f"store-{rng.randrange(9)}",
                "region": rng.choice(("north", "south", "west")),
                "user": f"user-{rng.randrange(60)}",
                "amount": rng.choice((round(rng.uniform(1, 100), 2), rng.uniform(-1, 1) * 1e-6)),
            }
        )
    return events


def arrived(events: Sequence[Mapping[str, Any]], seed: int | None = None) -> list[Record]:
    """In order of time; or, by a seed, as much out of it as the bound allows.

    Each event is delayed by less than the bound, so it comes while the watermark, the bound behind
    the newest of those that came before, has not passed it.
    """
    rng = random.Random(seed)
    delays = [0 if seed is None else rng.randrange(OUT_OF_ORDERNESS_MS) for _ in events]
    order = sorted(range(len(events)), key=lambda i: events[i]["at"] + delays[i])
    return [
        Record(
            json.dumps(events[i]).encode(),
            events[i]["store"],
            events[i]["at"] + OUT_OF_ORDERNESS_MS,
            str(10**20 + place),
        )
        for place, i in enumerate(order)
    ]


def results(stream: Sequence[Record], layout: Layout) -> Results:
    """The final result of every window, by what it is about; one id has one byte string."""
    pipeline = streams.pipeline(*RULES, out_of_orderness_ms=OUT_OF_ORDERNESS_MS)
    plan = compile(replace(pipeline, merge=MergeSpec("merge", BUCKETS)), zones.tables(pipeline))
    bodies: dict[str, bytes] = {}
    found: Results = {}
    for event in told(plan, stream, layout):
        assert bodies.setdefault(event.id, event.detail) == event.detail, "one id, two contents"
        detail = json.loads(event.detail)
        if detail["is_final"]:
            found[_about(detail)] = (detail["count"], detail["values"])
    return found


def _about(detail: Mapping[str, Any]) -> Result:
    window = detail["window"]
    return detail["rule"], json.dumps(detail["key"]), window["start"], window["end"]


def told(plan: Plan, stream: Sequence[Record], layout: Layout) -> list[DerivedEvent]:
    steps: list[list[Step]] = []
    for number, shard in enumerate(shop.shards(layout.shards)):
        own = [r for r in stream if _shard_of(r, layout.shards) == number]
        rng = random.Random(f"{layout.seed} {number}")
        steps.append(_Worker(plan, shard, rng, may_crash=layout.crashes).follow(own, layout.pages))
    events = [event for own in steps for step in own for event in step.events]
    partials = [[partial for step in own for partial in step.partials] for own in steps]
    return events + _merged(plan, partials, layout)


def _merged(
    plan: Plan, partials: Sequence[Sequence[Partial]], layout: Layout
) -> list[DerivedEvent]:
    """What the merge stage tells, whose stream has as many shards as the source's."""
    rng = random.Random(layout.seed)
    turns = [number for number, own in enumerate(partials) for _ in own]
    rng.shuffle(turns)
    left = [iter(own) for own in partials]
    put = [next(left[number]) for number in turns]
    events: list[DerivedEvent] = []
    for shard in shop.shards(layout.shards):
        pipeline = MergePipeline(plan, shard, stages.INCARNATION, 1)
        own = [p for p in put if shard.first_hash <= p.hash_key <= shard.last_hash]
        while own:
            n = rng.randint(1, 40)
            events += pipeline.feed(stages.page(own[:n])).events
            own = own[n:]
    return events


def _shard_of(record: Record, shards: int) -> int:
    return int.from_bytes(place_of(record.partition_key)) * shards // shop.HASHES


class _Worker:
    """One shard's worker, which commits now and then, and dies now and then."""

    def __init__(self, plan: Plan, shard: Shard, rng: random.Random, *, may_crash: bool) -> None:
        self._plan, self._shard, self._rng, self._may_crash = plan, shard, rng, may_crash

    def follow(self, stream: Sequence[Record], pages: int) -> list[Step]:
        out: list[Step] = []
        pipeline = self._fresh()
        committed: tuple[bytes, Position, int] | None = None
        at = 0
        while at < len(stream):
            if self._may_crash and self._rng.random() < 0.3:
                pipeline, at = self._restored(committed)
                self._may_crash = self._rng.random() < 0.9  # crashes end before the stream does
            until = at + self._rng.randint(1, max(1, 2 * len(stream) // pages))
            out.append(pipeline.feed(streams.page(stream[at:until])))
            at = until
            if self._rng.random() < 0.5 and pipeline.position is not None:
                committed = (pipeline.snapshot(), pipeline.position, at)
        return [*out, pipeline.mark(AFTER_ALL), pipeline.mark(QUIET)]

    def _fresh(self) -> ShardPipeline:
        return ShardPipeline(self._plan, self._shard, stages.INCARNATION)

    def _restored(self, committed: tuple[bytes, Position, int] | None) -> tuple[ShardPipeline, int]:
        pipeline = self._fresh()
        if committed is None:
            return pipeline, 0
        state, position, at = committed
        pipeline.restore(state, position)
        return pipeline, at


@examples
@given(seeds, st.integers(2, N))
def test_cuts_change_nothing(seed: int, pages: int) -> None:
    stream = arrived(made(seed), seed)
    assert results(stream, Layout(pages=pages, seed=seed)) == results(stream, Layout())


@examples
@given(seeds, seeds)
def test_a_shuffle_within_the_bound_changes_nothing(seed: int, other: int) -> None:
    events = made(seed)
    straight = results(arrived(events), Layout())
    assert len(straight) > 100
    assert results(arrived(events, other), Layout()) == straight


@examples
@given(seeds, st.integers(2, 12))
def test_a_split_over_shards_changes_nothing(seed: int, shards: int) -> None:
    stream = arrived(made(seed), seed)
    assert results(stream, Layout(shards, pages=5, seed=seed)) == results(stream, Layout())


@examples
@given(seeds, st.integers(1, 5))
def test_crashes_change_nothing(seed: int, shards: int) -> None:
    stream = arrived(made(seed), seed)
    crashing = Layout(shards, pages=20, crashes=True, seed=seed)
    assert results(stream, crashing) == results(stream, Layout())


@examples
@given(seeds, st.integers(1, 40), st.integers(1, 5))
def test_repeats_change_nothing(seed: int, repeats: int, shards: int) -> None:
    stream = arrived(made(seed), seed)
    twice = list(stream)
    rng = random.Random(seed)
    for _ in range(repeats):
        at = rng.randrange(len(twice))
        twice.insert(rng.randint(at + 1, min(len(twice), at + 30)), twice[at])
    numbered = [r._replace(sequence_number=str(10**20 + i)) for i, r in enumerate(twice)]
    layout = Layout(shards, pages=20, seed=seed)
    assert results(numbered, layout) == results(stream, Layout())
