"""Which windows hold a time: hopping ones, and days and longer of a time zone."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor import zones
from processor.core import zone
from processor.core.windows import grid
from processor.core.windows.grid import Periodic
from processor.model import WindowSpec

HOUR_MS = 3_600_000


def at(*, year: int, month: int, day: int, hour: int = 0, of: str) -> int:
    local = datetime.datetime(year, month, day, hour, tzinfo=ZoneInfo(of))
    return int(local.timestamp() * 1000)


def calendar(period: str, of: str, offset_ms: int = 0) -> grid.Grid:
    spec = WindowSpec(0, offset_ms, "calendar", calendar=period, zone=of)  # type: ignore[arg-type]
    return grid.of(spec, {of: zones.table(of)})


def window_of(windows: grid.Grid, time_ms: int) -> tuple[int, int]:
    end_ms = int(windows.last_ends(np.array([time_ms]))[0])
    return windows.start_of(end_ms), end_ms


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 70), st.lists(st.integers(0, 500)))
def test_hopping_windows_hold_what_lies_between_their_start_and_end(
    size: int, every: int, offset: int, times: list[int]
) -> None:
    every = min(size, every)
    windows = Periodic(size, every, offset)
    which, ends = windows.ends(np.array(times, dtype=np.int64))
    found = list(zip(which.tolist(), ends.tolist(), strict=True))
    starts = range(offset % every - 200 * every, 600, every)
    expected = [
        (i, start + size)
        for i, time in enumerate(times)
        for start in starts
        if start <= time < start + size
    ]
    assert found == expected
    for i, end in found:
        units = windows.units_of(end)
        assert windows.units(np.array([times[i]])).tolist()[0] in units
        assert len(units) * np.gcd(size, every) == size


@pytest.mark.parametrize(
    ("of", "month", "day", "hours"),
    [
        ("Europe/Berlin", 3, 29, 23),
        ("Europe/Berlin", 10, 25, 25),
        ("America/New_York", 3, 8, 23),
        ("America/New_York", 11, 1, 25),
        ("Asia/Tokyo", 3, 29, 24),
    ],
)
def test_a_day_on_which_clocks_change_is_an_hour_shorter_or_longer(
    of: str, month: int, day: int, hours: int
) -> None:
    start_ms = at(year=2026, month=month, day=day, of=of)
    assert window_of(calendar("day", of), start_ms) == (start_ms, start_ms + hours * HOUR_MS)
    last = start_ms + hours * HOUR_MS
    assert window_of(calendar("day", of), last - 1)[0] == start_ms
    assert window_of(calendar("day", of), last)[0] == last


def test_a_business_day_begins_at_its_time_of_day_also_when_clocks_change() -> None:
    days = calendar("day", "Europe/Berlin", 6 * HOUR_MS)
    start_ms = at(year=2026, month=3, day=28, hour=6, of="Europe/Berlin")
    end_ms = at(year=2026, month=3, day=29, hour=6, of="Europe/Berlin")
    assert end_ms - start_ms == 23 * HOUR_MS
    assert window_of(days, start_ms) == (start_ms, end_ms)


@pytest.mark.parametrize("of", ["America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo", "UTC"])
def test_a_day_begins_with_the_first_instant_of_its_date_where_midnight_is_skipped(of: str) -> None:
    starts = zone.starts_ms(zones.table(of), "day")
    local = ZoneInfo(of)
    for start_ms in starts[366:25_000:7].tolist():
        first = datetime.datetime.fromtimestamp(start_ms / 1000, local)
        before = datetime.datetime.fromtimestamp((start_ms - 1) / 1000, local)
        assert first.date() == before.date() + datetime.timedelta(days=1)


def test_weeks_begin_on_mondays_and_months_and_years_on_their_first_day() -> None:
    of = "Europe/Berlin"
    noon = at(year=2026, month=5, day=14, hour=12, of=of)
    monday = at(year=2026, month=5, day=11, of=of)
    assert window_of(calendar("week", of), noon)[0] == monday
    may, june = at(year=2026, month=5, day=1, of=of), at(year=2026, month=6, day=1, of=of)
    assert window_of(calendar("month", of), noon) == (may, june)
    first, next_ = at(year=2026, month=1, day=1, of=of), at(year=2027, month=1, day=1, of=of)
    assert window_of(calendar("year", of), noon) == (first, next_)


def test_windows_reach_from_1970_to_2100_and_the_last_one_takes_what_is_later() -> None:
    days = calendar("day", "America/New_York")
    assert window_of(days, 0) == (-19 * HOUR_MS, 5 * HOUR_MS)
    last = at(year=2100, month=12, day=31, hour=12, of="UTC")
    assert window_of(days, last)[1] > last
    assert window_of(days, last + 10**12)[0] >= window_of(days, last)[0]


def test_a_zones_hours_are_those_of_the_database() -> None:
    berlin = zones.table("Europe/Berlin")
    winter, summer = (
        at(year=2026, month=1, day=1, of="UTC"),
        at(year=2026, month=7, day=1, of="UTC"),
    )
    assert (berlin.shift_ms(winter), berlin.shift_ms(summer)) == (HOUR_MS, 2 * HOUR_MS)
