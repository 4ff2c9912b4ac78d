"""A shard's start, end, gaps and idleness, as told from the service's answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.progress import (
    Gap,
    Idle,
    Unread,
    is_end,
    is_note_due,
    outcome_of,
    start_position,
)
from processor.errors import ConfigError
from processor.model import TRIM_HORIZON, Page, Position

NOON_MS = 1_700_000_000_000
LATENESS_MS = 5_000


@pytest.mark.parametrize(
    ("start", "position"),
    [
        ("trim_horizon", TRIM_HORIZON),
        ("latest", Position("at_time", str(NOON_MS))),
        ("2023-11-14T22:13:19Z", Position("at_time", "1699999999000")),
        ("2023-11-14T23:13:19.250+01:00", Position("at_time", "1699999999250")),
    ],
)
def test_a_start_becomes_a_position_that_can_be_stored(start, position):
    assert start_position(start, NOON_MS) == position


@pytest.mark.parametrize(
    ("start", "complaint"),
    [
        ("newest", "source.start: found 'newest', expected trim_horizon, latest, or an ISO 8601"),
        ("2023-11-14T22:13:19", "which has no zone"),
        ("2023-11-14T22:13:21Z", "which is in the future"),
    ],
)
def test_a_start_that_can_not_be_is_refused_with_what_would_do(start, complaint):
    with pytest.raises(ConfigError, match=complaint):
        start_position(start, NOON_MS)


@pytest.mark.parametrize(
    ("has_records", "has_next", "has_children", "outcome"),
    [
        (True, True, False, "goes_on"),
        (True, True, True, "goes_on"),
        (True, False, True, "ended"),
        (True, False, False, "ask_list"),
        (False, False, False, "garbled"),  # {}: what a cut body looks like to lenient clients
        (False, True, False, "garbled"),
        (False, False, True, "garbled"),
    ],
)
def test_only_records_and_named_children_end_a_shard(has_records, has_next, has_children, outcome):
    answer = {"has_records": has_records, "has_next": has_next, "has_children": has_children}
    assert outcome_of(**answer) == outcome


@pytest.mark.parametrize(
    ("is_listed", "is_closed", "ended"),
    [(True, True, True), (True, False, False), (False, False, False), (False, True, False)],
)
def test_without_named_children_an_ending_sequence_number_must_prove_the_end(
    is_listed, is_closed, ended
):
    assert is_end(is_listed=is_listed, is_closed=is_closed) is ended


HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


NOW_MS = 1_700_000_000_000


def page(*ages_h: float, behind_h: float = 0, hours: float = 0, is_last: bool = False) -> Page:
    """Records of those ages, answered `hours` from now."""
    date_ms = NOW_MS + round(hours * HOUR_MS)
    arrivals_ms = [date_ms - round(age * HOUR_MS) for age in ages_h]
    return Page(
        payloads=[b""] * len(ages_h),
        sequence_numbers=[str(n + 1) for n in range(len(ages_h))],
        partition_keys=[""] * len(ages_h),
        arrivals_ms=np.array(arrivals_ms, np.int64),
        millis_behind=round(behind_h * HOUR_MS),
        date_ms=date_ms,
        children=() if is_last else None,
    )


def hours(gap: Gap | None) -> tuple[float, float] | None:
    return gap and ((gap.first_ms - NOW_MS) / HOUR_MS, (gap.last_ms - NOW_MS) / HOUR_MS)


@pytest.mark.parametrize(
    ("until_h", "found", "gap"),
    [
        # a retention of a day; the last worker knew of everything until `until_h`
        (-24, page(), None),
        (-25, page(), (-25, -24)),  # whether there were records, nobody can know
        (-30, page(2, 1), (-30, -24)),  # the oldest that came is 2 h old
        (-30, page(23.5), (-30, -24)),
        (-30, page(30, 29), None),  # the service had not trimmed yet
        (-30, page(27, 26), (-30, -27)),
        (-30, page(behind_h=5), None),  # it looks further: the next answer tells
        (-30, page(is_last=True), (-30, -24)),  # a shard past retention
        (-2, page(1), None),
    ],
)
def test_a_gap_lies_between_what_was_read_and_what_is_still_held(until_h, found, gap):
    unread = Unread(NOW_MS + until_h * HOUR_MS)
    assert hours(unread.gap(found, DAY_MS)) == gap


def test_a_shard_that_nobody_has_read_has_no_gap():
    assert Unread(None).gap(page(1), DAY_MS) is None


def test_a_shard_that_is_idle_for_days_has_no_gap_while_somebody_asks():
    unread = Unread(NOW_MS)
    for hour in range(100):
        assert unread.gap(page(hours=hour), DAY_MS) is None
        unread.on_taken(page(hours=hour))
    assert unread.until_ms == NOW_MS + 99 * HOUR_MS


def test_a_reader_that_retention_overtakes_has_a_gap():
    """It is 23 h behind, and then away for three; the next records are an hour younger."""
    unread = Unread(None)
    unread.on_taken(page(23.5, 23, behind_h=23))
    assert hours(unread.gap(page(23, hours=3), DAY_MS)) == (-23, -21)


def test_a_reader_that_is_a_day_behind_and_still_gets_the_next_record_has_none():
    unread = Unread(None)
    unread.on_taken(page(24, behind_h=23.9))
    assert unread.gap(page(25.9, hours=2), DAY_MS) is None


def test_the_moment_goes_by_what_is_read_and_never_back():
    unread = Unread(None)
    seen = []
    for found in (
        page(2, 1, behind_h=0.5),
        page(behind_h=3),  # tells nothing
        page(0.4, behind_h=0.6),  # another host
        page(hours=1),
    ):
        unread.on_taken(found)
        seen.append((unread.until_ms - NOW_MS) / HOUR_MS)
    assert seen == [-0.5, -0.5, -0.5, 1]


def test_the_end_of_a_shard_says_only_of_its_records_when_its_children_can_have_begun():
    unread = Unread(NOW_MS - 5 * HOUR_MS)
    unread.on_taken(page(3, 2, is_last=True))
    assert unread.until_ms == NOW_MS - 2 * HOUR_MS
    unread.on_taken(page(is_last=True))
    assert unread.until_ms == NOW_MS - 2 * HOUR_MS


def test_what_an_idle_shard_has_to_say_is_committed_about_once_an_hour():
    names = [f"shardId-{n:012d}" for n in range(1_000)]
    due = [
        next(m for m in range(100) if is_note_due(NOW_MS + m * 60_000, NOW_MS, name))
        for name in names
    ]
    assert 45 <= min(due) < 47
    assert 58 < max(due) <= 60
    busiest = max(due.count(minute) for minute in due)
    assert busiest < 120  # of 1,000: not all at one moment
    assert not is_note_due(None, 0, "shardId-000000000000")


def candidates(*lines: str, watermark_s: int | None) -> list[int | None]:
    """What each line allows, in seconds: `Date` in seconds and what came, or an error or pause."""
    idle, found = Idle(LATENESS_MS), []
    for line in lines:
        date, what = line.split(maxsplit=1)
        match what:
            case "empty":
                idle.on_answer(0, 0, int(date) * 1000)
            case "record":
                idle.on_answer(1, 0, int(date) * 1000)
            case "behind":
                idle.on_answer(0, 200, int(date) * 1000)
            case "error":
                idle.on_error()
            case "pause":
                idle.on_pause()
        candidate = idle.candidate_ms(watermark_s and watermark_s * 1000)
        found.append(candidate // 1000 if candidate is not None else None)
    return found


def empties(first: int, last: int) -> list[str]:
    """An empty answer every five seconds."""
    return [f"{date} empty" for date in range(first, last + 1, 5)]


def test_after_thirty_seconds_of_empty_answers_the_watermark_may_go_on():
    found = candidates("1000 record", *empties(1000, 1040), watermark_s=950)
    assert found == [None] * 7 + [950 + 30, 950 + 35, 950 + 40]


def test_it_never_comes_nearer_to_now_than_lateness_and_thirty_seconds():
    found = candidates(*empties(1000, 1040), watermark_s=990)
    assert found[-3:] == [1030 - 35, 1035 - 35, 1040 - 35]


def test_a_recording_of_long_ago_never_jumps_to_now():
    assert candidates(*empties(1000, 1030), watermark_s=3)[-1] == 33


def test_where_there_is_no_watermark_idleness_makes_none():
    assert candidates(*empties(1000, 1100), watermark_s=None)[-1] is None


@pytest.mark.parametrize("event", ["record", "behind", "error", "pause"])
def test_idleness_starts_again_after(event):
    lines = [*empties(1000, 1025), f"1026 {event}", *empties(1027, 1052)]
    assert candidates(*lines, watermark_s=900) == [None] * len(lines)
    assert candidates(*lines, "1057 empty", watermark_s=900)[-1] == 900 + 30


def test_answers_more_than_five_seconds_apart_are_no_proof():
    lines = [*empties(1000, 1025), "1031 empty"]
    assert candidates(*lines, watermark_s=900)[-1] is None


def test_a_date_a_little_back_is_another_host_of_the_service():
    lines = [*empties(1000, 1030), "1029 empty"]
    assert candidates(*lines, watermark_s=900)[-1] == 930


def test_a_mark_that_was_applied_does_not_count_twice():
    idle = Idle(LATENESS_MS)
    watermark_ms = 900_000
    for date_s in range(1000, 1061):
        idle.on_answer(0, 0, date_s * 1000)
        watermark_ms = idle.candidate_ms(watermark_ms) or watermark_ms
    assert watermark_ms == 960_000


dates = st.lists(st.integers(0, 7), min_size=1, max_size=80)


@given(steps=dates, watermark_s=st.integers(-100_000, 60))
def test_it_moves_no_faster_than_the_service_s_time_and_never_back(steps, watermark_s):
    idle, date_ms, last = Idle(LATENESS_MS), 0, None
    for step in steps:
        date_ms += step * 1000
        idle.on_answer(0, 0, date_ms)
        candidate = idle.candidate_ms(watermark_s * 1000)
        if candidate is None:
            last = None
            continue
        assert candidate <= date_ms - LATENESS_MS - 30_000
        assert candidate <= watermark_s * 1000 + date_ms
        assert last is None or candidate >= last
        last = candidate
