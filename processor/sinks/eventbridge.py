"""EventBridge classic: derived events to an event bus through PutEvents."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from processor import aws_errors
from processor.core.packing import Limits, Packing, Request, Result
from processor.model import DerivedEvent
from processor.ports import Clock, Refusal, SinkObserver
from processor.sinks import aws
from processor.sinks.delivery import Answered, Failed, Outcome, deliver

ENTRIES_MAX = 10  # PutEvents: Entries has 1 to 10 items
TIME_BYTES = 14  # what the service's size formula counts for a time stamp

# InternalFailure and ThrottlingException are the two that the API reference calls retryable. A
# lost permission is no fault of the event: it waits until somebody gives it back.
RETRYABLE = frozenset({"InternalFailure", "ThrottlingException", "AccessDeniedException"})

# One process keeps at most so many requests in flight, of all its shards: 32 at 20 ms is 1,600
# calls a second, about what one core can sign and send.
REQUESTS_MAX = 32

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MAX_MS = 253_402_300_799_999  # the last millisecond of the year 9999


class EventBridgeOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """A sink's `options`. The service takes less than 1 MB; older documents say 256 KB."""

    request_bytes_max: int = 999_999


class EventBridgeSink:
    """One event bus, by name or ARN.

    `client` is an aiobotocore `events` client, closed by who made it. Its time-outs are how long a
    bus that hangs holds a request; its own retries should be off, they are counted and paced here.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        bus: str,
        *,
        clock: Clock,
        rng: random.Random,
        observer: SinkObserver,
        options: EventBridgeOptions | None = None,
    ):
        self.name, self.bus = name, bus
        self._client, self._clock, self._rng, self._observer = client, clock, rng, observer
        bytes_max = (options or EventBridgeOptions()).request_bytes_max
        # The service delivers in no order, whatever ours is: `(window end, pane)` tells it.
        self._limits = Limits(
            entries_max=ENTRIES_MAX, bytes_max=bytes_max, retryable=RETRYABLE, together=True
        )
        self._slots = asyncio.Semaphore(REQUESTS_MAX)

    def __repr__(self) -> str:
        return f"<EventBridgeSink {self.name} bus={self.bus}>"

    async def check(self) -> None:
        """The bus must exist: some stand-ins take events for one that does not."""
        try:
            await self._client.describe_event_bus(Name=self.bus)
        except aws_errors.FOREIGN as error:
            create = f"aws events create-event-bus --name {self.bus}"
            raise aws.at_start(
                error, f"event bus {self.bus}", "events:DescribeEventBus", create
            ) from error

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        """See `ports.Sink`; cancelling is safe."""
        sizes = [entry_bytes(event) for event in events]
        packing = Packing(self._limits, sizes, [event.group for event in events])

        async def send(request: Request) -> Outcome:
            return await self._send([events[i] for i in request.indices])

        await deliver(packing, send, self._clock, self._rng)
        for refusal in packing.refusals:
            self._observer.on_failed(self.name, refusal.code)
        return sorted(packing.refusals, key=lambda refusal: refusal.index)

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _send(self, events: Sequence[DerivedEvent]) -> Outcome:
        entries = [_entry(event, self.bus) for event in events]
        async with self._slots:
            sent_at = self._clock.monotonic()
            try:
                answer = await self._client.put_events(Entries=entries)
                outcome: Outcome = Answered(_results(answer))
            except aws_errors.FOREIGN as error:
                outcome = aws.outcome(error)
            finally:
                self._observer.on_request(self.name, self._clock.monotonic() - sent_at)
        self._report(events, outcome)
        return outcome

    def _report(self, events: Sequence[DerivedEvent], outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            return self._observer.on_retry(self.name, outcome.reason, len(events))
        if not isinstance(outcome, Answered):
            return None
        if len(outcome.results) != len(events):
            return self._observer.on_retry(self.name, "GarbledAnswer", len(events))
        pairs = list(zip(events, outcome.results, strict=True))
        for kind, n in Counter(e.detail_type for e, r in pairs if r.code is None).items():
            self._observer.on_published(self.name, kind, n)
        for code, n in Counter(r.code for _, r in pairs if r.code in RETRYABLE).items():
            self._observer.on_retry(self.name, str(code), n)
        return None


def entry_bytes(event: DerivedEvent) -> int:
    """The size of an entry by the service's own formula.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html
    """
    return (
        TIME_BYTES
        + len(event.source.encode())
        + len(event.detail_type.encode())
        + len(event.detail)
    )


def _entry(event: DerivedEvent, bus: str) -> dict[str, Any]:
    return {
        "EventBusName": bus,
        "Source": event.source,
        "DetailType": event.detail_type,
        "Detail": event.detail.decode(),
        "Time": _EPOCH + timedelta(milliseconds=min(max(event.time_ms, 0), _TIME_MAX_MS)),
    }


def _results(answer: dict[str, Any]) -> tuple[Result, ...]:
    """One result an entry; none at all for a body that was cut, which parses as {}."""
    return tuple(
        Result(entry.get("ErrorCode"), entry.get("ErrorMessage") or "")
        if entry.get("ErrorCode") or entry.get("EventId")
        else Result("InternalFailure", "neither an event id nor an error code")
        for entry in answer.get("Entries", [])
    )
