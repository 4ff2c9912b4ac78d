"""Figures on the whole way from payloads to events: filters, missing fields, page cuts, crashes."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.plan import Plan
from processor.model import AggregateSpec, DetectSpec
from tests.core import streams

MINUTE_MS = streams.MINUTE_MS
CARD = {"method": ["card"]}
FIGURES = (
    AggregateSpec("orders", "count"),
    AggregateSpec("paid_by_card", "count", where=CARD),
    AggregateSpec("card_share", "ratio", of=("paid_by_card", "orders")),
    AggregateSpec("per_minute", "rate", of=("orders",), options={"per_ms": MINUTE_MS}),
    AggregateSpec("fees", "sum", "fee", where=CARD),
    AggregateSpec("p90", "quantile", "amount", options={"q": 0.9}),
    AggregateSpec("median_fee", "quantile", "fee", where=CARD, options={"q": 0.5}),
    AggregateSpec("users", "distinct", "user"),
    AggregateSpec("card_users", "distinct", "user", where=CARD),
    AggregateSpec("top", "top_k", "user", options={"k": 2}),
    AggregateSpec("opening", "first", "amount"),
    AggregateSpec("closing", "last", "amount"),
    AggregateSpec("deviation", "stddev", "amount"),
)


def plan(*detects: DetectSpec) -> Plan:
    return streams.plan(
        streams.rule(where={}, aggregates=FIGURES, detect=detects, size_ms=2 * MINUTE_MS),
        id=None,
        correlation_id=None,
    )


def event(at_ms: int, **more: Any) -> dict[str, Any]:
    plain = {"at": at_ms, "store": "s", "amount": 10.0, "user": "ann", "method": "cash"}
    return {name: value for name, value in (plain | more).items() if value is not None}


def records(events: list[dict[str, Any]]) -> list[streams.Record]:
    return [
        streams.Record(json.dumps(each).encode(), "s", each["at"] + 1_000, str(10**55 + i))
        for i, each in enumerate(events)
    ]


def results(of: Plan, events: list[dict[str, Any]], cuts: list[int]) -> list[bytes]:
    """Details of all events, with one state saved and restored at each cut."""
    pipeline, told = streams.fresh(of), []
    for page in streams.pages(records(events), cuts):
        told += pipeline.feed(page).events
        successor = streams.fresh(of)
        assert pipeline.position is not None
        successor.restore(pipeline.snapshot(), pipeline.position)
        assert successor.snapshot() == pipeline.snapshot()
        pipeline = successor
    return [each.detail for each in told]


def some_events(seed: int, n: int = 300) -> list[dict[str, Any]]:
    """Of a quarter of an hour; fees only where a card was used, and times all different."""
    rng = random.Random(seed)
    times = rng.sample(range(streams.START_MS, streams.START_MS + 15 * MINUTE_MS), n)
    made = []
    for at_ms in sorted(times):
        by_card = rng.random() < 0.4
        made.append(
            event(
                at_ms,
                amount=rng.choice([rng.uniform(-50, 100), 7.25, 0.0]),
                user=rng.choice([f"u{rng.randrange(40)}", rng.randrange(10)]),
                method="card" if by_card else "cash",
                fee=rng.uniform(0, 2) if by_card else None,
            )
        )
    return made


def windows(of: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for each in of:
        found.setdefault(each["at"] // (2 * MINUTE_MS) * 2 * MINUTE_MS, []).append(each)
    return found


def test_every_figure_of_every_window_is_what_plain_python_says() -> None:
    events = some_events(1)
    told = [json.loads(detail) for detail in results(plan(), events, [])]
    assert len(told) >= 6
    for each in told:
        of = windows(events)[each["window"]["start"]]
        values, card = each["values"], [one for one in of if one["method"] == "card"]
        fees, amounts = sorted(one["fee"] for one in card), sorted(one["amount"] for one in of)
        assert list(values) == [spec.name for spec in FIGURES]
        assert (values["orders"], values["paid_by_card"]) == (len(of), len(card))
        assert values["card_share"] == pytest.approx(len(card) / len(of))
        assert values["per_minute"] == len(of) / 2
        assert values["fees"] == pytest.approx(sum(fees))
        assert values["p90"] == pytest.approx(amounts[-(-9 * len(of) // 10) - 1], rel=0.01)
        assert values["median_fee"] == pytest.approx(fees[-(-len(fees) // 2) - 1], rel=0.01)
        assert values["users"] == len({one["user"] for one in of})
        assert values["card_users"] == len({one["user"] for one in card})
        assert (values["opening"], values["closing"]) == (of[0]["amount"], of[-1]["amount"])
        users = Counter(one["user"] for one in of).items()
        first = sorted(users, key=lambda one: (-one[1], isinstance(one[0], str), one[0]))[:2]
        assert values["top"] == [{"key": key, "count": count} for key, count in first]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 5), st.lists(st.integers(1, 299), max_size=5))
def test_neither_page_cuts_nor_crashes_change_a_byte(seed: int, cuts: list[int]) -> None:
    events = some_events(seed)
    assert results(plan(), events, cuts) == results(plan(), events, [])


def test_a_record_may_lack_a_field_of_a_figure_that_does_not_count_it() -> None:
    pipeline = streams.fresh(plan())
    events = [
        event(streams.START_MS),
        event(streams.START_MS + 1, method="card", fee=1.5),
        event(streams.START_MS + 2, method="card"),
        event(streams.START_MS + 3, user=None),
    ]
    step = pipeline.feed(streams.page(records(events)))
    assert [(letter.reason, letter.detail) for letter in step.dead_letters] == [
        ("missing_field", "fee: absent, expected a number"),
        ("missing_field", "user: absent, expected a text or an integer"),
    ]
    assert step.counts.counted == 2


def test_a_key_that_is_no_text_and_no_integer_goes_to_the_dead_letters() -> None:
    pipeline = streams.fresh(plan())
    step = pipeline.feed(streams.page(records([event(streams.START_MS, user=1.5)])))
    assert [letter.reason for letter in step.dead_letters] == ["wrong_type"]


def test_a_window_where_a_filter_took_nothing_has_null_for_what_is_not_defined() -> None:
    events = [event(streams.START_MS), event(streams.START_MS + 10 * MINUTE_MS)]
    first = json.loads(results(plan(), events, [])[0])["values"]
    assert (first["paid_by_card"], first["card_share"], first["fees"]) == (0, 0.0, 0.0)
    assert (first["median_fee"], first["card_users"], first["deviation"]) == (None, 0, None)


def test_a_detector_watches_a_derived_figure() -> None:
    watched = plan(DetectSpec("too-many-cards", "threshold", "card_share", {"above": 0.5}))
    start = streams.START_MS
    events = [
        event(start + i, method="card" if i < 3 else "cash", fee=1.0 if i < 3 else None)
        for i in range(4)
    ]
    pipeline = streams.fresh(watched)
    later = [event(start + 10 * MINUTE_MS)]
    told = pipeline.feed(streams.page(records([*events, *later]))).events
    alarms = [json.loads(each.detail)["anomaly"] for each in told if "nomaly" in each.detail_type]
    assert [(alarm["aggregate"], alarm["value"]) for alarm in alarms] == [("card_share", 0.75)]
