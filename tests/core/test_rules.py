"""One rule: when its windows close, which empty ones its detectors see, and in what order."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from processor.core.figures import Readings
from processor.core.records import Records
from processor.core.rules import Heritage, Rule, Saved
from processor.core.telling import Output
from processor.core.waves import ABSENCE_HORIZON
from processor.model import DetectSpec, RuleSpec, WindowSpec
from tests.core import streams

SIZE_MS = 1_000
NOW_MS = streams.START_MS // SIZE_MS * SIZE_MS
BEFORE_MS = -(2**62)  # a watermark that closes nothing
# Speaks up whenever a window holds fewer than two records, empty ones included.
FEW = DetectSpec("few", "threshold", "orders", {"below": 2, "recover_after": 1})


def rule(detect: tuple[DetectSpec, ...] = (FEW,), **more: Any) -> Rule:
    spec = streams.rule("orders", size_ms=SIZE_MS, detect=detect, **more)
    plan = streams.plan(spec).rules[0]
    return Rule(plan, "shop", "1", streams.SHARD)


def add(to: Rule, *records: tuple[str, int], sent_as: str | None = None) -> Rule:
    """Records of (store, time); their PartitionKey is the store, or `sent_as`."""
    stores = [store for store, _ in records]
    n = len(records)
    times = np.array([time for _, time in records], dtype=np.int64)
    wanted = Records(
        keys=[stores],
        partition_keys=[sent_as or store for store in stores],
        times=times,
        readings=Readings(times, {"amount": np.ones(n)}),
        at=np.arange(n),
        judged=np.full(n, BEFORE_MS),
        sample_of=None,
    )
    assert list(to.take(wanted, np.full(n, BEFORE_MS), BEFORE_MS)) == []
    return to


def waves(of: Rule) -> tuple[int | None, int]:
    """End of the last window that detectors saw, and how many empty ones in a row."""
    return of.snapshot().waves


def advance(of: Rule, watermark_ms: int) -> list[Output]:
    """Close what is due, as the pipeline does."""
    firings = of.take(None, np.zeros(0, dtype=np.int64), watermark_ms)
    return [output for firing in firings for output in firing.outputs]


def told(outputs: list[Output]) -> list[tuple[str, int, str]]:
    """(key, end of the window, what) in order."""
    details = [(output, json.loads(output.event.detail)) for output in outputs]
    return [
        (d["key"]["store"], output.end_ms, output.alarm.state if output.alarm else d["kind"])
        for output, d in details
    ]


def test_a_window_is_due_when_the_watermark_reaches_its_end() -> None:
    orders = add(rule(()), ("a", NOW_MS))
    assert not orders.is_due(NOW_MS + SIZE_MS - 1)
    assert orders.is_due(NOW_MS + SIZE_MS)
    assert advance(orders, NOW_MS + SIZE_MS - 1) == []
    assert told(advance(orders, NOW_MS + SIZE_MS)) == [("a", NOW_MS + SIZE_MS, "window")]
    assert not orders.is_due(NOW_MS + 10**9)


def test_a_record_is_late_when_the_watermark_is_past_its_window_and_not_before() -> None:
    end_ms = NOW_MS + SIZE_MS
    times = np.array([NOW_MS, NOW_MS, end_ms - 1, end_ms - 1, NOW_MS - 1])
    watermarks = np.array([end_ms - 1, end_ms, end_ms, end_ms + 1, NOW_MS - 1])
    assert rule().late(times, watermarks).tolist() == [False, False, False, True, False]


def test_lateness_goes_by_windows_that_are_shifted() -> None:
    shifted = rule(window=WindowSpec(SIZE_MS, 300))
    times = np.array([NOW_MS + 299, NOW_MS + 300])
    watermarks = np.array([NOW_MS + 301, NOW_MS + 301])
    assert shifted.late(times, watermarks).tolist() == [True, False]


def test_windows_close_in_order_of_end_then_key_and_a_result_comes_before_its_anomaly() -> None:
    """
    second   |--0--|--1--|
    b          x
    a          x     xx        a is calm again in second 1
    """
    orders = add(rule(), ("b", NOW_MS), ("a", NOW_MS + SIZE_MS), ("a", NOW_MS))
    add(orders, ("a", NOW_MS + SIZE_MS))
    first, second = NOW_MS + SIZE_MS, NOW_MS + 2 * SIZE_MS
    assert told(advance(orders, second)) == [
        ("a", first, "window"),
        ("a", first, "opened"),
        ("b", first, "window"),
        ("b", first, "opened"),
        ("a", second, "window"),
        ("a", second, "resolved"),
    ]


def test_a_key_is_judged_from_its_first_window_on_and_not_before() -> None:
    orders = add(rule(), ("a", NOW_MS), ("new", NOW_MS + 2 * SIZE_MS))
    add(orders, ("a", NOW_MS + 2 * SIZE_MS), ("a", NOW_MS + 2 * SIZE_MS))
    outputs = [row for row in told(advance(orders, NOW_MS + 3 * SIZE_MS)) if row[2] != "window"]
    assert outputs == [
        ("a", NOW_MS + SIZE_MS, "opened"),
        ("a", NOW_MS + 3 * SIZE_MS, "resolved"),
        ("new", NOW_MS + 3 * SIZE_MS, "opened"),
    ]


def test_without_detectors_no_empty_window_is_due() -> None:
    orders = add(rule(()), ("a", NOW_MS))
    advance(orders, NOW_MS + SIZE_MS)
    assert not orders.is_due(NOW_MS + 10 * SIZE_MS)
    assert waves(orders) == (None, 0)


@pytest.mark.parametrize("step", [1, 7, ABSENCE_HORIZON, 10_000])
def test_detectors_see_at_most_a_hundred_empty_windows_after_the_last_record(step: int) -> None:
    orders = add(rule(), ("a", NOW_MS))
    for seconds in range(1, 10_001 if step > 7 else 300, step):
        advance(orders, NOW_MS + seconds * SIZE_MS)
    advance(orders, NOW_MS + 10_000 * SIZE_MS)
    assert waves(orders) == (NOW_MS + (1 + ABSENCE_HORIZON) * SIZE_MS, ABSENCE_HORIZON)
    assert not orders.is_due(NOW_MS + 10**12)


def test_an_age_between_two_records_costs_a_hundred_windows() -> None:
    orders = add(rule(), ("a", 0), ("a", NOW_MS))
    outputs = told(advance(orders, NOW_MS + SIZE_MS))
    assert [row for row in outputs if row[2] == "window"] == [
        ("a", SIZE_MS, "window"),
        ("a", NOW_MS + SIZE_MS, "window"),
    ]
    assert waves(orders) == (NOW_MS + SIZE_MS, 0)


def test_after_a_gap_the_horizon_begins_anew() -> None:
    orders = add(rule(), ("a", NOW_MS))
    advance(orders, NOW_MS + 500 * SIZE_MS)
    add(orders, ("a", NOW_MS + 600 * SIZE_MS))
    advance(orders, NOW_MS + 603 * SIZE_MS)
    assert waves(orders) == (NOW_MS + 603 * SIZE_MS, 2)


def test_the_first_window_has_no_empty_ones_before_it() -> None:
    orders = add(rule(), ("a", NOW_MS))
    advance(orders, NOW_MS + SIZE_MS)
    assert waves(orders) == (NOW_MS + SIZE_MS, 0)
    assert advance(rule(), NOW_MS) == []
    assert not rule().is_due(2**62)


def test_at_the_end_what_has_no_home_closes_unjudged_and_the_rest_stays_open() -> None:
    """
    second   |--0--|--1--|
    a          x     x       at home
    b          o     o       sent with another PartitionKey
    """
    first, second = NOW_MS + SIZE_MS, NOW_MS + 2 * SIZE_MS
    orders = add(rule(), ("a", NOW_MS), ("a", NOW_MS + SIZE_MS))
    add(orders, ("b", NOW_MS + SIZE_MS), ("b", NOW_MS), sent_as="elsewhere")
    outputs = list(orders.finish())
    assert told(outputs) == [("b", first, "window"), ("b", second, "window")]
    assert {json.loads(o.event.detail)["part"] for o in outputs} == {streams.SHARD.id}
    assert list(orders.finish()) == []
    assert [what for what in told(advance(orders, second)) if what[2] == "window"] == [
        ("a", first, "window"),
        ("a", second, "window"),
    ]


# ---- adoption -------------------------------------------------------------------------------


def merged(*parents: Rule) -> Rule:
    child = rule()
    child.adopt([Heritage((), parent.snapshot()) for parent in parents])
    return child


def judged(outputs: list[Output]) -> list[tuple[str, int, str]]:
    return [row for row in told(outputs) if row[2] != "window"]


def test_a_merged_child_judges_each_parents_keys_from_that_parents_last_window_on() -> None:
    """
    second   |--0--|--1--|--2--|--3--|
    a          x  ^                       its shard stopped here: silent since
    b          x     x     x  ^           its shard stopped here: judged up to second 2
    """
    slow, fast = rule(), rule()
    advance(add(slow, ("a", NOW_MS), ("a", NOW_MS)), NOW_MS + SIZE_MS)
    for second in range(3):
        at = NOW_MS + second * SIZE_MS
        advance(add(fast, ("b", at), ("b", at)), at + SIZE_MS)
    child = merged(slow, fast)
    assert waves(child) == (NOW_MS + SIZE_MS, 0)
    assert judged(advance(child, NOW_MS + 3 * SIZE_MS)) == [("a", NOW_MS + 2 * SIZE_MS, "opened")]
    assert judged(advance(child, NOW_MS + 4 * SIZE_MS)) == [("b", NOW_MS + 4 * SIZE_MS, "opened")]


def test_a_parent_whose_empty_windows_are_used_up_holds_nobody_back() -> None:
    done, going = add(rule(), ("a", NOW_MS)), add(rule(), ("b", NOW_MS + 500 * SIZE_MS))
    advance(done, NOW_MS + 500 * SIZE_MS)
    advance(going, NOW_MS + 501 * SIZE_MS)
    assert waves(merged(done, going)) == (NOW_MS + 501 * SIZE_MS, 0)
    assert waves(merged(done)) == (NOW_MS + (1 + ABSENCE_HORIZON) * SIZE_MS, ABSENCE_HORIZON)


def test_a_parent_whose_empty_windows_are_nearly_used_up_uses_up_no_others() -> None:
    """Or the silence of the other one's keys, at the reshard or after it, would go unnoticed."""
    nearly, going = add(rule(), ("a", NOW_MS)), add(rule(), ("b", NOW_MS + 99 * SIZE_MS))
    advance(nearly, NOW_MS + 99 * SIZE_MS)
    last_ms = NOW_MS + 100 * SIZE_MS
    advance(going, last_ms)
    assert waves(nearly) == (NOW_MS + 99 * SIZE_MS, 98)
    child = merged(nearly, going)
    advance(child, NOW_MS + 900 * SIZE_MS)
    last_judged_ms, _ = waves(child)
    assert last_judged_ms is not None
    assert last_judged_ms >= last_ms + (ABSENCE_HORIZON - 1) * SIZE_MS


