"""Who should own what, by what one worker knows: which free shards are ours, what we give to whom.

    row names a live owner       it is his: he has just claimed it, or forgot it and sees it soon
    row names a successor        its, for `successor_s`
    last owner is gone, and      those who watched him share it out by a hash of the shard's id,
      the fleet is large         and what one of them leaves the others take, the nearest first
    else                         who has the fewest; what he leaves for long, whoever sees it

What we see may be old: before a claim the shard's row is read, and the claim itself is conditional.
So two who think that a shard is theirs cost one write, and one that nobody thinks is his waits for
`_OVERDUE` times a successor's precedence.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from processor.core.leases.balance import UNEVEN, Move, assign, closest, moves, relief, weigh
from processor.core.leases.commands import Timing
from processor.core.leases.fleet import Fleet
from processor.core.leases.rows import Held

_OVERDUE = 2
_TURN_S = 0.25  # between one watcher and the next for what the first ones left
_OVERDUE_MAX = 16  # at a time, of a large fleet's worker
_LEFT_S = 1.0  # a watcher's claims are through by then


class Gift(NamedTuple):
    shard_id: str
    taker: str


class Wanted(NamedTuple):
    """`needs_all`: some seem left by everybody, and only newer rows of all workers can tell."""

    shards: set[str]
    needs_all: bool


class Shares:
    """Pure questions about `fleet`; `mine` is what we hold now, newer than our row."""

    def __init__(self, fleet: Fleet, timing: Timing) -> None:
        self._fleet = fleet
        self._timing = timing

    def wanted(self, mine: Mapping[str, Held], now: float) -> Wanted:
        """Free shards that are ours to take. When a fleet starts, that is a look at all shards."""
        ours: set[str] = set()
        to_share: list[str] = []
        overdue: list[str] = []
        needs_all = False
        for key in filter(self._fleet.may_claim, self._fleet.free(mine)):
            if self._is_new(key, now):
                to_share.append(key)
                continue
            taker, left_at = self._left_to(key, now), self._left_at(key)
            is_overdue = left_at <= now and self._knows_since(left_at)
            needs_all = needs_all or (left_at <= now and not is_overdue)
            if taker == self._fleet.me:
                ours.add(key)
            elif is_overdue:
                overdue.append(key)
            elif taker is None:
                to_share.append(key)
        if to_share:
            ours |= self._our_part(to_share, mine, now)
        return Wanted(ours.union(self._few(overdue)), needs_all)

    def _few(self, shards: list[str]) -> list[str]:
        """Where hundreds of workers see the same shards left, each takes a few others at a time."""
        if not self._fleet.is_large:
            return shards
        by_place = sorted(shards, key=lambda key: zlib.crc32(f"{self._fleet.me}{key}".encode()))
        return by_place[:_OVERDUE_MAX]

    def _our_part(self, shards: Collection[str], mine: Mapping[str, Held], now: float) -> set[str]:
        """Of shards that are left to nobody. In a small fleet, whose rows are new, by counts; in a
        large one by places, which don't shift when others have claimed and we don't know it yet."""
        takers = self._newest(self._counts(mine, now))
        if not self._fleet.is_large:
            shared = assign(takers, shards)
        else:
            ring, places = sorted(takers), sorted(self._fleet.rows.keys() | shards)
            shared = {
                key: ring[place * len(ring) // len(places)] for place, key in enumerate(places)
            }
        return {key for key in shards if shared.get(key) == self._fleet.me}

    def expects(self, mine: Mapping[str, Held], now: float) -> bool:
        """Whether somebody has so many leases that we may be given one."""
        counts = self._counts(mine, now)
        return max(counts.values()) - counts[self._fleet.me] >= UNEVEN

    def _is_new(self, shard_id: str, now: float) -> bool:
        """Nobody owned it or was named for it when we saw it, not long ago: the quick way."""
        seen = self._fleet.shards.get(shard_id)
        if seen is None or seen.row.epoch or seen.row.successor is not None:
            return False
        if self._fleet.last_owner(shard_id) is not None:
            return False
        return now < seen.since + _OVERDUE * self._timing.successor_s

    def to_even(
        self, mine: Mapping[str, Held], movable: Collection[str], now: float
    ) -> Gift | None:
        """Which of our `movable` leases to give to whom, to even out the fleet's counts."""
        counts = self._counts(mine, now)
        takers = list(self._newest(counts))
        free = self._fleet.free(mine)  # also what only they may claim
        for worker in assign({one: counts[one] for one in takers}, free).values():
            counts[worker] += 1
        least = min(counts[one] for one in takers)
        if not movable or counts[self._fleet.me] - least < UNEVEN:
            return None
        can_go = {worker: self._fleet.holdings.movable[worker] for worker in counts}
        can_go[self._fleet.me] = len(movable)
        planned: list[Move] = moves(counts, can_go, takers, self._fleet.me)
        if not planned or planned[-1].giver != self._fleet.me:
            return None
        taker = planned[-1].taker
        loads = self._fleet.holdings.loads(mine)
        gap = max(0, loads[self._fleet.me] - loads[taker])
        given = closest({key: mine[key].rate for key in movable}, gap / 2)
        return None if given is None else Gift(given, taker)

    def to_relieve(
        self, mine: Mapping[str, Held], movable: Collection[str], now: float
    ) -> Gift | None:
        """The same for the fleet's load, where counts are even: whoever takes a lease and has not
        one less than we gives one back, by count."""
        counts = self._counts(mine, now)
        if len(self._newest(counts)) < len(counts):
            return None  # in a rollout: an older worker can't give and take
        loads = self._fleet.holdings.loads(mine)
        taker = relief({worker: loads[worker] for worker in counts}, self._fleet.me)
        if taker is None:
            return None
        returned: int | None = 0
        if counts[self._fleet.me] <= counts[taker]:
            returned = self._fleet.holdings.lightest(taker)
        if returned is None:
            return None
        rates = {key: mine[key].rate for key in movable}
        given = weigh(rates, loads[self._fleet.me] - loads[taker], returned)
        return None if given is None else Gift(given, taker)

    def heirs(self, mine: Mapping[str, Held], needy: Iterable[str], now: float) -> dict[str, str]:
        """Who should get the `needy` of our shards when we go: of a large fleet, those who watch
        us, for they see at once that we go."""
        held = self._fleet.holdings.counts(mine)
        prompt = (one for one in self._fleet.takers(now) if self._fleet.is_prompt(one, now))
        counts = {one: held[one] for one in prompt}
        if self._fleet.is_large:
            watchers = self._fleet.watchers(self._fleet.me)
            counts = {one: counts[one] for one in watchers if one in counts}
        takers = self._newest(counts)
        if any(self._fleet.generation_of(one) < self._fleet.generation for one in takers):
            return {}  # nobody who is left may go on from our state
        return assign(takers, needy)

    def barred(self, mine: Mapping[str, Held]) -> list[str]:
        """Free shards that only workers of a newer generation of the pipeline may claim."""
        return [key for key in self._fleet.free(mine) if not self._fleet.may_claim(key)]

    def _counts(self, mine: Mapping[str, Held], now: float) -> dict[str, int]:
        """Leases of each that may take shards, those on their way to it included."""
        held = self._fleet.holdings.counts(mine)
        takers = [self._fleet.me, *self._fleet.takers(now)]
        return {worker: held[worker] for worker in takers}

    def _newest(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Those of the newest generation: who may be given shards. What a newer one has had, an
        older one can't take back."""
        of = {worker: self._fleet.generation_of(worker) for worker in counts}
        newest = max(of.values(), default=0)
        return {worker: n for worker, n in counts.items() if of[worker] == newest}

    def _left_to(self, shard_id: str, now: float) -> str | None:
        """The one to whom the rules leave a free shard; None: whoever has the fewest."""
        owner = self._fleet.last_owner(shard_id)
        if owner is not None:
            if owner not in self._fleet.gone:
                return owner
            return self._watcher(shard_id, owner, now) if self._fleet.is_large else None
        row, since, _ = self._fleet.shards[shard_id]
        if row.successor is None or now - since >= self._timing.successor_s:
            return None
        is_there = row.successor == self._fleet.me or self._fleet.can_take(row.successor, now)
        if not is_there or self._fleet.generation_of(row.successor) < row.generation:
            return None
        return row.successor

    def _watcher(self, shard_id: str, owner: str, now: float) -> str | None:
        """Which of those who watched `owner` takes this shard of his."""
        watchers = self._fleet.watchers(owner)
        if not watchers:
            return None
        turn = watchers.index(self._fleet.me) if self._fleet.me in watchers else None
        left_s = now - self._fleet.gone[owner].at
        if turn is not None and left_s >= _LEFT_S + turn * _TURN_S:
            return self._fleet.me
        return watchers[zlib.crc32(shard_id.encode()) % len(watchers)]

    def _knows_since(self, moment: float) -> bool:
        """Whether all workers' rows are at least that new."""
        return not self._fleet.is_large or self._fleet.all_read_at >= moment

    def _left_at(self, shard_id: str) -> float:
        """From when on whoever sees it takes a shard that has no live owner."""
        patience_s = _OVERDUE * self._timing.successor_s
        owner = self._fleet.last_owner(shard_id)
        if owner is None:
            return self._fleet.shards[shard_id].since + patience_s
        gone = self._fleet.gone.get(owner)
        if gone is None:
            return float("inf")
        return gone.at + patience_s + (0 if gone.is_buried else self._timing.dead_after_s)
