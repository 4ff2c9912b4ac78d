"""Who should own what: pure functions of rows, which every worker computes alike.

By count first: no two workers differ by two. Then by load, where it differs by much, without
upsetting the counts. Each carries out only its own part. Ties go to the smaller worker id, and
shards are taken in order of their ids: nothing is left to chance.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

UNEVEN = 2  # a difference of 1 can't be bettered: moving one would only swap the two
# Below both, the gain is not worth a hand-off. KCL, with 10 % of the mean, moves all the time where
# there is little to do.
HEAVIER_BY = 0.2  # of the heavier worker's load
HEAVIER_POINTS = 10
GAIN = 0.2  # of the difference: what a move must take away at least


class Move(NamedTuple):
    giver: str
    taker: str


def assign(counts: Mapping[str, int], free: Iterable[str]) -> dict[str, str]:
    """Give each free shard to the worker with the fewest; shard → worker.

    `counts`: shards held by each worker that may take one; none of them: nothing is assigned.
    """
    emptiest = [(count, worker) for worker, count in counts.items()]
    heapq.heapify(emptiest)
    taken: dict[str, str] = {}
    for shard_id in sorted(free) if emptiest else ():
        count, worker = emptiest[0]
        heapq.heapreplace(emptiest, (count + 1, worker))
        taken[shard_id] = worker
    return taken


def moves(
    counts: Mapping[str, int],
    movable: Mapping[str, int],
    takers: Collection[str],
    mine: str | None = None,
) -> list[Move]:
    """What to move, in order, until no two workers differ by two or nothing movable is left.

    `counts`: shards of each live worker, those on their way to it included. `movable`: how many of
    each giver's may go (not resting, not on their way). `takers`: who may be given more. With
    `mine` only as far as the first move in which that worker gives, which is then the last.
    """
    loads, left = dict(counts), dict(movable)
    fullest = [(-loads[worker], worker) for worker, n in left.items() if n > 0 and worker in loads]
    emptiest = [(loads[worker], worker) for worker in takers]
    heapq.heapify(fullest)
    heapq.heapify(emptiest)
    planned: list[Move] = []
    while fullest and emptiest:
        (most, giver), (least, taker) = fullest[0], emptiest[0]
        if -most != loads[giver]:  # it was given something since
            heapq.heapreplace(fullest, (-loads[giver], giver))
        elif least != loads[taker]:  # it gave something since
            heapq.heapreplace(emptiest, (loads[taker], taker))
        elif loads[giver] - loads[taker] < UNEVEN:
            break
        else:
            planned.append(Move(giver, taker))
            loads[giver] -= 1
            loads[taker] += 1
            left[giver] -= 1
            heapq.heapreplace(emptiest, (loads[taker], taker))
            if left[giver]:
                heapq.heapreplace(fullest, (-loads[giver], giver))
            else:
                heapq.heappop(fullest)
            if giver == mine:
                break
    return planned


def relief(loads: Mapping[str, int], mine: str) -> str | None:
    """Who should be given some of our load: the heaviest worker relieves itself to the lightest,
    the second to the second, as far as they differ by much.

    `loads`: points of each live worker that may give and take.
    """
    if loads[mine] < HEAVIER_POINTS:
        return None
    heaviest = sorted(loads, key=lambda worker: (-loads[worker], worker))
    lightest = sorted(loads, key=lambda worker: (loads[worker], worker))
    rank = heaviest.index(mine)
    if 2 * rank >= len(loads) - 1:  # the lighter half takes
        return None
    gap = loads[mine] - loads[lightest[rank]]
    is_much = gap >= HEAVIER_POINTS and gap > HEAVIER_BY * loads[mine]
    return lightest[rank] if is_much else None


def weigh(rates: Mapping[str, int], gap: int, returned: int = 0) -> str | None:
    """Which of our shards to give to a worker whose load is `gap` points below ours.

    `returned`: the rate of the shard that comes back, where counts would differ by two else. None
    if no shard makes it better by much.
    """
    best = closest(rates, gap / 2 + returned)
    if best is None:
        return None
    left = abs(gap - 2 * (rates[best] - returned))
    return best if left <= (1 - GAIN) * gap else None


def closest(rates: Mapping[str, int], points: float) -> str | None:
    """The shard whose rate is closest; None if there is none."""
    return min(rates, key=lambda key: (abs(rates[key] - points), key), default=None)
