"""What is said of each rule: figures are held against the engine, and words are read."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from processor import config
from processor.core.pipeline import ShardPipeline
from processor.core.plan import compile
from processor.explaining import report, windows, words
from processor.explaining.account import Account, account
from processor.explaining.memory import memory_of, windows_a_key
from processor.explaining.report import as_text
from processor.explaining.traffic import Assumed, events_a_day, puts_a_day, traffic_of
from processor.model import (
    EventSpec,
    MergeSpec,
    Page,
    PanesSpec,
    Pipeline,
    RuleSpec,
    Shard,
    WindowSpec,
)

MINUTE = 60_000
DAY = 1_440 * MINUTE
TEXT = """
app: shop
source: {stream: orders}
event: {id: id, time: at, partition_key: store, out_of_orderness: 30s}
sinks: {alerts: {eventbridge: shop-events}}
rules:
  orders:
    where: {type: [order.placed]}
    group_by: [store]
    window: {tumbling: 10m}
    aggregates: {orders: count, revenue: {sum: amount}, largest: {max: amount}}
    detect: [{threshold: revenue, above: 50}, {absence: orders}]
    emit: {windows: alerts, anomalies: alerts}
"""
PIPELINE = config.loads(TEXT, {}).pipeline
(RULE,) = PIPELINE.rules
EVENT = PIPELINE.event
MERGE = MergeSpec("shop-merge", buckets=16)
CALM = Assumed(rate=100.0, keys=50, shards=4)  # two records a key and second: no window is empty


def told_of(pipeline: Pipeline, assumed: Assumed = CALM) -> Account:
    return account(pipeline, [], assumed)


# ---- how much ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "a_day"),
    [
        (WindowSpec(10 * MINUTE), 50 * 144),
        (WindowSpec(10 * MINUTE, kind="hopping", every_ms=MINUTE), 50 * 1_440),
        (WindowSpec(kind="calendar", calendar="day"), 50),
        (WindowSpec(kind="calendar", calendar="week"), 50 / 7),
        (WindowSpec(kind="session", gap_ms=MINUTE), 0),  # never a minute without a record
        (WindowSpec(kind="running", ttl_ms=DAY), 0),
    ],
)
def test_each_key_is_told_of_once_a_window(window: WindowSpec, a_day: float) -> None:
    assert events_a_day(replace(RULE, window=window), CALM) == pytest.approx(a_day, abs=0.01)


def test_windows_without_records_are_not_told_and_no_more_are_told_than_records_come() -> None:
    rule = replace(RULE, window=WindowSpec(1_000))
    for window in (WindowSpec(1_000), WindowSpec(kind="session", gap_ms=1_000)):
        rare = events_a_day(replace(rule, window=window), Assumed(rate=1.0, keys=1_000_000))
        assert 86_000 < rare <= 86_400  # each record has a window of its own


def test_windows_at_random_are_told_as_often_as_reckoned() -> None:
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, DAY, 100_000))
    keys = rng.integers(0, 500, 100_000)
    assumed = Assumed(rate=100_000 / 86_400, keys=500)
    filled = len({*zip(keys.tolist(), (times // (10 * MINUTE)).tolist(), strict=True)})
    assert events_a_day(RULE, assumed) == pytest.approx(filled, rel=0.01)
    gap_ms, sessions = 4 * MINUTE, 0
    for key in range(500):
        sessions += 1 + int((np.diff(times[keys == key]) >= gap_ms).sum())
    rule = replace(RULE, window=WindowSpec(kind="session", gap_ms=gap_ms))
    assert events_a_day(rule, assumed) == pytest.approx(sessions, rel=0.02)


def test_groups_are_no_more_than_the_rule_tells_apart() -> None:
    few = replace(RULE, max_groups=5)
    assert events_a_day(few, CALM) == pytest.approx(4 * 5 * 144)  # on each of four shards
    assert events_a_day(replace(RULE, group_by=()), CALM) == pytest.approx(144)


@pytest.mark.parametrize(
    ("panes", "lateness_ms", "times"),
    [
        (PanesSpec(early_every_ms=MINUTE), 0, 10),
        (PanesSpec(early_count=100), 0, 13),  # two a second: 1,200 in ten minutes
        (PanesSpec(early_when={"orders": [{"numeric": [">", 5]}]}), 0, 2),
        (PanesSpec(late_count=1), MINUTE, 2),
        (PanesSpec(), MINUTE, 1),
    ],
)
def test_panes_come_on_top(panes: PanesSpec, lateness_ms: int, times: int) -> None:
    rule = replace(RULE, panes=panes, lateness_ms=lateness_ms)
    assert events_a_day(rule, CALM) == pytest.approx(50 * 144 * times)


def test_events_cost_a_dollar_a_million_where_eventbridge_takes_them() -> None:
    assumed = Assumed(rate=1e6, keys=100_000)
    paid = traffic_of(RULE, assumed, None, is_paid=True, a_window=100)
    free = traffic_of(RULE, assumed, None, is_paid=False, a_window=100)
    silent = replace(RULE, emit_windows=None)
    assert paid.usd == pytest.approx(14.4)
    assert (free.usd, free.events) == (0, paid.events)
    assert traffic_of(silent, assumed, None, is_paid=False, a_window=100).events == 0


def test_a_global_rule_puts_a_record_a_bucket_shard_and_end_and_pays_by_its_size() -> None:
    rule = replace(RULE, group_by=("region",))
    puts, units = puts_a_day(rule, Assumed(keys=10, shards=8), MERGE, 100)
    assert (puts, units) == (8 * 16 * 144, 8 * 16 * 144)
    _, units = puts_a_day(rule, Assumed(rate=1e6, keys=16_000, shards=8), MERGE, 965)
    assert units == 8 * 16 * 144 * 41  # 1,000 groups of 1,025 bytes a record: 40 units and some


def test_of_hopping_windows_shards_tell_the_panes() -> None:
    window = WindowSpec(10 * MINUTE, kind="hopping", every_ms=4 * MINUTE)
    puts, _ = puts_a_day(replace(RULE, window=window), Assumed(shards=1), MERGE, 100)
    assert puts == 16 * 720  # of two minutes


# ---- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "late_ms", "lateness_ms", "n"),
    [
        (WindowSpec(MINUTE), 0, 0, 1),
        (WindowSpec(MINUTE), 1, 0, 2),
        (WindowSpec(MINUTE), MINUTE, MINUTE, 3),
        (WindowSpec(10 * MINUTE, kind="hopping", every_ms=4 * MINUTE), 0, 0, 5),  # panes of 2
        (WindowSpec(kind="calendar", calendar="day"), 1, 0, 2),
        (WindowSpec(kind="running", ttl_ms=MINUTE), 5 * MINUTE, 0, 1),
    ],
)
def test_windows_are_open_until_nothing_can_come_for_them(
    window: WindowSpec, late_ms: int, lateness_ms: int, n: int
) -> None:
    rule = replace(RULE, window=window, lateness_ms=lateness_ms)
    assert windows_a_key(rule, EventSpec(out_of_orderness_ms=late_ms)) == n


def test_hopping_windows_that_are_told_early_share_no_panes() -> None:
    window = WindowSpec(10 * MINUTE, kind="hopping", every_ms=4 * MINUTE)
    event = replace(EVENT, out_of_orderness_ms=0)
    rule = replace(RULE, window=window, panes=PanesSpec(early_count=50))
    assert windows_a_key(rule, event) == 3
    assert windows_a_key(replace(rule, panes=PanesSpec(emit_empty=True)), event) == 5
    assert windows_a_key(replace(rule, group_by=()), event) == 5


def test_the_memory_that_is_told_is_about_what_the_engine_takes() -> None:
    keys, event = 20_000, replace(EVENT, out_of_orderness_ms=0)
    pipeline = ShardPipeline(compile(replace(PIPELINE, event=event)), Shard("a"), "0.0")
    tracemalloc.start()
    try:
        pipeline.feed(page([order(i, MINUTE) for i in range(10)]))
        before, _ = tracemalloc.get_traced_memory()
        pipeline.feed(page([order(i, MINUTE) for i in range(10, keys)]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    known_ids = 16  # a key's record leaves its id with the shard, not with the rule
    taken = (after - before) / keys - known_ids
    assert 0.6 < taken / memory_of(RULE, event).a_key < 1.5


def order(i: int, at: int) -> dict[str, Any]:
    return {"id": str(i), "type": "order.placed", "store": f"store-{i:06d}", "at": at, "amount": 1}


def page(orders: list[dict[str, Any]]) -> Page:
    n = len(orders)
    return Page(
        [json.dumps(each).encode() for each in orders],
        [each["id"] for each in orders],
        [each["store"] for each in orders],
        np.full(n, MINUTE, dtype=np.int64),
        0,
        MINUTE,
    )


# ---- words ------------------------------------------------------------------------------------


def test_a_shard_scoped_rule_says_why_and_so_does_a_global_one() -> None:
    assert "group_by contains store" in words.scope(RULE, EVENT, None)
    rule = replace(RULE, group_by=("region",))
    scope = words.scope(rule, EVENT, MERGE)
    assert scope.startswith("all shards together: group_by does not contain store")
    assert "shop-merge (16 buckets)" in scope
    assert "a shard that stands still holds all results back" in scope
    told = words.scope(rule, EVENT, replace(MERGE, on_stall_ms=5 * MINUTE))
    assert "stands still for 5m is left out: complete is false" in told
    nobody = replace(EVENT, partition_key=None)
    assert "event.partition_key is not given" in words.scope(rule, nobody, MERGE)


@pytest.mark.parametrize(
    ("window", "told"),
    [
        (WindowSpec(10 * MINUTE, 3 * MINUTE), "10m each, one after the other, from the epoch"),
        (WindowSpec(10 * MINUTE, 3 * MINUTE), "shifted by 3m"),
        (WindowSpec(10 * MINUTE, kind="hopping", every_ms=MINUTE), "each record is in 10 of them"),
        (WindowSpec(kind="session", gap_ms=MINUTE), "each less than 1m after another"),
        (WindowSpec(kind="calendar", calendar="week", zone="Europe/Oslo"), "week of Europe/Oslo"),
        (
            WindowSpec(kind="calendar", calendar="day", offset_ms=MINUTE),
            "day of UTC, from midnight on, shifted by 1m",
        ),
        (WindowSpec(kind="running", ttl_ms=DAY), "ends 1d after the last, and is gone"),
    ],
)
def test_each_kind_of_window_has_its_words(window: WindowSpec, told: str) -> None:
    assert told in windows.of(window)


@pytest.mark.parametrize(
    ("changes", "told", "late"),
    [
        ({}, "once a window and key, when its shard's watermark (newest event time less 30s)", ""),
        ({}, "a key without records in a window is not told of", "whose window has closed"),
        ({"panes": PanesSpec(early_every_ms=MINUTE)}, "early, every 1m of event time", ""),
        ({"panes": PanesSpec(early_count=5, is_discarding=True)}, "since the pane before", ""),
        ({"panes": PanesSpec(early_when={"orders": [5]})}, 'match {"orders": [5]}', ""),
        (
            {"panes": PanesSpec(late_count=1), "lateness_ms": MINUTE},
            "last of all, 1m after its end: that pane is final",
            "ended more than 1m before the watermark",
        ),
        ({"lateness_ms": MINUTE}, "once a window", "was told already, or ended more than 1m"),
        (
            {"window": WindowSpec(kind="running", ttl_ms=MINUTE)},
            "only early panes tell of it",
            "more than 1m older",
        ),
        (
            {"window": WindowSpec(kind="running", ttl_ms=MINUTE), "lateness_ms": MINUTE},
            "has come to its end",
            "more than 2m older",
        ),
        (
            {"window": WindowSpec(MINUTE, kind="hopping", every_ms=1_000)},
            "once a window",
            "for that window only",
        ),
    ],
)
def test_when_a_rule_tells_and_what_is_late(changes: dict[str, Any], told: str, late: str) -> None:
    rule: RuleSpec = replace(RULE, **changes)
    assert any(told in each for each in windows.when_told(rule, EVENT, is_global=False))
    assert late in windows.what_is_late(rule, EVENT)


@pytest.mark.parametrize(
    ("overflow", "told"),
    [("other", "__other__"), ("evict", "the most silent groups"), ("dead_letter", "dead letters")],
)
def test_what_becomes_of_one_group_too_many_is_told(overflow: Any, told: str) -> None:
    assert told in words.keys(replace(RULE, overflow=overflow))
    assert "None is ever forgotten" in words.keys(RULE)
    assert "for 1d is new" in words.keys(replace(RULE, forget_after_ms=DAY))


def test_a_rule_without_group_by_has_one_group_whatever_is_assumed() -> None:
    rule = replace(RULE, group_by=(), detect=(), emit_anomalies=None)
    (told,) = told_of(replace(PIPELINE, rules=(rule,), merge=MERGE)).rules
    assert (told.memory_groups, told.counts.rpartition(", ")[2]) == (1, "in one group")
    assert told.memory_bytes_max == told.memory_bytes == told.memory.a_key
    assert "max_groups" not in report.memory(told)


def test_a_rule_without_results_and_one_with_next_to_none_are_told_apart() -> None:
    endless = replace(RULE, window=WindowSpec(kind="session", gap_ms=MINUTE))
    silent = replace(RULE, emit_windows=None)
    told = [told_of(replace(PIPELINE, rules=(rule,))).rules[0] for rule in (RULE, endless, silent)]
    assert [report.events(each).partition(" result")[0] for each in told] == [
        "up to 7,200 window",
        "less than one window",
        "no window",
    ]


def test_detectors_are_told_with_their_options_and_what_they_are() -> None:
    threshold, absence = words.detects(RULE)
    assert threshold.startswith("threshold on revenue (above 50): a value above or below a bound")
    assert "a key that always has records at this hour has gone silent" in absence


def test_warnings_stand_with_their_rule_and_the_rest_at_the_end() -> None:
    text = TEXT.replace("window: {tumbling: 10m}", "window: {tumbling: 10s}")
    text = text.replace("sinks: {", "sinks: {spare: {stdout: json}, ")
    checked = config.loads(text, {}, file="shop.yaml")
    told = account(checked.pipeline, checked.warnings, CALM)
    (warning,) = told.rules[0].warnings
    assert "a window of 10s is shorter than event.out_of_orderness, 30s" in warning
    (rest,) = told.warnings
    assert "sinks.spare" in rest


def test_text_is_as_wide_as_it_may_be_and_no_wider() -> None:
    lines = list(as_text(told_of(PIPELINE), 72))
    assert 60 < max(map(len, lines)) <= 72
    assert [line for line in lines if line != line.rstrip()] == []


def test_maintenance_and_severities_by_score_are_told_in_words() -> None:
    text = TEXT.replace("above: 50", "above: 50, severity: {critical: 3}").replace(
        "{tumbling: 10m}", "{tumbling: 10m, zone: Europe/Berlin}"
    )
    off = '[{every: "sun 02:00", for: 3h}, {from: 2026-12-24T00:00, to: 2026-12-25T06:30}]'
    pipeline = config.loads(f"{text}    maintenance: {off}\n", {}).pipeline
    (rule,) = account(pipeline, [], Assumed(rate=1, shards=1, keys=1)).rules
    assert rule.maintenance == [
        "detectors neither score nor learn sun 02:00 for 3h (Europe/Berlin)",
        "detectors neither score nor learn from 2026-12-24T00:00 to 2026-12-25T06:30"
        " (Europe/Berlin)",
    ]
    assert "severity critical from 3" in rule.detectors[0]


def test_a_budget_and_whose_part_of_it_each_shard_holds_are_told() -> None:
    pipeline = config.loads(f"{TEXT}    alarm_budget: 5/week\n", {}).pipeline
    (line,) = told_of(pipeline).rules[0].budget
    assert line.startswith("5/week alarms of the rule")
    assert "each shard holds its part" in line
    assert f"  budget    {line}" in list(as_text(told_of(pipeline), 200))
    assert not told_of(PIPELINE).rules[0].budget
