"""Run one seed: a world plays its history, and is judged at the end."""

from __future__ import annotations

import gc
from collections import Counter
from typing import NamedTuple

from processor.core.merge import slices
from tests.sim.breach import Breach
from tests.sim.history import history
from tests.sim.judge import judge
from tests.sim.loop import SimLoop, run
from tests.sim.world import World


class Outcome(NamedTuple):
    """What became of a seed; `checker` and `what` are empty where all promises were kept."""

    seed: int
    checker: str
    what: str
    paths: Counter[str]
    faults: Counter[str]
    lines: list[str]


# A closing of three groups comes in several records, as one of thousands does in production.
SPLIT_BYTES = 450


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
    split_bytes_max = slices.SPLIT_BYTES_MAX
    slices.SPLIT_BYTES_MAX = SPLIT_BYTES
    gc.disable()  # a history makes 100 MB of short-lived objects, and few cycles
    try:
        run(main)
    except Breach as breach:
        checker, what = breach.checker, str(breach)
    except AssertionError as error:
        checker, what = "assertion", repr(error)
    finally:
        gc.enable()
        slices.SPLIT_BYTES_MAX = split_bytes_max
    (world,) = worlds
    return Outcome(seed, checker, what, world.verdict.paths, world.air.counts, world.log.lines)
