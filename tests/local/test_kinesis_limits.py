"""The bucket behind every rate."""

from hypothesis import given
from hypothesis import strategies as st

from processor.local.kinesis_limits import Bucket


def test_a_bucket_holds_one_second() -> None:
    bucket = Bucket(5, 0)
    for _ in range(5):
        assert bucket.has(1, 0)
        bucket.take(1)
    assert not bucket.has(1, 199)
    assert bucket.has(1, 200)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=60))
def test_no_more_passes_than_the_rate_and_one_second_ahead(waits_ms: list[int]) -> None:
    bucket, now_ms, passed = Bucket(7, 0), 0, 0
    for wait_ms in waits_ms:
        now_ms += wait_ms
        while bucket.has(1, now_ms):
            bucket.take(1)
            passed += 1
    assert passed <= 7 + 7 * now_ms / 1000


def test_more_than_a_second_is_paid_in_full_whatever_was_saved() -> None:
    bucket = Bucket(2, 0)
    bucket.take(10)
    assert not bucket.has(0, 4_999)
    assert bucket.has(0, 5_000)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1, 1_000)
    bucket.take(1)
    assert not bucket.has(1, 0)
    assert not bucket.has(1, 1_999)
    assert bucket.has(1, 2_000)


def test_no_rate_is_no_limit() -> None:
    bucket = Bucket(None, 0)
    bucket.take(10**12)
    assert bucket.has(10**12, 0)
