"""One process's work: leases, a loop a shard, and what they look like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from processor.core.leases.commands import Timing
from processor.core.leases.generations import advice
from processor.core.pipeline import generation
from processor.ports import Clock, ReadObserver
from processor.runtime.inbox import Inbox
from processor.runtime.lease import Lease
from processor.runtime.lease_loop import Follower, LeaseLoop, LeasePorts, LeaseStatus
from processor.runtime.lease_observer import LeaseObserver
from processor.runtime.shard_loop import Road, ShardLoop, ShardView

# A shard's reader gets an answer or an error each half minute, even if the stream is out, and every
# other wait of its loop has a name (`Doing`). A shard without either for so long is stuck, and only
# a restart may help; before that, another worker tries (`Timing.stalled_s`).
STUCK_AFTER_S = 120.0
READ_UP_POLL_S = 0.02  # a reader asks each quarter of a second at most
ENDED_MAX = 100  # shards whose last figures are kept for `/status`; the oldest go first


class Pulse:
    """Passes on what readers tell, and remembers when each shard's told anything."""

    def __init__(self, observer: ReadObserver, clock: Clock):
        self._observer, self._clock = observer, clock
        self._heard_at: dict[str, float] = {}

    def heard_at(self, shard_id: str) -> float:
        """Monotonic seconds; 0 before the first time."""
        return self._heard_at.get(shard_id, 0.0)

    def forget(self, shard_id: str) -> None:
        self._heard_at.pop(shard_id, None)

    def on_read(
        self, shard_id: str, seconds: float, records: int, payload_bytes: int, millis_behind: int
    ) -> None:
        self._hear(shard_id)
        self._observer.on_read(shard_id, seconds, records, payload_bytes, millis_behind)

    def on_throttled(self, shard_id: str) -> None:
        self._hear(shard_id)
        self._observer.on_throttled(shard_id)

    def on_error(self, shard_id: str, kind: str, detail: str) -> None:
        self._hear(shard_id)
        self._observer.on_error(shard_id, kind, detail)

    def _hear(self, shard_id: str) -> None:
        self._heard_at[shard_id] = self._clock.monotonic()


class Worker:
    """Follows the shards that it can lease, until told to stop.

    `pulse` is what the readers of `road.source` tell. `is_rollback`: what a newer pipeline of the
    application holds is ours to go on from.
    """

    def __init__(
        self,
        road: Road,
        ports: LeasePorts,
        observer: LeaseObserver,
        pulse: Pulse,
        timing: Timing | None = None,
        *,
        is_rollback: bool = False,
    ):
        self._road = road
        self._pulse = pulse
        self.is_rollback = is_rollback
        self._inbox = Inbox(
            ports.table.instructions, road.plan.pipeline.app, ports.clock, observer.on_error
        )
        self._shards: dict[str, ShardLoop] = {}
        self._ended: dict[str, ShardView] = {}
        self._timing = timing or Timing()
        self._leases = LeaseLoop(
            ports,
            self._follow,
            _follower(road, is_rollback),
            timing=self._timing,
            observer=observer,
            tasks=self,
        )

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id} with {len(self._shards)} shards>"

    @property
    def worker_id(self) -> str:
        return self._leases.worker_id

    @property
    def generation(self) -> int:
        """Our pipeline's number among those that the application ran; 0 until it is known."""
        return self._leases.generation

    @property
    def is_alive(self) -> bool:
        """Whether others see us as such: heartbeats are taken."""
        return self._leases.is_valid

    def barred(self) -> str | None:
        """A sentence, where all that this worker could do is left to a newer pipeline's workers."""
        barred = [] if self._shards else self._leases.barred()
        return advice(len(barred), self._leases.generation) if barred else None

    @property
    def stream(self) -> str:
        """Name or ARN of the stream that it follows."""
        return self._road.stream

    @property
    def clock(self) -> Clock:
        return self._road.clock

    async def open(self, stopping: asyncio.Event) -> None:
        """Find out which stream it is and whether we may follow it; `run` does so, if not done.

        Raises Unavailable, and ConfigError where a merge stream has other buckets.
        """
        await self._leases.open(stopping)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and every lease is handed over, in less than 30 s.

        Raises Unavailable if the stream, the table or a permission is missing at the start.
        """
        asking = asyncio.create_task(self._inbox.run())
        try:
            await self._leases.run(stopping)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def leases(self) -> Sequence[LeaseStatus]:
        return self._leases.leases()

    def shards(self) -> Mapping[str, ShardView]:
        """The shards that are followed here, by id."""
        return {shard_id: loop.view() for shard_id, loop in sorted(self._shards.items())}

    def ended(self) -> Mapping[str, ShardView]:
        """The shards that came to their end here, as they were then; the last ENDED_MAX."""
        return dict(self._ended)

    def stuck(self) -> list[str]:
        """A sentence for each shard that neither gets on nor waits for something with a name."""
        return list(self._silent(STUCK_AFTER_S).values())

    def stalled(self) -> dict[str, str]:
        """A sentence for each shard that another worker should try."""
        return self._silent(self._timing.stalled_s)

    def behind_ms(self) -> int | None:
        """The smallest watermark of the shards here that catch up; None: none does."""
        known = [loop.behind_ms for loop in self._shards.values()]
        return min((ms for ms in known if ms is not None), default=None)

    async def read_up(self) -> None:
        """Until all that the stream holds now of the shards here is read, and handed out.

        As long as that takes: where a target is out, for ever. Cancelling is safe.
        """
        asked_at = self.clock.monotonic()
        while any(loop.read_up_at < asked_at for loop in self._shards.values()):
            await self.clock.sleep(READ_UP_POLL_S)

    def _silent(self, longer_than_s: float) -> dict[str, str]:
        now = self._road.clock.monotonic()
        silent_s = {
            shard_id: now - max(loop.since, self._pulse.heard_at(shard_id))
            for shard_id, loop in sorted(self._shards.items())
            if not loop.is_waiting
        }
        return {
            shard_id: f"{shard_id} has been {self._shards[shard_id].doing} for {seconds:.0f} s"
            for shard_id, seconds in silent_s.items()
            if seconds > longer_than_s
        }

    async def _follow(self, lease: Lease) -> None:
        loop = ShardLoop(self._road, lease, self._inbox)
        self._shards[lease.shard.id] = loop
        try:
            await loop.run()
            if loop.has_ended:
                self._note_end(lease.shard.id, loop.view())
        finally:
            if self._shards.get(lease.shard.id) is loop:
                del self._shards[lease.shard.id]
                self._pulse.forget(lease.shard.id)

    def _note_end(self, shard_id: str, view: ShardView) -> None:
        self._ended[shard_id] = view
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]


def _follower(road: Road, is_rollback: bool) -> Follower:
    pipeline = road.plan.pipeline
    buckets = pipeline.merge.buckets if road.is_merge and pipeline.merge else None
    return Follower(pipeline.app, road.start, generation(road.plan), is_rollback, buckets)
