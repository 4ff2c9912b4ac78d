"""Runs a worker, from its start to its end; what it is made of, `assembly` makes.

Order of the start: the endpoints (`/readyz` tells what is awaited), what must exist, the leases.
Order of the end: leases are handed over, then sinks and clients close, the endpoints last.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog

from processor import __version__, assembly, zones
from processor.assembly import Shop
from processor.config.checks import has_global_rule
from processor.core import pipeline as shards
from processor.core import plan
from processor.core.merge.pipeline import MergePipeline
from processor.core.plan import Plan
from processor.errors import Outage, ProcessorError
from processor.model import Pipeline, Shard
from processor.observe import logs
from processor.observe.collector import Collector
from processor.observe.http import Health, HttpServer, StageView, State, Status, Views
from processor.observe.metrics import Metrics
from processor.observe.reporter import About, Reporter
from processor.observe.ticker import LoopTicker
from processor.ports import Clock, DeadLetters, LeaseTable, ObjectStore, Sink, Source
from processor.runtime.aws import Aws, memory_limit_bytes, open_aws, read_budget_bytes
from processor.runtime.clock import SystemClock
from processor.runtime.first_states import FirstStates
from processor.runtime.lease_admin import AdminPorts, LeaseAdmin
from processor.runtime.lease_loop import Follower, LeasePorts, LeaseStatus
from processor.runtime.road import Machine, Road
from processor.runtime.stages import Stages
from processor.runtime.state_store import StateStore
from processor.runtime.waiting import unless
from processor.runtime.worker import Pulse, Worker
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource
from processor.stores.kcl_table import KclTable

# A worker holds some hundreds of shards at most; each may have one call to a service under way.
CONNECTIONS_MAX = 256
RETRY_S = 2.0  # until the next look at a dependency that is out when we start
PROBE = "probe/start"  # one key for all workers: a start that is killed midway leaves no heap


class Process:
    """What lives as long as the process does, whatever is up or down."""

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline
        self.clock: Clock = SystemClock()
        self.rng = random.SystemRandom()  # worker ids and jitter
        self.log = structlog.get_logger()
        self.budget = ByteBudget(read_budget_bytes(memory_limit_bytes()))
        self.metrics = Metrics()
        kinds = {name: sink.kind for name, sink in pipeline.sinks.items()}
        about = About(
            __version__,
            config_hash(pipeline),
            {**kinds, "dead_letters": "sqs"},
            stream_name(pipeline.source.stream),
            None if pipeline.merge is None else stream_name(pipeline.merge.stream),
        )
        self.reporter = Reporter(self.metrics, self.log, self.clock, about)
        self.pulse = Pulse(self.reporter.source.reads, self.clock)
        self.ticker = LoopTicker(self.metrics, self.clock)
        self.state: State = "starting"
        self.awaited = "the worker to be put together"
        self.stages: Stages | None = None

    def shop(self, aws: Aws) -> Shop:
        return Shop(self.pipeline, aws, self.clock, self.rng, self.budget)

    # ---- what the endpoints tell

    def views(self) -> Views:
        return Views(
            health=self._health,
            readiness=self._readiness,
            metrics=self._metrics,
            status=self._status,
            leases=self._leases,
        )

    def _health(self) -> Health:
        stuck = self.stages.stuck() if self.stages else []
        return Health((*self.ticker.reasons(), *stuck))

    def _readiness(self) -> Health:
        if self.state == "draining":
            return Health(("draining: the leases are being handed over",))
        if self.stages is None:
            return Health((f"starting: waiting for {self.awaited}",))
        if not self.stages.is_alive:
            return Health(("the lease table has not taken a heartbeat for 6 s",))
        return Health(tuple(self.stages.barred()))

    def _metrics(self) -> Metrics:
        source, merge = (self.stages.source, self.stages.merge) if self.stages else (None, None)
        return self.reporter.refresh(
            source.shards() if source else {},
            leases_unowned=_unowned(source),
            inflight_bytes=self.budget.ahead_bytes,
            is_draining=self.state == "draining",
            merged=merge.shards() if merge else {},
            merge_unowned=_unowned(merge),
        )

    def _leases(self) -> list[LeaseStatus]:
        """Of both streams, that of the source first."""
        return [lease for worker in self._workers for lease in worker.leases()]

    @property
    def _workers(self) -> list[Worker]:
        return self.stages.workers if self.stages else []

    def _status(self) -> Status:
        views = [
            StageView(
                worker.stream, worker.worker_id, worker.leases(), worker.shards(), worker.ended()
            )
            for worker in self._workers
        ]
        source = views[0] if views else StageView()
        return Status(
            worker_id=source.worker_id,
            version=__version__,
            app=self.pipeline.app,
            state=self.state,
            totals=self.reporter.totals,
            latency=self.reporter.latency(),
            leases=source.leases,
            shards=source.shards,
            ended=source.ended,
            merge=views[1] if len(views) > 1 else None,
        )


def _unowned(worker: Worker | None) -> int:
    leases = worker.leases() if worker else []
    return sum(not lease.ended and lease.owner is None for lease in leases)


async def serve(pipeline: Pipeline, *, log_format: logs.Format, is_rollback: bool = False) -> None:
    """Run the service until SIGTERM or SIGINT; returns when every lease is handed over.

    `is_rollback`: the application has run a newer pipeline, and is to go back to this one.

    Raises Unavailable where a stream, table, bus, queue or permission is missing, and ConfigError.
    """
    logs.configure(log_format, service=f"processor.{pipeline.app}", stream=pipeline.source.stream)
    process = Process(pipeline)
    stopping = asyncio.Event()
    server = HttpServer(pipeline.http.host, pipeline.http.port, process.views())
    async with AsyncExitStack() as stack:
        stack.enter_context(_failures_told(process))
        stack.enter_context(_signals(process, stopping))
        stack.push_async_callback(server.stop)
        await server.start()
        process.log.info("serving", message=server.url)
        await stack.enter_async_context(_background(process.ticker.run()))
        collector = Collector(process.metrics, process.clock)
        await stack.enter_async_context(_background(collector.run()))
        stages = await unless(stopping, _assemble(process, stack, is_rollback))
        if stages is not None:
            process.stages = stages
            process.state = "draining" if stopping.is_set() else "running"
            await stages.run(stopping)
    process.log.info("stopped", message="every lease is handed over")


def stream_name(stream: str) -> str:
    """A stream's name, of its name or ARN."""
    return stream.rpartition("/")[2]


