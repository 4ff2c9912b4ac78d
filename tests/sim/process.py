"""One worker process: production's worker with its leases and loops, on a host of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from processor.core.merge.pipeline import MergePipeline
from processor.core.pacing import Pace
from processor.core.plan import Plan
from processor.errors import ProcessorError
from processor.model import Shard, Step
from processor.ports import Unobserved as UnobservedReads
from processor.runtime.lease_loop import LeasePorts
from processor.runtime.lease_observer import LeaseObserver
from processor.runtime.road import Machine, Road
from processor.runtime.stages import Stages
from processor.runtime.worker import Pulse, Worker
from processor.sinks.partials import KinesisRecords, StreamPartials
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from tests.sim.loop import Host, on_host
from tests.sim.network import Network
from tests.sim.services import (
    MERGE_STREAM,
    STREAM,
    KinesisWire,
    Remote,
    RemoteTable,
    Services,
    SimLetters,
    SimSink,
)

# Production's rates under load; idle shards are asked less often, for each read costs us 0.3 ms.
# Two answers may lie 5 s apart for a shard to count as idle.
PACE = Pace(caught_up_s=2.5, caught_up_s_max=4.5)
BUDGET_BYTES = 64 * 1024 * 1024

Tell = Callable[["Process", str, str], None]  # what, and of what


class Process(Host):
    """A worker with its own clock, clients and rng; `tell` hears what it reports of itself."""

    def __init__(
        self, name: str, seed: str, drift: float, services: Services, network: Network, tell: Tell
    ) -> None:
        self.rng = random.Random(seed)
        rate = self.rng.uniform(1 - drift, 1 + drift)
        booted_at = services.loop.now - self.rng.uniform(1, 10_000)
        super().__init__(
            services.loop, rate, booted_at, skew_ms=self.rng.randrange(-90_000, 90_000)
        )
        self.name = name
        self.stopping = asyncio.Event()
        self._services, self._network, self._tell = services, network, tell

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def start(self, plan: Plan) -> None:
        source, pulse = self._source(STREAM)
        has_merge = any(rule.is_global for rule in plan.rules)
        partials = self._partials() if has_merge else None
        told = Told(self, self._tell, "")
        sinks, letters = self._targets()
        road = Road(plan, source, sinks, letters, self, told, partials=partials)
        first = self._worker(road, pulse)
        self._stages = Stages(first, self._merging(plan, first) if has_merge else None)
        self.workers = {worker.stream: worker for worker in self._stages.workers}
        self.task = on_host(self, self._stages.run(self.stopping))

    def _merging(self, plan: Plan, source: Worker) -> Worker:
        stream, pulse = self._source(MERGE_STREAM)

        def fresh(plan: Plan, shard: Shard, incarnation: str) -> Machine:
            return MergePipeline(plan, shard, incarnation, source.generation)

        told = Told(self, self._tell, "m")
        sinks, letters = self._targets()
        road = Road(plan, stream, sinks, letters, self, told, fresh=fresh, is_merge=True)
        return self._worker(road, pulse)

    def _targets(self) -> tuple[dict[str, SimSink], SimLetters]:
        network, services, rng = self._network, self._services, self.rng
        sinks = {"bus": SimSink(network, self, services.bus, rng)}
        return sinks, SimLetters(network, self, services.letters, rng)

    def _partials(self) -> StreamPartials:
        wire = KinesisWire(self._network, self, self._services, MERGE_STREAM)
        records = KinesisRecords(cast(Any, wire), MERGE_STREAM)
        return StreamPartials(records, self, self.rng, Unheard())

    def _worker(self, road: Road, pulse: Pulse) -> Worker:
        network, services = self._network, self._services
        ports = LeasePorts(
            cast(Any, RemoteTable(network, self, services.table)),
            cast(Any, Remote(network, self, "objects", services.objects)),
            road.source,
            self,
            self.rng,
        )
        return Worker(road, ports, Told(self, self._tell, "m" * road.is_merge), pulse)

    def _source(self, stream: str) -> tuple[KinesisSource, Pulse]:
        pulse = Pulse(UnobservedReads(), self)
        reading = Reading(self, self.rng, ByteBudget(BUDGET_BYTES), PACE, pulse)
        wire = KinesisWire(self._network, self, self._services, stream)
        return KinesisSource(cast(Any, wire), stream, reading), pulse

    def worker_ids(self) -> list[str]:
        """Its present ones, one a stream."""
        return [worker.worker_id for worker in self.workers.values()]

    async def crash(self) -> None:
        """Gone at once: nothing that it would still send is sent."""
        self.is_dead = True
        self.task.cancel()
        await asyncio.wait([self.task])


class Told(LeaseObserver):
    """Passes on what matters to a history; a dead process tells nothing."""

    def __init__(self, process: Process, tell: Tell, prefix: str) -> None:
        self._process, self._tell, self._prefix = process, tell, prefix

    def _say(self, path: str, text: str = "") -> None:
        if not self._process.is_dead:
            self._tell(self._process, path, text)

    def on_buried_self(self, worker_id: str) -> None:
        self._say("finds itself buried and joins anew")

    def on_task_failed(self, shard_id: str, error: Exception, setbacks: int) -> None:
        path = "a task waits" if isinstance(error, ProcessorError) else "a task failed"
        self._say(path, f"{self._prefix}{shard_id[-2:]} ({setbacks}): {error!r}")

    def on_parked(self, shard_id: str, error: Exception) -> None:
        self._say("parks", f"{self._prefix}{shard_id[-2:]}: {error!r}")

    def on_fallback(self, shard_id: str, reason: str) -> None:
        self._say("falls back to the older pair", f"of {self._prefix}{shard_id[-2:]}: {reason}")

    def on_lost(self, shard_id: str, epoch: int) -> None:
        self._say("lost a lease", f"of {self._prefix}{shard_id[-2:]}, epoch {epoch}")

    def on_step(self, shard_id: str, step: Step, seconds: float) -> None: ...

    def on_left_behind(self, shard_id: str, source_shard_id: str) -> None:
        self._say("goes on without a shard", source_shard_id)

    def on_state_refused(self, shard_id: str, error: Exception) -> None:
        self._say("can't restore", f"{self._prefix}{shard_id[-2:]}: {error}")


class Unheard:
    """The `ports.PartialObserver` that looks away."""

    def on_request(self, seconds: float) -> None: ...

    def on_taken(self, records: int, payload_bytes: int) -> None: ...

    def on_retry(self, reason: str, n: int) -> None: ...
