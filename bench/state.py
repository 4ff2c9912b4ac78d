"""`state`: what a large state costs to checkpoint and to restore: 100,000 keys, a full detector.

The detector is novelty at its largest (`level: full`), its memory filled as after weeks. Links go
to a folder, through the same store of states as in the service. Captured are the whole state, then
what changes in a quarter of a minute without a closed window, then one closed window of all keys.
Restored is from all links that are then needed, and the restored pipeline's snapshot is compared
with the first one's, byte by byte. `ratio` is CPU: the whole state as one zlib stream, which is the
plain way, to capturing one closed window.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Coroutine, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson

from bench.harness import Measure, Options, Report, Table, figure, ratios
from bench.results import ResultsDiffer
from processor.core.columns import Columns
from processor.core.leases.rows import StreamKey, claimed, fresh_row
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import (
    TRIM_HORIZON,
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    Page,
    Pipeline,
    Position,
    RuleSpec,
    Shard,
    SourceSpec,
    StateSpec,
    WindowSpec,
)
from processor.runtime.clock import SystemClock
from processor.runtime.state_store import StateStore, Stored
from processor.stores.folder import FolderObjects
from processor.stores.memory import MemoryObjects

NAME = "state"
KEYS, QUICK_KEYS = 100_000, 2_000
WAVES = 3
RESTORES = 3
WINDOW_MS = 60_000
QUARTERS = 4  # checkpoints a window
START_MS = 1_700_000_000_000 // WINDOW_MS * WINDOW_MS
PAGE = 10_000
SHARD = Shard("shardId-000000000000")
ROW = claimed(fresh_row(StreamKey("bench", START_MS), SHARD, TRIM_HORIZON), "bench", 0)
# Above that no key speaks: what an anomaly's event costs is another matter.
NEVER = 100.0

T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds on the clock, of this thread's CPU, and of the longest that others had to wait."""

    wall_s: float
    cpu_s: float
    turn_s: float


def run(options: Options) -> Report:
    """Raises ResultsDiffer if what is restored is not what was captured."""
    keys = QUICK_KEYS if options.is_quick else KEYS
    with TemporaryDirectory(prefix="bench-state-") as folder:
        bench = _Bench(keys, options.seed, Path(folder))
        figures = bench.measure()
    measures = {name: Measure(unit, tuple(samples)) for name, (unit, *samples) in figures.items()}
    plain = measures["plain cpu"].samples * WAVES
    return Report(
        benchmark=NAME,
        ratio=ratios(plain, measures["window cpu"].samples),
        parameters={"keys": keys, "window_ms": WINDOW_MS, "quarters": QUARTERS, "waves": WAVES},
        measures=measures,
        tables=[_table(measures, keys)],
    )


class _Bench:
    """One shard's state, and the links that are stored of it."""

    def __init__(self, keys: int, seed: int, folder: Path):
        self._rng = np.random.default_rng(seed)
        self._keys = [f"customer-{n:07d}" for n in range(keys)]
        self._plan = _plan(keys)
        self._pipeline = ShardPipeline(self._plan, SHARD, "1")
        self._store = StateStore(MemoryObjects(), FolderObjects(folder))
        self._stored: Stored | None = None
        self._commit = 0
        self._fed = 0

    def measure(self) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        self._feed(0, self._keys)
        _fill(self._pipeline, self._rng)
        self._capture("whole", found)
        for wave in range(1, WAVES + 1):
            few = self._keys[:: QUARTERS * 2]
            self._feed(wave - 1, few)
            self._capture("quarter", found)
            self._feed(wave, self._keys)
            self._capture("window", found)
        self._plain(found)
        for _ in range(RESTORES):
            self._restore(found)
        return found

    def _feed(self, wave: int, keys: list[str]) -> None:
        """A record each; the first of a wave closes the window before."""
        for at in range(0, len(keys), PAGE):
            self._pipeline.feed(self._page(wave, keys[at : at + PAGE]))

    def _page(self, wave: int, keys: list[str]) -> Page:
        at_ms = START_MS + wave * WINDOW_MS + 1_000
        values = self._rng.normal(100, 10, len(keys)).tolist()
        rows = [
            {"id": f"{self._fed + i}", "at": at_ms, "key": key, "value": value}
            for i, (key, value) in enumerate(zip(keys, values, strict=True))
        ]
        numbers = [str(10**55 + self._fed + i) for i in range(len(keys))]
        self._fed += len(keys)
        arrivals = np.full(len(keys), at_ms, dtype=np.int64)
        return Page([orjson.dumps(row) for row in rows], numbers, keys, arrivals, 0, at_ms)

    def _capture(self, what: str, found: dict[str, tuple[Any, ...]]) -> None:
        """Capture and store; what is restored goes on from there."""
        clock, parts = SystemClock(), self._pipeline.parts
        captured, cost = _timed(
            lambda: self._store.pack(SHARD.id, parts(), self._stored, clock.cpu_s)
        )
        self._commit += 1
        put = self._store.put(ROW, self._commit, "w", captured.packed)
        self._stored = _run(put)
        _note(found, what, cost)
        _add(found, f"{what} stored", "bytes", captured.packed.body.size)

    def _plain(self, found: dict[str, tuple[Any, ...]]) -> None:
        started_s = time.thread_time()
        state = self._pipeline.snapshot()
        stored = len(zlib.compress(state, 1))
        _add(found, "plain cpu", "s", time.thread_time() - started_s)
        _add(found, "plain stored", "bytes", stored)
        _add(found, "state", "bytes", len(state))

    def _restore(self, found: dict[str, tuple[Any, ...]]) -> None:
        assert self._stored is not None
        ref = self._stored.ref
        pipeline = ShardPipeline(self._plan, SHARD, "1")

        async def restore() -> None:
            for _ in pipeline.restoring(state, Position("after", "1")):
                await asyncio.sleep(0)

        (state, _), got = _timed(lambda: self._store.get(SHARD.id, ref))
        _, put = _timed(restore)
        _note(found, "fetch", got)
        longest_s = max(got.turn_s, put.turn_s)
        _note(found, "restore", Cost(got.wall_s + put.wall_s, got.cpu_s + put.cpu_s, longest_s))
        if pipeline.snapshot() != self._pipeline.snapshot():
            raise ResultsDiffer("what was restored is not what was captured")


