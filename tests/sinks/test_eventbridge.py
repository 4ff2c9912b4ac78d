"""EventBridge: what a bus that fails, hangs, throttles or forbids does to a batch of events."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from processor.core.packing import TOO_LARGE
from processor.errors import Outage, Throttled, Unavailable
from processor.model import DerivedEvent
from processor.sinks.eventbridge import EventBridgeOptions, EventBridgeSink, _results, entry_bytes
from tests.clocks import VirtualClock
from tests.faults import Answer, CutAfter, FailEntries, FaultProxy, Garble, Hang, Pass, fault_proxy
from tests.support import Recorder, aws_client


def event(n: int, group: str = "", **changes: Any) -> DerivedEvent:
    facts: dict[str, Any] = {
        "id": f"id-{n}",
        "sink": "bus",
        "source": "processor.shop",
        "detail_type": "Window Result",
        "time_ms": 1_700_000_000_000 + n,
        "detail": json.dumps({"id": f"id-{n}", "city": "Zürich"}, ensure_ascii=False).encode(),
        "group": group or str(n),
        "arrival_ms": 0,
    }
    return DerivedEvent(**facts | changes)


@pytest.fixture
async def proxy(ministack: str) -> AsyncIterator[FaultProxy]:
    async with aws_client("events", ministack) as client:
        await client.create_event_bus(Name="shop")
    async with fault_proxy(ministack, ["PutEvents", "DescribeEventBus"]) as proxy:
        yield proxy


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
async def sink(proxy: FaultProxy, seen: Recorder) -> AsyncIterator[EventBridgeSink]:
    async with aws_client("events", proxy.url, read_timeout_s=0.5) as client:
        yield make(client, seen)


def make(client: Any, seen: Recorder, bus: str = "shop", **options: Any) -> EventBridgeSink:
    return EventBridgeSink(
        client,
        "orders",
        bus,
        clock=VirtualClock(),
        rng=random.Random(7),
        observer=seen,
        options=EventBridgeOptions(**options),
    )


def arrived(proxy: FaultProxy) -> list[str]:
    """Ids in order of arrival; asserts that an id never comes with other bytes."""
    out: dict[str, str] = {}
    ids = []
    for entry in (entry for request in proxy.passed for entry in request["Entries"]):
        ids.append(json.loads(entry["Detail"])["id"])
        assert out.setdefault(ids[-1], entry["Detail"]) == entry["Detail"]
    return ids


# ---- at start -------------------------------------------------------------------------------


async def test_a_missing_bus_is_named_with_the_command_that_makes_it(proxy, seen):
    async with aws_client("events", proxy.url) as client:
        with pytest.raises(Unavailable) as caught:
            await make(client, seen, bus="nowhere").check()
    assert str(caught.value) == (
        "event bus nowhere: events:DescribeEventBus failed; "
        "it does not exist: aws events create-event-bus --name nowhere"
    )


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Answer(400, "AccessDeniedException"), Unavailable, "allow events:DescribeEventBus"),
        (Answer(403, "ExpiredTokenException"), Unavailable, "ExpiredTokenException"),
        (Answer(400, "ValidationException"), Unavailable, "correct the name"),
        (Answer(400, "ThrottlingException"), Throttled, "shop"),
        (Answer(500, "InternalException"), Outage, "shop"),
        (Hang(), Outage, "Read timeout"),
    ],
)
async def test_at_start_every_error_says_what_to_do(sink, proxy, fault, error, words):
    proxy.script.append(fault)
    with pytest.raises(error, match=words):
        await sink.check()


async def test_a_bus_that_is_there_passes(sink):
    await sink.check()


# ---- outages --------------------------------------------------------------------------------

OUTAGES = [
    (Answer(500, "InternalException"), "InternalException"),
    (Answer(503, "ServiceUnavailable"), "ServiceUnavailable"),
    (Answer(400, "ThrottlingException"), "ThrottlingException"),
    (Answer(400, "AccessDeniedException"), "AccessDeniedException"),
    (Answer(400, "ResourceNotFoundException"), "ResourceNotFoundException"),
    (Answer(403, "ExpiredTokenException"), "ExpiredTokenException"),
    (Answer(400, "SomethingNewException"), "SomethingNewException"),
    (Hang(), "ReadTimeoutError"),
    (CutAfter(), "ConnectionClosedError"),
    (Garble(), "GarbledAnswer"),
]


@pytest.mark.parametrize(("fault", "reason"), OUTAGES, ids=lambda value: str(value)[:40])
async def test_an_outage_is_waited_out_and_nothing_is_lost(sink, proxy, seen, fault, reason):
    proxy.script.extend([fault] * 3)
    events = [event(n) for n in range(25)]
    assert await sink.put(events) == []
    assert set(arrived(proxy)) == {e.id for e in events}
    assert seen.reasons == {reason}
    assert seen.published["orders", "Window Result"] == 25
    assert not seen.failed


async def test_a_bus_that_refuses_connections_is_waited_for(sink, proxy, seen):
    await proxy.close_door()
    seen.when_retried(20, proxy.open_door)
    events = [event(n) for n in range(25)]
    assert await sink.put(events) == []
    assert sorted(arrived(proxy)) == sorted(e.id for e in events)
    assert seen.reasons == {"EndpointConnectionError"}


# ---- entries --------------------------------------------------------------------------------


async def test_entries_that_fail_alone_go_again_alone(sink, proxy, seen):
    proxy.script.append(FailEntries({1: "ThrottlingException", 3: "InternalFailure"}))
    assert await sink.put([event(n) for n in range(5)]) == []
    assert sorted(arrived(proxy)) == [f"id-{n}" for n in range(5)]
    assert seen.requests == 2
    assert seen.reasons == {"ThrottlingException", "InternalFailure"}


def test_an_entry_that_has_neither_an_id_nor_a_code_was_not_taken():
    taken, unsaid = _results({"Entries": [{"EventId": "e"}, {}]})
    assert taken.code is None
    assert unsaid.code == "InternalFailure"


async def test_an_entry_that_lacks_a_permission_waits_for_it(sink, proxy, seen):
    proxy.script.append(FailEntries({0: "AccessDeniedException"}))
    assert await sink.put([event(n) for n in range(3)]) == []
    assert arrived(proxy) == ["id-1", "id-2", "id-0"]
    assert seen.reasons == {"AccessDeniedException"}


async def test_a_group_arrives_in_order_where_requests_fail_whole(sink, proxy):
    events = [event(n, group=f"g{n % 3}") for n in range(50)]
    proxy.script.extend([CutAfter(), Pass(), Answer(500, "InternalException"), CutAfter()])
    assert await sink.put(events) == []
    ids = list(dict.fromkeys(arrived(proxy)))
    for group in ("g0", "g1", "g2"):
        expected = [e.id for e in events if e.group == group]
        assert [i for i in ids if i in expected] == expected


async def test_only_an_entry_that_goes_again_may_come_after_its_successors(sink, proxy):
    proxy.script.append(FailEntries({0: "InternalFailure"}))
    assert await sink.put([event(n, group="one") for n in range(30)]) == []
    late = "id-0"
    assert arrived(proxy) == [*(f"id-{n}" for n in range(1, 10)), late] + [
        f"id-{n}" for n in range(10, 30)
    ]


async def test_what_the_bus_refuses_for_good_comes_back_and_the_rest_goes_on(sink, proxy, seen):
    events = [event(n) for n in range(12)]
    events[4] = event(4, source="aws.shop")  # the stand-in refuses this one by itself
    proxy.script.append(FailEntries({7: "MalformedDetail"}))
    refusals = await sink.put(events)
    assert [r.index for r in refusals] == [4, 7]
    assert refusals[1].code == "MalformedDetail"
    assert seen.published["orders", "Window Result"] == 10
    assert sum(seen.failed.values()) == 2


async def test_a_malformed_request_costs_only_the_entry_that_spoils_it(sink, proxy, seen):
    bad = Answer(400, "ValidationException", "no")
    proxy.script.extend([bad, bad])  # the request, then the first entry alone
    refusals = await sink.put([event(n) for n in range(4)])
    assert [r.code for r in refusals] == ["ValidationException"]
    assert len(arrived(proxy)) == 3
    assert seen.failed["orders", "ValidationException"] == 1


async def test_an_event_over_the_limit_is_refused_without_a_request(proxy, seen):
    large = event(1, detail=b'{"x":"' + b"x" * 1_000 + b'"}')
    async with aws_client("events", proxy.url) as client:
        sink = make(client, seen, request_bytes_max=1_000)
        refusals = await sink.put([event(0), large, event(2)])
    assert [(r.index, r.code) for r in refusals] == [(1, TOO_LARGE)]
    assert arrived(proxy) == ["id-0", "id-2"]


async def test_requests_stay_below_the_limit_of_bytes(proxy, seen):
    events = [event(n) for n in range(8)]
    async with aws_client("events", proxy.url) as client:
        sink = make(client, seen, request_bytes_max=3 * entry_bytes(events[0]))
        assert await sink.put(events) == []
    assert sorted(len(request["Entries"]) for request in proxy.passed) == [2, 3, 3]


def test_a_request_is_by_default_one_byte_below_what_the_service_refuses():
    assert EventBridgeOptions().request_bytes_max == 1_000_000 - 1


def test_an_entry_is_measured_as_the_service_measures_it():
    text = '{"city":"Zürich"}'
    it = event(0, source="processor.ü", detail_type="Té", detail=text.encode())
    assert entry_bytes(it) == 14 + len("processor.ü".encode()) + 3 + len(text) + 1


@pytest.mark.parametrize("time_ms", [-(2**62), 0, 2**62])
async def test_a_time_that_no_calendar_holds_hinders_no_event(sink, proxy, time_ms):
    assert await sink.put([event(0, time_ms=time_ms)]) == []
    assert arrived(proxy) == ["id-0"]


async def test_the_repr_names_the_bus(sink):
    assert repr(sink) == "<EventBridgeSink orders bus=shop>"


# ---- beyond the bus -------------------------------------------------------------------------


async def test_a_rule_carries_events_with_their_detail_to_a_queue(sink, proxy):
    """The whole way that a consumer sees: PutEvents, an event pattern, a queue."""
    async with aws_client("events", proxy.url) as events, aws_client("sqs", proxy.url) as queues:
        url = (await queues.create_queue(QueueName="results"))["QueueUrl"]
        pattern = json.dumps({"source": ["processor.shop"], "detail": {"city": ["Zürich"]}})
        await events.put_rule(Name="all", EventBusName="shop", EventPattern=pattern)
        arn = "arn:aws:sqs:us-east-1:000000000000:results"
        target = {"Id": "queue", "Arn": arn}
        await events.put_targets(Rule="all", EventBusName="shop", Targets=[target])
        await sink.put([event(n) for n in range(12)])
        got = [await one(queues, url) for _ in range(12)]
    assert sorted(envelope["detail"]["id"] for envelope in got) == sorted(
        f"id-{n}" for n in range(12)
    )
    assert {(e["source"], e["detail-type"]) for e in got} == {("processor.shop", "Window Result")}


async def test_an_events_time_is_its_windows_end(sink, proxy):
    await sink.put([event(0)])
    (request,) = proxy.passed
    assert request["Entries"][0]["Time"] == 1_700_000_000  # stand-ins ignore it


async def one(queues: Any, url: str) -> Any:
    """The envelope of one message, taken off the queue."""
    answer = await queues.receive_message(QueueUrl=url, WaitTimeSeconds=9)
    (message,) = answer["Messages"]
    await queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return json.loads(message["Body"])