def config_hash(pipeline: Pipeline) -> str:
    """What tells two resolved pipeline files apart."""
    return hashlib.sha256(msgspec.json.encode(pipeline, order="sorted")).hexdigest()[:12]


# ---- putting it together --------------------------------------------------------------------


class Parts(NamedTuple):
    """What both stages share, each part checked."""

    plan: Plan
    table: LeaseTable
    objects: ObjectStore | None
    sinks: Mapping[str, Sink]


async def _assemble(process: Process, stack: AsyncExitStack, is_rollback: bool) -> Stages:
    """Every adapter, each checked; waits while a service is out."""
    pipeline = process.pipeline
    process.awaited = "credentials"
    compiled = plan.compile(pipeline, zones.tables(pipeline))
    region = assembly.region_of(pipeline)
    aws = await stack.enter_async_context(open_aws(region, connections_max=CONNECTIONS_MAX))
    shop = process.shop(aws)
    table, objects = await assembly.table(shop), await assembly.objects(shop)
    await _available(process, "the lease table", table.check)
    if objects is not None:
        await _available(process, "the store of states", lambda: _probe(objects))
    parts = Parts(compiled, table, objects, await _sinks(process, stack, shop))
    source = await _source_stage(process, stack, shop, parts, is_rollback)
    if not any(rule.is_global for rule in compiled.rules):
        return Stages(source)
    return Stages(source, await _merge_stage(process, stack, shop, parts, source))


async def _sinks(process: Process, stack: AsyncExitStack, shop: Shop) -> dict[str, Sink]:
    made = {}
    for name, spec in process.pipeline.sinks.items():
        sink = made[name] = await assembly.sink(shop, process.reporter, spec)
        await _available(process, f"sink {name}", sink.check)
        stack.push_async_callback(sink.close)
    return made


async def _letters(process: Process, stack: AsyncExitStack, shop: Shop, stream: str) -> DeadLetters:
    letters = await assembly.dead_letters(shop, process.reporter, stream)
    await _available(process, "the dead letters' queue", letters.check)
    stack.push_async_callback(letters.close)
    return letters


async def _source_stage(
    process: Process, stack: AsyncExitStack, shop: Shop, parts: Parts, is_rollback: bool
) -> Worker:
    reporter = process.reporter
    source = await assembly.source(shop, process.pulse)
    await _available(process, "the stream", source.check)
    letters = await _letters(process, stack, shop, process.pipeline.source.stream)
    is_global = any(rule.is_global for rule in parts.plan.rules)
    road = Road(
        parts.plan,
        source,
        parts.sinks,
        letters,
        process.clock,
        reporter.source.steps,
        partials=await assembly.partials(shop, reporter.partials) if is_global else None,
    )
    ports = LeasePorts(parts.table, parts.objects, source, process.clock, process.rng)
    return Worker(road, ports, reporter.source.leases, process.pulse, is_rollback=is_rollback)