def _plan(keys: int) -> Plan:
    detect = DetectSpec("novelty", "novelty", "total", {"level": "full", "threshold": NEVER})
    rule = RuleSpec(
        "customers",
        {},
        ("key",),
        WindowSpec(WINDOW_MS),
        (AggregateSpec("n", "count"), AggregateSpec("total", "sum", "value")),
        (detect,),
        max_groups=keys,
    )
    event = EventSpec(id="id", time="at", partition_key="key", out_of_orderness_ms=0)
    state, letters = StateSpec("table"), DeadLetterSpec("dead")
    return compile(Pipeline("bench", SourceSpec("bench"), event, {}, (rule,), state, letters))


def _fill(pipeline: ShardPipeline, rng: np.random.Generator) -> None:
    """A detector's memory as after weeks: no place empty, and no two rows alike."""
    for rule in pipeline._rules:
        for table in rule._scorer._tables().values():
            for spec in table.specs:
                if spec.name.rpartition(".")[2] in _FULL:
                    _fill_column(table, spec.name, rng)


_FULL = {"prototypes", "met", "windows", "profile", "profile_windows", "week", "mean", "spread"}


def _fill_column(table: Columns, name: str, rng: np.random.Generator) -> None:
    column = table.arrays[name]
    if name.endswith("windows"):
        column[:] = 200 if column.dtype == np.uint8 else 4_000
    elif column.dtype.kind == "f":
        column[:] = rng.normal(0 if "week" in name else 100, 10, column.shape)
    else:
        column[:] = rng.integers(0, 4_000, column.shape)


def _timed(work: Any) -> tuple[Any, Cost]:
    """Run it beside another task, which tells how long it had to wait for its turn."""

    async def main() -> tuple[Any, Cost]:
        longest_s = 0.0

        async def neighbour() -> None:
            nonlocal longest_s
            at = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                longest_s, at = max(longest_s, now - at), now

        beside = asyncio.create_task(neighbour())
        await asyncio.sleep(0)
        began_s, began_cpu_s = time.perf_counter(), time.thread_time()
        result = await work()
        cost = Cost(time.perf_counter() - began_s, time.thread_time() - began_cpu_s, 0)
        await asyncio.sleep(0)
        beside.cancel()
        return result, cost._replace(turn_s=longest_s)

    return _run(main())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` without a result: it would be shown whole in a message that nobody reads."""
    results: list[T] = []

    async def main() -> None:
        results.append(await work)

    asyncio.run(main())
    return results[0]


def _note(found: dict[str, tuple[Any, ...]], what: str, cost: Cost) -> None:
    _add(found, f"{what} wall", "s", cost.wall_s)
    _add(found, f"{what} cpu", "s", cost.cpu_s)
    _add(found, f"{what} turn", "s", cost.turn_s)


def _add(found: dict[str, tuple[Any, ...]], name: str, unit: str, sample: float) -> None:
    found[name] = (*found.get(name, (unit,)), sample)


def _table(measures: dict[str, Measure], keys: int) -> Table:
    def cells(what: str, names: Iterable[str]) -> list[str]:
        found = (measures.get(f"{what} {name}") for name in names)
        return [figure(m.median / (1e6 if m.unit == "bytes" else 1)) if m else "" for m in found]

    columns = ("wall", "cpu", "turn", "stored")
    state = measures["state"].median
    return Table(
        f"{keys:,} keys, {state / 1e6:,.0f} MB",
        ["", "wall s", "CPU s", "longest turn s", "MB stored"],
        [
            [label, *cells(what, columns)]
            for what, label in (
                ("whole", "capture: all of it"),
                ("quarter", "… 15 s later"),
                ("window", "… a window of all keys closed"),
                ("plain", "plain: one zlib stream"),
                ("fetch", "fetch and unpack"),
                ("restore", "… and restore"),
            )
        ],
    )
