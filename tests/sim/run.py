"""Run one seed and judge it: what the windows came to, and what was left behind."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from processor.core.events import dead_letter_id
from processor.core.leases.rows import ShardRow
from processor.model import DeadLetter
from tests.sim.checkers import Breach, keys_of
from tests.sim.history import SIZES_MS, history
from tests.sim.loop import SimLoop, run
from tests.sim.services import STREAM
from tests.sim.truth import Truth, truth
from tests.sim.world import World
from tests.virtual_time import START_MS

RULES = {"order": "orders", "payment": "payments", "view": "views"}
# A window is told so long after its end at most, were it not for outages: idleness begins anew with
# every owner.
DELIVERED_S = 150.0


class Outcome(NamedTuple):
    """What became of a seed; `checker` and `what` are empty where all promises were kept."""

    seed: int
    checker: str
    what: str
    paths: Counter[str]
    faults: Counter[str]
    lines: list[str]


def run_seed(seed: int) -> Outcome:
    """One history, from its seed to its verdict; the same every time."""
    worlds: list[World] = []

    async def main(loop: SimLoop) -> None:
        world = World(loop, history(seed))
        worlds.append(world)
        try:
            await world.play()
            judge(world)
        finally:
            await world.fleet.end()

    checker = what = ""
    gc.disable()  # a history makes 100 MB of short-lived objects, and few cycles
    try:
        run(main)
    except Breach as breach:
        checker, what = breach.checker, str(breach)
    except AssertionError as error:
        checker, what = "assertion", repr(error)
    finally:
        gc.enable()
    (world,) = worlds
    return Outcome(seed, checker, what, world.checkers.paths, world.air.counts, world.log.lines)


def judge(world: World) -> None:
    """At the end: every record is where it belongs, and nothing else is left."""
    found = truth(world.traffic.families(), world.traffic.taken, world.checkers.marks)
    _check_windows(world, found)
    _check_broken(world, found)
    _check_counts(world, found)
    _check_objects(world)
    _check_workers(world)
    world.checkers.paths["late records"] += found.late.total()
    world.checkers.paths["duplicate records"] += found.duplicates.total()
    world.checkers.paths["broken records"] += len(found.broken)


def _check_windows(world: World, found: Truth) -> None:
    """Each window was told with the figures that the truth has; once, unless its rule changed."""
    told = _told(world)
    for (type_, key, start_ms), values in sorted(found.windows.items()):
        window = (RULES[type_], key, start_ms)
        said = told.pop(window, [])
        wanted = _figures(values)
        if any(one != {name: wanted[name] for name in one} for one in said):
            raise Breach("truth", f"{window}: {said} instead of {wanted}")
        if len(said) != 1 and not (said and type_ == "view" and world.fleet.changing_s):
            if type_ == "payment" and _is_amid_a_change(
                world, start_ms, start_ms + SIZES_MS[type_]
            ):
                continue
            raise Breach("truth", f"{window}: told {len(said)} times, {said} instead of {wanted}")
    if told:
        raise Breach("truth", f"windows without records: {sorted(told)}")


def _is_amid_a_change(world: World, start_ms: int, end_ms: int) -> bool:
    """Whether a rule that starts anew may have lost a window of that time, or told it twice."""
    if world.fleet.changing_s is None:
        return False
    from_s, to_s = world.fleet.changing_s
    start_s, end_s = (start_ms - START_MS) / 1_000, (end_ms - START_MS) / 1_000
    return start_s <= to_s + DELIVERED_S and end_s + DELIVERED_S >= from_s


def _told(world: World) -> dict[tuple[str, str, int], list[dict[str, int]]]:
    """What was said of each whole window, to the bus or, where that refused it, to the dead
    letters. A window of which a rule that started anew says itself that it lacks records is left
    out."""
    letters = (a.of for a in world.services.letters.arrivals if isinstance(a.of, DeadLetter))
    bodies = {one.id: one.payload for one in letters if one.reason == "refused"}
    bodies |= world.services.bus.by_id()
    told: dict[tuple[str, str, int], list[dict[str, int]]] = {}
    for detail in map(json.loads, bodies.values()):
        if detail["kind"] == "window" and not detail.get("partial"):
            window = (detail["rule"], detail["key"]["key"], detail["window"]["start"])
            told.setdefault(window, []).append(detail["values"])
    return told


def _figures(values: list[int]) -> dict[str, int]:
    """By the names of the pipeline's aggregates."""
    return {
        "n": len(values),
        "total": sum(values),
        "highest": max(values),
        "lowest": min(values),
    }


def _check_broken(world: World, found: Truth) -> None:
    arrived = {a.id for a in world.services.letters.arrivals}
    wanted = {dead_letter_id(STREAM, shard, number, 0) for shard, number in found.broken}
    if wanted - arrived:
        raise Breach("lost record", f"{len(wanted - arrived)} broken records are in no dead letter")


def _check_counts(world: World, found: Truth) -> None:
    """What a shard says of its records' fate: drops are counted, or they are losses."""
    broken = Counter(shard_id for shard_id, _ in found.broken)
    for shard_id, totals in sorted(world.totals.items()):
        counters = (found.records, found.duplicates, found.late, broken)
        wanted = tuple(counter[shard_id] for counter in counters)
        said = (totals.records, totals.duplicates, totals.late, totals.rejects)
        if said != wanted:
            what = "records, duplicates, late, rejects"
            raise Breach("counts", f"{what} of {shard_id}: {said} instead of {wanted}")


def _check_objects(world: World) -> None:
    """What rows name is there, nothing else is, and of shards that are gone nothing is.

    A removal that got lost at a shard's end is made up for when its row goes; that stays while a
    child has not got on from its beginning.
    """
    services = world.services
    rows = {row.id: row for row in services.content.shards.values()}
    named = set().union(*map(keys_of, rows.values()))
    there = {*services.content.blobs, *services.blobs}
    missing = sorted(named - there)
    orphaned = [key for key in sorted(there - named) if not _is_of_an_end(key, rows)]
    if missing or orphaned:
        checker = "missing object" if missing else "orphaned object"
        raise Breach(checker, f"missing {missing}, orphaned {orphaned}")
    beginners = (row for row in rows.values() if not row.pairs[0].commit)  # they need parents
    needed = {parent for row in beginners for parent in row.shard.parents}
    if left := rows.keys() - services.model.streams[STREAM].shards.keys() - needed:
        raise Breach("housekeeping", f"rows of {sorted(left)} are left")


def _is_of_an_end(key: str, rows: Mapping[str, ShardRow]) -> bool:
    shard_id = key.split("/")[1]
    return shard_id in rows and rows[shard_id].ended


def _check_workers(world: World) -> None:
    left = [row for row in world.services.content.workers.values() if not row.buried]
    if left:
        raise Breach("leaving", f"rows of workers that are gone: {left}")
