"""Who should own what: pure functions of rows, which every worker computes alike.

Each carries out only its own part. By count for now: load comes in as another weight. Ties go to
the smaller worker id, and shards are taken in order of their ids: nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

UNEVEN = 2  # a difference of 1 can't be bettered: moving one would only swap the two


class Move(NamedTuple):
    shard_id: str
    giver: str
    taker: str


def assign(counts: Mapping[str, int], free: Iterable[str]) -> dict[str, str]:
    """Give each free shard to the worker with the fewest; shard → worker.

    `counts`: shards held by each worker that may take one; none of them: nothing is assigned.
    """
    loads = dict(counts)
    taken: dict[str, str] = {}
    for shard_id in sorted(free) if loads else ():
        taker = _emptiest(loads)
        loads[taker] += 1
        taken[shard_id] = taker
    return taken


def moves(
    counts: Mapping[str, int], movable: Mapping[str, Iterable[str]], takers: Iterable[str]
) -> list[Move]:
    """What to move, in order, until no two workers differ by two or nothing movable is left.

    `counts`: shards of each live worker, those on their way to it included. `movable`: of each
    giver, the shards that may go (not resting, not on their way). `takers`: who may be given more.
    """
    loads = dict(counts)
    left = {giver: sorted(shards) for giver, shards in movable.items()}
    may_take = set(takers)
    planned: list[Move] = []
    while True:
        givers = [worker for worker in loads if left.get(worker)]
        if not givers or not may_take:
            return planned
        giver = _fullest(loads, givers)
        taker = _emptiest({worker: loads[worker] for worker in may_take})
        if loads[giver] - loads[taker] < UNEVEN:
            return planned
        loads[giver] -= 1
        loads[taker] += 1
        planned.append(Move(left[giver].pop(0), giver, taker))


def _emptiest(loads: Mapping[str, int]) -> str:
    return min(loads, key=lambda worker: (loads[worker], worker))


def _fullest(loads: Mapping[str, int], among: Iterable[str]) -> str:
    return min(among, key=lambda worker: (-loads[worker], worker))
