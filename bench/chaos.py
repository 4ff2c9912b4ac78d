"""`chaos`: real workers on emulators, with everything done to them that happens to workers.

Three `processor run` processes with the demo's pipeline file; DynamoDB, EventBridge and SQS by the
emulator, Kinesis by our own; TCP doors between them that can be slow, cut or shut. The demo's
traffic runs all the time, at a steady rate, and the demo's checker judges what the bus delivered:
every record counted once, dropped and counted, or a dead letter; every window right; one id, one
byte string. `ordeal` has the scenarios.

How it is measured: the local Kinesis notes each page that it gives, with its caller (each worker
has an access key of its own) and its monotonic clock. `turnover` has the definitions. Nothing that
workers say of themselves goes into a figure.

The bounds are those of SEMANTICS: a killed worker's shards are processed again within 15 s (the
largest); a hand-off takes 1 s at the median and 2 s at p99; a child is first read within 1 s.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.harness import Table, as_text, figure, machine, versions
from bench.ordeal import Measured, Ordeal, Sizes
from processor.local import check
from processor.local.door import Door
from processor.local.emulator import interpreter
from processor.local.journal import Reads
from processor.local.phases import Phases
from processor.local.stage import Stage
from processor.local.traffic import fortnight_end_ms, plan_traffic
from processor.local.view import PlainView
from processor.local.workers import Fleet

NAME = "chaos"
WORKERS = 3
# Of 100 hand-offs p99 is the second slowest; of 50 it would be the slowest.
FULL = Sizes(kills=20, handoffs=100, cuts_s=20, outage_s=60)
SHORT = Sizes(kills=4, handoffs=10, cuts_s=8, outage_s=15)
# The scenarios take 10 minutes, and end the traffic; a plan that is too long costs only memory.
# 300 records a second are 15 a second and store in the quietest hour, so most pages hold some.
PLAN_S, RATE_PER_S = 1_200.0, 300.0
CHILDREN = 13  # of four splits; then of a merge, its split, and two merges of those halves
SERVICES = ("KINESIS", "DYNAMODB", "EVENTBRIDGE")


class Gap(Struct, frozen=True):
    """A distribution in seconds, by nearest rank; None where nothing was measured."""

    n: int
    p50: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, samples: Sequence[float]) -> Gap:
        ordered = sorted(samples)
        if not ordered:
            return cls(0, None, None, None)
        p50, p99 = (ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(len(ordered), p50, p99, ordered[-1])


class Result(Struct, frozen=True):
    """What `--json` writes; `failures` is empty where everything is as promised."""

    benchmark: str
    is_short: bool
    seed: int
    took_s: float
    takeover_s: Gap
    handoff_s: Gap
    reshard_gap_s: Gap
    zombie_takeover_s: Gap
    table_back_s: Gap
    bus_back_s: Gap
    lost: int
    wrong: int
    conflicting_ids: int
    kills: int
    restarts: int
    failures: Sequence[str]
    report: Mapping[str, Any]
    samples: Measured
    sizes: Sizes
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


def run(seed: int, *, is_short: bool) -> Result:
    """Raises ProcessorError for what kept it from being run."""
    interpreter()  # before anything is begun: without the emulator there is nothing to run on
    folder = Path(tempfile.mkdtemp(prefix="processor-chaos-"))
    begun_at_s = time.monotonic()
    sizes = SHORT if is_short else FULL
    try:
        measured, outcome = asyncio.run(_run(seed, sizes, folder))
    except BaseException:
        sys.stderr.write(f"logs of all processes: {folder}\n")
        raise
    failures = [*measured.faults, *outcome.failures, *_broken_bounds(measured, sizes)]
    if failures:
        sys.stderr.write(f"logs of all processes: {folder}\n")
    else:
        shutil.rmtree(folder)
    report = outcome.report
    return Result(
        benchmark=NAME,
        is_short=is_short,
        seed=seed,
        took_s=time.monotonic() - begun_at_s,
        takeover_s=Gap.of(measured.takeover_s),
        handoff_s=Gap.of(measured.handoff_s),
        reshard_gap_s=Gap.of(measured.reshard_gap_s),
        zombie_takeover_s=Gap.of(measured.zombie_takeover_s),
        table_back_s=Gap.of(measured.table_back_s),
        bus_back_s=Gap.of(measured.bus_back_s),
        lost=report["records_lost"],
        wrong=report["windows_wrong"] + report["windows_missing"],
        conflicting_ids=report["conflicting_ids"],
        kills=measured.kills,
        restarts=measured.restarts,
        failures=failures,
        report=report,
        samples=measured,
        sizes=sizes,
        machine=machine(),
        versions=versions(),
    )


async def _run(seed: int, sizes: Sizes, folder: Path) -> tuple[Measured, check.Outcome]:
    """Everything in order; on the way out, what was started last is stopped first."""
    async with AsyncExitStack() as stack:
        view = stack.enter_context(PlainView())
        end_ms = fortnight_end_ms(round(time.time() * 1000))
        plan = await asyncio.to_thread(plan_traffic, seed, end_ms, PLAN_S, RATE_PER_S)
        stage = await stack.enter_async_context(Stage(folder, keeps_journal=True))
        doors = await _doors(stage, stack)
        ways = {f"AWS_ENDPOINT_URL_{name}": door.url for name, door in doors.items()}
        fleet = Fleet({**stage.worker_environment, **ways}, folder)
        stack.push_async_callback(fleet.stop)
        phases = Phases(plan, stage, fleet, view)
        ordeal = Ordeal(sizes, fleet, phases.producer, doors, Reads(stage.journal), view)
        for _ in range(WORKERS):
            await fleet.start()
        await phases.perform(WORKERS, ordeal.perform, lambda _: None)
        # The rate is not the one that the detectors' thresholds are made for.
        outcome = check.judge(replace(phases.run(), dense=False))
        faults = phases.faults + await fleet.stop()
        return ordeal.measured, replace(outcome, failures=outcome.failures + faults)


async def _doors(stage: Stage, stack: AsyncExitStack) -> dict[str, Door]:
    doors = {}
    for name in SERVICES:
        url = stage.worker_environment.get(f"AWS_ENDPOINT_URL_{name}")
        doors[name] = Door(url or stage.worker_environment["AWS_ENDPOINT_URL"])
        await doors[name].open()
        stack.push_async_callback(doors[name].refuse)
    return doors


# ---- the verdict ---------------------------------------------------------------------------------


def _broken_bounds(measured: Measured, sizes: Sizes) -> list[str]:
    """What took longer than promised, or was not seen often enough to tell."""
    takeover, handoff, gap = (
        Gap.of(samples)
        for samples in (measured.takeover_s, measured.handoff_s, measured.reshard_gap_s)
    )
    bounds = [
        ("a killed worker's shards wait (max)", takeover.max, 15.0),
        ("a hand-off takes (p50)", handoff.p50, 1.0),
        ("a hand-off takes (p99)", handoff.p99, 2.0),
        ("a child waits for its first read (max)", gap.max, 1.0),
    ]
    broken = [
        f"{what} {seconds:.2f} s, should be {bound:g} s at most"
        for what, seconds, bound in bounds
        if seconds is not None and seconds > bound
    ]
    counts = [("hand-offs", handoff.n, sizes.handoffs), ("kills", measured.kills, sizes.kills)]
    counts += [("takeovers", takeover.n, sizes.kills), ("children", gap.n, CHILDREN)]
    return broken + [
        f"{n} {what} were seen, should be {least} at least"
        for what, n, least in counts
        if n < least
    ]


def to_json(result: Result) -> bytes:
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def to_text(result: Result) -> str:
    gaps = {
        "takeover after SIGKILL": (result.takeover_s, "max 15"),
        "takeover after SIGSTOP": (result.zombie_takeover_s, ""),
        "hand-off at SIGTERM": (result.handoff_s, "p50 1, p99 2"),
        "child after its parents": (result.reshard_gap_s, "max 1"),
        "reading after the table's return": (result.table_back_s, ""),
        "reading after the bus's return": (result.bus_back_s, ""),
    }
    rows = [
        [name, *(_cell(seconds) for seconds in (gap.p50, gap.p99, gap.max)), str(gap.n), bound]
        for name, (gap, bound) in gaps.items()
    ]
    table = Table("seconds a shard stood still", ["", "p50", "p99", "max", "n", "bound"], rows)
    summary = (
        f"{result.report['records_sent']:,} records, {result.kills} kills, {result.restarts}"
        f" restarts, {result.report['reshards']} reshards in {result.took_s:.0f} s:"
        f" lost {result.lost}, wrong {result.wrong}, conflicting ids {result.conflicting_ids}"
    )
    failures = [f"FAILED: {failure}" for failure in result.failures]
    return "\n".join([as_text(table), summary, *failures])


def _cell(seconds: float | None) -> str:
    return "–" if seconds is None else figure(seconds)
