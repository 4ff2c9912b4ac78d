"""Maintenance: which windows detectors do not see, and what that leaves as it was."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import config, zones
from processor.config import ConfigErrors
from processor.config.changes import compare
from processor.config.render import show, to_yaml
from processor.core import versions
from processor.core.alarms.maintenance import Calendar
from processor.core.rules import Rule
from processor.core.waves import ABSENCE_HORIZON
from processor.model import DetectSpec, MaintenanceSpec
from tests.core import streams
from tests.core.alarms.support import NAN
from tests.core.alarms.support import Rule as Scored
from tests.core.test_rules import NOW_MS, SIZE_MS, add, advance, told

HOUR = 3_600_000
BERLIN = zones.table("Europe/Berlin")


def utc(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def hours_off(spec: MaintenanceSpec, day: str) -> list[int]:
    """Of the 24 hours of a day of UTC, which are off in Berlin."""
    calendar, start_ms = Calendar([spec], BERLIN), utc(f"{day}T00:00")
    return [
        hour
        for hour in range(24)
        if calendar.overlaps(start_ms + hour * HOUR, start_ms + (hour + 1) * HOUR)
    ]


SUNDAY = MaintenanceSpec(every="sun 02:00", for_ms=3 * HOUR)


@pytest.mark.parametrize(
    ("day", "off"),
    [
        ("2026-01-11", [1, 2, 3]),  # a Sunday in winter
        ("2026-07-12", [0, 1, 2]),  # … in summer
        ("2026-01-12", []),  # a Monday
        ("2026-03-29", [1, 2, 3]),  # clocks go from 2:00 to 3:00: it begins at the skip
        ("2026-10-25", [0, 1, 2]),  # from 3:00 back to 2:00: it begins the first time
    ],
)
def test_what_comes_every_week_begins_by_the_clock_and_lasts_real_time(day, off):
    assert hours_off(SUNDAY, day) == off


def test_what_comes_every_day_may_go_over_midnight():
    night = MaintenanceSpec(every="day 23:00", for_ms=2 * HOUR)
    assert hours_off(night, "2026-01-12") == [22, 23]
    assert hours_off(MaintenanceSpec(every="sat 23:30", for_ms=30 * HOUR), "2026-01-12") == [
        *[0, 1, 2, 3, 4]  # since Saturday, 22:30 UTC
    ]


def test_what_comes_once_is_in_local_time_and_a_window_that_touches_it_is_not_in_it():
    spec = MaintenanceSpec(from_ms=utc("2026-01-12T10:00"), to_ms=utc("2026-01-12T12:00"))
    assert hours_off(spec, "2026-01-12") == [9, 10]
    calendar = Calendar([spec], BERLIN)
    begin = utc("2026-01-12T09:00")
    assert not calendar.overlaps(begin - HOUR, begin)
    assert calendar.overlaps(begin - HOUR, begin + 1)
    assert calendar.overlaps(begin + 2 * HOUR - 1, begin + 3 * HOUR)
    assert not calendar.overlaps(begin + 2 * HOUR, begin + 3 * HOUR)


@settings(max_examples=60, deadline=None)
@given(
    day=st.sampled_from(["day", "mon", "thu", "sun"]),
    hour=st.integers(0, 23),
    hours=st.integers(1, 23),
    start=st.integers(0, 366 * 24),
    size=st.integers(1, 30),
)
def test_a_window_overlaps_what_one_of_its_hours_overlaps(day, hour, hours, start, size):
    spec = MaintenanceSpec(every=f"{day} {hour:02}:00", for_ms=hours * HOUR)
    calendar = Calendar([spec], BERLIN)
    first = utc("2026-01-01T00:00") + start * HOUR
    parts = [calendar.overlaps(first + i * HOUR, first + (i + 1) * HOUR) for i in range(size)]
    assert calendar.overlaps(first, first + size * HOUR) == any(parts)


# ---- what detectors do not see ------------------------------------------------------------------


def rule(from_s: int, to_s: int, *detects: DetectSpec) -> Rule:
    """Windows of a second; those from `from_s` to `to_s` seconds after now are off."""
    off = MaintenanceSpec(from_ms=NOW_MS + from_s * SIZE_MS, to_ms=NOW_MS + to_s * SIZE_MS)
    spec = streams.rule("orders", size_ms=SIZE_MS, detect=detects, maintenance=(off,))
    return Rule(streams.plan(spec).rules[0], "shop", "1", streams.SHARD)


def states(of: Rule, seconds: int) -> list[tuple[int, str]]:
    """Which window after now tells which change of an alarm."""
    out = told(advance(of, NOW_MS + seconds * SIZE_MS))
    return [((end - NOW_MS) // SIZE_MS - 1, what) for _, end, what in out if what != "window"]


def test_no_alarm_opens_escalates_or_resolves_in_maintenance():
    """
    second     0   1   2   3   4   5
    records    1   3   1   1   3   3
    off            ────────
    """
    few = DetectSpec("few", "threshold", "orders", {"below": 2, "recover_after": 1})
    orders = rule(1, 4, few)
    for second, n in enumerate([1, 3, 1, 1, 3, 3]):
        add(orders, *[("a", NOW_MS + second * SIZE_MS)] * n)
    assert states(orders, 6) == [(0, "opened"), (4, "resolved")]


def test_nothing_is_learnt_in_maintenance():
    quiet, busy = (rule(5, 9, DetectSpec("novelty", "novelty", "orders")) for _ in range(2))
    for orders, n in ((quiet, 1), (busy, 9)):
        for second in range(12):
            many = n if 5 <= second < 9 else 2
            add(orders, *[("a", NOW_MS + second * SIZE_MS)] * many)
        advance(orders, NOW_MS + 12 * SIZE_MS)
    saved = [
        {name: bytes(column) for name, column in of.snapshot().scorer.items()}
        for of in (quiet, busy)
    ]
    assert saved[0] == saved[1]


def test_maintenance_longer_than_the_horizon_of_silence_leaves_the_horizon_as_it_was():
    few = DetectSpec("few", "threshold", "orders", {"below": 1, "n_of_m": [3, 3]})
    length = 2 * ABSENCE_HORIZON
    orders = rule(1, length, few)
    add(orders, ("a", NOW_MS))
    assert states(orders, length + 9) == [(length + 2, "opened")]


def test_records_in_maintenance_end_a_silence_that_had_used_up_the_horizon():
    """Or what falls silent after the maintenance would not be judged."""
    few = DetectSpec("few", "threshold", "orders", {"below": 1, "cool_down": 110})
    begin = ABSENCE_HORIZON + 50
    orders = rule(begin, begin + 5, few)
    add(orders, ("a", NOW_MS))
    assert states(orders, begin + 1) == [(1, "opened")]
    add(orders, ("a", NOW_MS + (begin + 2) * SIZE_MS))
    assert states(orders, begin + 20) == []
    assert orders.snapshot().waves == (NOW_MS + (begin + 20) * SIZE_MS, 15)


def test_silence_in_maintenance_is_none_and_what_was_silent_before_is_forgotten():
    def opens_after(n_before: int, is_off: bool) -> int:
        rule = Scored(DetectSpec("absence", "absence", "count"))
        for hour in range(24 * 9):
            rule.see({0: 0.0 if hour % 3 == 0 else 5.0}, 0 if hour % 3 == 0 else 5)
        for _ in range(n_before):
            assert rule.see({0: NAN}, 0) == []
        if is_off:
            rule.scorer.pass_over(np.array([0]))
        return next(i for i in range(99) if rule.see({0: NAN}, 0))

    fresh = opens_after(0, False)
    assert fresh >= 3
    assert opens_after(2, False) < fresh
    assert opens_after(2, True) >= fresh


# ---- the file -----------------------------------------------------------------------------------

FILE = """app: shop
source: {stream: orders}
event: {partition_key: store}
sinks: {out: {stdout: json}}
rules:
  orders:
    group_by: [store]
    window: WINDOW
    aggregates: {orders: count}
    detect: [{absence: orders}]
    maintenance: MAINTENANCE
    emit: {anomalies: out}
