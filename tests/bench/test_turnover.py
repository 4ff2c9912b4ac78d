"""What a takeover, a hand-off and a reshard cost, told from who read what and when."""

from __future__ import annotations

from bench.turnover import handoffs, is_complete, reshard_gaps, resumptions, takeovers
from processor.local.journal import Read


def page(at_s: float, caller: str, *numbers: int, shard: str = "s", is_end: bool = False) -> Read:
    ends = (str(numbers[0]), str(numbers[-1])) if numbers else ("", "")
    return Read(at_s, caller, shard, len(numbers), *ends, is_end)


#  a reads 1-4, is killed at 3.0; b reads again from 3 on
KILLED = [page(1, "a", 1, 2), page(2, "a", 3, 4), page(14, "b"), page(14.5, "b", 3, 4)]


def test_a_takeover_ends_with_the_heir_s_first_page_with_records() -> None:
    assert takeovers(KILLED, "a", 3.0) == {"s": 11.5}


def test_a_takeover_without_an_heir_is_not_over() -> None:
    gaps = takeovers(KILLED[:3], "a", 3.0)
    assert gaps == {"s": None}
    assert not is_complete(gaps)


def test_only_shards_that_were_the_victim_s_are_taken_over() -> None:
    reads = [
        page(1, "a", 1, shard="given away"),
        page(2, "b", 2, shard="given away"),
        page(1, "a", 1, shard="ended", is_end=True),
        page(9, "b", 3, shard="given away"),
    ]
    assert takeovers(reads, "a", 3.0) == {}


def test_what_a_zombie_reads_after_its_death_is_no_takeover() -> None:
    reads = [page(1, "a", 1), page(20, "a", 2), page(21, "b", 2)]
    assert takeovers(reads, "a", 3.0) == {"s": 18.0}


#  a: 1-2  3-4  (5-6 read, not counted)      b:  (empty)  5-6
HANDED = [
    page(1, "a", 1, 2),
    page(2, "a", 3, 4),
    page(2.25, "a", 5, 6),
    page(2.5, "b"),
    page(2.75, "b", 5, 6),
]


def test_a_handoff_is_from_the_owner_s_last_counted_page_to_its_heir_s_first_read() -> None:
    assert handoffs(HANDED, "a", 2.0) == {"s": 0.5}


def test_a_heir_that_goes_back_to_a_checkpoint_makes_the_handoff_longer() -> None:
    again = [*HANDED[:3], page(2.5, "b", 3, 4)]
    assert handoffs(again, "a", 2.0) == {"s": 1.5}


def test_empty_pages_of_the_owner_do_not_shorten_a_handoff() -> None:
    reads = [page(1, "a", 1, 2), page(2, "a"), page(3, "b", 3, 4)]
    assert handoffs(reads, "a", 1.5) == {"s": 2.0}


def test_a_shard_of_which_the_owner_counted_nothing_is_no_handoff() -> None:
    reads = [page(1, "a", 1, 2), page(2, "b", 1, 2)]
    assert handoffs(reads, "a", 1.5) == {}


def test_numbers_are_compared_as_numbers() -> None:
    reads = [page(1, "a", 8, 9), page(2, "b", 10, 11)]
    assert handoffs(reads, "a", 1.5) == {"s": 1.0}


def test_a_child_waits_from_the_later_end_of_its_parents() -> None:
    reads = [
        page(1.0, "a", 1, shard="left", is_end=True),
        page(1.5, "b", shard="right", is_end=True),
        page(2.25, "b", shard="child"),
        page(2.5, "b", 3, shard="child"),
    ]
    assert reshard_gaps(reads, ["left", "right"], ["child"]) == {"child": 0.75}
    assert reshard_gaps(reads, ["left"], ["child", "other"]) == {"child": 1.25, "other": None}
    assert reshard_gaps(reads[1:], ["left", "right"], ["child"]) == {"child": None}


def test_a_shard_resumes_with_the_first_page_with_records() -> None:
    reads = [page(1, "a", 1), page(6, "a"), page(7, "b", 2)]
    assert resumptions(reads, ["s", "t"], 5.0) == {"s": 2.0, "t": None}
