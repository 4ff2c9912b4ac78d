"""How a lease goes from one live worker to another, by what each says in its own row.

    giver                                       taker
    holds S → taker       OFFERED, runs on
                                                sees it, fetches S's state: ready S
    sees that, or has waited for ready_s
    Stop: the task commits    STOPPING, STOPPED
    Release, naming the taker    GIVEN
                                                reads S's row each poll_s; sees the release
                                                Claim, within successor_s: later anybody may

A taker that goes, or leaves itself, is no taker any more: the giver runs on, or, when it leaves,
finds another. Both sides are here: `Taking` for what comes to us, functions for what we give.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Literal, NamedTuple

from processor.core.leases.commands import Prefetch, Timing
from processor.core.leases.fleet import Fleet
from processor.core.leases.rows import Ready, ShardRow
from processor.core.leases.stages import Lease

PREFETCHES_MAX = 16  # under way at once, as many as claims


class _Offer(NamedTuple):
    """What a giver's row said: it holds the shard under `epoch`. `until`: when we forget it."""

    epoch: int
    until: float = inf
    is_fetched: bool = False


class Taking:
    """The shards that others are about to release to us. What no longer comes is returned."""

    def __init__(self, me: str, timing: Timing) -> None:
        self._me = me
        self._timing = timing
        self._offers: dict[str, _Offer] = {}

    def wanted(self) -> set[str]:
        return set(self._offers)

    def ready(self) -> tuple[Ready, ...]:
        """For our own row."""
        return tuple(
            Ready(key, offer.epoch)
            for key, offer in sorted(self._offers.items())
            if offer.is_fetched
        )

    def to_fetch(self) -> list[Prefetch]:
        waiting = sorted(key for key, offer in self._offers.items() if not offer.is_fetched)
        return [Prefetch(key, self._offers[key].epoch) for key in waiting[:PREFETCHES_MAX]]

    def on_workers(self, fleet: Fleet, now: float) -> list[str]:
        """Worker rows were read. A giver that is gone may have released before it went: what it
        offered is looked for as long as a successor has precedence."""
        announced = {
            key: epoch
            for key, epoch in fleet.holdings.announced.items()
            if key not in fleet.rows or fleet.rows[key].epoch <= epoch  # else that is over
        }
        for key, epoch in announced.items():
            known = self._offers.get(key)
            if known is None or known.epoch < epoch:
                self._offers[key] = _Offer(epoch)
            else:
                self._offers[key] = known._replace(until=inf)
        for key in self._offers.keys() - announced.keys():
            if fleet.holdings.epoch(key) == self._offers[key].epoch:  # and no longer names us
                self._offers[key] = self._offers[key]._replace(until=now)
            elif self._offers[key].until == inf:
                until = now + self._timing.successor_s
                self._offers[key] = self._offers[key]._replace(until=until)
        return self._drop(key for key, offer in self._offers.items() if offer.until <= now)

    def on_row(self, row: ShardRow) -> list[str]:
        """The shard's row was read: somebody may have been faster, or another be named."""
        offer = self._offers.get(row.id)
        if offer is None:
            return []
        is_others = row.owner is None and row.successor not in (None, self._me)
        is_over = row.ended or row.epoch > offer.epoch or is_others
        return self._drop([row.id] if is_over else [])

    def on_fetched(self, shard_id: str, epoch: int) -> None:
        offer = self._offers.get(shard_id)
        if offer is not None and offer.epoch == epoch:
            self._offers[shard_id] = offer._replace(is_fetched=True)

    def on_claimed(self, shard_id: str) -> None:
        self._offers.pop(shard_id, None)

    def clear(self) -> list[str]:
        """We leave, and take nothing any more."""
        return self._drop(self._offers)

    def _drop(self, keys: Iterable[str]) -> list[str]:
        dropped = sorted(keys)
        for key in dropped:
            del self._offers[key]
        return dropped


def verdict(lease: Lease, fleet: Fleet, now: float) -> Literal["wait", "stop", "call off"]:
    """What becomes of a lease that is offered."""
    assert lease.to is not None
    if not fleet.is_prompt(lease.to, now):
        return "call off"
    is_ready = fleet.is_ready(lease.to, lease.row.id, lease.row.epoch)
    return "stop" if is_ready or lease.until <= now else "wait"
