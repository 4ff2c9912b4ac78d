"""A Kinesis source over real sockets: to our local Kinesis, or to a server that reads a script."""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator
from random import Random
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

from processor.core.pacing import Pace
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_server import KinesisServer
from processor.sources.budget import ByteBudget
from processor.sources.kinesis import KinesisSource, Reading
from processor.sources.sigv4 import Signer
from processor.sources.wire import Wire
from tests.clocks import VirtualClock

SHARD = "shardId-000000000000"


class Keys(NamedTuple):
    access_key: str = "AKID"
    secret_key: str = "secret"
    token: str | None = None


async def keys() -> Keys:
    return Keys()


class Watcher:
    """A ReadObserver that keeps what it is told."""

    def __init__(self) -> None:
        self.records = 0
        self.payload_bytes = 0
        self.throttles = 0
        self.errors: Counter[str] = Counter()
        self.details: list[str] = []
        self._news = asyncio.Event()

    async def until(self, records: int = 0, errors: int = 0) -> None:
        """Return when at least so much has been told."""
        while self.records < records or self.errors.total() < errors:
            self._news.clear()
            await self._news.wait()

    def on_read(self, shard_id, seconds, records, payload_bytes, millis_behind):
        self.records += records
        self.payload_bytes += payload_bytes
        self._news.set()

    def on_throttled(self, shard_id):
        self.throttles += 1

    def on_error(self, shard_id, kind, detail):
        self.errors[kind] += 1
        self.details.append(detail)
        self._news.set()


class Bench:
    """Everything around a source, with a clock that nobody waits for."""

    def __init__(self, http: aiohttp.ClientSession, url: str, clock: VirtualClock) -> None:
        self.clock = clock
        self.watcher = Watcher()
        self.budget = ByteBudget(1 << 28)
        self.reading = Reading(clock, Random(7), self.budget, Pace(), self.watcher)
        self._http = http
        self._url = url

    def wire(self, credentials=keys, **options) -> Wire:
        signer = Signer(self._url, "us-east-1", "kinesis")
        return Wire(self._http, signer, credentials, self.clock, "stream orders", **options)

    def source(self, stream: str = "orders", **options) -> KinesisSource:
        return KinesisSource(self.wire(**options), stream, self.reading)


class LocalBench(Bench):
    """A bench over our local Kinesis and its stream `orders`, of one shard."""

    def __init__(self, http: aiohttp.ClientSession, server: KinesisServer, clock: VirtualClock):
        super().__init__(http, server.url, clock)
        self.server = server

    def load(self, payloads: list[bytes]) -> None:
        self.server.load("orders", [("key", payload) for payload in payloads])


@pytest.fixture
async def local() -> AsyncIterator[LocalBench]:
    clock = VirtualClock()
    limits = Limits(page_records_max=7)  # so that a few records make many pages
    async with KinesisServer(limits, clock=clock.wall_s) as server, aiohttp.ClientSession() as http:
        server.create_stream("orders", 1)
        yield LocalBench(http, server, clock)


class Script:
    """What a server answers next, and what it was asked."""

    def __init__(self) -> None:
        self.answers: deque[tuple[int, bytes, dict[str, str]]] = deque()
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []

    def add(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers.append((status, body, headers))

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _body, _headers in self.requests]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.requests.append((operation, await request.read(), dict(request.headers)))
        status, body, headers = self.answers.popleft()
        return web.Response(status=status, body=body, headers=headers)


class ScriptBench(Bench):
    """A bench over a server that reads a script."""

    def __init__(self, http: aiohttp.ClientSession, url: str, clock: VirtualClock, script: Script):
        super().__init__(http, url, clock)
        self.script = script


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptBench]:
    script = Script()
    runner = web.ServerRunner(web.Server(script.answer), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as http:
            yield ScriptBench(http, f"http://{host}:{port}", VirtualClock(), script)
    finally:
        await runner.cleanup()


@pytest.fixture
async def unreachable() -> AsyncIterator[Bench]:
    """A bench over a port that is taken and does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with aiohttp.ClientSession() as http:
            yield Bench(http, f"http://127.0.0.1:{taken.getsockname()[1]}", VirtualClock())
