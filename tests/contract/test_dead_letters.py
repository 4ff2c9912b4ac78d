"""What every home of dead letters promises: whatever happens, each letter arrives."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from processor.core.events import dead_letter_id
from processor.model import DeadLetter
from processor.ports import DeadLetters
from processor.sinks.memory import AnswerLost, Dropped, MemoryDeadLetters, MemoryTarget, Throttled
from processor.sinks.sqs import SqsDeadLetters
from tests.clocks import VirtualClock
from tests.faults import Answer, CutAfter, FailEntries, FaultProxy, fault_proxy
from tests.support import Recorder, aws_client


def letters(n: int) -> list[DeadLetter]:
    return [
        DeadLetter(
            id=dead_letter_id("orders", "shard-1", str(i), 0),
            reason="malformed_json",
            detail="found nothing, expected a value",
            payload=b"\xff\x00" * i,
            shard_id="shard-1",
            sequence_number=str(i),
        )
        for i in range(n)
    ]


class Subject(Protocol):
    """A home of dead letters, what is in it, and how to make it fail."""

    home: DeadLetters

    async def arrivals(self) -> list[tuple[str, bytes]]:
        """(id, payload) of all that arrived, repeats too."""

    def trouble(self) -> None:
        """Let the next requests be refused in part, dropped, and applied with a lost answer."""


class Memory:
    def __init__(self) -> None:
        self.target = MemoryTarget()
        self.home = MemoryDeadLetters(self.target, VirtualClock(), random.Random(1))

    async def arrivals(self) -> list[tuple[str, bytes]]:
        return [(arrival.id, arrival.body) for arrival in self.target.arrivals]

    def trouble(self) -> None:
        self.target.script.extend([Throttled(frozenset({0, 3})), Dropped(), AnswerLost()])


class Sqs:
    def __init__(self, proxy: FaultProxy, client: Any, url: str) -> None:
        self.proxy, self.client, self.url = proxy, client, url
        self.home = SqsDeadLetters(
            client,
            "dead",
            "orders",
            clock=VirtualClock(),
            rng=random.Random(1),
            observer=Recorder(),
        )

    async def arrivals(self) -> list[tuple[str, bytes]]:
        out = []
        while True:
            answer = await self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
            for message in answer.get("Messages", []):
                told = json.loads(message["Body"])
                out.append((told["id"], base64.b64decode(told["payload"])))
            if not answer.get("Messages"):
                return out

    def trouble(self) -> None:
        some = FailEntries({0: "InternalError", 3: "RequestThrottled"})
        self.proxy.script.extend([some, Answer(503, "ServiceUnavailable"), CutAfter()])


@pytest.fixture(params=["memory", "sqs"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        yield Memory()
        return
    upstream = request.getfixturevalue("ministack")
    async with (
        fault_proxy(upstream, ["SendMessageBatch"]) as proxy,
        aws_client("sqs", proxy.url) as client,
    ):
        made = await client.create_queue(QueueName="dead")
        yield Sqs(proxy, client, made["QueueUrl"])


async def test_all_arrive_with_their_payload(subject):
    await subject.home.check()
    sent = letters(43)
    await subject.home.put(sent)
    assert sorted(await subject.arrivals()) == sorted((each.id, each.payload) for each in sent)


async def test_all_arrive_through_every_trouble(subject):
    await subject.home.check()
    subject.trouble()
    sent = letters(43)
    await subject.home.put(sent)
    assert set(await subject.arrivals()) == {(each.id, each.payload) for each in sent}


async def test_nothing_put_is_nothing_done(subject):
    await subject.home.check()
    await subject.home.put([])
    assert await subject.arrivals() == []


async def test_a_put_that_was_cancelled_is_made_good_by_its_repeat(subject):
    await subject.home.check()
    sent = letters(43)
    put = asyncio.ensure_future(subject.home.put(sent))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    put.cancel()
    await asyncio.gather(put, return_exceptions=True)
    await subject.home.put(sent)
    assert set(await subject.arrivals()) == {(each.id, each.payload) for each in sent}


async def test_a_payload_of_many_megabytes_is_no_reason_to_drop_a_letter(subject):
    await subject.home.check()
    (small,) = letters(1)
    large = DeadLetter(id="large", reason="too_large", detail="", payload=b"x" * 10 * 2**20)
    await subject.home.put([small, large])
    assert {id_ for id_, _ in await subject.arrivals()} == {small.id, "large"}


async def test_closing_twice_is_once(subject):
    await subject.home.close()
    await subject.home.close()
