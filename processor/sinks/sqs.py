"""The dead-letter queue: bad records and refused events, as messages of an SQS queue.

A dead letter has nowhere else to go, so nothing is ever given up here: what the queue refuses is
sent again until somebody mends the queue, and the retry's reason says what is wrong. To leave the
queue no cause, bodies are ASCII JSON and cut to its size limit beforehand.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from processor import aws_errors
from processor.core.packing import Limits, Packing, Request, Result
from processor.errors import Unavailable
from processor.model import DeadLetter
from processor.ports import Clock, SinkObserver
from processor.sinks import aws
from processor.sinks.delivery import Answered, Failed, Outcome, deliver

SINK = "dead_letters"  # its name in metrics
ENTRIES_MAX = 10  # SendMessageBatch: 1 to 10 entries
BATCH_BYTES_MAX = 262_144  # a request's sum; 1 MiB today, 256 KiB in older regions and stand-ins
FLYING_MAX = 4
REQUESTS_MAX = 16  # of all shards of a process: dead letters must not crowd out the stream
ENCODED_MAX = 100  # bodies held at once: 100 × 256 KiB = 26 MB, even if a whole page is bad
REFUSED = "Refused"  # our code for any entry's failure: all of them are sent again

# The part of a body that is not payload: names and numbers, 2,000 characters of detail and a
# partition key of 256, each at most 12 bytes as escaped surrogates, make 28 KB at the very worst.
FIXED_BYTES_MAX = 32_768
DETAIL_CHARS_MAX = 2_000
ATTRIBUTE_BYTES = len("reason" + "String")  # the size limit counts an attribute's name and type


class SqsDeadLetters:
    """A standard queue, by name, ARN or URL.

    `client` is an aiobotocore `sqs` client without retries of its own, closed by who made it.
    """

    def __init__(
        self,
        client: Any,
        queue: str,
        stream: str,
        *,
        clock: Clock,
        rng: random.Random,
        observer: SinkObserver,
    ):
        self.queue, self.stream = queue, stream
        self._client, self._clock, self._rng, self._observer = client, clock, rng, observer
        self._url = ""  # known after `check`
        self._bytes_max = BATCH_BYTES_MAX
        self._slots = asyncio.Semaphore(REQUESTS_MAX)

    def __repr__(self) -> str:
        return f"<SqsDeadLetters queue={self.queue} message≤{self._bytes_max} bytes>"

    async def check(self) -> None:
        """Find the queue and what it takes; before the first `put`."""
        action = "sqs:GetQueueUrl"
        try:
            url = await self._find()
            action = "sqs:GetQueueAttributes"
            answer = await self._client.get_queue_attributes(
                QueueUrl=url, AttributeNames=["MaximumMessageSize"]
            )
        except aws_errors.FOREIGN as error:
            create = f"aws sqs create-queue --queue-name {_name(self.queue)}"
            raise aws.at_start(error, f"queue {self.queue}", action, create) from error
        size = int(answer.get("Attributes", {}).get("MaximumMessageSize", BATCH_BYTES_MAX))
        self._refuse_unfit(url, size)
        self._url, self._bytes_max = url, min(size, BATCH_BYTES_MAX)

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """See `ports.DeadLetters`; cancelling is safe."""
        assert self._url, "check() comes before put()"
        for first in range(0, len(letters), ENCODED_MAX):
            await self._put(letters[first : first + ENCODED_MAX])

    async def _put(self, letters: Sequence[DeadLetter]) -> None:
        bodies = [body(letter, self.stream, self._room(letter)) for letter in letters]
        sizes = [len(bodies[i]) + _attribute_bytes(letters[i]) for i in range(len(letters))]
        limits = Limits(ENTRIES_MAX, self._bytes_max, frozenset({REFUSED}), FLYING_MAX)
        packing = Packing(limits, sizes, [str(i) for i in range(len(letters))])  # no order to keep

        async def send(request: Request) -> Outcome:
            return await self._send([(letters[i], bodies[i]) for i in request.indices])

        await deliver(packing, send, self._clock, self._rng)
        assert not packing.refusals, f"a dead letter was dropped: {packing.refusals}"

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _find(self) -> str:
        if self.queue.startswith(("https://", "http://")):
            return self.queue
        owner = {}
        if self.queue.startswith("arn:"):
            owner = {"QueueOwnerAWSAccountId": self.queue.split(":")[4]}
        answer = await self._client.get_queue_url(QueueName=_name(self.queue), **owner)
        return str(answer["QueueUrl"])

    def _refuse_unfit(self, url: str, size: int) -> None:
        what = f"queue {self.queue}"
        if url.endswith(".fifo"):
            raise Unavailable(
                what, "sqs:SendMessageBatch", "it is a FIFO queue: use a standard one"
            )
        if size < FIXED_BYTES_MAX:
            raise Unavailable(
                what,
                "sqs:SendMessageBatch",
                f"its MaximumMessageSize is {size}: set it to {FIXED_BYTES_MAX} bytes at least",
            )

    def _room(self, letter: DeadLetter) -> int:
        return self._bytes_max - _attribute_bytes(letter)

    async def _send(self, messages: Sequence[tuple[DeadLetter, str]]) -> Outcome:
        entries = [
            {
                "Id": str(i),
                "MessageBody": text,
                "MessageAttributes": {
                    "reason": {"DataType": "String", "StringValue": _reason(letter)}
                },
            }
            for i, (letter, text) in enumerate(messages)
        ]
        async with self._slots:
            sent_at = self._clock.monotonic()
            try:
                answer = await self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
            except aws_errors.FOREIGN as error:
                return self._failed(error, len(messages))
            finally:
                self._observer.on_request(SINK, self._clock.monotonic() - sent_at)
        return self._answered([letter for letter, _ in messages], answer)

    def _failed(self, error: Exception, n: int) -> Outcome:
        self._observer.on_retry(SINK, aws_errors.code_of(error), n)
        outcome = aws.outcome(error)
        # A request of several may go one by one; a single message stays until it is taken.
        return outcome if n > 1 else Failed(aws_errors.code_of(error))

    def _answered(self, letters: Sequence[DeadLetter], answer: dict[str, Any]) -> Outcome:
        """Results by their Id; a message that is in neither list was not taken."""
        taken = {int(entry["Id"]) for entry in answer.get("Successful", [])}
        codes = {int(entry["Id"]): str(entry["Code"]) for entry in answer.get("Failed", [])}
        for reason, n in Counter(_reason(letters[i]) for i in taken).items():
            self._observer.on_published(SINK, reason, n)
        lost = [codes.get(i, "GarbledAnswer") for i in range(len(letters)) if i not in taken]
        for code, n in Counter(lost).items():
            self._observer.on_retry(SINK, code, n)
        return Answered(
            tuple(Result() if i in taken else Result(REFUSED) for i in range(len(letters)))
        )


def body(letter: DeadLetter, stream: str, bytes_max: int) -> str:
    """A message's body: ASCII JSON of at most `bytes_max` bytes.

    A payload that doesn't fit is cut; its place in the stream stays, to read it again from there.
    """
    facts: dict[str, Any] = {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail[:DETAIL_CHARS_MAX],
        "stream": stream,
        "shard_id": letter.shard_id,
        "sequence_number": letter.sequence_number,
        "partition_key": letter.partition_key,
        "arrival_ms": letter.arrival_ms,
        "attempts": letter.attempts,
        "payload_bytes": len(letter.payload),
        "truncated": False,
        "payload": "",
    }
    room = bytes_max - len(json.dumps(facts))
    assert room >= 0, f"the facts of dead letter {letter.id} alone pass {bytes_max} bytes"
    fits = room // 4 * 3  # base64: 4 characters for 3 bytes, so any multiple of 3 has no padding
    facts["truncated"] = len(letter.payload) > fits
    facts["payload"] = base64.b64encode(letter.payload[:fits]).decode()
    return json.dumps(facts)


def _reason(letter: DeadLetter) -> str:
    return letter.reason or "unknown"  # an attribute may not be empty


def _attribute_bytes(letter: DeadLetter) -> int:
    return ATTRIBUTE_BYTES + len(_reason(letter).encode())


def _name(queue: str) -> str:
    """The queue's own name in a name, an ARN or a URL."""
    return queue.replace("/", ":").rpartition(":")[2]
