"""One process's work: leases, a loop a shard, and what they look like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from processor.core.commands import Timing
from processor.runtime.lease import Lease
from processor.runtime.lease_loop import LeaseLoop, LeasePorts, LeaseStatus
from processor.runtime.lease_observer import LeaseObserver
from processor.runtime.shard_loop import Road, ShardLoop, ShardView

# A shard waits for its next page for seconds at most, and every other wait of its loop has a name
# (`Doing`). One that does neither for so long is stuck, and only a restart may help.
STUCK_AFTER_S = 120.0


class Worker:
    """Follows the shards that it can lease, until told to stop."""

    def __init__(
        self,
        road: Road,
        ports: LeasePorts,
        observer: LeaseObserver,
        timing: Timing | None = None,
    ):
        self._road = road
        self._shards: dict[str, ShardLoop] = {}
        self._leases = LeaseLoop(
            ports,
            self._follow,
            start=road.plan.pipeline.source.start,
            timing=timing,
            observer=observer,
        )

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id} with {len(self._shards)} shards>"

    @property
    def worker_id(self) -> str:
        return self._leases.worker_id

    @property
    def is_alive(self) -> bool:
        """Whether others see us as such: heartbeats are taken."""
        return self._leases.is_valid

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and every lease is handed over, in less than 30 s.

        Raises Unavailable if the stream, the table or a permission is missing at the start.
        """
        await self._leases.run(stopping)

    def leases(self) -> Sequence[LeaseStatus]:
        return self._leases.leases()

    def shards(self) -> Mapping[str, ShardView]:
        """The shards that are followed here, by id."""
        return {shard_id: loop.view() for shard_id, loop in sorted(self._shards.items())}

    def stuck(self) -> list[str]:
        """A sentence for each shard that neither gets on nor waits for something with a name."""
        now = self._road.clock.monotonic()
        return [
            f"{shard_id} has been {loop.doing} for {now - loop.since:.0f} s"
            for shard_id, loop in sorted(self._shards.items())
            if not loop.is_waiting and now - loop.since > STUCK_AFTER_S
        ]

    async def _follow(self, lease: Lease) -> None:
        loop = ShardLoop(self._road, lease)
        self._shards[lease.shard.id] = loop
        try:
            await loop.run()
        finally:
            if self._shards.get(lease.shard.id) is loop:
                del self._shards[lease.shard.id]
