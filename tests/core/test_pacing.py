"""When a shard is read again, and how much of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.pacing import Pace, Pacing

PACE = Pace()
FULL_JITTER = 1.0
MIB = 1024 * 1024
PLENTY = 512 * MIB


def reads_at(pacing: Pacing, until: float, *, records: int, behind: int) -> list[float]:
    """The starts of reads that are answered at once, always alike."""
    now, starts = 0.0, []
    while (now := max(now, pacing.next_at(now))) <= until:
        starts.append(now)
        pacing.on_request(now)
        pacing.on_page(records, records * 250, behind, now)
    return starts


def paced_after(*facts: str) -> Pacing:
    """Pacing that lived through `facts` at time 0."""
    pacing = Pacing(PACE, 0.0)
    for fact in facts:
        pacing.on_request(0.0)
        {"throttle": pacing.on_throttle, "error": pacing.on_error}[fact](FULL_JITTER, 0.0)
    return pacing


def test_the_first_read_starts_at_once():
    assert Pacing(PACE, 7.0).next_at(7.0) == 7.0


def test_a_shard_that_is_behind_is_read_four_times_a_second():
    assert reads_at(Pacing(PACE, 0.0), 1.0, records=1000, behind=5000) == [0, 0.25, 0.5, 0.75, 1.0]


def test_an_empty_page_while_behind_is_followed_at_once_within_the_budget():
    assert reads_at(Pacing(PACE, 0.0), 0.5, records=0, behind=5000) == [0, 0.25, 0.5]


def test_a_slow_answer_leaves_nothing_to_wait_for():
    pacing = Pacing(PACE, 0.0)
    pacing.on_request(0.0)
    pacing.on_page(1000, 250_000, 5000, 3.0)
    assert pacing.next_at(3.0) <= 3.0


def test_a_quiet_shard_is_read_less_and_less_down_to_once_a_second():
    starts = reads_at(Pacing(PACE, 0.0), 10.0, records=0, behind=0)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps[0] == pytest.approx(0.25)
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(("records", "behind"), [(1, 0), (0, 1)], ids=["a record", "a lag"])
def test_anything_that_happens_wakes_a_quiet_shard(records, behind):
    pacing = Pacing(PACE, 0.0)
    reads_at(pacing, 10.0, records=0, behind=0)
    pacing.on_request(20.0)
    pacing.on_page(records, 250 * records, behind, 20.0)
    assert pacing.next_at(20.0) == pytest.approx(20.25)


@pytest.mark.parametrize(
    ("throttles", "rate"), [(0, 4.0), (1, 2.0), (2, 1.0), (3, 0.5), (4, 0.5), (9, 0.5)]
)
def test_a_throttle_halves_the_rate_down_to_a_read_in_two_seconds(throttles, rate):
    assert paced_after(*["throttle"] * throttles).reads_per_s == rate


@pytest.mark.parametrize(
    ("now", "rate"),
    [(9.9, 1.0), (10.0, 1.25), (20.0, 1.5), (119.0, 3.75), (120.0, 4.0), (1e6, 4.0)],
)
def test_the_rate_comes_back_by_a_quarter_each_ten_seconds(now, rate):
    pacing = paced_after("throttle", "throttle")
    pacing.next_at(now)
    assert pacing.reads_per_s == rate


def test_a_throttle_starts_the_ten_seconds_again():
    pacing = paced_after("throttle")
    pacing.on_throttle(FULL_JITTER, 9.0)
    pacing.next_at(18.0)
    assert pacing.reads_per_s == 1.0


def test_the_rate_comes_back_once_in_ten_seconds_however_often_it_is_asked_for():
    pacing = paced_after("throttle", "throttle")
    for now in (10.0, 10.25, 10.5, 11.0, 19.9):
        pacing.next_at(now)
    assert pacing.reads_per_s == 1.25


@pytest.mark.parametrize(
    ("errors", "wait_s"), [(1, 0.25), (2, 0.25), (3, 0.4), (5, 1.6), (8, 10.0), (2_000, 10.0)]
)
def test_retries_back_off_twofold_up_to_ten_seconds_and_never_beat_the_budget(errors, wait_s):
    assert paced_after(*["error"] * errors).next_at(0.0) == pytest.approx(wait_s)


def test_a_good_answer_ends_the_back_off():
    pacing = paced_after(*["error"] * 8)
    pacing.on_page(10, 2500, 5000, 1.0)
    assert pacing.next_at(1.0) <= 1.0


def limit_for(record_bytes: int, bytes_max: int = PLENTY, throttles: int = 0) -> int:
    pacing = paced_after(*["throttle"] * throttles)
    pacing.on_page(100, 100 * record_bytes, 5000, 0.0)
    return pacing.limit(bytes_max)


@pytest.mark.parametrize(
    ("record_bytes", "limit"),
    [
        (1, 10_000),  # the service's own limit
        (218, 2_404),  # 2 MiB/s in four reads
        (1_000, 1_000),  # not less than a thousand, which costs least
        (100_000, 41),  # but 4 MiB a page
        (10 * MIB, 1),  # and always one
    ],
)
def test_a_page_is_what_the_shard_can_give_between_two_reads(record_bytes, limit):
    assert limit_for(record_bytes) == limit


def test_fewer_reads_take_larger_pages():
    assert limit_for(218, throttles=1) == 4_809


def test_scarce_memory_makes_pages_smaller():
    assert limit_for(218, bytes_max=64 * 1024) == 300


def test_a_thousand_records_are_asked_for_while_their_size_is_unknown():
    assert Pacing(PACE, 0.0).limit(PLENTY) == 1_000


facts = st.lists(
    st.tuples(
        st.sampled_from(["page", "empty", "caught up", "throttle", "error"]),
        st.floats(0, 1, exclude_max=True),  # jitter
        st.floats(0, 20),  # what the answer takes
    ),
    max_size=40,
)


@given(facts)
def test_whatever_happens_there_are_five_reads_in_a_second_at_most_and_one_in_twelve(history):
    pacing, now, starts = Pacing(PACE, 0.0), 0.0, []
    for fact, jitter, takes in history:
        due = pacing.next_at(now)
        assert due <= now + PACE.backoff_s_max + 1 / PACE.reads_per_s_min
        now = max(now, due)
        assert pacing.next_at(now) <= now, "when it is due it is due"
        starts.append(now)
        pacing.on_request(now)
        now += takes
        if fact == "throttle":
            pacing.on_throttle(jitter, now)
        elif fact == "error":
            pacing.on_error(jitter, now)
        else:
            records = 10 if fact == "page" else 0
            pacing.on_page(records, records * 99, 0 if fact == "caught up" else 7, now)
        assert PACE.reads_per_s_min <= pacing.reads_per_s <= PACE.reads_per_s
        assert 1 <= pacing.limit(PLENTY) <= PACE.records_max
    assert all(sixth - first > 1 for first, sixth in zip(starts, starts[5:], strict=False))
