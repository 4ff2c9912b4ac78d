"""The check finds every sort of error that is planted in an otherwise perfect run."""

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from processor.local import check
from processor.local.check import DAY_MS, HOUR_MS, Planted, Run, Sent, Service, judge

START_MS = 1_758_790_800_000 // HOUR_MS * HOUR_MS
END_MS = START_MS + 14 * DAY_MS
MINUTE_MS = 60_000
T = (START_MS + 9 * DAY_MS) // (3 * HOUR_MS) * (3 * HOUR_MS)

SENT = (
    Sent("a", "counted", "order", "lima", T + 1, 1.1, 0, "south"),
    Sent("b", "counted", "order", "lima", T + 2, 2.2, 0, "south"),
    Sent("b", "duplicate", "order", "lima", T + 2, 2.2, 0, "south"),
    Sent("c", "counted", "order", "oslo", T + 10 * MINUTE_MS, 0.3, 0, "north"),
    Sent("d", "counted", "payment", "lima", T + 3, 1.1, 1, "south"),
    Sent("e", "counted", "payment", "oslo", T + 4, 2.2, 0, "north"),
    Sent("f", "late", "order", "lima", T - 6 * HOUR_MS, 5.0, 0, "south"),
    Sent("g", "broken"),
)
PLANTED = (
    Planted("surge", "novelty", "lima", T, T + HOUR_MS),
    Planted("silence", "absence", "oslo", T, T + 2 * HOUR_MS),
)
Detail = dict[str, Any]


def window(rule: str, group: str, start_ms: int, count: int, **values: float) -> Detail:
    field = check.GLOBAL.get(rule, "store")
    return {
        "id": f"{rule}-{group}-{start_ms}",
        "kind": "window",
        "rule": rule,
        "key": {field: group} if field else {},
        "window": {"start": start_ms, "end": start_ms + check.WINDOW_MS[rule]},
        "count": count,
        "values": values,
    }


def opened(detector: str, store: str, start_ms: int) -> Detail:
    end_ms = start_ms + 10 * MINUTE_MS
    return {
        "id": f"{detector}-{store}-{start_ms}",
        "kind": "anomaly",
        "rule": "orders",
        "key": {"store": store},
        "window": {"start": start_ms, "end": end_ms},
        "count": 1,
        "values": {},
        "anomaly": {"state": "opened", "kind": detector, "detector": detector},
    }


def details() -> list[Detail]:
    return [
        window("orders", "lima", T, 2, orders=2, revenue=1.1 + 2.2, largest=2.2),
        window("orders", "oslo", T + 10 * MINUTE_MS, 1, orders=1, revenue=0.3, largest=0.3),
        window("trend", "lima", T, 2, orders=2, revenue=1.1 + 2.2),
        window("trend", "oslo", T, 1, orders=1, revenue=0.3),
        window("payments", "lima", T, 1, payments=1, failed_share=1.0),
        window("payments", "oslo", T, 1, payments=1, failed_share=0.0),
        window("regions", "south", T, 2, orders=2, revenue=1.1 + 2.2),
        window("regions", "north", T + 10 * MINUTE_MS, 1, orders=1, revenue=0.3),
        window("failures", "", T, 2, payments=2, failed=1, failure_ratio=0.5),
        opened("novelty", "lima", T + 30 * MINUTE_MS),
        opened("absence", "oslo", T + 30 * MINUTE_MS),
    ]


def envelope(detail: Detail) -> bytes:
    kinds = {"window": "Window Result", "anomaly": "Anomaly Opened"}
    return orjson.dumps(
        {"source": "processor.demo", "detail-type": kinds[detail["kind"]], "detail": detail}
    )


def letter(id_: str) -> bytes:
    return orjson.dumps({"id": id_})


def run(events: list[Detail] | None = None, **changes: Any) -> Run:
    """A perfect run but for the changes."""
    events = details() if events is None else events
    perfect = Run(
        seed=1,
        start_ms=START_MS,
        end_ms=END_MS,
        until_ms=END_MS,
        sent=SENT,
        planted=PLANTED,
        events=[envelope(detail) for detail in events],
        letters=[letter("g")],
        service=Service(8, 1, 1, len(events), 0, 1.0, 2.0),
    )
    return replace(perfect, **changes)


