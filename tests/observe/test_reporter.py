"""Observers: what is reported to them comes out as metrics, totals, latencies and log lines."""

import inspect
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families as parse_text

from processor.core.alarms.alarm import Alarm, Collapsed
from processor.core.events import Identity, Window, anomaly_event, storm_event, window_event
from processor.core.leases.rows import StreamKey, claimed, fresh_row
from processor.errors import Outage, RetentionGap, StreamReplaced, Throttled
from processor.model import (
    TRIM_HORIZON,
    Counts,
    DeadLetter,
    DerivedEvent,
    DetectSpec,
    Shard,
    Step,
)
from processor.observe.leases import LeaseReporter
from processor.observe.logs import FIELDS, make_logger
from processor.observe.metrics import METRICS, PREFIX, Metrics
from processor.observe.reporter import About, Reporter
from processor.observe.steps import LINES_MAX
from processor.ports import ReadObserver, SinkObserver, StepObserver
from processor.runtime.lease_observer import LeaseObserver
from tests.clocks import VirtualClock

TRACE = "0af7651916cd43dd8448eb211c80319c"
IDENTITY = Identity("shop", "1.0", "revenue", "v1")
ARRIVAL_S = 2.0  # before the present


class Bench:
    """A reporter, and what came of it."""

    def __init__(self, level: str = "info", merge: str | None = "merge") -> None:
        self.metrics = Metrics()
        self.clock = VirtualClock()
        self._out = io.StringIO()
        log = make_logger("json", self._out, level, service="shop", stream="orders")
        about = About(
            "1.2.3", "abc", {"bus": "eventbridge", "dead_letters": "sqs"}, "orders", merge
        )
        self.reporter = Reporter(self.metrics, log, self.clock, about)

    def value(self, name: str, /, **labels: str) -> float | None:
        for family in parse_text(self.metrics.text().decode()):
            for sample in family.samples:
                if sample.name != PREFIX + name:
                    continue
                if sample.labels in (labels, {"stream": "orders", **labels}):
                    return sample.value
        return None

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._out.getvalue().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def row(shard_id: str = "shard-0") -> Any:
    return claimed(fresh_row(StreamKey("orders", 1), Shard(shard_id), TRIM_HORIZON), "w-1", 0)


def window(store: int = 7) -> Window:
    arrival_ms = VirtualClock().wall_ms() - round(ARRIVAL_S * 1_000)
    return Window(
        start_ms=0,
        end_ms=60_000,
        key=(("store", store), ("product", "milk")),
        values={"amount": 1.5},
        count=3,
        correlation_ids=("order-1",),
        traceparent=f"00-{TRACE}-b7ad6b7169203331-01",
        arrival_ms=arrival_ms,
    )


def an_alarm() -> Alarm:
    return Alarm(
        row=0,
        detect=DetectSpec("spike", "threshold", "amount"),
        state="opened",
        value=1.5,
        expected=1.0,
        lower=0.5,
        upper=1.2,
        score=4.0,
        threshold=3.0,
        direction="above",
        severity="critical",
        opened_ms=0,
        sentence="amount is 1.5, expected 1",
    )


def anomaly(store: int = 7) -> DerivedEvent:
    return anomaly_event(IDENTITY, window(store), an_alarm(), sink="bus")


def letter(i: int = 0) -> DeadLetter:
    return DeadLetter(
        id=f"letter-{i}",
        reason="missing_field",
        detail="store: absent, expected a text or an integer",
        payload=b"{}",
        shard_id="shard-0",
        sequence_number=str(i),
    )


def step() -> Step:
    counts = Counts(
        records=10,
        payload_bytes=1_000,
        counted=5,
        duplicates=1,
        outside_range=1,
        late=1,
        unmatched=2,
        late_by_rule={"revenue": 1},
        evicted={"revenue": 2},
        forgotten={"revenue": 3},
        overflowed={"revenue": 4},
        rejects={"missing_field": 1},
        windows_closed=1,
        anomalies={("revenue", "spike", "opened"): 1},
        untold={("revenue", "collapsed"): 5},
    )
    return Step([window_event(IDENTITY, window(), sink="bus"), anomaly()], [letter()], counts)


