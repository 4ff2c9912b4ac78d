"""The real service in tests: `processor run` processes, and what they run against on loopback.

    async with running_world(ministack_url, tmp_path) as world:
        scene = await world.scene("outage", shards=2)     a stream, a table, a bus, queues
        worker = await scene.start_worker()
        scene.put(100)
        await scene.finish()                              every window arrived, and exactly

A record is a tick: (key, time, value). Its times lie a day back, one tick a tenth of a second, so
`finish` can close every window with one late-timed record a shard. No event ids are configured: a
record that was fed twice would show in the figures.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from processor.core.rows import ShardRow, StreamKey, WorkerRow
from processor.errors import Outage
from processor.local import processes
from processor.local.calls import Calls
from processor.local.collector import Collector
from processor.local.door import Door
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.local.kinesis_shards import HASH_KEY_MAX, shard_name
from processor.stores.dynamodb import DynamoTable, create_table
from tests.support import aws_client

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"  # must be in no output
SERVICES = ("DYNAMODB", "EVENTBRIDGE", "SQS", "KINESIS")
POLL_S = 0.05
START_S = 30.0  # 1 s on an idle core
STOP_S = 30.0  # what the service promises
KEYS = [f"key-{n}" for n in range(16)]
TICK_MS, WINDOW_MS = 100, 5_000
DAY_MS = 86_400_000

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


async def eventually(
    holds: Callable[[], Any], within_s: float = 30.0, what: Callable[[], object] = lambda: ""
) -> Any:
    """The first true value of `holds`, asked again and again; `what` explains its absence."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what()}"
        await asyncio.sleep(POLL_S)


async def together(*scenarios: Coroutine[Any, Any, object]) -> None:
    """Scenarios side by side: most of their time is waiting. All are told of that failed."""
    outcomes = await asyncio.gather(*scenarios, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("scenarios", failures)


# ---- a worker -------------------------------------------------------------------------------


class Worker:
    """One `processor run`; everything it says goes to its log."""

    def __init__(self, child: processes.Child, http: aiohttp.ClientSession) -> None:
        self.child = child
        self._http = http
        self.url = ""

    def __repr__(self) -> str:
        return f"{self.child!r}\n{self.child.tail(20)}"

    def output(self) -> str:
        return self.child.log.read_text(errors="replace")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log lines; a line that is no JSON is an error, unless it is the process's last."""
        texts = self.output().splitlines()
        if not self.child.is_running and texts and not texts[-1].startswith("{"):
            texts.pop()  # what the command line says at its end, for a person
        found = [orjson.loads(text) for text in texts if text.endswith("}")]
        return [line for line in found if event in (None, line["event"])]

    async def serving(self) -> Worker:
        """Once its endpoints answer."""
        line = await eventually(lambda: self._ended() or self.lines("serving"), START_S, self._said)
        assert line is not True, self
        self.url = line[0]["message"]
        return self

    async def ready(self) -> Worker:
        await self.serving()
        await eventually(self._is_ready, START_S, self._said)
        return self

    async def get(self, path: str) -> tuple[int, str]:
        async with self._http.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()

    async def status(self) -> dict[str, Any]:
        code, text = await self.get("/status")
        assert code == 200, text
        status: dict[str, Any] = orjson.loads(text)
        return status

    async def shards(self) -> set[str]:
        """What it works on."""
        return set((await self.status())["shards"])

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code; an AssertionError if it takes longer than it promises."""
        self.signal(number)
        try:
            async with asyncio.timeout(STOP_S):
                return await self.child.wait()
        except TimeoutError:
            raise AssertionError(f"still there {STOP_S:g} s after {number.name}: {self}") from None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def _ended(self) -> bool:
        return not self.child.is_running

    def _said(self) -> object:
        return self

    async def _is_ready(self) -> bool:
        assert self.child.is_running, self
        return (await self.get("/readyz"))[0] == 200


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
    sent: list[tuple[str, int, int]] = field(default_factory=list)  # key, time, value
    workers: list[Worker] = field(default_factory=list)
    doors: dict[str, Door] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)  # of the workers' environment
    now_ms: int = int(time.time() * 1000) // DAY_MS * DAY_MS - DAY_MS  # of the next tick
    records: int = 0  # all that were put, flushes and bad ones included
    arrived: dict[str, dict[str, Any]] = field(default_factory=dict)  # details of events, by id
    read: int = 0  # of the bodies that arrived
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
        """So many more ticks, over all keys, their times going on where the last ones ended."""
        first = len(self.sent)
        fresh = [
            (keys[i % len(keys)], self.now_ms + (i - first) * TICK_MS, i)
            for i in range(first, first + ticks)
        ]
        self.now_ms += ticks * TICK_MS
        self.sent += fresh
        self.load((key, tick(key, at_ms, value)) for key, at_ms, value in fresh)

    def load(self, pairs: Any) -> None:
        """Any (partition key, payload)."""
        pairs = list(pairs)
        self.records += self.world.kinesis.load(self.name, pairs)

    def flush(self) -> None:
        """One record a shard that no rule wants, an hour later: every window closes."""
        self.now_ms += 3_600_000
        at_ms = self.now_ms
        wanted = {shard_of(KEYS[0], 1)} if self.shards == 1 else set(range(self.shards))
        for n in range(10_000):
            key = f"flush-{n}"
            if (shard := shard_of(key, self.shards)) in wanted:
                wanted.remove(shard)
                self.load([(key, orjson.dumps({"type": "flush", "key": key, "at": at_ms}))])
            if not wanted:
                return
        raise AssertionError("no key for some shard")

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

    def expected(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(key, window's start) → (count, sum)."""
        counts: Counter[tuple[str, int]] = Counter()
        sums: Counter[tuple[str, int]] = Counter()
        for key, at_ms, value in self.sent:
            window = (key, at_ms // WINDOW_MS * WINDOW_MS)
            counts[window] += 1
            sums[window] += value
        return {window: (n, sums[window]) for window, n in counts.items()}

    def by_id(self) -> dict[str, dict[str, Any]]:
        """What arrived; an AssertionError if one id ever came with another content."""
        assert self.events is not None
        fresh, self.read = self.events.bodies[self.read :], len(self.events.bodies)
        for body in fresh:
            detail = orjson.loads(body)["detail"]
            known = self.arrived.setdefault(detail["id"], detail)
            assert known == detail, f"{known} and {detail}"
        return self.arrived

    def results(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Like `expected`; an AssertionError if two ids speak of one window."""
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for detail in self.by_id().values():
            window = (detail["key"]["key"], detail["window"]["start"])
            assert window not in found, f"{window} came under two ids"
            found[window] = (detail["values"]["n"], detail["values"]["total"])
        return found

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


def tick(key: str, at_ms: int, value: int) -> bytes:
    return orjson.dumps({"type": "tick", "key": key, "at": at_ms, "value": value, "trip": key})


def shard_of(key: str, shards: int) -> int:
    """The shard of an evenly cut stream that a partition key leads to."""
    hashed = int.from_bytes(hashlib.md5(key.encode()).digest(), "big")
    return min(shards - 1, hashed // ((HASH_KEY_MAX + 1) // shards))


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


async def balanced(workers: Sequence[Worker], *counts: int, within_s: float = 30.0) -> None:
    """Until the workers, whichever, hold so many shards, each shard one worker's."""

    async def is_so() -> bool:
        held = [await worker.shards() for worker in workers]
        is_fair = sorted(map(len, held)) == sorted(counts)
        return is_fair and sum(counts) == len(set().union(*held))

    await eventually(is_so, within_s, lambda: workers)
