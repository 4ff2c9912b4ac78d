"""`end-to-end`: from a Kinesis over HTTP to closed windows, beside aiobotocore + orjson + dict.

A consumer is a process of its own, so is the server (our local Kinesis, without rates); where there
are two cores each side has one. Ours is the data plane of a worker: read path, engine, duplicates,
novelty. `ratio` is of records per CPU-second of the consumer, at 16 shards; `limit_ratio` what ours
costs to what the floor does: the same reads, each payload decoded, and nothing else.

Not `processor run` itself: that keeps to 4 reads a second and shard, so one shard would take 12 s
to give what is read here in 0.3 s, at a page size that can't be chosen. Left out by that: leases
and checkpoints, put and publish, metrics and endpoints.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from bench import data, results
from bench.consumer import Job, Outcome, Side
from bench.harness import ROOT, Measure, Options, Report, Table, figure, ratios
from bench.server import Load
from processor.local import processes

NAME = "end-to-end"
SHARDS = (1, 16, 64)
RATIO_AT = 16
QUICK_SHARDS = (RATIO_AT,)
# Enough that each shard has several pages, which a run of 64 is slow to have.
RECORDS = {1: 80_000, 16: 160_000, 64: 320_000}
QUICK_RECORDS = 10_000
REPEATS = 3
# Each side's best of 1,000, 2,500, 5,000 and 10,000; ours at a full shard's pace takes 2,461.
PAGES: Mapping[Side, int] = {"ours": 2_500, "plain": 10_000, "floor": 2_500}
START_S = 60.0
RUN_S = 300.0


class Place(Struct, frozen=True):
    """Where processes work and on which cores they stay (None: where the system wants them)."""

    folder: Path
    server_core: int | None
    consumer_core: int | None


Consume: TypeAlias = Callable[[Job, Place], Awaitable[Outcome]]


def run(options: Options, consume: Consume | None = None) -> Report:
    """Raises ResultsDiffer unless all runs of both sides found the same.

    `consume`: another way to run a consumer than as a process of its own, for tests.
    """
    return asyncio.run(_run(options, consume or _consume))


async def _run(options: Options, consume: Consume) -> Report:
    shard_counts = QUICK_SHARDS if options.is_quick else SHARDS
    repeats = 1 if options.is_quick else REPEATS
    found: dict[int, dict[Side, list[Outcome]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Place(Path(folder), *_cores())
        for shards in shard_counts:
            records = QUICK_RECORDS if options.is_quick else RECORDS[shards]
            workload = data.Workload(records=records, seed=options.seed)
            load = Load(workload, shards, place.server_core)
            async with _server(load, place) as url:
                found[shards] = await _rounds(url, repeats, place, consume)
            check_all(found[shards], records)
    measures = _measures(found)
    return Report(
        benchmark=NAME,
        ratio=measures[f"ratio, {RATIO_AT} shards"],
        parameters={"workload": workload, "repeats": repeats, "pages": PAGES, "records": RECORDS},
        measures=measures,
        figures=_figures(measures, shard_counts),
        tables=[_table(measures, shard_counts)],
    )


async def _rounds(
    url: str, repeats: int, place: Place, consume: Consume
) -> dict[Side, list[Outcome]]:
    found: dict[Side, list[Outcome]] = {side: [] for side in PAGES}
    for _ in range(repeats):
        for side, page in PAGES.items():
            found[side].append(await consume(Job(side, url, page, place.consumer_core), place))
    return found


def check_all(found: Mapping[Side, Sequence[Outcome]], records: int) -> None:
    """Raises ResultsDiffer unless each run read every record, and all that count agree."""
    reference = found["plain"][0]
    truth = reference.results()
    for side, outcomes in found.items():
        for outcome in outcomes:
            if outcome.records != records:
                raise results.ResultsDiffer(f"{side} read {outcome.records} of {records} records")
            if side != "floor":
                results.check(outcome.results(), truth, late=(outcome.late, reference.late))


# ---- processes -------------------------------------------------------------------------------


def _cores() -> tuple[int | None, int | None]:
    """One for the server, one for the consumer; None each where there are not two to choose."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


