"""The dead-letter queue: what a letter looks like, what fits, and that nothing is ever dropped."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from processor.errors import Outage, Unavailable
from processor.model import DeadLetter
from processor.sinks.sqs import BATCH_BYTES_MAX, FIXED_BYTES_MAX, SqsDeadLetters, body
from tests.clocks import VirtualClock
from tests.faults import Answer, CutAfter, FailEntries, FaultProxy, Garble, Hang, fault_proxy
from tests.support import Recorder, aws_client


def letter(n: int, **changes: Any) -> DeadLetter:
    facts: dict[str, Any] = {
        "id": f"id-{n}",
        "reason": "malformed_json",
        "detail": "byte 3: found '}', expected a value",
        "payload": b'{"x\xff',
        "shard_id": "shardId-000000000001",
        "sequence_number": "49590338271490256608559692538361571095921575989136588898",
        "partition_key": "Zürich 🚲",
        "arrival_ms": 1_700_000_000_000,
        "attempts": 2,
    }
    return DeadLetter(**facts | changes)


@pytest.fixture
async def proxy(ministack: str) -> AsyncIterator[FaultProxy]:
    async with aws_client("sqs", ministack) as client:
        await client.create_queue(QueueName="dead")
    operations = ["SendMessageBatch", "GetQueueUrl", "GetQueueAttributes"]
    async with fault_proxy(ministack, operations) as proxy:
        yield proxy


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Any]:
    async with aws_client("sqs", proxy.url, read_timeout_s=0.5) as client:
        yield client


@pytest.fixture
async def letters(client: Any, seen: Recorder) -> SqsDeadLetters:
    made = make(client, seen)
    await made.check()
    return made


def make(client: Any, seen: Recorder, queue: str = "dead") -> SqsDeadLetters:
    return SqsDeadLetters(
        client, queue, "orders", clock=VirtualClock(), rng=random.Random(7), observer=seen
    )


async def received(client: Any) -> list[Any]:
    """All messages of the queue; a stand-in shows them at once."""
    url = (await client.get_queue_url(QueueName="dead"))["QueueUrl"]
    out: list[Any] = []
    while True:
        answer = await client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        if not answer.get("Messages"):
            return out
        for message in answer["Messages"]:
            out.append(message)
            await client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def facts(messages: list[Any]) -> list[Any]:
    return [json.loads(message["Body"]) for message in messages]


# ---- a letter -------------------------------------------------------------------------------


async def test_a_letter_says_what_where_and_why_and_carries_the_payload(letters, client):
    await letters.put([letter(1)])
    (message,) = await received(client)
    assert message["MessageAttributes"]["reason"]["StringValue"] == "malformed_json"
    assert message["Body"].isascii()
    assert facts([message]) == [
        {
            "id": "id-1",
            "reason": "malformed_json",
            "detail": "byte 3: found '}', expected a value",
            "stream": "orders",
            "shard_id": "shardId-000000000001",
            "sequence_number": "49590338271490256608559692538361571095921575989136588898",
            "partition_key": "Zürich 🚲",
            "arrival_ms": 1_700_000_000_000,
            "attempts": 2,
            "payload_bytes": 4,
            "truncated": False,
            "payload": base64.b64encode(b'{"x\xff').decode(),
        }
    ]


@pytest.mark.parametrize("size", [0, 1, 191_000, 300_000, 10 * 2**20])
async def test_a_payload_of_any_size_is_taken_and_says_if_it_was_cut(letters, client, size):
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await letters.put([letter(1, payload=payload)])
    ((told),) = facts(await received(client))
    kept = base64.b64decode(told["payload"])
    assert told["payload_bytes"] == size
    assert payload.startswith(kept)
    assert told["truncated"] == (len(kept) < size) == (size > 191_000)
    if told["truncated"]:
        assert len(kept) > 190_000  # as much as fits is kept


@pytest.mark.parametrize("size", range(3_000, 3_012))
def test_a_body_fills_its_limit_and_never_passes_it(size):
    text = body(letter(1, payload=b"x" * 5_000), "orders", size)
    assert size - 4 <= len(text) <= size


def test_the_longest_names_leave_room_in_the_smallest_queue():
    worst = letter(1, detail="🚲" * 10_000, partition_key="🚲" * 256)
    assert len(body(worst, "s" * 128, FIXED_BYTES_MAX - 1_000)) < FIXED_BYTES_MAX


def test_characters_that_sqs_forbids_are_escaped():
    text = body(letter(1, detail="\x00\x1f\ud800\uffff"), "orders", FIXED_BYTES_MAX)
    assert all(0x20 <= ord(character) < 0x7F for character in text)
    assert json.loads(text)["detail"] == "\x00\x1f\ud800\uffff"


# ---- batches --------------------------------------------------------------------------------


async def test_requests_hold_ten_letters_and_stay_below_the_limit(letters, client, proxy):
    large = [letter(n, payload=b"x" * 60_000) for n in range(8)]
    small = [letter(n) for n in range(100, 250)]
    await letters.put(large + small)
    assert {told["id"] for told in facts(await received(client))} == {
        each.id for each in large + small
    }
    for request in (request for request in proxy.passed if "Entries" in request):
        assert len(request["Entries"]) <= 10
        assert sum(len(e["MessageBody"]) for e in request["Entries"]) < BATCH_BYTES_MAX


async def test_nothing_to_send_is_no_request(letters, seen):
    await letters.put([])
    assert seen.requests == 0


# ---- failures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(500, "InternalError"), "InternalError"),
        (Answer(400, "AWS.SimpleQueueService.NonExistentQueue"), "NonExistentQueue"),
        (Answer(400, "KmsAccessDenied"), "KmsAccessDenied"),
        (Answer(400, "BatchRequestTooLong"), "BatchRequestTooLong"),
        (Answer(400, "InvalidMessageContents"), "InvalidMessageContents"),
        (Hang(), "ReadTimeoutError"),
        (CutAfter(), "ConnectionClosedError"),
        (Garble(), "GarbledAnswer"),
        (FailEntries({0: "InternalError", 4: "InternalError"}), "InternalError"),
        (FailEntries({0: "InvalidMessageContents"}), "InvalidMessageContents"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_whatever_the_queue_says_no_letter_is_dropped(
    letters, client, proxy, seen, fault, reason
):
    proxy.script.extend([fault] * 3)
    await letters.put([letter(n) for n in range(15)])
    proxy.script.clear()
    assert {told["id"] for told in facts(await received(client))} == {f"id-{n}" for n in range(15)}
    assert seen.reasons == {reason}
    assert seen.published["dead_letters", "malformed_json"] == 15


async def test_a_queue_that_refuses_connections_is_waited_for(letters, client, proxy, seen):
    await proxy.close_door()
    seen.when_retried(10, proxy.open_door)
    await letters.put([letter(n) for n in range(15)])
    assert len(facts(await received(client))) == 15


# ---- at start -------------------------------------------------------------------------------


async def test_a_missing_queue_is_named_with_the_command_that_makes_it(client, seen):
    with pytest.raises(Unavailable) as caught:
        await make(client, seen, "nowhere").check()
    assert str(caught.value) == (
        "queue nowhere: sqs:GetQueueUrl failed; "
        "it does not exist: aws sqs create-queue --queue-name nowhere"
    )


async def test_a_queue_is_found_by_name_by_url_and_by_arn(client, seen):
    url = (await client.get_queue_url(QueueName="dead"))["QueueUrl"]
    for queue in ("dead", url, "arn:aws:sqs:us-east-1:000000000000:dead"):
        found = make(client, seen, queue)
        await found.check()
        await found.put([letter(1)])
    assert len(await received(client)) == 3


async def test_a_queue_that_can_not_hold_a_letter_is_refused_at_start(client, seen):
    attributes = {"MaximumMessageSize": "1024"}
    await client.create_queue(QueueName="tiny", Attributes=attributes)
    with pytest.raises(Unavailable, match="MaximumMessageSize is 1024: set it to 32768"):
        await make(client, seen, "tiny").check()


async def test_a_fifo_queue_is_refused_at_start(client, seen):
    await client.create_queue(QueueName="dead.fifo", Attributes={"FifoQueue": "true"})
    with pytest.raises(Unavailable, match="FIFO"):
        await make(client, seen, "dead.fifo").check()


async def test_a_smaller_queue_gets_smaller_letters(client, seen):
    attributes = {"MaximumMessageSize": "40000"}
    await client.create_queue(QueueName="small", Attributes=attributes)
    small = make(client, seen, "small")
    await small.check()
    assert repr(small) == "<SqsDeadLetters queue=small message≤40000 bytes>"
    await small.put([letter(1, payload=b"x" * 100_000)])
    assert seen.published["dead_letters", "malformed_json"] == 1


async def test_a_queue_that_does_not_answer_at_start_is_an_outage(client, proxy, seen):
    await proxy.close_door()
    with pytest.raises(Outage, match="sqs GetQueueUrl: queue dead"):
        await make(client, seen).check()
