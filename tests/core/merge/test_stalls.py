"""Whom global rules go on without, and when."""

from processor.core.merge.members import Behind
from processor.core.merge.stalls import Stall

SLOW, OTHER = Behind("shard-1", 1_000), Behind("shard-2", 1_000)
MINUTE_MS = 60_000


def watched(
    stall: Stall, behind: Behind | None, first_s: int, last_s: int, millis: int = 0
) -> None:
    for second in range(first_s, last_s + 1):
        stall.on_answer(behind, millis, second * 1_000)


def test_a_shard_that_stands_still_for_long_enough_is_left_behind() -> None:
    stall = Stall(MINUTE_MS)
    watched(stall, SLOW, 0, 59)
    assert stall.candidate() is None
    watched(stall, SLOW, 60, 60)
    assert stall.candidate() == SLOW
    stall.on_answer(None, 0, 61_000)
    assert stall.candidate() is None


def test_a_shard_that_gets_on_slowly_or_another_one_starts_it_again() -> None:
    for changed in (OTHER, SLOW._replace(watermark_ms=1_001), None):
        stall = Stall(MINUTE_MS)
        watched(stall, SLOW, 0, 50)
        stall.on_answer(changed, 0, 51_000)
        watched(stall, SLOW, 52, 111)
        assert stall.candidate() is None
        watched(stall, SLOW, 112, 112)
        assert stall.candidate() == SLOW


def test_what_is_still_unread_may_tell_of_it() -> None:
    stall = Stall(MINUTE_MS)
    watched(stall, SLOW, 0, 200, millis=5)
    assert stall.candidate() is None


def test_a_worker_that_slept_has_not_waited() -> None:
    stall = Stall(MINUTE_MS)
    watched(stall, SLOW, 0, 30)
    watched(stall, SLOW, 100, 120)
    assert stall.candidate() is None


def test_without_a_limit_it_is_waited_for_for_ever() -> None:
    stall = Stall(None)
    watched(stall, SLOW, 0, 10_000)
    assert stall.candidate() is None