def test_a_parent_without_a_key_for_the_child_says_nothing_of_its_windows() -> None:
    strange = add(rule(), ("a", NOW_MS), sent_as="elsewhere")
    advance(strange, NOW_MS + SIZE_MS)
    assert waves(merged(strange)) == (None, 0)
    assert len(merged(strange, rule()).keys) == 0


@pytest.mark.parametrize(
    ("emits", "kinds"),
    [
        ({"emit_windows": None}, {"opened"}),
        ({"emit_anomalies": None}, {"window"}),
        ({"emit_windows": None, "emit_anomalies": None}, set()),
    ],
)
def test_what_has_no_sink_is_not_made_but_its_state_goes_on(
    emits: dict[str, None], kinds: set[str]
) -> None:
    quiet, loud = add(rule(**emits), ("a", NOW_MS)), add(rule(), ("a", NOW_MS))
    assert {what for _, _, what in told(advance(quiet, NOW_MS + SIZE_MS))} == kinds
    advance(loud, NOW_MS + SIZE_MS)
    assert nameless(quiet) == nameless(loud)


def nameless(rule: Rule) -> Saved:
    """Its state, but for the ids of events."""
    saved = rule.snapshot()
    kept = {name: bytes(x) for name, x in saved.scorer.items() if not name.endswith(".told")}
    return replace(saved, scorer=kept)


def test_restored_is_as_never_stopped() -> None:
    steady, successor = rule(), rule()
    advance(add(steady, ("a", NOW_MS), ("b", NOW_MS + SIZE_MS)), NOW_MS + SIZE_MS)
    for _ in successor.restoring(steady.snapshot()):
        pass
    for each in (steady, successor):
        add(each, ("b", NOW_MS + 3 * SIZE_MS))
    assert advance(steady, NOW_MS + 9 * SIZE_MS) == advance(successor, NOW_MS + 9 * SIZE_MS)
    assert steady.snapshot() == successor.snapshot()


def test_a_rule_names_the_fields_that_it_sums_once() -> None:
    spec: RuleSpec = streams.rule()
    assert rule().plan.numeric_fields == ["amount"]
    assert len(spec.aggregates) > 2