@asynccontextmanager
async def _server(load: Load, place: Place) -> AsyncIterator[str]:
    """Its URL, once it is loaded."""
    arguments = [sys.executable, "-m", "bench.server", msgspec.json.encode(load).decode()]
    log = place.folder / "server.log"
    child = await processes.start(
        "server", arguments, environment=_environment(), log=log, piped=True
    )
    try:
        yield await child.first_line(START_S)
    finally:
        await child.stop()


async def _consume(job: Job, place: Place) -> Outcome:
    file = place.folder / "outcome.json"
    arguments = [sys.executable, "-m", "bench.consumer", msgspec.json.encode(job).decode()]
    log = place.folder / f"{job.side}.log"
    child = await processes.start(
        job.side, [*arguments, str(file)], environment=_environment(), log=log
    )
    try:
        async with asyncio.timeout(RUN_S):
            code = await child.wait()
    finally:
        child.kill_now()
    if code != 0:
        raise RuntimeError(f"{child!r} ends:\n{child.tail()}")
    return msgspec.json.decode(file.read_bytes(), type=Outcome)


def _environment() -> dict[str, str]:
    return processes.plain_environment() | {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
    }


# ---- figures ---------------------------------------------------------------------------------


def _measures(found: Mapping[int, Mapping[Side, Sequence[Outcome]]]) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for shards, sides in found.items():
        for side, outcomes in sides.items():
            name = f"{side}, {shards} shards"
            measures |= {
                f"{name}: CPU": _each("records/CPU-s", [o.records / o.cpu_s for o in outcomes]),
                f"{name}: wall": _each("records/s", [o.records / o.wall_s for o in outcomes]),
                f"{name}: bytes": _each(
                    "MB/s", [o.payload_bytes / o.wall_s / 1e6 for o in outcomes]
                ),
                f"{name}: a shard": _each(
                    "records/s", [o.records / o.wall_s / shards for o in outcomes]
                ),
                f"{name}: RSS": _each("MB", [o.rss_mb for o in outcomes]),
                f"{name}: loop lag p99.9": _each("ms", [o.lag_p99_9_ms for o in outcomes]),
            }
        costs = {side: [o.cpu_s for o in outcomes] for side, outcomes in sides.items()}
        measures[f"ratio, {shards} shards"] = ratios(costs["plain"], costs["ours"])
        measures[f"limit_ratio, {shards} shards"] = ratios(costs["ours"], costs["floor"])
    return measures


def _figures(measures: Mapping[str, Measure], shard_counts: Sequence[int]) -> dict[str, float]:
    """`rss_mb` at the most shards; the worst loop lag of ours, whatever their number."""
    lags = [measures[f"ours, {shards} shards: loop lag p99.9"].median for shards in shard_counts]
    return {
        "limit_ratio": measures[f"limit_ratio, {RATIO_AT} shards"].median,
        "rss_mb": measures[f"ours, {max(shard_counts)} shards: RSS"].median,
        "loop_lag_p99_9_ms": max(lags),
    }


def _each(unit: str, samples: Sequence[float]) -> Measure:
    return Measure(unit, tuple(samples))


def _table(measures: Mapping[str, Measure], shard_counts: Sequence[int]) -> Table:
    rows = []
    for shards in shard_counts:
        for side in PAGES:
            name = f"{side}, {shards} shards"
            cpu = measures[f"{name}: CPU"]
            parts = ("wall", "a shard", "bytes", "RSS", "loop lag p99.9")
            figures = [cpu, *(measures[f"{name}: {part}"] for part in parts)]
            ratio = [
                figure(measures[f"{kind}, {shards} shards"].median) if side == "ours" else ""
                for kind in ("ratio", "limit_ratio")
            ]
            cells = [figure(measure.median) for measure in figures]
            rows.append([name, *cells, figure(1e6 / cpu.median), f"{cpu.spread / 2:.0%}", *ratio])
    header = ["", "records/CPU-s", "records/s", "a shard", "MB/s", "RSS, MB", "lag p99.9, ms"]
    header += ["µs/record", "±", "ratio", "limit_ratio"]
    return Table("from GetRecords to closed windows", header, rows)
