"""One application of the service and what it runs against: stream, table, bus, queues, workers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from processor.core.leases.rows import ShardRow, StreamKey, WorkerRow
from processor.errors import Outage
from processor.local import processes
from processor.local.calls import Calls
from processor.local.collector import Collector
from processor.local.door import Door
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.local.kinesis_shards import shard_name
from processor.stores.dynamodb import DynamoTable, create_table
from tests.service.ticks import KEYS, Arrivals, Ticks, Windows, windows_of
from tests.service.waiting import eventually
from tests.service.worker import Worker
from tests.support import aws_client

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"  # must be in no output
SERVICES = ("DYNAMODB", "EVENTBRIDGE", "SQS", "KINESIS")

PIPELINE = """\
app: {name}
source: {{stream: {name}}}
event: {{time: at, unit: ms, partition_key: key, correlation_id: trip, out_of_orderness: 0s}}
sinks: {{bus: {{eventbridge: {name}}}}}
rules:
  ticks:
    where: {{type: [tick]}}
    group_by: [key]
    window: {{tumbling: 5s}}
    aggregates: {{n: count, total: {{sum: value}}}}
    emit: {{windows: bus}}
state: {{table: {name}, objects: {folder}/state, checkpoint: 1s}}
dead_letters: {{sqs: {name}-dead}}
http: {{host: 127.0.0.1, port: 0}}
"""


# ---- what a worker runs against ---------------------------------------------------------------


@dataclass
class World:
    """The servers that all scenes share."""

    aws_url: str
    dynamodb: Any  # a client
    kinesis: KinesisServer
    http: aiohttp.ClientSession
    folder: Path
    stack: AsyncExitStack

    async def scene(self, name: str, *, shards: int = 1, make: bool = True) -> Scene:
        """A stream, a table, a bus that leads to a queue, and a queue of dead letters."""
        folder = self.folder / name
        folder.mkdir()
        scene = Scene(name, self, folder, shards, Calls(self.http, self.aws_url))
        scene.pipeline.write_text(PIPELINE.format(name=name, folder=folder))
        if make:
            for what in ("stream", "table", "bus", "queue"):
                await scene.make(what)
        return scene


@dataclass
class Scene:
    """One application in the world; its name is that of its stream, table, bus and queues."""

    name: str
    world: World
    folder: Path
    shards: int
    calls: Calls
    ticks: Ticks = field(default_factory=Ticks)
    arrivals: Arrivals = field(default_factory=Arrivals)
    workers: list[Worker] = field(default_factory=list)
    doors: dict[str, Door] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)  # of the workers' environment
    records: int = 0  # all that were put, flushes and bad ones included
    events: Collector | None = None
    letters: Collector | None = None

    @property
    def pipeline(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def shard_ids(self) -> set[str]:
        return {shard_name(n) for n in range(self.shards)}

    # ---- making it

    async def make(self, what: str) -> None:
        await getattr(self, f"_make_{what}")()

    async def _make_stream(self) -> None:
        self.world.kinesis.create_stream(self.name, self.shards)

    async def _make_table(self) -> None:
        await create_table(self.world.dynamodb, self.name)

    async def _make_bus(self) -> None:
        """It leads everything that comes from us to a queue."""
        self.events = await self._queue(f"{self.name}-events")
        await self.calls("events", "CreateEventBus", {"Name": self.name})
        pattern = orjson.dumps({"source": [f"processor.{self.name}"]}).decode()
        rule = {"Name": self.name, "EventBusName": self.name, "EventPattern": pattern}
        await self.calls("events", "PutRule", rule)
        arn = f"arn:aws:sqs:us-east-1:000000000000:{self.name}-events"
        targets = {"Rule": self.name, "EventBusName": self.name}
        targets |= {"Targets": [{"Id": "queue", "Arn": arn}]}  # type: ignore[dict-item]
        answer = await self.calls("events", "PutTargets", targets)
        assert answer["FailedEntryCount"] == 0, answer

    async def _make_queue(self) -> None:
        self.letters = await self._queue(f"{self.name}-dead")

    async def _queue(self, name: str) -> Collector:
        answer = await self.calls("sqs", "CreateQueue", {"QueueName": name})
        collector = Collector(answer["QueueUrl"], self.calls)

        async def collect() -> None:
            while True:
                try:
                    await collector.run(1)
                except* Outage:
                    pass  # it is our scenes that take queues away, for longer than a call may take

        task = asyncio.create_task(collect())

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.world.stack.push_async_callback(end)
        return collector

    async def door(self, service: str) -> Door:
        """Between the workers that start from now on and one of SERVICES."""
        kinesis, aws = self.world.kinesis.url, self.world.aws_url
        door = Door(kinesis if service == "KINESIS" else aws)
        await door.open()
        self.world.stack.push_async_callback(door.refuse)
        self.doors[service] = door
        return door

    def environment(self) -> dict[str, str]:
        doors = {f"AWS_ENDPOINT_URL_{name}": door.url for name, door in self.doors.items()}
        return {
            **processes.plain_environment(),
            "AWS_ENDPOINT_URL": self.world.aws_url,
            "AWS_ENDPOINT_URL_KINESIS": self.world.kinesis.url,
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            **doors,
            **self.extra,
        }

    async def start_worker(self, *arguments: str, **without: None) -> Worker:
        """Returns at once; `without` names variables that its environment shall lack."""
        name = f"{self.name}-{len(self.workers) + 1}"
        child = await processes.start(
            name,
            [sys.executable, "-m", "processor", "run", "-c", str(self.pipeline), *arguments],
            environment={k: v for k, v in self.environment().items() if k not in without},
            log=self.folder / f"{name}.log",
        )
        self.world.stack.push_async_callback(child.kill)
        worker = Worker(child, self.world.http)
        self.workers.append(worker)
        return worker

    # ---- its traffic

    def put(self, ticks: int, keys: Sequence[str] = KEYS) -> None:
        """So many more ticks, over all keys."""
        self.load(self.ticks.more(ticks, keys))

    def load(self, pairs: Any) -> None:
        """Any (partition key, payload)."""
        pairs = list(pairs)
        self.records += self.world.kinesis.load(self.name, pairs)

    def flush(self) -> None:
        """Let every window close."""
        self.load(self.ticks.flush(self.shards))

    async def load_until(self, done: asyncio.Event, ticks_per_s: int = 100) -> None:
        """A steady load, as long as it takes."""
        while not done.is_set():
            self.put(ticks_per_s // 10)
            try:
                async with asyncio.timeout(0.1):
                    await done.wait()
            except TimeoutError:
                pass  # the usual case: more is wanted

    # ---- what came of it

    def expected(self) -> Windows:
        return self.ticks.expected()

    def by_id(self) -> dict[str, dict[str, Any]]:
        """What arrived; an AssertionError if one id ever came with another content."""
        assert self.events is not None
        return self.arrivals.take(self.events.bodies)

    def results(self) -> Windows:
        """Like `expected`; an AssertionError if two ids speak of one window."""
        return windows_of(self.by_id().values())

    def dead(self) -> list[dict[str, Any]]:
        """Dead letters, in order of arrival, repeats too."""
        assert self.letters is not None
        return [orjson.loads(body) for body in self.letters.bodies]

    async def finish(self, within_s: float = 30.0) -> None:
        """Close every window; then what arrived is what was sent: nothing lost, nothing doubled."""
        self.flush()
        expected = self.expected()
        await eventually(lambda: len(self.by_id()) >= len(expected), within_s, self._progress)
        assert self.results() == expected
        await eventually(self._is_counted, within_s, self._progress)

    async def _is_counted(self) -> bool:
        """Whether the shards' own totals, part of their state, count each record once."""
        taken: dict[str, int] = {}
        for worker in self.workers:
            if worker.child.is_running and worker.url:
                for shard_id, view in (await worker.status())["shards"].items():
                    taken[shard_id] = view["totals"]["records"]
        assert sum(taken.values()) <= self.records, f"{taken} of {self.records}"
        return sum(taken.values()) == self.records

    def _progress(self) -> object:
        got, expected = self.results(), self.expected()
        missing = [window for window in expected if window not in got]
        logs = "\n".join(map(repr, self.workers))
        return f"{len(got)} of {len(expected)} windows, first missing {missing[:3]}\n{logs}"

    # ---- its table

    async def rows(self) -> tuple[dict[str, ShardRow], dict[str, WorkerRow]]:
        """What the lease table holds."""
        kinesis = self.world.kinesis
        created_ms = kinesis.model.stream(self.name, kinesis.now_ms()).created_ms
        table = DynamoTable(self.world.dynamodb, self.name)
        stream = StreamKey(self.name, created_ms)
        shards, workers = await table.read_shards(stream), await table.read_workers(stream)
        return {row.id: row for row in shards}, {row.id: row for row in workers}

    async def epochs(self) -> dict[str, int]:
        return {shard_id: row.epoch for shard_id, row in (await self.rows())[0].items()}


@asynccontextmanager
async def running_world(
    aws_url: str, folder: Path, limits: Limits | None = None
) -> AsyncIterator[World]:
    """The world; what was started in it ends with it."""
    async with AsyncExitStack() as stack:
        kinesis = await stack.enter_async_context(KinesisServer(limits or Limits.without_rates()))
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=60)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        http = await stack.enter_async_context(session)
        dynamodb = await stack.enter_async_context(aws_client("dynamodb", aws_url))
        yield World(aws_url, dynamodb, kinesis, http, folder, stack)
