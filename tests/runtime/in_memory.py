"""Whole workers in memory and in virtual time: a stream, a table, a bus, and ways to go wrong.

Ticks are (key, second, value); windows are a minute long, and START_MS begins one. Times go on
with the virtual clock, so an idle minute passes at once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from processor.core.leases.rows import ShardRow
from processor.core.merge.pipeline import MergePipeline
from processor.core.plan import Plan, compile
from processor.errors import RetentionGap
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    MergeSpec,
    Pipeline,
    RuleSpec,
    Shard,
    SourceSpec,
    StateSpec,
    Step,
    WindowSpec,
)
from processor.ports import Unobserved as UnobservedReads
from processor.runtime.lease_loop import LeasePorts
from processor.runtime.lease_observer import Unobserved
from processor.runtime.road import Fresh, Road
from processor.runtime.stages import Stages
from processor.runtime.worker import Pulse, Worker
from processor.sinks.memory import MemoryDeadLetters, MemorySink, MemoryTarget
from processor.sinks.memory_partials import MemoryRecords
from processor.sinks.partials import StreamPartials
from processor.sources.memory import MemorySource
from processor.stores.memory import MemoryContent, MemoryObjects, MemoryTable
from tests.virtual_time import START_MS, VirtualClock

Side = Literal["before", "after"]
Gate = Callable[[str, Side], Any]

MINUTE_MS = 60_000
BASE_MS = START_MS // MINUTE_MS * MINUTE_MS  # the first window's start, some seconds back
SHARD = "shardId-000000000000"


def plan_of(
    checkpoint_ms: int,
    window_ms: int = MINUTE_MS,
    detect: tuple[DetectSpec, ...] = (),
    start: str = "trim_horizon",
    on_gap: Literal["stop", "continue"] = "stop",
    merge: MergeSpec | None = None,
) -> Plan:
    """One rule by key; with `merge` a second one, `all`, over all shards."""
    rule = RuleSpec(
        "ticks",
        {"type": ["tick"]},
        ("key",),
        WindowSpec(window_ms),
        (AggregateSpec("n", "count"), AggregateSpec("total", "sum", "value")),
        detect,
        emit_windows="bus",
    )
    rules = (rule,)
    if merge is not None:
        rules += (replace(rule, name="all", group_by=(), detect=()),)
    event = EventSpec(time="at", partition_key="key", out_of_orderness_ms=0)
    state, letters = StateSpec("table", checkpoint_ms=checkpoint_ms), DeadLetterSpec("dead")
    return compile(
        Pipeline(
            "shop",
            SourceSpec("ticks", start, on_gap=on_gap),
            event,
            {},
            rules,
            state,
            letters,
            merge=merge,
        )
    )


def tick(key: str, second: float, value: int = 1) -> bytes:
    at_ms = BASE_MS + round(second * 1000)
    return json.dumps({"type": "tick", "key": key, "at": at_ms, "value": value}).encode()


class Steps:
    """A `StepObserver` that remembers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.refused: list[str] = []
        self.gaps: list[RetentionGap] = []
        self.left_behind: list[str] = []

    def on_step(self, shard_id: str, step: Step, seconds: float) -> None:
        self.steps.append(step)

    def on_gap(self, shard_id: str, error: RetentionGap) -> None:
        self.gaps.append(error)

    def on_left_behind(self, shard_id: str, source_shard_id: str) -> None:
        self.left_behind.append(source_shard_id)

    def on_state_refused(self, shard_id: str, error: Exception) -> None:
        self.refused.append(str(error))


class Unwatched:
    """A `PartialObserver` that looks away."""

    def on_request(self, seconds: float) -> None:
        pass

    def on_taken(self, records: int, payload_bytes: int) -> None:
        pass

    def on_retry(self, reason: str, n: int) -> None:
        pass


class Alerts(Unobserved):
    """A `LeaseObserver` that remembers what somebody should look at."""

    def __init__(self) -> None:
        self.stalled: list[str] = []
        self.parked: dict[str, str] = {}  # why, by shard

    def on_parked(self, shard_id: str, error: Exception) -> None:
        self.parked[shard_id] = str(error)

    def on_stalled(self, shard_id: str, reason: str) -> None:
        self.stalled.append(reason)