class Facts(Struct, frozen=True):
    watermark_ms: int | None
    windows_open: int
    groups: Mapping[str, int]


# Reading


def test_a_read_moves_lag_and_its_time(bench: Bench) -> None:
    bench.clock.now = 5.0
    bench.reporter.reads.on_read("shard-0", 0.02, 100, 25_000, 1_500)
    assert bench.value("lag_seconds", shard="shard-0") == 1.5
    assert bench.value("last_read_timestamp_seconds", shard="shard-0") == bench.clock.wall_s()
    assert bench.value("read_duration_seconds_count") == 1
    assert bench.lines() == []


def test_a_failed_read_is_a_line_and_an_error_and_a_throttled_one_is_no_error(
    bench: Bench,
) -> None:
    bench.reporter.reads.on_error("shard-0", "timeout", "no whole answer within 30 s")
    bench.reporter.reads.on_throttled("shard-0")
    failed, throttled = bench.lines()
    assert (failed["level"], failed["error_kind"]) == ("warning", "timeout")
    assert failed["error"] == "no whole answer within 30 s"
    assert throttled["level"] == "info"
    assert bench.value("errors_total", stage="read", kind="timeout") == 1
    assert bench.value("retries_total", service="kinesis", reason="Throttled") == 1
    assert bench.value("throttled_total", service="kinesis", operation="read") == 1


# Steps


def test_a_step_counts_once_in_metrics_and_once_in_totals(bench: Bench) -> None:
    bench.reporter.steps.on_step("shard-0", step(), 0.25)
    totals = bench.reporter.totals
    assert (totals.records, totals.payload_bytes, totals.counted) == (10, 1_000, 5)
    assert (totals.duplicates, totals.late, totals.unmatched, totals.rejects) == (1, 1, 2, 1)
    assert bench.value("records_total") == 10
    assert bench.value("bytes_total") == 1_000
    assert bench.value("late_total", rule="revenue") == 1
    assert bench.value("groups_evicted_total", rule="revenue") == 2
    assert bench.value("groups_forgotten_total", rule="revenue") == 3
    assert bench.value("groups_overflow_total", rule="revenue") == 4
    assert bench.value("rejects_total", reason="missing_field") == 1
    labels = {"rule": "revenue", "detector": "spike", "severity": "critical", "state": "opened"}
    assert bench.value("anomalies_total", **labels) == 1
    assert bench.value("anomalies_untold_total", rule="revenue", reason="collapsed") == 5


def test_many_alarms_told_as_one_are_one_line(bench: Bench) -> None:
    one = Collapsed("collapsed", "warning", 0, 312, [], [], 312, [], "312 series of rule revenue")
    events = [
        storm_event(IDENTITY, replace(window(), key=key), one, sink="bus")
        for key in ((), (("site", "a"),))
    ]
    bench.reporter.steps.on_step("shard-0", Step(events, [], Counts()), 0.25)
    told = bench.lines()
    assert [line["event"] for line in told] == ["anomaly_collapsed"] * 2
    assert told[1]["message"] == "312 series of rule revenue"
    labels = {"rule": "revenue", "detector": "collapse", "severity": "warning"}
    assert bench.value("anomalies_total", state="collapsed", **labels) == 2


def test_both_latencies_are_taken_of_each_event(bench: Bench) -> None:
    bench.reporter.steps.on_step("shard-0", step(), 0.25)
    told = bench.reporter.latency()
    assert (told["close_to_accepted"].count, told["end_to_end"].count) == (2, 2)
    assert told["close_to_accepted"].max_ms == pytest.approx(250, rel=1e-3)
    assert told["end_to_end"].max_ms == pytest.approx(ARRIVAL_S * 1_000, rel=1e-3)
    assert bench.value("end_to_end_seconds_sum") == 2 * ARRIVAL_S
    assert bench.value("close_to_accepted_seconds_sum") == 0.5