"""


def read(maintenance: str, window: str = "{tumbling: 10m, zone: Europe/Berlin}") -> Any:
    text = FILE.replace("WINDOW", window).replace("MAINTENANCE", maintenance)
    return config.loads(text, {}, file="f.yaml").pipeline


BOTH = '[{every: "sun 02:00", for: 3h}, {from: 2026-12-24T00:00, to: 2026-12-27T06:30:15}]'


def test_it_is_read_and_shown_again():
    pipeline = read(BOTH)
    assert pipeline.rules[0].maintenance == (
        MaintenanceSpec(every="sun 02:00", for_ms=3 * HOUR),
        MaintenanceSpec(utc("2026-12-24T00:00"), utc("2026-12-27T06:30:15")),
    )
    again = config.loads(to_yaml(show(pipeline)), {}, file="f.yaml").pipeline
    assert again == pipeline
    assert read("[]").rules[0].maintenance == ()


@pytest.mark.parametrize(
    ("text", "window", "message"),
    [
        ("{every: x}", "{tumbling: 10m}", "a list"),
        ('[{every: "funday 02:00", for: 3h}]', "{tumbling: 10m}", "mon to sun or day"),
        ('[{every: "sun 24:00", for: 3h}]', "{tumbling: 10m}", "mon to sun or day"),
        ('[{every: "sun 02:00"}]', "{tumbling: 10m}", "for"),
        ('[{every: "day 02:00", for: 24h}]', "{tumbling: 10m}", "never be over"),
        ('[{every: "day 02:00", for: 2h}]', "{tumbling: 23h}", "the detectors never see any"),
        ('[{every: "day 02:00", for: 2h}]', "{calendar: day}", "the detectors never see any"),
        ("[{from: 2026-12-24T00:00}]", "{tumbling: 10m}", "to"),
        ("[{from: 2026-12-24T00:00, to: 2026-12-24T00:00}]", "{tumbling: 10m}", "after `from`"),
        ("[{from: 2026-12-24T00:00, to: 2027-12-24T00:00}]", "{tumbling: 10m}", "31d"),
        ("[{from: 2026-12-24T00:00Z, to: 2026-12-25T00:00Z}]", "{tumbling: 10m}", "local time"),
        ("[{from: 2026-13-24T00:00, to: 2026-12-25T00:00}]", "{tumbling: 10m}", "local time"),
        ("[{}]", "{tumbling: 10m}", "from"),
    ],
)
def test_what_makes_no_sense_is_refused_with_why(text, window, message):
    with pytest.raises(ConfigErrors, match=message):
        read(text, window)


def test_a_change_of_it_keeps_all_that_was_learnt():
    old, new = read("[]"), read(BOTH)
    one, other = old.rules[0], new.rules[0]
    assert versions.rule_version(old, one) != versions.rule_version(new, other)
    assert versions.state_version(old, one) == versions.state_version(new, other)
    (change,) = compare(old, new).rules
    assert (change.fate, [setting.path for setting in change.why]) == ("converted", ["maintenance"])
