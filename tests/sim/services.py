"""The services of the world, and the clients with which a process calls them over the network.

Table and objects are the shipped ones in memory, with their real conditions; Kinesis is the local
model, behind the production source; bus and dead letters are memory targets behind production's own
packing and delivery. All content is shared; every process has clients of its own.
"""

from __future__ import annotations

import random
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zlib import crc32

import msgspec

from processor.core.packing import Packing, Request, Result
from processor.errors import Outage
from processor.local.kinesis_api import answer_to
from processor.local.kinesis_errors import ServiceError
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_model import KinesisModel
from processor.model import DeadLetter, DerivedEvent
from processor.ports import Clock, Refusal
from processor.sinks.delivery import Answered, Failed, Outcome, deliver
from processor.sinks.memory import LIMITS, THROTTLED, Arrival, MemoryTarget
from processor.sources.wire import Answer, failure_of
from processor.stores.memory import MemoryContent, MemoryObjects, MemoryTable
from tests.sim.loop import Host, SimLoop, at_once
from tests.sim.network import Fate, Network, Service
from tests.virtual_time import START_MS

STREAM = "ticks"
MERGE_STREAM = "partials"  # through which global rules meet, where a history has them


async def _no_wait(operation: str, side: Literal["before", "after"]) -> None:
    """The network does the waiting."""


class Refusals(dict[str, str]):
    """Which events the bus refuses for good: one in eight by their ids, for a while."""

    loop: SimLoop
    until_s = 0.0

    def get(self, id_: str, default: Any = None) -> Any:
        is_refused = self.loop.now < self.until_s and crc32(id_.encode()) % 8 == 0
        return "Refused" if is_refused else default


@dataclass
class Services:
    """What outlives processes."""

    loop: SimLoop
    model: KinesisModel = field(default_factory=lambda: KinesisModel(Limits()))
    content: MemoryContent = field(default_factory=MemoryContent)
    blobs: dict[str, bytes] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=lambda: Refusals())
    letters: MemoryTarget = field(default_factory=MemoryTarget)
    listings: dict[str, list[bytes]] = field(  # answers to ListShards, for stale ones
        default_factory=lambda: {STREAM: [], MERGE_STREAM: []}
    )

    damaged: set[str] = field(default_factory=set)  # states that can't be read any more
    # Payloads that the merge stream took, and when (ms).
    partials: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.refusals.loop = self.loop
        self.bus = MemoryTarget()
        self.bus.refuse = self.refusals
        self.table = MemoryTable(self.content, _no_wait)
        self.objects = MemoryObjects(self.blobs, _no_wait)

    def now_ms(self) -> int:
        return START_MS + int(self.loop.now * 1000)


class Remote:
    """A client of `target`: each of its async methods, carried out over the network."""

    def __init__(self, network: Network, host: Host, service: Service, target: Any) -> None:
        self._network, self._host = network, host
        self._service, self._target = service, target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        async def call(*args: Any) -> Any:
            def effect(fate: Fate) -> Any:
                return at_once(method(*args))

            return await self._network.call(self._host, self._service, name, effect, args)

        setattr(self, name, call)  # found directly from now on
        return call


class RemoteTable(Remote):
    """A `LeaseTable`."""

    def __init__(self, network: Network, host: Host, target: MemoryTable) -> None:
        super().__init__(network, host, "table", target)
        self.items = Remote(network, host, "items", target.items)
        self.instructions = target.instructions  # nobody asks: a poll is no event of a history


STALE = 3  # a stale listing is that of so many listings ago