def test_an_event_that_a_mark_closed_has_no_arrival_to_measure_from(bench: Bench) -> None:
    event = window_event(IDENTITY, window(), sink="bus")
    marked = Step([DerivedEvent(**{**_fields(event), "arrival_ms": 0})], [], Counts())
    bench.reporter.steps.on_step("shard-0", marked, 0.25)
    told = bench.reporter.latency()
    assert (told["close_to_accepted"].count, told["end_to_end"].count) == (1, 0)


def _fields(event: DerivedEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def test_a_clock_that_is_behind_the_services_measures_nothing_rather_than_less(
    bench: Bench,
) -> None:
    bench.clock.now = -10.0
    bench.reporter.steps.on_step("shard-0", step(), 0.25)
    assert bench.value("end_to_end_seconds_sum") == 0


def test_a_step_without_events_has_no_latency(bench: Bench) -> None:
    bench.reporter.steps.on_step("shard-0", Step([], [], Counts(records=1)), 0.25)
    assert bench.reporter.latency()["close_to_accepted"].count == 0
    assert bench.value("stage_seconds_count", stage="step") == 1


def test_an_anomaly_is_a_line_that_leads_to_its_records_and_trace(bench: Bench) -> None:
    event = anomaly()
    bench.reporter.steps.on_step("shard-0", Step([event], [], Counts()), 0.25)
    (line,) = bench.lines()
    del line["@timestamp"]
    assert line == {
        "level": "info",
        "event": "anomaly_opened",
        "message": "amount is 1.5, expected 1",
        "service": "shop",
        "stream": "orders",
        "shard_id": "shard-0",
        "event_id": event.id,
        "correlation_id": "order-1",
        "trace_id": TRACE,
        "rule": "revenue",
        "key": "store=7 product=milk",
    }


def test_an_anomalys_trace_is_an_exemplar_of_its_latency(bench: Bench) -> None:
    bench.reporter.steps.on_step("shard-0", Step([anomaly()], [], Counts()), 0.25)
    assert f'# {{trace_id="{TRACE}"}}' in bench.metrics.openmetrics().decode()


def test_a_bad_record_is_a_line_with_its_place(bench: Bench) -> None:
    bench.reporter.steps.on_step("shard-0", Step([], [letter(49)], Counts()), 0.25)
    (line,) = bench.lines()
    assert (line["event"], line["level"]) == ("record_rejected", "warning")
    assert (line["shard_id"], line["sequence_number"]) == ("shard-0", "49")
    assert line["error_kind"] == "missing_field"


def test_windows_are_told_at_debug_only() -> None:
    for level, expected in (("info", []), ("debug", ["derived_event"])):
        bench = Bench(level)
        event = window_event(IDENTITY, window(), sink="bus")
        bench.reporter.steps.on_step("shard-0", Step([event], [], Counts()), 0.25)
        assert bench.events() == expected


def test_a_storm_leaves_a_bounded_number_of_lines_and_says_how_many_are_missing(
    bench: Bench,
) -> None:
    events = [anomaly(store) for store in range(LINES_MAX + 20)]
    letters = [letter(i) for i in range(LINES_MAX + 30)]
    bench.reporter.steps.on_step("shard-0", Step(events, letters, Counts()), 0.25)
    names = bench.events()
    assert names.count("anomaly_opened") == names.count("record_rejected") == LINES_MAX
    cut = [line["message"] for line in bench.lines() if line["event"] == "lines_cut"]
    assert [message.split(",")[0] for message in cut] == [
        "20 more anomalies in this step",
        "30 more rejected records in this step",
    ]


# Sinks


def test_published_events_and_dead_letters_are_counted_apart(bench: Bench) -> None:
    bench.reporter.sinks.on_request("bus", 0.01)
    bench.reporter.sinks.on_published("bus", "Window Result", 8)
    bench.reporter.dead_letters.on_published("dead_letters", "future", 2)
    assert bench.value("published_total", sink="bus", detail_type="Window Result") == 8
    assert bench.value("dead_letters_total", reason="future") == 2
    assert bench.value("publish_duration_seconds_count", sink="bus") == 1
    totals = bench.reporter.totals
    assert (totals.events_published, totals.dead_letters) == (8, 2)


@pytest.mark.parametrize(
    ("reason", "throttled"),
    [
        ("ThrottlingException", 1),
        ("ProvisionedThroughputExceededException", 1),
        ("InternalFailure", None),
    ],
)
def test_a_retried_put_names_the_service_and_the_reason(
    bench: Bench, reason: str, throttled: int | None
) -> None:
    bench.reporter.sinks.on_retry("bus", reason, 10)
    assert bench.value("retries_total", service="eventbridge", reason=reason) == 10
    assert bench.value("errors_total", stage="put", kind=reason) == 1
    assert bench.value("throttled_total", service="eventbridge", operation="put") == throttled
    (line,) = bench.lines()
    assert (line["event"], line["error_kind"]) == ("put_failed", reason)


def test_a_refused_event_is_an_error_with_its_code(bench: Bench) -> None:
    bench.reporter.sinks.on_failed("bus", "ValidationException")
    assert bench.value("publish_failed_total", code="ValidationException") == 1
    assert bench.events() == ["event_refused"]


# Leases


def test_a_lease_is_held_from_claim_to_release_and_takes_its_series_along(bench: Bench) -> None:
    leases = bench.reporter.leases
    leases.on_claimed(row("shard-0"))
    leases.on_claimed(row("shard-1"))
    bench.reporter.reads.on_read("shard-0", 0.01, 1, 1, 0)
    leases.on_checkpoint("shard-0", "committed", 4_000, 0.02)
    assert bench.value("leases_held") == 2
    assert bench.value("snapshot_bytes", shard="shard-0") == 4_000
    leases.on_released("shard-0", "w-2")
    assert bench.value("leases_held") == 1
    assert bench.value("lag_seconds", shard="shard-0") is None
    assert bench.value("snapshot_bytes", shard="shard-0") is None
    assert bench.events() == ["lease_claimed", "lease_claimed", "lease_released"]
    assert bench.lines()[-1]["message"] == "released to w-2"


def test_every_line_names_the_worker_as_which_the_process_joined_last(bench: Bench) -> None:
    bench.reporter.leases.on_joined("w-1")
    bench.reporter.reads.on_throttled("shard-0")
    bench.reporter.leases.on_buried_self("w-1")
    bench.reporter.leases.on_joined("w-2")
    bench.reporter.reads.on_throttled("shard-0")
    assert [line["worker_id"] for line in bench.lines()] == ["w-1", "w-1", "w-1", "w-2", "w-2"]


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (lambda leases: leases.on_lost("shard-0", 1), "lost"),
        (lambda leases: leases.on_ended(row(), ("shard-1", "shard-2")), "ended"),
        (lambda leases: leases.on_buried_self("w-1"), "buried_self"),
    ],
)
def test_however_a_lease_ends_it_is_not_held_any_more(
    bench: Bench, end: Callable[[LeaseReporter], None], event: str
) -> None:
    bench.reporter.leases.on_claimed(row())
    end(bench.reporter.leases)
    assert bench.value("leases_held") == 0
    assert bench.value("lease_events_total", event=event) == 1
    assert bench.reporter.leases.held == set()


