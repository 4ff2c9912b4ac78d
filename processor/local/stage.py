"""What the demo's service runs against: Kinesis, table, bus, rule and queues, all on loopback."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson

from processor.local import processes
from processor.local.calls import Calls
from processor.local.emulator import Emulator
from processor.local.traffic import SHARDS

APP = "demo"
STREAM, TABLE, BUS = "shop", "processor-demo", "shop-events"  # as demo.yaml has them
MERGE_STREAM, MERGE_SHARDS = "shop-merge", 2  # a bucket each
EVENTS_QUEUE, LETTERS_QUEUE = "shop-derived", "shop-dead-letters"
REGION, ACCOUNT = "us-east-1", "000000000000"  # the emulator's own
START_S = 30.0
CONNECTIONS_MAX = 64


@dataclass(frozen=True, slots=True)
class Names:
    """What a pipeline file calls its surroundings."""

    app: str
    stream: str
    table: str
    bus: str
    merge_stream: str | None
    events_queue: str = EVENTS_QUEUE
    letters_queue: str = LETTERS_QUEUE


SHOP = Names(APP, STREAM, TABLE, BUS, MERGE_STREAM)


class Stage:
    """Everything that is not the service itself; stopping it leaves nothing behind."""

    def __init__(self, folder: Path, *, keeps_journal: bool = False, names: Names = SHOP) -> None:
        self.folder, self.names = folder, names
        self.journal = folder / "reads.jsonl"  # there only if it is kept
        self._keeps_journal = keeps_journal
        self.queue_urls: dict[str, str] = {}
        self._emulator = Emulator(folder, ["dynamodb", "events", "sqs"])
        self._kinesis: processes.Child | None = None
        self._kinesis_url = ""
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Stage in {self.folder}: {self._emulator!r} {self._kinesis!r}>"

    @property
    def worker_environment(self) -> dict[str, str]:
        """What leads a worker's clients here, and nowhere else."""
        return processes.plain_environment() | {
            "AWS_ENDPOINT_URL": self._emulator.url,
            "AWS_ENDPOINT_URL_KINESIS": self._kinesis_url,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DEMO_FOLDER": str(self.folder),
        }

    def kill_now(self) -> None:
        """Without waiting, for the last resort."""
        self._emulator.kill_now()
        if self._kinesis is not None:
            self._kinesis.kill_now()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        await self._stack.enter_async_context(self._emulator)
        await self._start_kinesis()
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
        session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        self.kinesis = Calls(session, self._kinesis_url)
        self.aws = Calls(session, self._emulator.url)
        await self._make_table()
        for queue in (self.names.events_queue, self.names.letters_queue):
            answer = await self.aws("sqs", "CreateQueue", {"QueueName": queue})
            self.queue_urls[queue] = answer["QueueUrl"]
        await self._make_bus()

    async def _start_kinesis(self) -> None:
        module, names = "processor.local.kinesis_server", self.names
        streams = [f"{names.stream}:{SHARDS}"]
        if names.merge_stream is not None:
            streams.append(f"{names.merge_stream}:{MERGE_SHARDS}")
        self._kinesis = await processes.start(
            "kinesis",
            [
                *(sys.executable, "-m", module, "--port", "0"),
                *(part for stream in streams for part in ("--stream", stream)),
                *(("--journal", str(self.journal)) if self._keeps_journal else ()),
            ],
            environment=processes.plain_environment(),
            log=self.folder / "kinesis.log",
            piped=True,
        )
        self._stack.push_async_callback(self._kinesis.stop)
        self._kinesis_url = await self._kinesis.first_line(START_S)

    async def _make_table(self) -> None:
        request: dict[str, Any] = {
            "TableName": self.names.table,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        }
        await self.aws("dynamodb", "CreateTable", request)

    async def _make_bus(self) -> None:
        """A bus, and a rule that leads all that the service says to the queue."""
        names = self.names
        await self.aws("events", "CreateEventBus", {"Name": names.bus})
        pattern = orjson.dumps({"source": [f"processor.{names.app}"]}).decode()
        rule = {"Name": "derived", "EventBusName": names.bus, "EventPattern": pattern}
        await self.aws("events", "PutRule", rule)
        target = {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{names.events_queue}"}
        put = {"Rule": "derived", "EventBusName": names.bus, "Targets": [target]}
        answer = await self.aws("events", "PutTargets", put)
        assert answer["FailedEntryCount"] == 0, answer
