"""What leases cost at rest and how fast they move, at sizes that nobody starts for a test.

The production lease loops in virtual time (`lease_fleet`), over a table that counts consumed units
(`lease_units`). Figures do not depend on the machine: they are the same for the same seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from bench.harness import Measure, Options, Report, Table, figure
from bench.lease_fleet import Fleet
from bench.lease_units import Units, read_units, write_units
from processor.core.leases.commands import Timing
from tests.virtual_time import run as in_virtual_time

NAME = "leases"
STEP_S = 0.25  # how often a scenario looks whether it is there
WITHIN_S = 900.0
SETTLE_S = 60.0
BATCHES = 10  # of a rolling deploy: as many new workers start, then as many old ones stop


class Size(NamedTuple):
    shards: int
    workers: int
    rest_s: float  # longer than every period that matters

    def __str__(self) -> str:
        return f"{self.shards:,} shards, {self.workers} workers"


SIZES = (Size(1_000, 20, 600.0), Size(2_000, 100, 120.0))
QUICK = (Size(100, 5, 120.0),)


class Move(Struct, frozen=True):
    """What it took until every shard was followed again, and the load even."""

    complete_s: float
    even_s: float | None
    moves: int
    gap_s: tuple[float, float]  # how long a shard stood still: median, maximum
    units: Units


class Findings(Struct, frozen=True):
    rest: Units  # a second
    start: Move
    loss: Move
    deploy: Move


def run(options: Options) -> Report:
    sizes = QUICK if options.is_quick else SIZES
    found = {size: in_virtual_time(_findings(size, options.seed)) for size in sizes}
    ratios = [kcl_units(one.shards, one.workers).writes / f.rest.writes for one, f in found.items()]
    return Report(
        NAME,
        Measure("× fewer writes at rest than KCL", tuple(ratios)),
        {str(size): {"rest_s": size.rest_s, "batches": BATCHES} for size in sizes},
        {name: measure for size, f in found.items() for name, measure in _measures(size, f)},
        [_table(size, f) for size, f in found.items()],
    )


# ---- scenarios ------------------------------------------------------------------------------


async def _findings(size: Size, seed: int) -> Findings:
    fleet = Fleet(size.shards, seed)
    fleet.start(size.workers)
    start = await _measured(fleet, _nothing)
    rest = await _rest(fleet, size.rest_s)
    lost = max(1, size.workers // 10)

    loss = await _measured(fleet, lambda: fleet.kill(fleet.members[:lost]))
    fleet.start(lost)
    await _until(fleet.is_complete)
    deploy = await _measured(fleet, lambda: _deploy(fleet, size.workers))
    await fleet.stop(list(fleet.members))
    return Findings(rest, start, loss, deploy)


async def _nothing() -> None:
    pass


async def _rest(fleet: Fleet, seconds: float) -> Units:
    """Units a second. A large fleet's workers look at the whole stream every half hour, all in the
    same minutes: their mean is worked out, for a shorter window would see none or too many."""
    await asyncio.sleep(SETTLE_S)  # what the start left behind
    before = fleet.units.copy()
    await asyncio.sleep(seconds)
    found = fleet.units.since(before).per_s(seconds)
    workers = len(fleet.members)
    period_s = Timing().discovery_s * workers / 8
    if 2 * period_s > seconds:
        scans = fleet.sizes.scan_units() * workers / period_s
        found = Units(found.writes, found.reads - found.scans + scans, scans)
    return found


async def _deploy(fleet: Fleet, workers: int) -> None:
    old = list(fleet.members)
    batch = max(1, workers // BATCHES)
    for first in range(0, workers, batch):
        leaving = old[first : first + batch]
        fleet.start(len(leaving))
        await asyncio.sleep(10.0)  # as an orchestrator waits for new tasks to be healthy
        await fleet.stop(leaving)


async def _measured(fleet: Fleet, change: Callable[[], Awaitable[None]]) -> Move:
    before, moves = fleet.units.copy(), fleet.moves
    fleet.gaps_s.clear()
    began_at = fleet.clock.monotonic()
    await change()
    complete_s = await _until(fleet.is_complete) - began_at
    units = fleet.units.since(before)
    even_at = await _until(fleet.is_even, must=False)
    gaps = fleet.gaps_s or [0.0]
    return Move(
        complete_s,
        None if even_at == 0 else even_at - began_at,
        fleet.moves - moves,
        (median(gaps), max(gaps)),
        units,
    )


async def _until(holds: Callable[[], bool], *, must: bool = True) -> float:
    """When it first held, on the fleet's clock; 0 if it never did and need not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    while not holds():
        if loop.time() > deadline:
            if must:
                raise TimeoutError(f"not within {WITHIN_S:g} virtual seconds")
            return 0.0
        await asyncio.sleep(STEP_S)
    return loop.time()