def test_a_failed_shard_is_told_with_its_traceback(bench: Bench) -> None:
    try:
        raise AssertionError("a slot was used twice")
    except AssertionError as error:
        bench.reporter.leases.on_task_failed("shard-0", error, 2)
    (line,) = bench.lines()
    assert line["message"] == "it goes back to its last checkpoint, 2 times in a row now"
    assert line["error_kind"] == "AssertionError"
    assert "Traceback" in line["error"]
    assert "a slot was used twice" in line["error"]
    assert bench.value("errors_total", stage="shard", kind="AssertionError") == 1


@pytest.mark.parametrize("setbacks", [0, 1])
def test_a_shard_that_failed_once_or_is_left_to_its_next_owner_is_not_counted(
    bench: Bench, setbacks: int
) -> None:
    bench.reporter.leases.on_task_failed("shard-0", Outage("SQS", "Send", "down"), setbacks)
    assert bench.lines()[-1]["message"] == "it goes back to its last checkpoint"


def test_a_parked_shard_keeps_its_lease_and_its_series(bench: Bench) -> None:
    bench.reporter.leases.on_claimed(row())
    bench.reporter.leases.on_checkpoint("shard-0", "committed", 4_000, 0.02)
    bench.reporter.leases.on_parked("shard-0", AssertionError("again"))
    refresh(bench, {})
    assert bench.value("last_checkpoint_timestamp_seconds", shard="shard-0") is not None
    assert bench.events()[-1] == "shard_parked"


