"""Keys that go silent."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from processor.detectors.absence import AbsenceParams
from tests.detectors.support import DAY, HOUR, TEN_MIN, Said, Series


def feed(series: Series, counts: list[int]) -> list[Said]:
    return [series.see(count, count) for count in counts]


def days(n: int, open_hours: range = range(24), size_ms: int = TEN_MIN) -> list[int]:
    """Counts of a shop with records in all windows of its open hours, and none outside."""
    return [
        int(start // HOUR % 24 in open_hours) for _ in range(n) for start in range(0, DAY, size_ms)
    ]


def delay(series: Series, most: int = 400) -> int:
    """Silent windows until it raises."""
    return next(n for n in range(1, most) if series.see(0, 0).raised)


def test_an_always_on_series_is_missed_after_two_windows():
    series = Series("absence")
    feed(series, days(20))
    assert delay(series) == 2


@pytest.mark.parametrize(("p", "windows"), [(0.8, 6), (0.3, 26)])
def test_the_rarer_the_records_the_longer_it_waits(p, windows):
    delays = []
    for seed in range(9):
        series = Series("absence")
        feed(series, [int(x) for x in np.random.default_rng(seed).random(25 * 144) < p])
        series.see(1, 1)
        delays.append(delay(series))
    assert np.median(delays) == pytest.approx(windows, abs=1)


def test_its_sentence_says_for_how_long_and_what_is_usual():
    series = Series("absence")
    feed(series, days(20))
    series.see(0, 0)
    assert series.see(0, 0).sentence == (
        "no records for 20 min (2 windows); usually 100 % of windows at this hour have some"
    )


def test_it_goes_on_raising_until_records_come_back_and_is_calm_at_once():
    series = Series("absence")
    feed(series, days(20))
    assert [one.raised for one in feed(series, [0, 0, 0, 0, 1])] == [False, True, True, True, False]
    assert feed(series, [1])[0].calm


@pytest.mark.parametrize("size_ms", [60_000, TEN_MIN, HOUR])
@pytest.mark.parametrize("open_hours", [range(9, 17), range(6, 18), range(23), range(3)])
def test_a_shop_that_closes_at_night_is_never_missed_then(size_ms, open_hours):
    series = Series("absence", size_ms)
    series.now_ms += open_hours.start * HOUR  # the hardest start: it is known open only
    said = feed(series, days(5, open_hours, size_ms)[open_hours.start * HOUR // size_ms :])
    assert not any(one.raised for one in said)


def test_a_shop_that_stays_shut_is_missed_in_the_morning():
    series = Series("absence")
    feed(series, days(14, range(9, 17)))
    closed = feed(series, [0] * 144)
    assert 9 * 6 < next(i for i, one in enumerate(closed) if one.raised) + 1 <= 9 * 6 + 5


def test_a_key_that_has_only_just_appeared_is_not_missed():
    series = Series("absence", 60_000)
    assert not any(one.raised for one in feed(series, [1] * 200 + [0] * 1_200))


def test_a_key_that_was_never_there_is_not_judged():
    series = Series("absence")
    said = feed(series, [0] * 300)
    assert not any(one.raised or one.calm for one in said)
    assert all(np.isnan(one.score) for one in said)


def test_a_declared_outage_is_not_learnt():
    series, same = Series("absence"), Series("absence")
    feed(series, days(20))
    feed(same, days(20))
    outage = feed(series, [0] * 7 * 144)
    assert outage[-1].raised
    feed(series, [1])
    same.now_ms += 7 * DAY
    feed(same, [1])
    assert series.columns.snapshot(1) == same.columns.snapshot(1)


def test_empty_windows_of_a_run_by_chance_are_learnt_at_their_hours():
    series = Series("absence")
    feed(series, [1, 0] * 144 + [1])
    total, full = (series.columns.arrays[name][0].copy() for name in ("total", "full"))
    feed(series, [1] * 4 + [0, 0] + [1])  # the empty ones are at 0:50 and 1:00
    assert (series.columns.arrays["total"][0] - total)[:3].tolist() == [5.0, 2.0, 0.0]
    assert (series.columns.arrays["full"][0] - full)[:3].tolist() == [4.0, 1.0, 0.0]
    assert series.columns.arrays["pending"].sum() == 0


def test_min_count_is_refused():
    with pytest.raises(msgspec.ValidationError, match="leave it out"):
        msgspec.convert({"min_count": 3}, AbsenceParams)