def test_a_perfect_run_passes_and_reports_every_figure_in_order() -> None:
    outcome = judge(run())
    assert outcome.failures == []
    assert list(outcome.report.items()) == [
        ("seed", 1),
        ("records_sent", 8),
        ("records_processed", 8),
        ("broken_sent", 1),
        ("dead_letters", 1),
        ("duplicates_sent", 1),
        ("duplicates_dropped", 1),
        ("late_sent", 1),
        ("late_dropped", 1),
        ("windows_expected", 9),
        ("windows_correct", 9),
        ("windows_wrong", 0),
        ("windows_missing", 0),
        ("global_windows", 3),
        ("events_published", 11),
        ("events_received", 11),
        ("duplicate_ids", 0),
        ("conflicting_ids", 0),
        ("anomalies_planted", 2),
        ("anomalies_found", 2),
        ("false_alarms", 0),
        ("shards_moved", 0),
        ("p50_ms", 1.0),
        ("p99_ms", 2.0),
        ("reshards", 0),
        ("deploys", 0),
        ("records_lost", 0),
    ]


def test_sums_are_those_of_fsum_and_not_of_adding_up() -> None:
    tenths = [Sent(f"t{i}", "counted", "order", "lima", T, 0.1) for i in range(10)]
    figures = check.expected_windows(tenths, END_MS)["orders", "lima", T]
    assert figures["revenue"] == 1.0 != sum([0.1] * 10)


def _wrong_sum(events: list[Detail]) -> None:
    events[0]["values"]["revenue"] += 2**-50


def _wrong_count(events: list[Detail]) -> None:
    events[0]["count"] = 3


def _wrong_mean(events: list[Detail]) -> None:
    events[4]["values"]["failed_share"] = 0.25


def _wrong_key(events: list[Detail]) -> None:
    events[0]["key"]["store"] = "quito"


def _wrong_length(events: list[Detail]) -> None:
    events[0]["window"]["end"] += 1


def _wrong_ratio(events: list[Detail]) -> None:
    events[8]["values"]["failure_ratio"] = 1.0


def _only_a_part(events: list[Detail]) -> None:
    events[6]["part"] = "shardId-000000000000"


def _no_figure(events: list[Detail]) -> None:
    del events[0]["values"]["largest"]


def _extra_figure(events: list[Detail]) -> None:
    events[0]["values"]["smallest"] = 1.0


def _extra_window(events: list[Detail]) -> None:
    events.append(window("orders", "oslo", T, 1, orders=1, revenue=1.0, largest=1.0))


def _second_id(events: list[Detail]) -> None:
    events.append(events[0] | {"id": "another"})


@pytest.mark.parametrize(
    "spoil",
    [
        _wrong_sum,
        _wrong_count,
        _wrong_mean,
        _wrong_key,
        _wrong_length,
        _wrong_ratio,
        _only_a_part,
        _no_figure,
        _extra_figure,
        _extra_window,
        _second_id,
    ],
)
def test_a_wrong_window_is_found(spoil: Callable[[list[Detail]], None]) -> None:
    events = details()
    spoil(events)
    outcome = judge(run(events))
    assert outcome.report["windows_wrong"] == 1
    assert any("windows_wrong" in failure for failure in outcome.failures)
    assert any("window of" in note for note in outcome.notes)


def test_a_missing_window_is_found() -> None:
    outcome = judge(run(details()[1:]))
    assert outcome.report["windows_missing"] == 1
    assert outcome.report["windows_correct"] == 8
    assert any("windows_missing" in failure for failure in outcome.failures)


def test_windows_and_alarms_that_end_past_the_end_are_ignored() -> None:
    after = [window("orders", "lima", END_MS, 1, orders=1), opened("novelty", "tunis", END_MS)]
    outcome = judge(run(details() + after))
    assert outcome.failures == []
    assert outcome.report["false_alarms"] == 0


def test_a_window_that_ends_past_the_end_is_not_expected() -> None:
    sent = Sent("z", "counted", "order", "lima", END_MS - 1, 1.0)
    rules = {key[0] for key in check.expected_windows([sent], END_MS - 1)}
    assert rules == set()


