"""What is legal in a pipeline file but hardly meant: told by `validate`, and by nothing else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processor import config
from processor.config.lints import lint
from processor.model import (
    BudgetSpec,
    DetectSpec,
    EventSpec,
    MergeSpec,
    PanesSpec,
    Pipeline,
    RuleSpec,
    WindowSpec,
)

MINUTE = 60_000
PIPELINE = config.loads(
    """
app: shop
source: {stream: orders}
event: {id: id, time: at, partition_key: store, correlation_id: cid}
sinks: {alerts: {stdout: json}}
rules:
  orders:
    group_by: [store]
    window: {tumbling: 10m}
    aggregates: {orders: count}
    emit: {windows: alerts}
""",
    {},
).pipeline
(RULE,) = PIPELINE.rules


def told(
    rule: RuleSpec = RULE, event: EventSpec = PIPELINE.event, merge: MergeSpec | None = None
) -> list[str]:
    pipeline: Pipeline = replace(PIPELINE, rules=(rule,), event=event, merge=merge)
    return [f"{warning.path}: {warning.message}" for warning in lint(pipeline)]


def test_an_ordinary_rule_is_not_warned_of() -> None:
    assert told() == []


# ---- detectors on long windows --------------------------------------------------------------


def detected(hours: int, kind: str, **options: object) -> list[str]:
    window = WindowSpec(size_ms=hours * 60 * MINUTE)
    detect = (DetectSpec(kind, kind, "orders", options),)
    return told(replace(RULE, window=window, detect=detect, emit_anomalies="alerts"))


def test_a_warm_up_of_months_is_warned_of() -> None:
    (message,) = detected(24, "novelty")
    assert message.startswith(
        "rules.orders.detect[0].novelty: nothing is told for 100d: warm_up is 100 windows, one"
        " every 1d; let it learn from history (processor warm)"
    )
    assert detected(24, "novelty", warm_up=30) == []
    assert detected(6, "novelty") == []
    assert detected(24, "threshold", above=1) == []


def test_a_season_no_longer_than_a_window_is_warned_of() -> None:
    (message,) = detected(24, "seasonal_band", season="day", warm_up=30)
    assert "windows every 1d all begin at the same time of the day" in message
    assert detected(24, "seasonal_band", season="week", warm_up=30) == []
    assert detected(12, "seasonal_band", season="day", warm_up=30) == []


# ---- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        *("store", "store_id", "store.id", "device", "deviceId", "vehicle", "region", "product"),
        *("sku", "account", "customer_id", "type", "category", "host", "shard_id", "valid", "grid"),
        *("ipad", "timezone", "status", "user_type", "userAgentFamily", "event_type", "hour"),
    ],
)
def test_a_field_that_people_group_by_is_not_warned_of(field: str) -> None:
    assert told(replace(RULE, group_by=("store", field))) == []


@pytest.mark.parametrize(
    "field",
    [
        *(
            "uuid",
            "event_uuid",
            "timestamp",
            "ts",
            "created_at",
            "createdAt",
            "order_id",
            "orderId",
        ),
        *("order.id", "meta.id", "request-id", "trace_id", "payment.number", "offset", "nonce"),
    ],
)
def test_a_value_for_every_record_is_warned_of_whatever_the_bound(field: str) -> None:
    for rule in (RULE, replace(RULE, max_groups=500, forget_after_ms=MINUTE)):
        (message,) = told(replace(rule, group_by=("store", field)))
        assert message == (
            f"rules.orders.group_by: {field} looks like a field with a value for every record"
        )


@pytest.mark.parametrize(
    "field",
    ["user", "user.id", "userId", "session", "sessionID", "ip", "client_ip", "email", "url"],
)
def test_a_value_for_every_visitor_is_warned_of_until_the_file_says_what_becomes_of_them(
    field: str,
) -> None:
    rule = replace(RULE, group_by=("store", field))
    (message,) = told(rule)
    assert f"{field} looks unbounded: after 100,000 values a shard (max_groups)" in message
    assert told(replace(rule, forget_after_ms=MINUTE)) == []
    assert told(replace(rule, max_groups=99_999)) == []
    running = WindowSpec(kind="running", ttl_ms=MINUTE)
    assert told(replace(rule, window=running)) == []


def test_a_field_that_tells_records_apart_is_named_as_what_it_is() -> None:
    told_of = {field: told(replace(RULE, group_by=("store", field))) for field in ("id", "at")}
    assert "id is event.id, so each record is a group of its own" in told_of["id"][0]
    assert "at is event.time, so nearly each record" in told_of["at"][0]
    assert "cid is event.correlation_id" in told(replace(RULE, group_by=("store", "cid")))[0]


# ---- time -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "late_ms", "message"),
    [
        (WindowSpec(MINUTE), 10 * MINUTE, "a window of 1m is shorter than event.out_of_orderness"),
        (WindowSpec(MINUTE), 10 * MINUTE + 1, "over 10 windows of 1m"),
        (WindowSpec(MINUTE), MINUTE, None),
        (WindowSpec(kind="session", gap_ms=MINUTE), 2 * MINUTE, "a window of 1m is shorter"),
        (WindowSpec(kind="calendar", calendar="day"), 1_500 * MINUTE, "a window of 1d is shorter"),
        (WindowSpec(kind="calendar", calendar="week"), 1_500 * MINUTE, None),
        (WindowSpec(kind="running", ttl_ms=MINUTE), 100 * MINUTE, None),
    ],
)
def test_out_of_orderness_is_held_against_the_window(
    window: WindowSpec, late_ms: int, message: str | None
) -> None:
    event = replace(PIPELINE.event, out_of_orderness_ms=late_ms, dedupe_horizon_ms=late_ms)
    found = told(replace(RULE, window=window), event)
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_lateness_of_more_than_ten_windows_is_warned_of() -> None:
    rule = replace(RULE, window=WindowSpec(MINUTE), lateness_ms=10 * MINUTE)
    event = replace(PIPELINE.event, dedupe_horizon_ms=20 * MINUTE)
    assert told(rule, event) == []
    (message,) = told(replace(rule, lateness_ms=10 * MINUTE + 1_000), event)
    assert message.startswith("rules.orders.lateness: windows of 1m stay open for 601s: over 10")


def test_ids_must_be_known_for_as_long_as_a_repeat_may_be_late() -> None:
    event = replace(PIPELINE.event, out_of_orderness_ms=MINUTE, dedupe_horizon_ms=MINUTE - 1)
    (message,) = told(event=event)
    assert message.startswith("event.dedupe_horizon: a repeat may come 1m late")
    assert told(event=replace(event, dedupe_horizon_ms=MINUTE)) == []
    assert told(event=replace(event, id=None, dedupe_horizon_ms=600_000)) == []


def test_ids_must_be_known_for_as_long_as_a_late_record_may_count() -> None:
    rule = replace(RULE, window=WindowSpec(10 * MINUTE), lateness_ms=MINUTE + 1_000)
    event = replace(PIPELINE.event, dedupe_horizon_ms=MINUTE)
    (message,) = told(rule, event)
    assert message.startswith("rules.orders.lateness: records count for 61s after their window's")
    assert told(replace(rule, lateness_ms=MINUTE), event) == []
    assert told(rule, replace(event, id=None, dedupe_horizon_ms=600_000)) == []


# ---- panes and hops ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "panes", "message"),
    [
        (WindowSpec(MINUTE), PanesSpec(early_every_ms=MINUTE), "over before the first pane is due"),
        (WindowSpec(MINUTE), PanesSpec(early_every_ms=MINUTE - 1), None),
        (WindowSpec(MINUTE), PanesSpec(early_count=9), "an event for every 9 records of a key"),
        (WindowSpec(MINUTE), PanesSpec(early_count=10), None),
        (WindowSpec(1_440 * MINUTE, kind="hopping", every_ms=MINUTE), PanesSpec(), "1,440 windows"),
        (WindowSpec(60 * MINUTE, kind="hopping", every_ms=MINUTE), PanesSpec(), None),
        (
            WindowSpec(60 * MINUTE, kind="hopping", every_ms=7 * MINUTE - 1),
            PanesSpec(),
            "rules.orders.window: 1h every 419999ms is kept in panes of 1ms, 3,600,000 of each key",
        ),
    ],
)
def test_more_panes_than_anybody_wants_are_warned_of(
    window: WindowSpec, panes: PanesSpec, message: str | None
) -> None:
    found = told(replace(RULE, window=window, panes=panes))
    assert len(found) == (message is not None), found
    assert message is None or message in found[0]


def test_short_windows_of_a_global_rule_cost_records_of_the_merge_stream() -> None:
    rule = replace(RULE, group_by=("region",), window=WindowSpec(10_000))
    merge = MergeSpec("shop-merge", buckets=16)
    (message,) = told(rule, merge=merge)
    assert "each shard puts 16 records (merge.buckets) into shop-merge every 10s" in message
    assert told(rule, merge=replace(merge, buckets=10)) == []
    assert told(replace(rule, window=WindowSpec(16_000)), merge=merge) == []


def test_an_alarm_budget_without_detectors_has_no_effect() -> None:
    budget = replace(RULE, alarm_budget=BudgetSpec(5, 86_400_000))
    assert told(budget) == [
        "rules.orders.alarm_budget: it has no effect: the rule has no detectors"
    ]
