"""`global`: how long after the slowest shard's watermark has passed a window its figures arrive.

Real `processor run` processes, two of them, with both stages; Kinesis is our own, with the
service's rates, DynamoDB and SQS are the emulator's, and events go to standard output, whose lines
are stamped as they are read here. Each shard gets a record every tenth of a second, at a moment of
its own; event time is the time of the put. All is polled: no enhanced fan-out.

    latency   from the moment before the put of the record that moved the last shard's watermark to
              a window's end, to the arrival of a group's result of that window

`ratio` is 2 s, the promise, by the p99 of the most shards. Every figure must be right: else
ResultsDiffer.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson

from bench.harness import Measure, Options, Report, Table, figure
from bench.results import ResultsDiffer
from processor.core.merge.partials import hash_key_of
from processor.local import processes
from processor.local.calls import Calls
from processor.local.emulator import Emulator
from processor.local.processes import Child

NAME = "global"
PROMISE_S = 2.0
SHARDS, QUICK_SHARDS = (4, 16), (4,)
SECONDS, QUICK_SECONDS = 30, 8
WORKERS, MERGE_SHARDS = 2, 2
REGIONS = [f"region-{n}" for n in range(8)]
EVERY_S = 0.1  # a record a shard
STARTED_S, SETTLED_S = 60.0, 30.0
TABLE, QUEUE = "processor-bench", "processor-bench-dead-letters"

PIPELINE = """\
app: bench
source: {stream: orders}
event: {time: at, unit: ms, partition_key: store, out_of_orderness: 0s}
sinks: {out: {stdout: json}}
rules:
  revenue:
    group_by: [region]
    window: {tumbling: 1s}
    aggregates: {orders: count, revenue: {sum: amount}}
    emit: {windows: out}