def test_a_window_that_ends_with_the_traffic_is_expected_and_none_after_it() -> None:
    sent = [Sent("a", "counted", "order", "lima", T + 1, 1.0)]
    end_ms = T + check.WINDOW_MS["orders"]
    assert ("orders", "lima", T) in check.expected_windows(sent, end_ms)
    assert ("orders", "lima", T) not in check.expected_windows(sent, end_ms - 1)


def test_a_repeat_of_the_same_bytes_is_counted_but_harmless() -> None:
    events = details()
    outcome = judge(run([*events, events[0], events[0]]))
    assert outcome.failures == []
    assert outcome.report["duplicate_ids"] == 1
    assert outcome.report["events_received"] == 13


def test_one_id_with_two_bodies_is_a_conflict() -> None:
    events = details()
    outcome = judge(run([*events, events[0] | {"correlation_ids": ["x"]}]))
    assert outcome.report["conflicting_ids"] == 1
    assert any("conflicting_ids" in failure for failure in outcome.failures)


def test_the_order_of_a_body_s_keys_is_no_conflict() -> None:
    events = details()
    outcome = judge(run([*events, dict(reversed(events[0].items()))]))
    assert outcome.report["conflicting_ids"] == 0


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"letters": []}, "dead_letters"),
        ({"letters": [letter("g"), letter("h")]}, "dead_letters"),
        ({"service": Service(7, 1, 1, 11, 0, 0, 0)}, "records_processed"),
        ({"service": Service(8, 0, 1, 11, 0, 0, 0)}, "duplicates_dropped"),
        ({"service": Service(8, 1, 2, 11, 0, 0, 0)}, "late_dropped"),
        ({"killed": True}, "shards_moved"),
        ({"sent": SENT[5:], "events": []}, "windows_missing"),
    ],
)
def test_a_wrong_count_is_found(changes: dict[str, Any], name: str) -> None:
    assert any(name in failure for failure in judge(run(**changes)).failures)


def test_a_dead_letter_that_came_twice_counts_once() -> None:
    assert judge(run(letters=[letter("g"), letter("g")])).failures == []


def test_every_record_is_once_broken_duplicate_late_or_counted() -> None:
    events = details()
    events[4]["count"] = 0  # a payment that is in no window
    assert any("each record is" in failure for failure in judge(run(events)).failures)


def test_an_anomaly_that_nobody_opened_is_missed() -> None:
    outcome = judge(run(details()[:-1]))
    assert outcome.report["anomalies_found"] == 1
    assert any("anomalies_found" in failure for failure in outcome.failures)


def test_only_the_named_detector_on_its_key_and_in_its_time_finds_an_anomaly() -> None:
    others = [
        opened("novelty", "oslo", T + 30 * MINUTE_MS),  # another detector
        opened("absence", "lima", T + 30 * MINUTE_MS),  # another key
        opened("absence", "oslo", T - 10 * MINUTE_MS),  # just before
        opened("absence", "oslo", T + 2 * HOUR_MS),  # just after
    ]
    assert judge(run(details()[:-1] + others)).report["anomalies_found"] == 1


def test_detection_is_not_judged_where_traffic_is_too_thin_for_it() -> None:
    assert judge(run(details()[:-1], dense=False)).failures == []


def test_an_alarm_that_nothing_planted_explains_is_false_but_fails_no_run() -> None:
    alarms = [
        opened("novelty", "quito", T),  # another key
        opened("novelty", "lima", T + 25 * HOUR_MS),  # a day after its end
        opened("novelty", "lima", T - 10 * MINUTE_MS),  # before it began
    ]
    outcome = judge(run(details() + alarms))
    assert outcome.report["false_alarms"] == 3
    assert outcome.failures == []
    assert sum("false alarm" in note for note in outcome.notes) == 3


def test_alarms_of_the_first_week_and_aftermaths_are_not_false() -> None:
    alarms = [
        opened("novelty", "quito", START_MS + 7 * DAY_MS - 10 * MINUTE_MS),
        opened("absence", "lima", T + 24 * HOUR_MS),
    ]
    assert judge(run(details() + alarms)).report["false_alarms"] == 0


def test_a_run_cut_short_is_judged_by_what_lies_before_the_cut() -> None:
    outcome = judge(run(details()[:-1], until_ms=T + HOUR_MS))
    assert outcome.report["anomalies_planted"] == 1
    assert outcome.failures == []


def test_the_check_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(check.__file__).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"math", "collections", "dataclasses", "typing", "orjson"}
