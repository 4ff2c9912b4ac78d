"""A shard's checkpoints: when one is due, and its way to the table while the shard goes on.

    capture   in the shard's own task: what changed is hashed, compressed and copied, in turns; the
              shard feeds nothing meanwhile, so the state is that of one position
    put       in a task of its own, with the conditional commit after it

At most one is on its way. What must come after it in the row (a mark, the end, the last checkpoint
before a release) settles it first. It starts only when all that the state stands for was put.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import sqrt

from processor.core.stored.stream import Part
from processor.model import Position
from processor.ports import Clock
from processor.runtime.lease import Lease

SHARE = 0.05  # of the process's core, at most, for capturing all its shards' states
# A long way to repeat after a crash. Captures are not stretched further, and where a checkpoint is
# on its way for so long, the store being out, the shard waits for it.
CHECKPOINT_S_MAX = 300.0


class Captures:
    """What capturing last cost, by shard; they share one core, so its share is one for all.

    Intervals go by the square roots of costs: of all that keep the sum of cost ÷ interval, they are
    the shortest in sum, and a small state next to large ones is still captured often.
    """

    def __init__(self) -> None:
        self._roots: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Captures of {len(self._roots)} shards>"

    def interval_s(self, shard_id: str, cpu_s: float) -> float:
        """How long the shard should wait after a capture that cost so much."""
        own = self._roots[shard_id] = sqrt(cpu_s)
        return own * sum(self._roots.values()) / SHARE

    def forget(self, shard_id: str) -> None:
        """The shard is not ours any more."""
        self._roots.pop(shard_id, None)


class Checkpoints:
    """Those of one lease; used by its shard's task only. `captures` is one for the process."""

    def __init__(
        self, lease: Lease, clock: Clock, interval_s: float, captures: Captures | None = None
    ):
        self._lease, self._clock, self._interval_s = lease, clock, interval_s
        self._captures = Captures() if captures is None else captures
        self._flight: asyncio.Task[None] | None = None
        self._began_at = clock.monotonic()
        self._due_at = self._began_at + interval_s

    def __repr__(self) -> str:
        flight = "one on its way" if self._flight else "none on its way"
        return f"<Checkpoints of {self._lease.shard.id}, {flight}>"

    @property
    def is_due(self) -> bool:
        return self._flight is None and self._clock.monotonic() >= self._due_at

    async def begin(
        self, position: Position, message: Iterable[Part], caught_up_at_ms: int | None
    ) -> None:
        """Capture the state, and send it on its way; settles the one before.

        The state must not change until this returns. Raises as `settle` does, and Unavailable if
        the state is too large.
        """
        await self.settle()
        captured = await self._lease.pack(message)
        wanted_s = self._captures.interval_s(self._lease.shard.id, captured.cpu_s)
        interval_s = max(self._interval_s, min(wanted_s, CHECKPOINT_S_MAX))
        self._began_at = self._clock.monotonic()
        self._due_at = self._began_at + interval_s
        commit = self._lease.checkpoint(position, captured, caught_up_at_ms=caught_up_at_ms)
        self._flight = asyncio.create_task(commit)

    async def poll(self) -> None:
        """Raises what the one on its way failed with, if it did; waits if it takes too long."""
        if self._flight is None:
            return
        if self._flight.done() or self._clock.monotonic() >= self._began_at + CHECKPOINT_S_MAX:
            await self.settle()

    async def settle(self) -> None:
        """Until none is on its way. Raises what `Lease.checkpoint` does; cancelling is as safe."""
        flight, self._flight = self._flight, None
        if flight is not None:
            await flight  # cancelled here, it is cancelled too, and waited for

    async def close(self) -> None:
        """The shard's task ends, for whatever reason: nothing goes on when this has returned."""
        self._captures.forget(self._lease.shard.id)
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
            await asyncio.gather(flight, return_exceptions=True)