def test_a_throttled_table_is_named(bench: Bench) -> None:
    bench.reporter.leases.on_error("read shards", Throttled("DynamoDB", "Query", "too many"))
    bench.reporter.leases.on_error("commit", TimeoutError())
    assert bench.value("throttled_total", service="dynamodb", operation="Query") == 1
    assert bench.value("retries_total", service="dynamodb", reason="Throttled") == 1
    assert bench.value("errors_total", stage="lease", kind="TimeoutError") == 1


@pytest.mark.parametrize(
    ("outcome", "lines"), [("committed", []), ("lost", []), ("failed", ["checkpoint"])]
)
def test_only_a_failed_checkpoint_is_worth_a_line(
    bench: Bench, outcome: str, lines: list[str]
) -> None:
    bench.reporter.leases.on_checkpoint("shard-0", outcome, 0, 0.02)
    assert bench.value("checkpoints_total", outcome=outcome) == 1
    assert bench.events() == lines


# Gauges


def refresh(bench: Bench, shards: Mapping[str, Facts], **changes: Any) -> None:
    facts = {"leases_unowned": 0, "inflight_bytes": 0, "is_draining": False} | changes
    assert bench.reporter.refresh(shards, **facts) is bench.metrics


def test_gauges_are_sums_over_the_shards_held_now(bench: Bench) -> None:
    now_ms = bench.clock.wall_ms()
    shards = {
        "shard-0": Facts(now_ms - 7_000, 3, {"revenue": 10, "orders": 1}),
        "shard-1": Facts(None, 4, {"revenue": 20}),
    }
    refresh(bench, shards, leases_unowned=2, inflight_bytes=1_024, is_draining=True)
    assert bench.value("windows_open") == 7
    assert bench.value("groups", rule="revenue") == 30
    assert bench.value("watermark_lag_seconds", shard="shard-0") == 7
    assert bench.value("watermark_lag_seconds", shard="shard-1") is None
    assert bench.value("leases_unowned") == 2
    assert bench.value("inflight_bytes") == 1_024
    assert bench.value("draining") == 1


def test_the_stages_are_told_apart_by_their_streams(bench: Bench) -> None:
    now_ms, merge = bench.clock.wall_ms(), bench.reporter.merge
    assert merge is not None
    bench.reporter.leases.on_claimed(row("shard-0"))
    merge.leases.on_claimed(row("shard-0"))
    merge.leases.on_claimed(row("shard-1"))
    source = {"shard-0": Facts(now_ms - 7_000, 3, {"revenue": 10})}
    merged = {"shard-0": Facts(now_ms - 9_000, 4, {"revenue": 20})}
    refresh(bench, source, merged=merged, leases_unowned=1, merge_unowned=2)
    for stream, lag_s, held, unowned in (("orders", 7, 1, 1), ("merge", 9, 2, 2)):
        labels = {"stream": stream}
        assert bench.value("watermark_lag_seconds", shard="shard-0", **labels) == lag_s
        assert bench.value("leases_held", **labels) == held
        assert bench.value("leases_unowned", **labels) == unowned
    assert bench.value("windows_open") == 7
    assert bench.value("groups", rule="revenue") == 30
    assert {line["stream"] for line in bench.lines()} == {"orders", "merge"}