@dataclass
class Life:
    """One worker's life: stop it in order, or kill it where it stands."""

    worker: Worker
    stopping: asyncio.Event
    task: asyncio.Task[None]
    steps: Steps
    pulse: Pulse
    seen: Alerts
    merge: Worker | None = None

    async def stop(self) -> None:
        self.stopping.set()
        await self.task

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@dataclass
class Town:
    """What outlives workers. `gate` is asked at every operation of the table."""

    shards: int = 1
    checkpoint_ms: int = 15_000
    page_records_max: int = 1_000
    window_ms: int = MINUTE_MS
    detect: tuple[DetectSpec, ...] = ()
    start_at: str = "trim_horizon"
    on_gap: Literal["stop", "continue"] = "stop"
    caught_up_s: float = 0.25
    retention_ms: int = 86_400_000
    gate: Gate | None = None
    merge_shards: int = 0  # 0: no rule is global
    merging: MergeSpec = field(default_factory=lambda: MergeSpec("merge", 4))
    content: MemoryContent = field(default_factory=MemoryContent)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    bus: MemoryTarget = field(default_factory=MemoryTarget)
    dead: MemoryTarget = field(default_factory=MemoryTarget)
    started: int = 0

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.merge = MemorySource("merge", _shards(self.merge_shards), self.clock)
        self.records = MemoryRecords(self.merge)
        self.source = MemorySource(
            "ticks",
            _shards(self.shards),
            self.clock,
            page_records_max=self.page_records_max,
            caught_up_s=self.caught_up_s,
            retention_ms=self.retention_ms,
        )

    def start(
        self,
        *,
        source: Any = None,
        gate: Gate | None = None,
        plan: Plan | None = None,
        is_rollback: bool = False,
    ) -> Life:
        """One more worker; `source`, `gate` and `plan` stand in for the town's."""
        self.started += 1
        rng, clock, steps = random.Random(self.started), self.clock, Steps()
        source = source or self.source
        plan = plan or self.plan()
        sinks = {"bus": MemorySink(self.bus, clock, rng)}
        letters = MemoryDeadLetters(self.dead, clock, rng)
        partials = StreamPartials(self.records, clock, rng, Unwatched())
        is_global = any(rule.is_global for rule in plan.rules)
        road = Road(
            plan, source, sinks, letters, clock, steps, partials=partials if is_global else None
        )
        table = MemoryTable(self.content, gate or self._pass)
        ports = LeasePorts(table, self.objects, source, clock, rng)
        pulse = Pulse(UnobservedReads(), clock)
        seen = Alerts()
        worker = Worker(road, ports, seen, pulse, is_rollback=is_rollback)
        merge = None
        if is_global:
            road = replace(
                road, source=self.merge, partials=None, fresh=fresh(worker), is_merge=True
            )
            ports = LeasePorts(table, self.objects, self.merge, clock, rng)
            merge = Worker(road, ports, Alerts(), Pulse(UnobservedReads(), clock))
        stopping = asyncio.Event()
        task = asyncio.create_task(Stages(worker, merge).run(stopping))
        return Life(worker, stopping, task, steps, pulse, seen, merge)

    def plan(self) -> Plan:
        return plan_of(
            self.checkpoint_ms,
            self.window_ms,
            self.detect,
            self.start_at,
            self.on_gap,
            self.merging if self.merge_shards else None,
        )

    async def _pass(self, operation: str, side: Side) -> None:
        await asyncio.sleep(0.001)
        if self.gate is not None:
            await self.gate(operation, side)

    def put(self, *payloads: bytes, shard: str = SHARD) -> None:
        """Records under their key, so that windows belong to no shard for good."""
        for payload in payloads:
            self.source.put(shard, [payload], _key_of(payload))

    @property
    def commit(self) -> int:
        """How often the first shard was committed."""
        return self.row().commit if self.content.shards else 0

    def row(self, shard: str = SHARD) -> ShardRow:
        (row,) = (row for (_, id_), row in self.content.shards.items() if id_ == shard)
        return row

    def windows(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(key, start's minute) → (count, sum); an AssertionError if an id came in two ways."""
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for body in self.bus.by_id().values():
            detail = json.loads(body)
            if detail["rule"] != "ticks":
                continue
            window = (detail["key"]["key"], (detail["window"]["start"] - BASE_MS) // MINUTE_MS)
            assert window not in found, f"{window} came under two ids"
            found[window] = (detail["values"]["n"], detail["values"]["total"])
        return found

    def totals(self, rule: str = "all") -> dict[int, tuple[int, int]]:
        """Of the global rule: start's minute → (count, sum); not what is partial."""
        found: dict[int, tuple[int, int]] = {}
        for body in self.bus.by_id().values():
            detail = json.loads(body)
            if detail["rule"] == rule and not detail.get("partial"):
                minute = (detail["window"]["start"] - BASE_MS) // MINUTE_MS
                assert minute not in found, f"minute {minute} came under two ids"
                found[minute] = (detail["values"]["n"], detail["values"]["total"])
        return found

    def incomplete(self) -> list[int]:
        """Minutes of the global rule's results that lack what a shard had."""
        details = map(json.loads, self.bus.by_id().values())
        starts = [d["window"]["start"] for d in details if d.get("complete") is False]
        return [(start - BASE_MS) // MINUTE_MS for start in starts]


def _shards(n: int) -> list[Shard]:
    """So many, with equal parts of the hash space."""
    width = 2**128 // max(n, 1)
    return [Shard(f"shardId-{i:012d}", i * width, (i + 1) * width - 1) for i in range(n)]


def fresh(source: Worker) -> Fresh:
    """Makes what a shard of the merge stream runs."""

    def make(plan: Plan, shard: Shard, incarnation: str) -> MergePipeline:
        return MergePipeline(plan, shard, incarnation, source.generation)

    return make


def _key_of(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["key"])
    except (ValueError, TypeError):
        return "any"  # one of the bad ones


async def until(holds: Callable[[], Any], within_s: float = 120.0) -> None:
    """Virtual seconds pass until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not holds():
        assert loop.time() < deadline, f"not within {within_s:g} virtual seconds"
        await asyncio.sleep(0.05)


def ticks(keys: Iterable[str], seconds: Iterable[float]) -> list[bytes]:
    return [tick(key, second, value) for value, second in enumerate(seconds) for key in keys]