merge: {stream: merge}
http: {port: 0}
"""

Window = tuple[str, int]  # region, end


class Found(NamedTuple):
    """What one run measured and checked."""

    latencies: list[float]
    windows: int


class Sent:
    """What was put: its sums, and when each shard's watermark passed each second."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.orders: Counter[Window] = Counter()
        self.revenue: Counter[Window] = Counter()
        self._passed: dict[int, list[float | None]] = {}

    def note(self, shard: int, region: str, at_ms: int, amount: int, put_at: float) -> None:
        window = region, (at_ms // 1_000 + 1) * 1_000
        self.orders[window] += 1
        self.revenue[window] += amount
        passed = self._passed.setdefault(at_ms // 1_000 * 1_000, [None] * self.shards)
        passed[shard] = put_at if passed[shard] is None else passed[shard]

    def passed_at(self, end_ms: int) -> float | None:
        """When the last shard got its first record past a window; None where one did not."""
        moments = self._passed.get(end_ms, [None])
        known = [moment for moment in moments if moment is not None]
        return max(known) if len(known) == len(moments) else None


def run(options: Options) -> Report:
    """Raises ResultsDiffer where a result is missing, wrong or there twice."""
    counts = QUICK_SHARDS if options.is_quick else SHARDS
    seconds = QUICK_SECONDS if options.is_quick else SECONDS
    found = {shards: asyncio.run(_measured(shards, seconds, options.seed)) for shards in counts}
    measures: dict[str, Measure] = {}
    for shards, one in found.items():
        for name, part in (("p50", 0.5), ("p99", 0.99), ("slowest", 1.0)):
            measures[f"{name}, {shards} shards"] = Measure("s", (_rank(one.latencies, part),))
    slowest = measures[f"p99, {counts[-1]} shards"].median
    return Report(
        benchmark=NAME,
        ratio=Measure("×", (PROMISE_S / slowest,)),
        parameters={"seconds": seconds, "workers": WORKERS, "merge_shards": MERGE_SHARDS},
        measures=measures,
        tables=[_table(found)],
    )


def _rank(values: Sequence[float], part: float) -> float:
    """By nearest rank."""
    return sorted(values)[min(len(values) - 1, round(part * len(values)))]


def _table(found: dict[int, Found]) -> Table:
    rows = [
        (
            str(shards),
            *(figure(_rank(one.latencies, part)) for part in (0.5, 0.99, 1.0)),
            str(one.windows),
        )
        for shards, one in found.items()
    ]
    title = "global: from the last shard's watermark to a group's result, seconds"
    return Table(title, ("shards", "p50", "p99", "slowest", "results"), rows)


# ---- one run ----------------------------------------------------------------------------------


async def _measured(shards: int, seconds: int, seed: int) -> Found:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        async with _service(Path(name), shards) as (workers, kinesis):
            arrived: dict[Window, tuple[float, dict[str, Any]]] = {}
            reading = [asyncio.create_task(_read(worker, arrived)) for worker in workers]
            try:
                sent = await _load(kinesis, shards, seconds, random.Random(seed), arrived)
                await _until_settled(sent, arrived)
                for task in reading:
                    if task.done():
                        task.result()  # a worker died, or told one window in two ways
            finally:
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)
    return _judged(sent, arrived)


async def _load(
    kinesis: Calls,
    shards: int,
    seconds: int,
    rng: random.Random,
    arrived: dict[Window, tuple[float, dict[str, Any]]],
) -> Sent:
    """From the first result on, which shows that all shards are read, for so many seconds."""
    sent, deadline = Sent(shards), time.monotonic() + STARTED_S
    measuring_until: float | None = None

    async def feed(shard: int) -> None:
        nonlocal measuring_until
        await asyncio.sleep(rng.uniform(0, EVERY_S))
        while measuring_until is None or time.monotonic() < measuring_until:
            await _put(kinesis, sent, shard, rng)
            if measuring_until is None and arrived:
                measuring_until = time.monotonic() + seconds
            if measuring_until is None and time.monotonic() > deadline:
                raise ResultsDiffer(f"no result within {STARTED_S:g} s")
            await asyncio.sleep(EVERY_S)

    await asyncio.gather(*(feed(shard) for shard in range(shards)))
    return sent


async def _put(kinesis: Calls, sent: Sent, shard: int, rng: random.Random) -> None:
    region, amount = rng.choice(REGIONS), rng.randrange(1_000)
    at_ms, put_at = time.time_ns() // 1_000_000, time.monotonic()
    event = {"at": at_ms, "store": f"store-{shard}", "region": region, "amount": amount}
    record = {
        "Data": b64encode(orjson.dumps(event)).decode(),
        "PartitionKey": f"store-{shard}",
        "ExplicitHashKey": str(hash_key_of(shard, sent.shards)),
    }
    await kinesis("kinesis", "PutRecord", {"StreamName": "orders", **record})
    sent.note(shard, region, at_ms, amount, put_at)


async def _read(worker: Child, arrived: dict[Window, tuple[float, dict[str, Any]]]) -> None:
    """Stamp each result; one that comes twice must be the same."""
    while True:
        detail = orjson.loads(await worker.first_line(3_600))["detail"]
        window = detail["key"]["region"], detail["window"]["end"]
        known = arrived.setdefault(window, (time.monotonic(), detail))
        if known[1] != detail:
            raise ResultsDiffer(f"{window} came as {known[1]} and as {detail}")


def _due(sent: Sent) -> list[Window]:
    """Windows that every shard has passed."""
    return [window for window in sent.orders if sent.passed_at(window[1]) is not None]


async def _until_settled(sent: Sent, arrived: dict[Window, tuple[float, dict[str, Any]]]) -> None:
    deadline = time.monotonic() + SETTLED_S
    while missing := [window for window in _due(sent) if window not in arrived]:
        if time.monotonic() > deadline:
            raise ResultsDiffer(f"{len(missing)} results never came, such as {missing[:3]}")
        await asyncio.sleep(0.05)


def _judged(sent: Sent, arrived: dict[Window, tuple[float, dict[str, Any]]]) -> Found:
    """Latencies of windows that began after all was running; all figures are compared."""
    running_at = min(at for at, _ in arrived.values())
    latencies = []
    for window in _due(sent):
        at, detail = arrived[window]
        told = detail["values"]["orders"], detail["values"]["revenue"]
        wanted = sent.orders[window], sent.revenue[window]
        if told != wanted:
            raise ResultsDiffer(f"{window} is {told}, should be {wanted}")
        passed_at = sent.passed_at(window[1])
        assert passed_at is not None, "it is due"
        if passed_at > running_at:
            latencies.append(at - passed_at)
    return Found(latencies, len(latencies))


# ---- processes --------------------------------------------------------------------------------


@asynccontextmanager
async def _service(folder: Path, shards: int) -> AsyncIterator[tuple[list[Child], Calls]]:
    """The workers, their output piped, and a way to put records."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(folder, ["dynamodb", "sqs"]))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        streams = ["--stream", f"orders:{shards}", "--stream", f"merge:{MERGE_SHARDS}"]
        server = await processes.start(
            "kinesis",
            [sys.executable, "-m", "processor.local.kinesis_server", "--port", "0", *streams],
            environment=processes.plain_environment(),
            log=folder / "kinesis.log",
            piped=True,
        )
        stack.push_async_callback(server.stop)
        kinesis_url = await server.first_line(STARTED_S)
        await _make(Calls(session, emulator.url))
        (folder / "pipeline.yaml").write_text(PIPELINE)
        workers = [
            await _worker(stack, folder, n, emulator.url, kinesis_url) for n in range(WORKERS)
        ]
        yield workers, Calls(session, kinesis_url)


async def _make(aws: Calls) -> None:
    names = {"pk": "HASH", "sk": "RANGE"}
    await aws(
        "dynamodb",
        "CreateTable",
        {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": n, "AttributeType": "S"} for n in names],
            "KeySchema": [{"AttributeName": n, "KeyType": kind} for n, kind in names.items()],
        },
    )
    await aws("sqs", "CreateQueue", {"QueueName": QUEUE})


async def _worker(
    stack: AsyncExitStack, folder: Path, n: int, aws_url: str, kinesis_url: str
) -> Child:
    child = await processes.start(
        f"worker-{n}",
        [sys.executable, "-m", "processor", "run", "-c", str(folder / "pipeline.yaml")],
        environment=processes.plain_environment()
        | {
            "AWS_ENDPOINT_URL": aws_url,
            "AWS_ENDPOINT_URL_KINESIS": kinesis_url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        log=folder / f"worker-{n}.log",
        piped=True,
    )
    stack.push_async_callback(child.stop)
    return child