def test_what_is_merged_are_no_records_of_the_source(bench: Bench) -> None:
    assert bench.reporter.merge is not None
    bench.reporter.merge.steps.on_step("shard-0", step(), 0.1)
    assert bench.value("records_total") == bench.reporter.totals.records == 0
    assert bench.value("merged_total") == 10
    assert bench.value("windows_closed_total") == 1


def test_what_shards_tell_each_other_is_no_published_event(bench: Bench) -> None:
    bench.reporter.partials.on_taken(3, 300)
    assert bench.value("partials_total") == 3
    assert bench.value("partials_bytes_total") == 300
    assert bench.reporter.totals.events_published == 0


def test_gauges_forget_what_is_not_held_any_more(bench: Bench) -> None:
    refresh(bench, {"shard-0": Facts(bench.clock.wall_ms(), 3, {"revenue": 10})})
    refresh(bench, {})
    assert bench.value("windows_open") == 0
    assert bench.value("groups", rule="revenue") == 0
    assert bench.value("watermark_lag_seconds", shard="shard-0") is None


def test_what_runs_is_told_by_labels(bench: Bench) -> None:
    assert bench.value("config_info", hash="abc") == 1
    assert 'version="1.2.3"' in bench.metrics.text().decode()


def test_a_hole_that_stays_is_one_line_and_a_gauge_until_it_is_gone(bench: Bench) -> None:
    for holes in (["0-9"], ["0-9"], ["0-9", "20-29"], []):
        bench.reporter.leases.on_audit(holes)
        assert bench.value("hash_range_holes") == len(holes)
    told = [line["message"] for line in bench.lines() if line["event"] == "hash_range_hole"]
    assert [message.split(",")[0] for message in told] == ["no shard covers hash keys 0-9"] * 2


def test_a_retention_gap_is_counted_by_its_length_and_told(bench: Bench) -> None:
    bench.reporter.steps.on_gap("shard-0", RetentionGap("shard-0", 0, 3_600_000))
    assert bench.value("retention_gaps_total") == 1
    assert bench.value("retention_gap_seconds_total") == 3_600
    (line,) = bench.lines()
    assert (line["event"], line["level"]) == ("retention_gap", "error")
    told = "between 1970-01-01T00:00:00+00:00 and 1970-01-01T01:00:00+00:00"
    assert told in str(line)


def test_shards_that_are_left_to_a_newer_file_are_one_line_that_says_what_to_do(
    bench: Bench,
) -> None:
    bench.reporter.leases.on_registered(3, False)
    for barred in (["shard-0"], ["shard-0"], ["shard-0", "shard-1"], []):
        bench.reporter.leases.on_barred(barred, 3)
        assert bench.value("leases_barred") == len(barred)
    told = [line["message"] for line in bench.lines() if line["event"] == "leases_barred"]
    assert [message.split(" can't")[0] for message in told] == ["1 shard", "2 shards"]
    assert "--rollback" in told[0]
    assert bench.value("pipeline_generation") == 3


def test_with_the_stream_go_all_leases_on_it(bench: Bench) -> None:
    bench.reporter.leases.on_claimed(row("shard-0"))
    bench.reporter.leases.on_stream_replaced(StreamReplaced("orders", 0, 1_700_000_000_000))
    assert bench.value("leases_held") == 0
    line = next(line for line in bench.lines() if line["event"] == "stream_replaced")
    assert "stream orders was deleted, and made again at 2023-11-14T22:13:20+00:00" in str(line)


