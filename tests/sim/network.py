"""Between the processes and the services: calls that take time, get lost, and are overheard.

A request that was sent takes effect when it arrives, whether or not its sender still waits, runs or
lives. What may happen to it is decided by the faults at the send; what did happen is told to the
watch, which knows nothing of what the processes believe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from zlib import crc32

from processor.core.leases.rows import ShardRow
from processor.errors import Outage, Throttled
from processor.local.kinesis_errors import ServiceError, throttled
from processor.sources.wire import RequestFailed
from tests.sim.loop import Host, SimLoop

Service = Literal["table", "items", "objects", "kinesis", "bus", "letters"]
How = Literal["lost before", "lost after", "throttled"]
Garble = Literal["cut", "empty", "expired", "stale", "torn", "partial"]

# A client notices a lost answer by its connection, at once, or by its own patience. No call is
# left without an answer for longer than this.
PATIENCE_S = 10.0


@dataclass(slots=True)
class Fate:
    """What will happen to a call: how long each way takes, and what goes wrong."""

    there_s: float
    back_s: float = 0.0
    how: How | None = None
    garble: Garble | None = None
    at_arrival: Callable[[], None] | None = None  # just before it takes effect
    at_effect: Callable[[], None] | None = None  # just after


@dataclass(slots=True)
class Call:
    """One call on its way."""

    host: Host
    service: Service
    operation: str
    kind: str
    args: tuple[Any, ...]
    effect: Callable[[Fate], Any]
    fate: Fate
    sent_at: float
    answer: asyncio.Future[Any] = field(repr=False)


class Faults(Protocol):
    def fate(self, host: Host, service: Service, kind: str, args: tuple[Any, ...]) -> Fate: ...


class Watch(Protocol):
    """What overhears the network."""

    def on_sent(self, host: Host, kind: str, args: tuple[Any, ...]) -> None: ...

    def on_effect(self, call: Call, result: Any) -> None: ...

    def on_answer(self, call: Call, result: Any) -> None: ...

    def on_no_answer(self, call: Call) -> None: ...


class Network:
    def __init__(self, loop: SimLoop, faults: Faults, watch: Watch) -> None:
        self._loop = loop
        self._faults = faults
        self._watch = watch

    async def call(
        self,
        host: Host,
        service: Service,
        operation: str,
        effect: Callable[[Fate], Any],
        args: tuple[Any, ...] = (),
    ) -> Any:
        """What `effect` returns or raises when the request arrives, or an error on the way."""
        if host.is_dead:
            raise Outage(service, operation, "the process is dead")
        kind = kind_of(operation, args)
        self._watch.on_sent(host, kind, args)
        fate = self._faults.fate(host, service, kind, args)
        answer = self._loop.create_future()
        call = Call(host, service, operation, kind, args, effect, fate, self._loop.time(), answer)
        self._loop.in_the_world(fate.there_s, self._arrive, call)
        try:
            result = await answer
        except BaseException:
            self._watch.on_no_answer(call)
            raise
        self._watch.on_answer(call, result)
        return result

    def _arrive(self, call: Call) -> None:
        fate = call.fate
        if fate.at_arrival is not None:
            fate.at_arrival()
        if fate.how in ("lost before", "throttled"):
            return self._fail(call)
        try:
            result = call.effect(fate)
        except ServiceError as error:
            return self._deliver(call, None, error)
        if fate.garble == "torn":
            return self._loop.in_the_world(fate.back_s, self._read_the_rest, call, result)
        self._watch.on_effect(call, result)
        if fate.at_effect is not None:
            fate.at_effect()
        if fate.how == "lost after":
            return self._fail(call)
        return self._deliver(call, result, None)

    def _read_the_rest(self, call: Call, first: list[ShardRow]) -> None:
        """Shard rows stand in buckets that are read one after the other: half a while ago, half
        now."""
        early = [row for row in first if crc32(row.id.encode()) % 2]
        late = [row for row in call.effect(call.fate) if not crc32(row.id.encode()) % 2]
        _settle(call.answer, [*early, *late], None)

    def _fail(self, call: Call) -> None:
        self._deliver(call, None, _error(call))

    def _deliver(self, call: Call, result: Any, error: Exception | None) -> None:
        if call.fate.back_s:
            self._loop.in_the_world(call.fate.back_s, _settle, call.answer, result, error)
        else:
            _settle(call.answer, result, error)


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return  # the caller gave up
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _error(call: Call) -> Exception:
    """What the client's own adapter makes of a call that failed on the way."""
    if call.service == "kinesis":
        if call.fate.how == "throttled":
            return throttled("of the call", "ticks", "the simulator's")
        return RequestFailed(call.operation, "connection", "it was lost")
    if call.fate.how == "throttled":
        return Throttled(call.service, call.operation, "as the simulator wants it")
    return Outage(call.service, call.operation, "the connection was lost")


def kind_of(operation: str, args: tuple[Any, ...]) -> str:
    """What a call is about: an operation's name, or what a write does to a shard's row."""
    if operation != "write":
        return operation
    before, after = args[0], args[1]
    return write_kind(before, after)


def write_kind(before: ShardRow, after: ShardRow) -> str:
    if after.epoch > before.epoch:
        return "claim"
    if after.owner is None:
        return "release"
    if len(after.marks) > len(before.marks):
        return "mark"
    return "commit"
