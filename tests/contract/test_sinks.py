"""What every sink promises: all that was put arrives, unchanged, in order, or is handed back."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from processor.core.events import Identity, Window, window_event
from processor.model import DerivedEvent
from processor.ports import Refusal, Sink
from processor.sinks.eventbridge import EventBridgeSink
from processor.sinks.memory import AnswerLost, Dropped, Healthy, MemorySink, MemoryTarget, Throttled
from processor.sinks.stdout import StdoutSink
from tests.clocks import VirtualClock
from tests.faults import CutAfter, FailEntries, FaultProxy, Pass, fault_proxy
from tests.support import Recorder, aws_client

ME = Identity(app="shop", incarnation="1", rule="orders", rule_version="v1")


def events(n: int, keys: int = 7) -> list[DerivedEvent]:
    """n windows of a few keys, each key's in order of time."""
    return [
        window_event(
            ME,
            Window(
                start_ms=i // keys * 1_000,
                end_ms=i // keys * 1_000 + 1_000,
                key=(("city", f"Zürich {i % keys}"),),
                values={"orders": i, "mean": i / 3},
                count=i,
            ),
            sink="any",
        )
        for i in range(n)
    ]


class Subject(Protocol):
    """A sink, its far side, and how to make that fail."""

    sink: Sink

    async def arrivals(self) -> list[bytes]:
        """Details that reached the far side, repeats too, in order of arrival."""

    def trouble(self, *, whole: bool = False) -> bool:
        """Let the next requests be throttled, dropped, and applied with a lost answer."""

    def spoil(self, event: DerivedEvent) -> DerivedEvent | None:
        """An event that the far side refuses for good; None: it refuses nothing."""


# ---- the sinks ------------------------------------------------------------------------------


class Memory:
    def __init__(self) -> None:
        self.target = MemoryTarget()
        self.sink = MemorySink(self.target, VirtualClock(), random.Random(1))

    async def arrivals(self) -> list[bytes]:
        return [arrival.body for arrival in self.target.arrivals]

    def trouble(self, *, whole: bool = False) -> bool:
        self.target.script.extend(
            [Dropped(), Throttled(frozenset({0, 3})), AnswerLost(), Healthy(), AnswerLost()]
        )
        return True

    def spoil(self, event: DerivedEvent) -> DerivedEvent | None:
        self.target.refuse[event.id] = "MalformedDetail"
        return event


class Stdout:
    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.sink = StdoutSink("lines", self.out)

    async def arrivals(self) -> list[bytes]:
        lines = self.out.getvalue().splitlines()
        return [line.partition(b'"detail":')[2][:-1] for line in lines]

    def trouble(self, *, whole: bool = False) -> bool:
        return False

    def spoil(self, event: DerivedEvent) -> DerivedEvent | None:
        return None


class EventBridge:
    """Order as the bus was told; that a rule carries it on, tests/sinks shows."""

    def __init__(self, proxy: FaultProxy, client: Any) -> None:
        self.proxy = proxy
        self.sink = EventBridgeSink(
            client, "bus", "shop", clock=VirtualClock(), rng=random.Random(1), observer=Recorder()
        )

    async def arrivals(self) -> list[bytes]:
        entries = [entry for request in self.proxy.passed for entry in request["Entries"]]
        return [e["Detail"].encode() for e in entries if e["Source"] == "processor.shop"]

    def trouble(self, *, whole: bool = False) -> bool:
        parts = [] if whole else [FailEntries({0: "ThrottlingException", 3: "InternalFailure"})]
        self.proxy.script.extend([*parts, CutAfter(), Pass(), CutAfter()])
        return True

    def spoil(self, event: DerivedEvent) -> DerivedEvent | None:
        return replace(event, source="aws.shop")


@pytest.fixture(params=["memory", "stdout", "eventbridge"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    plain: dict[str, Callable[[], Subject]] = {"memory": Memory, "stdout": Stdout}
    if request.param in plain:
        yield plain[request.param]()
        return
    url = request.getfixturevalue("ministack")
    async with fault_proxy(url, ["PutEvents"]) as proxy, aws_client("events", proxy.url) as client:
        await client.create_event_bus(Name="shop")
        yield EventBridge(proxy, client)


# ---- the promises ---------------------------------------------------------------------------


async def test_a_target_that_is_there_passes_the_check(subject):
    await subject.sink.check()


async def test_nothing_put_is_nothing_done(subject):
    assert await subject.sink.put([]) == []
    assert await subject.arrivals() == []


async def test_all_arrive_once_with_their_bytes_where_nothing_fails(subject):
    sent = events(43)
    assert await subject.sink.put(sent) == []
    assert sorted(await subject.arrivals()) == sorted(event.detail for event in sent)


async def test_all_arrive_with_their_bytes_through_throttles_and_lost_answers(subject):
    if not subject.trouble():
        pytest.skip("its far side can't fail")
    sent = events(43)
    assert await subject.sink.put(sent) == []
    arrived = await subject.arrivals()
    assert set(arrived) == {event.detail for event in sent}
    assert len(arrived) > len(sent)  # a lost answer made a repeat, with equal bytes


async def test_of_each_key_first_arrivals_are_in_order_where_requests_fail_whole(subject):
    subject.trouble(whole=True)
    sent = events(43, keys=4)
    await subject.sink.put(sent)
    firsts = [json.loads(detail) for detail in dict.fromkeys(await subject.arrivals())]
    for city in {detail["key"]["city"] for detail in firsts}:
        ends = [d["window"]["end"] for d in firsts if d["key"]["city"] == city]
        assert ends == sorted(ends)


async def test_what_is_refused_for_good_comes_back_by_its_index_and_nothing_else_does(subject):
    sent = events(30)
    for i in (3, 17):
        spoilt = subject.spoil(sent[i])
        if spoilt is None:
            pytest.skip("its far side refuses nothing")
        sent[i] = spoilt
    refusals = await subject.sink.put(sent)
    assert [refusal.index for refusal in refusals] == [3, 17]
    assert all(isinstance(refusal, Refusal) and refusal.code for refusal in refusals)
    assert set(await subject.arrivals()) == {
        event.detail for i, event in enumerate(sent) if i not in (3, 17)
    }


async def test_a_put_that_was_cancelled_is_made_good_by_its_repeat(subject):
    sent = events(43)
    put = asyncio.ensure_future(subject.sink.put(sent))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    put.cancel()
    await asyncio.gather(put, return_exceptions=True)
    assert await subject.sink.put(sent) == []
    assert set(await subject.arrivals()) == {event.detail for event in sent}


async def test_closing_twice_is_once(subject):
    await subject.sink.close()
    await subject.sink.close()