async def _merge_stage(
    process: Process, stack: AsyncExitStack, shop: Shop, parts: Parts, source: Worker
) -> Worker:
    reporter = process.reporter.merge
    assert reporter is not None, "validation sees to it that global rules have a merge stream"
    assert process.pipeline.merge is not None
    pulse = Pulse(reporter.reads, process.clock)
    stream = await assembly.merge_source(shop, pulse)
    await _available(process, "the merge stream", stream.check)
    letters = await _letters(process, stack, shop, process.pipeline.merge.stream)

    def fresh(plan: Plan, shard: Shard, incarnation: str) -> Machine:
        return MergePipeline(plan, shard, incarnation, source.generation)

    road = Road(
        parts.plan,
        stream,
        parts.sinks,
        letters,
        process.clock,
        reporter.steps,
        fresh=fresh,
        is_merge=True,
    )
    ports = LeasePorts(parts.table, parts.objects, stream, process.clock, process.rng)
    return Worker(road, ports, reporter.leases, pulse, is_rollback=source.is_rollback)


# ---- leases by hand ---------------------------------------------------------------------------


class LeaseTools(NamedTuple):
    """What the commands for leases work with; `merge` is None where there is no merge stream."""

    admin: LeaseAdmin
    kcl_table: Callable[[str], KclTable]
    merge: LeaseAdmin | None = None


@asynccontextmanager
async def open_leases(pipeline: Pipeline, say: Callable[[str], None]) -> AsyncIterator[LeaseTools]:
    """The pipeline's leases for a command; `say` tells a person what it waits for."""
    process = Process(pipeline)
    region = assembly.region_of(pipeline)
    async with open_aws(region, connections_max=CONNECTIONS_MAX) as aws:
        shop = process.shop(aws)
        table = await assembly.table(shop)
        source = await assembly.source(shop, process.pulse)
        ports = AdminPorts(table, source, process.clock, say)
        admin = LeaseAdmin(ports, Follower(pipeline.app, pipeline.source.start))
        merge = None
        if pipeline.merge is not None and has_global_rule(pipeline):
            stream = await assembly.merge_source(shop, process.pulse)
            follower = Follower(pipeline.app, buckets=pipeline.merge.buckets)
            merge = LeaseAdmin(AdminPorts(table, stream, process.clock, say), follower)
        yield LeaseTools(admin, partial(KclTable, await aws.client("dynamodb")), merge)


# ---- warm starts ------------------------------------------------------------------------------


class WarmTools(NamedTuple):
    """What a warm start works with; `merge` is None where there is no merge stream."""

    pipeline: Pipeline
    stream: Source
    source: FirstStates
    merge: FirstStates | None = None


@asynccontextmanager
async def open_warming(pipeline: Pipeline, say: Callable[[str], None]) -> AsyncIterator[WarmTools]:
    """The pipeline's streams, leases and states; `say` tells a person what it waits for."""
    process = Process(pipeline)
    compiled = plan.compile(pipeline, zones.tables(pipeline))
    region = assembly.region_of(pipeline)
    async with open_aws(region, connections_max=CONNECTIONS_MAX) as aws:
        shop = process.shop(aws)
        table, objects = await assembly.table(shop), await assembly.objects(shop)
        states = StateStore(table.items, objects)

        def firsts(stream: KinesisSource, follower: Follower, name: str) -> FirstStates:
            admin = LeaseAdmin(AdminPorts(table, stream, process.clock, say), follower)
            return FirstStates(admin, states, name)

        name = shards.generation(compiled)
        stream = await assembly.source(shop, process.pulse)
        source = firsts(stream, Follower(pipeline.app, pipeline.source.start), name)
        merge = None
        if pipeline.merge is not None and has_global_rule(pipeline):
            merged = await assembly.merge_source(shop, process.pulse)
            merge = firsts(merged, Follower(pipeline.app, buckets=pipeline.merge.buckets), name)
        yield WarmTools(pipeline, stream, source, merge)


# ---- starting and stopping ------------------------------------------------------------------


async def _available(process: Process, what: str, check: Callable[[], Awaitable[object]]) -> None:
    """Until the dependency is there; Unavailable if it never will be by itself."""
    process.awaited = what
    while True:
        try:
            await check()
            return
        except Outage as error:
            process.log.warning("waiting", message=f"for {what}", error=error)
            await process.clock.sleep(RETRY_S)


async def _probe(objects: ObjectStore) -> None:
    """What a checkpoint will do, done once: else a large state would be the first to find out."""
    await objects.put(PROBE, b"")
    await objects.get(PROBE)
    await objects.delete([PROBE])


@contextmanager
def _failures_told(process: Process) -> Iterator[None]:
    """Why it all ended goes to the log too; what the command line prints is for a person."""
    try:
        yield
    except ProcessorError as error:
        process.log.error("failed", message="the service ends", error=error)
        raise
    except Exception as error:
        process.log.error("failed", message="the service ends by a bug of its own", exc_info=error)
        raise


@contextmanager
def _signals(process: Process, stopping: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for an end in order; a second one finds Python's own handling."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        process.state = "draining"
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)
        process.log.info("draining", message="handing the leases over")

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
