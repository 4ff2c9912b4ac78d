"""Derived events: the same facts give the same id and bytes, other facts another id."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from processor.core import events
from processor.core.alarms.alarm import Alarm
from processor.core.events import Identity, Window
from processor.model import (
    DetectSpec,
)

ME = Identity(app="shop", incarnation="1700000000000.0", rule="orders", rule_version="v1")
WINDOW = Window(
    start_ms=1_700_000_040_000,
    end_ms=1_700_000_100_000,
    key=(("region", "eu"), ("lane", 7)),
    values={"orders": 3, "revenue": 12.5},
    count=3,
    correlation_ids=("c-1", "c-2"),
    arrival_ms=1_700_000_101_000,
)
ALARM = Alarm(
    row=0,
    detect=DetectSpec(name="surge", kind="zscore", aggregate="orders"),
    state="opened",
    value=3.0,
    expected=1.0,
    lower=0.5,
    upper=1.5,
    score=8.25,
    threshold=4.0,
    direction="above",
    severity="warning",
    opened_ms=1_700_000_100_000,
    sentence="orders was 3, expected 1",
    difference=2.0,
    difference_percent=200.0,
    confidence=0.9,
    expected_every=12_000.0,
    part="run",
    nearest=1.25,
    nearest_ms=1_699_900_000_000,
    bin="08:00–09:00",
)


def detail(event: Any) -> Any:
    return json.loads(event.detail)


# ---- the bytes ------------------------------------------------------------------------------


def test_a_window_result_reads_as_documented_to_the_byte():
    event = events.window_event(ME, WINDOW, sink="bus")
    assert event.detail.decode() == (
        f'{{"id":"{event.id}","schema_version":1,"kind":"window","app":"shop","rule":"orders",'
        '"rule_version":"v1","key":{"region":"eu","lane":7},'
        '"window":{"start":1700000040000,"end":1700000100000},"pane":"on_time","is_final":true,'
        '"count":3,"values":{"orders":3,"revenue":12.5},"correlation_ids":["c-1","c-2"]}'
    )
    assert (event.source, event.detail_type) == ("processor.shop", "Window Result")
    assert (event.sink, event.time_ms, event.arrival_ms) == (
        "bus",
        WINDOW.end_ms,
        WINDOW.arrival_ms,
    )


def test_an_anomaly_says_what_was_seen_and_what_was_expected():
    event = events.anomaly_event(ME, WINDOW, ALARM, sink="bus")
    assert event.detail_type == "Anomaly Opened"
    assert detail(event)["kind"] == "anomaly"
    assert detail(event)["anomaly"] == {
        "detector": "surge",
        "kind": "zscore",
        "aggregate": "orders",
        "state": "opened",
        "value": 3.0,
        "expected": 1.0,
        "lower": 0.5,
        "upper": 1.5,
        "difference": 2.0,
        "difference_percent": 200.0,
        "direction": "above",
        "score": 8.25,
        "threshold": 4.0,
        "raised_bar": None,
        "severity": "warning",
        "confidence": 0.9,
        "expected_every": 12_000.0,
        "part": "run",
        "nearest": 1.25,
        "nearest_seen_at": 1_699_900_000_000,
        "bin": "08:00–09:00",
        "opened_at": 1_700_000_100_000,
        "sentence": "orders was 3, expected 1",
    }


def test_what_json_can_not_say_becomes_null_and_numpy_figures_read_as_their_own():
    values = {
        "mean": math.nan,
        "max": math.inf,
        "none": None,
        "n": np.int64(2**62),
        "x": np.float64(0.1),
    }
    event = events.window_event(ME, replace(WINDOW, values=values), sink="bus")
    assert event.detail.find(b'{"mean":null,"max":null,"none":null,"n":4611686018427387904,') > 0
    assert detail(event)["values"]["x"] == 0.1


def test_an_event_and_all_its_anomalies_keep_one_order():
    window = events.window_event(ME, WINDOW, sink="bus")
    anomaly = events.anomaly_event(ME, WINDOW, ALARM, sink="bus")
    assert window.group == anomaly.group == 'orders["eu",7]'
    assert events.group("orders", (), "shard-1") == "orders[]@shard-1"


# ---- the id ---------------------------------------------------------------------------------


def test_an_id_is_the_first_40_characters_of_a_lower_case_base32_sha256():
    # sha256 of "1:a2:bc"
    assert events.event_id(("a", "bc")) == "kmiklb4ipanlexk227b7qubvqjfu5n557i4u4cwc"


def test_every_fact_of_an_event_is_in_its_id():
    other: list[tuple[Identity, Window]] = [(ME, WINDOW)]
    other += [(replace(ME, **{name: "other"}), WINDOW) for name in ME.__struct_fields__]
    other += [
        (ME, replace(WINDOW, **change))
        for change in (
            {"start_ms": 0},
            {"end_ms": 0},
            {"part": "shard-1"},
            {"key": ()},
            {"key": (("region", "eu"),)},
            {"key": (("region", "eu"), ("lane", "7"))},  # "7" is not 7
            {"key": (("region", "eu"), ("line", 7))},
            {"key": (("lane", 7), ("region", "eu"))},
        )
    ]
    ids = {events.window_event(me, window, sink="bus").id for me, window in other}
    ids |= {
        events.anomaly_event(ME, WINDOW, replace(ALARM, **change), sink="b").id
        for change in (
            {},
            {"state": "resolved"},
            {"detect": DetectSpec(name="dip", kind="zscore", aggregate="orders")},
            {"detect": DetectSpec(name="surge", kind="zscore", aggregate="revenue")},
        )
    }
    assert len(ids) == len(other) + 4


def test_what_differs_between_a_run_and_its_repeat_is_not_in_the_id():
    first = events.window_event(ME, WINDOW, sink="bus")
    again = events.window_event(ME, replace(WINDOW, arrival_ms=5), sink="other")
    assert (first.id, first.detail) == (again.id, again.detail)


def test_no_figure_of_an_anomaly_is_in_its_id():
    first = events.anomaly_event(ME, WINDOW, ALARM, sink="bus")
    for name in ("value", "expected", "lower", "upper", "score", "threshold"):
        other = replace(ALARM, **{name: 8.250000000000002})
        assert events.anomaly_event(ME, WINDOW, other, sink="bus").id == first.id, name
    other = replace(WINDOW, values={"orders": 3, "revenue": 12.500000000000002})
    assert events.anomaly_event(ME, other, ALARM, sink="bus").id == first.id


@pytest.mark.parametrize(
    ("left", "right"),
    list(
        itertools.combinations([("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("1:a", "bc")], 2)
    ),
)
def test_fields_can_not_flow_into_each_other(left, right):
    assert events.event_id(left) != events.event_id(right)


def test_a_dead_letters_id_is_its_place():
    ids = {
        events.dead_letter_id(*place)
        for place in (
            ("s", "shard-1", "49", 0),
            ("s", "shard-1", "49", 1),
            ("s", "shard-1", "50", 0),
            ("s", "shard-2", "49", 0),
            ("t", "shard-1", "49", 0),
        )
    }
    assert len(ids) == 5


# ---- trace ----------------------------------------------------------------------------------

SAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_event_carries_on_the_samples_trace_with_a_span_that_repeats():
    event = events.window_event(ME, replace(WINDOW, traceparent=SAMPLE), sink="bus")
    version, trace, span, flags = detail(event)["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "01")
    assert span not in ("b7ad6b7169203331", "0" * 16)
    repeat = events.window_event(ME, replace(WINDOW, traceparent=SAMPLE), sink="bus")
    assert repeat.detail == event.detail


@pytest.mark.parametrize("sample", [None, "", "nonsense", SAMPLE.upper(), SAMPLE + "-x"])
def test_what_is_no_trace_is_left_out(sample):
    event = events.window_event(ME, replace(WINDOW, traceparent=sample), sink="bus")
    assert "traceparent" not in detail(event)


def test_each_change_of_an_alarm_in_a_window_is_an_event_of_its_own():
    told = [
        events.anomaly_event(ME, WINDOW, replace(ALARM, state=state), sink="bus")
        for state in ("opened", "escalated", "resolved")
    ]
    assert len({event.id for event in told}) == 3
    assert [event.detail_type for event in told] == [
        *("Anomaly Opened", "Anomaly Escalated", "Anomaly Resolved")
    ]
    assert told[1] == events.anomaly_event(
        ME, WINDOW, replace(ALARM, state="escalated"), sink="bus"
    )
    later = replace(WINDOW, start_ms=WINDOW.end_ms, end_ms=WINDOW.end_ms + 60_000)
    again = events.anomaly_event(ME, later, replace(ALARM, state="escalated"), sink="bus")
    assert again.id not in {event.id for event in told}