# All of it


def everything(bench: Bench) -> None:
    """Each observer's every method, once."""
    reporter = bench.reporter
    reads: ReadObserver = reporter.reads
    steps: StepObserver = reporter.steps
    sinks: SinkObserver = reporter.sinks
    letters: SinkObserver = reporter.dead_letters
    leases = reporter.leases
    leases.on_joined("w-1")
    leases.on_heartbeat(0.01)
    leases.on_claimed(row("shard-0"))
    leases.on_claimed(row("shard-1"))
    reads.on_read("shard-0", 0.01, 10, 1_000, 500)
    reads.on_throttled("shard-0")
    reads.on_error("shard-0", "timeout", "slow")
    steps.on_step("shard-0", step(), 0.1)
    steps.on_gap("shard-0", RetentionGap("shard-0", 0, 3_600_000))
    for sink in (sinks, letters):
        sink.on_request("bus", 0.01)
        sink.on_published("bus", "Window Result", 1)
        sink.on_retry("bus", "ThrottlingException", 1)
        sink.on_failed("bus", "ValidationException")
    leases.on_checkpoint("shard-0", "committed", 100, 0.1)
    leases.on_checkpoint("shard-0", "failed", 0, 0.1)
    leases.on_task_failed("shard-0", ValueError("x"), 1)
    leases.on_parked("shard-0", ValueError("x"))
    leases.on_stalled("shard-0", "shard-0 has been reading for 60 s")
    leases.on_handoff("shard-0", "release", 0.2)
    leases.on_fallback("shard-0", "missing")
    leases.on_error("commit", Outage("DynamoDB", "UpdateItem", "gone"))
    leases.on_buried("w-9")
    leases.on_lost("shard-1", 1)
    leases.on_released("shard-2", None)
    leases.on_ended(row("shard-3"), ())
    leases.on_audit(["0-9"])
    leases.on_registered(2, True)
    leases.on_registered(1, False)
    leases.on_barred(["shard-4"], 1)
    refresh(
        bench,
        {"shard-0": Facts(0, 1, {"revenue": 1})},
        leases_unowned=1,
        inflight_bytes=1,
        is_draining=True,
    )
    bench.reporter.partials.on_request(0.1)
    bench.reporter.partials.on_taken(3, 300)
    bench.reporter.partials.on_retry("Throttled", 1)
    assert bench.reporter.merge is not None
    bench.reporter.merge.steps.on_step("shard-0", step(), 0.1)
    bench.reporter.merge.steps.on_left_behind("shard-0", "shard-7")
    bench.metrics.observe("loop_lag_seconds", 0.1)  # the ticker's (test_ticker)
    bench.metrics.observe("collector_pause_seconds", 0.1, generation="2")  # test_collector


def test_no_metric_is_registered_that_nobody_sets(bench: Bench) -> None:
    everything(bench)
    untouched = {
        metric.name
        for metric in METRICS
        if not any(
            sample.value
            for family in parse_text(bench.metrics.text().decode())
            if family.name == PREFIX + metric.name.removesuffix("_total")
            for sample in family.samples
        )
    }
    assert untouched == set()


def test_every_line_has_only_fields_of_the_schema_and_always_the_first_four() -> None:
    bench = Bench("debug")
    everything(bench)
    bench.reporter.leases.on_buried_self("w-1")
    bench.reporter.leases.on_stream_replaced(StreamReplaced("orders", 1, 2))
    for line in bench.lines():
        assert list(line) == [field for field in FIELDS if field in line]
        assert list(line)[:4] == ["@timestamp", "level", "event", "message"]


def test_the_lease_reporter_hears_all_that_the_lease_loop_tells() -> None:
    def methods(observer: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(observer).items()
            if name.startswith("on_")
        }

    assert methods(LeaseReporter) == methods(LeaseObserver)
