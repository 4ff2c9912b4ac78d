"""Who should own what: pure functions of rows, which every worker computes alike.

By count first: no two workers differ by two. Each carries out only its own part. Ties go to the
smaller worker id, and shards are taken in order of their ids: nothing is left to chance.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

UNEVEN = 2  # a difference of 1 can't be bettered: moving one would only swap the two


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
