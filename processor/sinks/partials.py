"""What shards tell global rules, to the merge stream: each record to the place of its bucket.

Records of one bucket go in order, each once the one before it was taken, so that what reads them
seldom has a gap to hold. Nothing is ever refused for good and nothing becomes a dead letter: a
stream that throttles, is out or was deleted is waited for, and its shards wait with it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from processor.core.merge.partials import enveloped
from processor.core.packing import Limits, Packing, Request, Result
from processor.errors import IteratorExpired, Outage, Unavailable
from processor.model import Partial
from processor.ports import Clock, PartialObserver
from processor.sinks.delivery import Answered, Failed, Outcome, deliver
from processor.sources.wire import RequestFailed, Wire

RECORDS_MAX = 500  # PutRecords' own limit
# The largest record that a stream takes unless it is set up for more, key and all; and what one of
# its shards takes in a second: of larger requests a part would only come back as throttled.
REQUEST_BYTES_MAX = 1_000_000
# All that PutRecords says of a single record may pass by itself; what it never would take, such as
# a record too large, it says of the request, and that we never make.
AGAIN = "InternalFailure"
# A shard takes 1,000 records and 1 MB a second; two requests under way keep one busy at 20 ms.
LIMITS = Limits(RECORDS_MAX, REQUEST_BYTES_MAX, frozenset({AGAIN}), flying_max=2)


class Entry(Struct, frozen=True, rename="pascal"):
    """One record of a request, as the service has it."""

    data: bytes
    partition_key: str
    explicit_hash_key: str


PutRecords = Callable[[Sequence[Entry]], Awaitable[Outcome]]


class StreamPartials:
    """A `ports.PartialSink` on anything that takes records: one request a call of `put_records`."""

    def __init__(
        self, put_records: PutRecords, clock: Clock, rng: random.Random, observer: PartialObserver
    ) -> None:
        self._put_records, self._clock, self._rng = put_records, clock, rng
        self._observer = observer

    def __repr__(self) -> str:
        return f"<StreamPartials by {self._put_records!r}>"

    async def put(self, partials: Sequence[Partial], generation: int) -> None:
        """See `ports.PartialSink`; cancelling is safe."""
        entries = [_entry(partial, generation) for partial in partials]
        sizes = [len(entry.data) + len(entry.partition_key.encode()) for entry in entries]
        packing = Packing(LIMITS, sizes, [entry.explicit_hash_key for entry in entries])

        async def send(request: Request) -> Outcome:
            return await self._send([entries[i] for i in request.indices])

        await deliver(packing, send, self._clock, self._rng)
        assert not packing.refusals, f"partials are split below that: {packing.refusals}"

    async def _send(self, entries: Sequence[Entry]) -> Outcome:
        sent_at = self._clock.monotonic()
        outcome = await self._put_records(entries)
        self._observer.on_request(self._clock.monotonic() - sent_at)
        if isinstance(outcome, Answered) and len(outcome.results) == len(entries):
            taken = [i for i, result in enumerate(outcome.results) if result.code is None]
            self._observer.on_taken(len(taken), sum(len(entries[i].data) for i in taken))
            for reason, n in Counter(r.message for r in outcome.results if r.code).items():
                self._observer.on_retry(reason, n)
        else:
            reason = outcome.reason if isinstance(outcome, Failed) else "GarbledAnswer"
            self._observer.on_retry(reason, len(entries))
        return outcome


def _entry(partial: Partial, generation: int) -> Entry:
    return Entry(enveloped(partial.body, generation), partial.shard_id, str(partial.hash_key))


# ---- the service ----------------------------------------------------------------------------


class _Placed(Struct, rename="pascal"):
    error_code: str | None = None
    sequence_number: str | None = None


class _Answer(Struct, rename="pascal"):
    records: list[_Placed] = []


_answers = msgspec.json.Decoder(_Answer)


class KinesisRecords:
    """PutRecords on a stream, by name or ARN: single attempts, whose failures are outcomes."""

    def __init__(self, wire: Wire, stream: str) -> None:
        self._wire = wire
        key = "StreamARN" if stream.startswith("arn:") else "StreamName"
        self._stream: dict[str, Any] = {key: stream}

    def __repr__(self) -> str:
        return f"<KinesisRecords {self._wire!r}>"

    async def __call__(self, entries: Sequence[Entry]) -> Outcome:
        body = msgspec.json.encode({**self._stream, "Records": entries})
        try:
            answer = await self._wire.call("PutRecords", body)
            return Answered(tuple(map(_result, _answers.decode(answer.body).records)))
        except RequestFailed as error:
            return Failed(error.kind)
        except (Outage, Unavailable, IteratorExpired) as error:
            return Failed(type(error).__name__)
        except msgspec.MsgspecError:
            return Failed("garbled")


def _result(placed: _Placed) -> Result:
    """The code says that it goes again, the message why."""
    if placed.error_code is None and placed.sequence_number is not None:
        return Result()
    return Result(AGAIN, placed.error_code or "neither a sequence number nor an error code")
