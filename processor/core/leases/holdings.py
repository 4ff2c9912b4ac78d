"""Who holds what by the worker rows, kept up row by row: a fleet may hold ten thousand leases."""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView, Mapping
from typing import NamedTuple

from processor.core.leases.rows import Held, WorkerRow


class Holder(NamedTuple):
    worker_id: str
    lease: Held


class Holdings:
    """Leases of all workers but `me`. Of two that claim to hold one shard, the higher epoch does.

    A lease on its way to another worker counts as that one's.
    """

    def __init__(self, me: str) -> None:
        self.version = 0  # rises with every change
        self.movable: Counter[str] = Counter()  # of each: neither resting nor on its way
        self.announced: dict[str, int] = {}  # shards on their way to us → the giver's epoch
        self._me = me
        self._rows: dict[str, WorkerRow] = {}
        self._holders: dict[str, Holder] = {}
        self._counts: Counter[str] = Counter()
        self._loads: Counter[str] = Counter()  # points

    def set(self, row: WorkerRow) -> None:
        """What this worker's row says now."""
        known = self._rows.get(row.id)
        if known is not None and (known.held is row.held or known.held == row.held):
            return
        self.drop(row.id)
        self.version += 1
        self._rows[row.id] = row
        for lease in row.held:
            other = self._holders.get(lease.shard_id)
            if other is not None and other.lease.epoch > lease.epoch:
                continue
            if other is not None:
                self._take(other)
            self._give(Holder(row.id, lease))

    def drop(self, worker_id: str) -> tuple[Held, ...]:
        """The worker holds nothing any more; returns what it held."""
        row = self._rows.pop(worker_id, None)
        if row is None:
            return ()
        self.version += 1
        for lease in row.held:
            holder = self._holders.get(lease.shard_id)
            if holder is not None and holder.worker_id == worker_id:
                self._take(holder)
        return row.held

    def shards(self) -> KeysView[str]:
        return self._holders.keys()

    def epoch(self, shard_id: str) -> int:
        """Under which epoch somebody else holds it; 0: nobody does."""
        holder = self._holders.get(shard_id)
        return 0 if holder is None else holder.lease.epoch

    def counts(self, mine: Mapping[str, Held]) -> Counter[str]:
        """Leases of each worker; `mine` are ours, newer than anybody's row."""
        counts = self._counts.copy()
        for key, lease in mine.items():
            if key in self._holders:
                counts[_goes_to(self._holders[key])] -= 1
            counts[lease.to or self._me] += 1
        return counts

    def loads(self, mine: Mapping[str, Held]) -> Counter[str]:
        """Points of each worker, likewise."""
        loads = self._loads.copy()
        for key, lease in mine.items():
            if key in self._holders:
                loads[_goes_to(self._holders[key])] -= self._holders[key].lease.rate
            loads[lease.to or self._me] += lease.rate
        return loads

    def lightest(self, worker_id: str) -> int | None:
        """The lowest rate among the leases that a worker could give away."""
        row = self._rows.get(worker_id)
        leases = () if row is None else row.held
        rates = (lease.rate for lease in leases if not lease.rests and lease.to is None)
        return min(rates, default=None)

    def _give(self, holder: Holder) -> None:
        lease = holder.lease
        self._holders[lease.shard_id] = holder
        self._counts[_goes_to(holder)] += 1
        self._loads[_goes_to(holder)] += lease.rate
        self.movable[holder.worker_id] += not lease.rests and lease.to is None
        if lease.to == self._me:
            self.announced[lease.shard_id] = lease.epoch

    def _take(self, holder: Holder) -> None:
        lease = holder.lease
        del self._holders[lease.shard_id]
        self._counts[_goes_to(holder)] -= 1
        self._loads[_goes_to(holder)] -= lease.rate
        self.movable[holder.worker_id] -= not lease.rests and lease.to is None
        if lease.to == self._me:
            del self.announced[lease.shard_id]


def _goes_to(holder: Holder) -> str:
    return holder.lease.to or holder.worker_id
