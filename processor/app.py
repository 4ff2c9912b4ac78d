"""Puts a worker together: the only module that names concrete adapters. A new one is one line here.

Order of the start: the endpoints (`/readyz` tells what is awaited), what must exist, the leases.
Order of the end: leases are handed over, then sinks and clients close, the endpoints last.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from io import FileIO
from typing import Any, NamedTuple

import msgspec
import structlog

from processor import __version__
from processor.core import plan
from processor.errors import Outage, ProcessorError
from processor.model import Pipeline, SinkSpec
from processor.observe import logs
from processor.observe.http import Health, HttpServer, State, Status, Views
from processor.observe.metrics import Metrics
from processor.observe.reporter import About, Reporter
from processor.observe.ticker import LoopTicker
from processor.ports import Clock, DeadLetters, ObjectStore, Sink
from processor.runtime.aws import Aws, memory_limit_bytes, open_aws, read_budget_bytes
from processor.runtime.clock import SystemClock
from processor.runtime.lease_admin import AdminPorts, LeaseAdmin
from processor.runtime.lease_loop import Follower, LeasePorts
from processor.runtime.shard_loop import Road
from processor.runtime.waiting import unless
from processor.runtime.worker import Pulse, Worker
from processor.sinks.eventbridge import EventBridgeOptions, EventBridgeSink
from processor.sinks.sqs import SqsDeadLetters
from processor.sinks.stdout import StdoutSink
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from processor.stores.dynamodb import DynamoTable
from processor.stores.folder import FolderObjects
from processor.stores.kcl_table import KclTable
from processor.stores.s3 import S3Objects

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
        about = About(__version__, config_hash(pipeline), {**kinds, "dead_letters": "sqs"})
        self.reporter = Reporter(self.metrics, self.log, self.clock, about)
        self.pulse = Pulse(self.reporter.reads, self.clock)
        self.ticker = LoopTicker(self.metrics, self.clock)
        self.state: State = "starting"
        self.awaited = "the worker to be put together"
        self.worker: Worker | None = None

    # ---- what the endpoints tell

    def views(self) -> Views:
        return Views(
            health=self._health,
            readiness=self._readiness,
            metrics=self._metrics,
            status=self._status,
            leases=lambda: self.worker.leases() if self.worker else [],
        )

    def _health(self) -> Health:
        stuck = self.worker.stuck() if self.worker else []
        return Health((*self.ticker.reasons(), *stuck))

    def _readiness(self) -> Health:
        if self.state == "draining":
            return Health(("draining: the leases are being handed over",))
        if self.worker is None:
            return Health((f"starting: waiting for {self.awaited}",))
        if not self.worker.is_alive:
            return Health(("the lease table has not taken a heartbeat for 6 s",))
        barred = self.worker.barred()
        return Health((barred,) if barred else ())

    def _metrics(self) -> Metrics:
        leases = self.worker.leases() if self.worker else []
        return self.reporter.refresh(
            self.worker.shards() if self.worker else {},
            leases_unowned=sum(not lease.ended and lease.owner is None for lease in leases),
            inflight_bytes=self.budget.ahead_bytes,
            is_draining=self.state == "draining",
        )

    def _status(self) -> Status:
        return Status(
            worker_id=self.worker.worker_id if self.worker else "",
            version=__version__,
            app=self.pipeline.app,
            state=self.state,
            totals=self.reporter.totals,
            latency=self.reporter.latency(),
            leases=self.worker.leases() if self.worker else [],
            shards=self.worker.shards() if self.worker else {},
            ended=self.worker.ended() if self.worker else {},
        )


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
        worker = await unless(stopping, _assemble(process, stack, is_rollback))
        if worker is not None:
            process.worker = worker
            process.state = "draining" if stopping.is_set() else "running"
            await worker.run(stopping)
    process.log.info("stopped", message="every lease is handed over")


def config_hash(pipeline: Pipeline) -> str:
    """What tells two resolved pipeline files apart."""
    return hashlib.sha256(msgspec.json.encode(pipeline, order="sorted")).hexdigest()[:12]


# ---- putting it together --------------------------------------------------------------------


async def _assemble(process: Process, stack: AsyncExitStack, is_rollback: bool) -> Worker:
    """Every adapter, each checked; waits while a service is out."""
    pipeline, reporter = process.pipeline, process.reporter
    process.awaited = "credentials"
    compiled = plan.compile(pipeline)
    aws = await stack.enter_async_context(
        open_aws(region_of(pipeline), connections_max=CONNECTIONS_MAX)
    )
    source = await _source(process, aws)
    sinks = {name: await _sink(process, aws, spec) for name, spec in pipeline.sinks.items()}
    dead_letters = await _dead_letters(process, aws)
    table = DynamoTable(await aws.client("dynamodb"), pipeline.state.table)
    objects = await _objects(process, aws)
    await _available(process, "the stream", source.check)
    await _available(process, "the lease table", table.check)
    if objects is not None:
        await _available(process, "the store of states", lambda: _probe(objects))
    for name, sink in sinks.items():
        await _available(process, f"sink {name}", sink.check)
        stack.push_async_callback(sink.close)
    await _available(process, "the dead letters' queue", dead_letters.check)
    stack.push_async_callback(dead_letters.close)
    road = Road(compiled, source, sinks, dead_letters, process.clock, reporter.steps)
    ports = LeasePorts(table, objects, source, process.clock, process.rng)
    return Worker(road, ports, reporter.leases, process.pulse, is_rollback=is_rollback)


async def _source(process: Process, aws: Aws) -> KinesisSource:
    stream = process.pipeline.source.stream
    url = await aws.endpoint("kinesis")
    signer = Signer(url, aws.region, "kinesis")
    http = await aws.http(url)
    wire = Wire(http, signer, aws.credentials, process.clock, f"stream {stream}")
    reading = Reading(process.clock, process.rng, process.budget, observer=process.pulse)
    return KinesisSource(wire, stream, reading)


def region_of(pipeline: Pipeline) -> str | None:
    """The region that is set, or that of the stream's ARN; None for the environment's."""
    stream = pipeline.source.stream
    return pipeline.source.region or (stream.split(":")[3] if stream.startswith("arn:") else None)


async def _sink(process: Process, aws: Aws, spec: SinkSpec) -> Sink:
    """One line a kind."""
    match spec.kind:
        case "eventbridge":
            return EventBridgeSink(
                await aws.client("events"),
                spec.name,
                spec.target,
                clock=process.clock,
                rng=process.rng,
                observer=process.reporter.sinks,
                options=msgspec.convert(spec.options, EventBridgeOptions),
            )
        case "stdout":
            out = FileIO(sys.stdout.fileno(), "wb", closefd=False)
            return StdoutSink(spec.name, out)
    raise AssertionError(f"sink {spec.name}: {spec.kind} passed validation without an adapter")


async def _dead_letters(process: Process, aws: Aws) -> DeadLetters:
    return SqsDeadLetters(
        await aws.client("sqs"),
        process.pipeline.dead_letters.sqs,
        process.pipeline.source.stream,
        clock=process.clock,
        rng=process.rng,
        observer=process.reporter.dead_letters,
    )


async def _objects(process: Process, aws: Aws) -> ObjectStore | None:
    location = process.pipeline.state.objects
    if location is None:
        return None
    if location.startswith("s3://"):
        return S3Objects(await aws.client("s3"), location)
    return FolderObjects(location)


# ---- leases by hand ---------------------------------------------------------------------------


class LeaseTools(NamedTuple):
    """What the commands for leases work with."""

    admin: LeaseAdmin
    kcl_table: Callable[[str], KclTable]


@asynccontextmanager
async def open_leases(pipeline: Pipeline, say: Callable[[str], None]) -> AsyncIterator[LeaseTools]:
    """The pipeline's leases for a command; `say` tells a person what it waits for."""
    process = Process(pipeline)
    async with open_aws(region_of(pipeline), connections_max=CONNECTIONS_MAX) as aws:
        client = await aws.client("dynamodb")
        table = DynamoTable(client, pipeline.state.table)
        ports = AdminPorts(table, await _source(process, aws), process.clock, say)
        admin = LeaseAdmin(ports, Follower(pipeline.app, pipeline.source.start))
        yield LeaseTools(admin, partial(KclTable, client))


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