# ---- the other way --------------------------------------------------------------------------

# Read from KCL 3.5.1's source; a lease's item is about 400 bytes.
KCL_RENEWAL_S = 3.3
KCL_ASSIGNMENT_S = 20.0  # the leader reads the whole table
KCL_DISCOVERY_S = 10.0  # each worker reads its own leases by the index
KCL_METRICS_S = 30.0  # each worker's row of metrics
KCL_LEASE_BYTES = 400


def kcl_units(shards: int, workers: int) -> Units:
    """Units a second at rest, by KCL's own periods; its reads are eventually consistent: half."""
    renewals = shards * write_units(KCL_LEASE_BYTES) / KCL_RENEWAL_S
    metrics = workers / KCL_METRICS_S
    scans = read_units(shards * KCL_LEASE_BYTES) / 2 / KCL_ASSIGNMENT_S
    own = workers * read_units(shards * KCL_LEASE_BYTES // workers) / 2 / KCL_DISCOVERY_S
    return Units(renewals + metrics, scans + own)


# ---- what is told ---------------------------------------------------------------------------


def _table(size: Size, found: Findings) -> Table:
    kcl = kcl_units(size.shards, size.workers)
    rows = [
        ("at rest, writes/s", figure(found.rest.writes), figure(kcl.writes)),
        ("at rest, read units/s", figure(found.rest.reads), figure(kcl.reads)),
        (
            "at rest, $ a month",
            figure(found.rest.dollars_a_month),
            figure(kcl.dollars_a_month),
        ),
        *_rows("from nothing", found.start, "20–40 s"),
        *_rows(f"{max(1, size.workers // 10)} killed", found.loss, "20–50 s"),
        *_rows("rolling deploy", found.deploy, "20–40 s a shard"),
    ]
    return Table(str(size), ("", "ours", "KCL 3.5"), rows)


def _rows(name: str, move: Move, kcl: str) -> Sequence[tuple[str, str, str]]:
    even = "never" if move.even_s is None else f"{move.even_s:.1f} s"
    return [
        (f"{name}: all followed after", f"{move.complete_s:.1f} s", kcl),
        (f"{name}: even after", even, ""),
        (f"{name}: a shard stood still", f"{move.gap_s[0]:.2f} s, max {move.gap_s[1]:.1f} s", ""),
        (f"{name}: tasks begun, writes, reads", _consumed(move), ""),
    ]


def _consumed(move: Move) -> str:
    return f"{move.moves:,}, {move.units.writes:,.0f}, {move.units.reads:,.0f}"


def _measures(size: Size, found: Findings) -> list[tuple[str, Measure]]:
    figures: list[tuple[str, str, float]] = [
        ("rest_writes", "units/s", found.rest.writes),
        ("rest_reads", "units/s", found.rest.reads),
        ("rest_dollars", "$/month", found.rest.dollars_a_month),
    ]
    for name in ("start", "loss", "deploy"):
        move: Move = getattr(found, name)
        figures += [
            (f"{name}_complete", "s", move.complete_s),
            (f"{name}_gap_max", "s", move.gap_s[1]),
            (f"{name}_writes", "units", move.units.writes),
            (f"{name}_reads", "units", move.units.reads),
        ]
    return [(f"{size}: {name}", Measure(unit, (value,))) for name, unit, value in figures]