class KinesisWire:
    """What `sources.wire.Wire` is to production's clients of a stream: one attempt at a request."""

    def __init__(self, network: Network, host: Host, services: Services, stream: str) -> None:
        self._network, self._host, self._services = network, host, services
        self._stream, self.subject = stream, f"stream {stream}"

    async def call(self, operation: str, body: bytes) -> Answer:
        def effect(fate: Fate) -> Answer:
            return self._answer(operation, body, fate)

        try:
            answer: Answer = await self._network.call(
                self._host, "kinesis", operation, effect, (body,)
            )
        except ServiceError as error:
            said = msgspec.json.encode({"__type": error.kind, "message": error.message})
            raise failure_of(self.subject, operation, error.status, said) from None
        return answer

    def _answer(self, operation: str, body: bytes, fate: Fate) -> Answer:
        services = self._services
        now_ms = services.now_ms()
        if fate.garble == "expired":
            raise ServiceError("ExpiredIteratorException", "as the simulator wants it")
        if operation == "PutRecords":
            answer = self._put(body, is_partial=fate.garble == "partial")
        else:
            answer = answer_to(services.model, operation, body, now_ms)
        if operation == "ListShards":
            listings = services.listings[self._stream]
            listings.append(answer)
            if fate.garble == "stale":
                answer = listings[max(0, len(listings) - STALE)]
        if fate.garble == "cut":
            answer = answer[: len(answer) // 2]
        elif fate.garble == "empty":
            answer = b"{}"
        return Answer(answer, now_ms // 1000 * 1000)

    def _put(self, body: bytes, *, is_partial: bool) -> bytes:
        """All records; or some of them, as where a shard's rate is used up."""
        services = self._services
        request = msgspec.json.decode(body)
        records: list[dict[str, Any]] = request["Records"]
        taken = [i for i, one in enumerate(records) if not is_partial or _is_lucky(one)]
        said: list[dict[str, Any]] = [{"ErrorCode": THROTTLED} for _ in records]
        if taken:
            part = msgspec.json.encode(request | {"Records": [records[i] for i in taken]})
            answer = answer_to(services.model, "PutRecords", part, services.now_ms())
            for i, one in zip(taken, msgspec.json.decode(answer)["Records"], strict=True):
                said[i] = one
                if "ErrorCode" not in one:
                    services.partials.append((services.now_ms(), b64decode(records[i]["Data"])))
        return msgspec.json.encode({"FailedRecordCount": _failed(said), "Records": said})


def _failed(said: list[dict[str, Any]]) -> int:
    return sum("ErrorCode" in one for one in said)


def _is_lucky(record: dict[str, Any]) -> bool:
    return crc32(record["Data"].encode()) % 2 == 0


class RemoteTarget:
    """Requests of entries to a memory target."""

    def __init__(self, network: Network, host: Host, service: Service, target: MemoryTarget):
        self._network, self._host = network, host
        self._service, self._target = service, target

    async def deliver(
        self, entries: Sequence[Arrival], sizes: Sequence[int], clock: Clock, rng: random.Random
    ) -> list[Refusal]:
        packing = Packing(LIMITS, sizes, [entry.group for entry in entries])

        async def send(request: Request) -> Outcome:
            return await self._send([entries[i] for i in request.indices])

        await deliver(packing, send, clock, rng)
        return packing.refusals

    async def _send(self, entries: list[Arrival]) -> Outcome:
        def effect(fate: Fate) -> Outcome:
            if fate.garble == "partial" and len(entries) > 1:
                taken = self._target.take(entries[: len(entries) // 2])
                assert isinstance(taken, Answered)
                rest = [Result(THROTTLED)] * (len(entries) - len(taken.results))
                return Answered((*taken.results, *rest))
            return self._target.take(entries)

        try:
            outcome: Outcome = await self._network.call(
                self._host, self._service, "put_events", effect, (entries,)
            )
        except Outage as error:
            return Failed(error.cause)
        return outcome


class SimSink(RemoteTarget):
    """`ports.Sink`: production's packing and delivery, on the way to the bus."""

    def __init__(self, network: Network, host: Host, bus: MemoryTarget, rng: random.Random):
        super().__init__(network, host, "bus", bus)
        self._rng = rng

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        entries = [Arrival(event.id, event.detail, event.group, event) for event in events]
        sizes = [len(event.detail) for event in events]
        refusals = await self.deliver(entries, sizes, self._host, self._rng)
        return sorted(refusals, key=lambda refusal: refusal.index)


class SimLetters(RemoteTarget):
    """`ports.DeadLetters`, likewise."""

    def __init__(self, network: Network, host: Host, target: MemoryTarget, rng: random.Random):
        super().__init__(network, host, "letters", target)
        self._rng = rng

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        entries = [Arrival(letter.id, letter.payload, letter.id, letter) for letter in letters]
        refusals = await self.deliver(entries, [0] * len(entries), self._host, self._rng)
        assert not refusals, f"a dead letter was dropped: {refusals}"
