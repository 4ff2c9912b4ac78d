"""A pipeline over a recording: what it tells, of rules of a shard and of global ones."""

import json
from collections.abc import Iterable

import orjson
import pytest

from processor import config, history
from processor.history import Recorded
from processor.model import Pipeline

MINUTE_MS = 60_000
BEGIN_MS = 1_772_452_800_000  # 2026-03-02T12:00:00Z

FILE = """
app: shop
source: {stream: orders}
event: {id: id, time: at, partition_key: store}
merge: {stream: shop-merge, buckets: 2}
sinks: {alerts: {eventbridge: shop-events}}
rules:
  by-store:
    group_by: [store]
    window: {tumbling: 1m}
    aggregates: {orders: count}
    detect: [{threshold: orders, above: 5}]
    emit: {windows: alerts}
  by-country:
    group_by: [country]
    window: {tumbling: 1m}
    aggregates: {orders: count}
    detect: [{threshold: orders, above: 5}]
    emit: {anomalies: alerts}
state: {table: leases}
dead_letters: {sqs: dead}
"""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return config.loads(FILE, {}).pipeline


def records(counts: Iterable[int]) -> list[Recorded]:
    """So many orders of one store in each minute."""
    made = []
    for minute, count in enumerate(counts):
        for n in range(count):
            at = BEGIN_MS + minute * MINUTE_MS + n
            event = {"id": f"{minute}-{n}", "at": at, "store": "s-1", "country": "de"}
            made.append(Recorded(json.dumps(event).encode(), "s-1", at))
    return made


def told(pipeline: Pipeline, recorded: Iterable[Recorded]) -> list[tuple[str, str, int]]:
    """Rule, state and minute of each alarm."""
    details = [orjson.loads(event.detail) for event in history.run(pipeline, recorded)]
    return [
        (
            detail["rule"],
            detail["anomaly"]["state"],
            (detail["window"]["start"] - BEGIN_MS) // MINUTE_MS,
        )
        for detail in details
    ]


def test_both_stages_tell_their_alarms_also_of_rules_that_send_them_nowhere(
    pipeline: Pipeline,
) -> None:
    alarms = told(pipeline, records([1, 9, 1, 1, 1, 1, 1]))
    opened = [each for each in alarms if each[1] == "opened"]
    assert sorted(opened) == [("by-country", "opened", 1), ("by-store", "opened", 1)]
    assert {each[1] for each in alarms} == {"opened", "resolved"}


def test_windows_that_have_ended_by_the_last_record_are_told(pipeline: Pipeline) -> None:
    burst_last = records([1, 9, 1])[:-1]
    later = records([1, 9, 1])[-1:]
    assert told(pipeline, burst_last) == []
    assert len(told(pipeline, burst_last + later)) == 2


def test_windows_are_told_where_they_are_wanted(pipeline: Pipeline) -> None:
    recorded = records([1, 1, 1])
    assert list(history.run(pipeline, recorded)) == []
    assert [event.detail_type for event in history.run(pipeline, recorded, windows=True)] == [
        "Window Result",
        "Window Result",
    ]


def test_records_are_asked_for_as_they_are_needed(pipeline: Pipeline) -> None:
    taken = 0

    def endless() -> Iterable[Recorded]:
        nonlocal taken
        while True:
            for record in records([1, 9, 1, 1]):
                taken += 1
                yield record

    next(iter(history.run(pipeline, endless())))
    assert taken <= 2_000
