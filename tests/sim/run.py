"""Run one seed and judge it: what the windows came to, and what was left behind."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from processor.core.events import dead_letter_id
from processor.model import DeadLetter
from tests.sim.checkers import Breach, keys_of
from tests.sim.history import history
from tests.sim.loop import SimLoop, run
from tests.sim.services import STREAM
from tests.sim.truth import ADOPTS, Family, Truth, truth
from tests.sim.world import World

TYPES = {"orders": "order", "payments": "payment"}


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
    found = truth(_families(world), world.traffic.taken, world.checkers.marks)
    _check_windows(world, found)
    _check_broken(world, found)
    _check_objects(world)
    _check_workers(world)
    world.checkers.paths["late records"] += found.late.total()
    world.checkers.paths["duplicate records"] += found.duplicates.total()
    world.checkers.paths["broken records"] += len(found.broken)


def _families(world: World) -> Iterator[Family]:
    for shard in world.services.model.streams[STREAM].shards.values():
        yield Family(
            shard.shard_id, shard.hash_range.first, shard.hash_range.last, shard.parent_ids
        )


def _check_windows(world: World, found: Truth) -> None:
    """Each window came once, under one id, with the figures that the truth has."""
    told = _told(world)
    wanted = {window: _figures(window[0], values) for window, values in found.windows.items()}
    if not ADOPTS:
        told = {window: [_joined(window[0], parts)] for window, parts in told.items()}
    for window in sorted({*told, *wanted}):
        if told.get(window, []) != [wanted.get(window)]:
            said = told.get(window, "nothing")
            raise Breach("truth", f"{window}: {said} instead of {wanted.get(window, 'nothing')}")


def _told(world: World) -> dict[tuple[str, str, int], list[tuple[int, int]]]:
    """What was said of each window, to the bus or, where that refused it, to the dead letters."""
    letters = (a.of for a in world.services.letters.arrivals if isinstance(a.of, DeadLetter))
    bodies = {one.id: one.payload for one in letters if one.reason == "refused"}
    bodies |= world.services.bus.by_id()
    told: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
    for detail in map(json.loads, bodies.values()):
        if detail["kind"] == "window":
            window = (TYPES[detail["rule"]], detail["key"]["key"], detail["window"]["start"])
            values = detail["values"]
            figures = (values["n"], values["total" if "total" in values else "highest"])
            told.setdefault(window, []).append(figures)
    return told


def _joined(type_: str, parts: list[tuple[int, int]]) -> tuple[int, int]:
    figures = [figure for _, figure in parts]
    return sum(n for n, _ in parts), sum(figures) if type_ == "order" else max(figures)


def _figures(type_: str, values: list[int]) -> tuple[int, int]:
    return len(values), sum(values) if type_ == "order" else max(values)


def _check_broken(world: World, found: Truth) -> None:
    arrived = {a.id for a in world.services.letters.arrivals}
    wanted = {dead_letter_id(STREAM, shard, number, 0) for shard, number in found.broken}
    if wanted - arrived:
        raise Breach("lost record", f"{len(wanted - arrived)} broken records are in no dead letter")


def _check_objects(world: World) -> None:
    """What rows name is there, and nothing else is."""
    rows = {row.id: row for row in world.services.content.shards.values()}
    named = set().union(*map(keys_of, rows.values()))
    there = {*world.services.content.blobs, *world.services.blobs}
    if named - there:
        raise Breach("missing object", f"{sorted(named - there)}")
    orphans = {key for key in there - named if not rows[key.split("/")[1]].ended}
    if orphans:
        raise Breach("orphaned object", f"{sorted(orphans)}")


def _check_workers(world: World) -> None:
    left = [row for row in world.services.content.workers.values() if not row.buried]
    if left:
        raise Breach("leaving", f"rows of workers that are gone: {left}")
