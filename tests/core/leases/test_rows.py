"""Shard rows and their changes; positions as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.leases.rows import (
    MARKS_MAX,
    Pair,
    ShardRow,
    StateRef,
    StreamKey,
    claimed,
    committed,
    fresh_row,
    links_of,
    marked,
    position_of,
    position_text,
    released,
    state_epoch,
    state_key,
    unreferenced,
)
from processor.core.pages import place
from processor.model import END, TRIM_HORIZON, Mark, Position, Shard

STREAM = StreamKey("orders", 1_600_000_000_000)
numbers = st.integers(0, 10**64 - 1).map(lambda n: Position("after", str(n)))


def owned() -> ShardRow:
    return claimed(fresh_row(STREAM, Shard("shardId-000000000000"), TRIM_HORIZON), "a", 0)


def commit(row: ShardRow, number: int) -> ShardRow:
    ref = StateRef("item", state_key(row, row.commit + 1, "w"), "digest", 1)
    pair = Pair(Position("after", str(number)), row.commit + 1, ref)
    return committed(row, row.pairs[-1], pair, "w")


def mark(number: int) -> Mark:
    return Mark(Position("after", str(number)), "idle", number)


@given(numbers, numbers)
def test_text_sorts_as_sequence_numbers_do(one: Position, other: Position) -> None:
    by_text = position_text(one) < position_text(other)
    assert by_text == (int(one.value) < int(other.value))


@given(st.one_of(numbers, st.just(END), st.just(TRIM_HORIZON)))
def test_a_position_comes_back_from_its_text(position: Position) -> None:
    assert position_of(position_text(position)) == position


def test_the_text_of_the_end_sorts_after_the_longest_sequence_numbers() -> None:
    assert position_text(END) > position_text(Position("after", "9" * 64))


def test_a_text_that_is_no_position_is_refused_with_what_is_expected() -> None:
    with pytest.raises(ValueError, match="expected after, at, at_time"):
        position_of("LATEST")


def test_the_last_two_pairs_are_kept_and_what_only_the_third_needed_is_free() -> None:
    first = commit(owned(), 1)
    second = commit(first, 2)
    third = commit(second, 3)
    assert [pair.position.value for pair in third.pairs] == ["2", "3"]
    assert unreferenced(first, second) == []
    assert unreferenced(second, third) == list(links_of(first).values())


def test_marks_stay_until_the_older_pair_is_past_them() -> None:
    row = marked(commit(owned(), 1), mark(1), "w")
    after_one = commit(row, 2)
    assert [entry.mark for entry in after_one.marks] == [mark(1)]
    assert commit(after_one, 3).marks == ()


def test_a_mark_at_a_committed_position_is_told_from_one_before_it() -> None:
    row = commit(marked(commit(owned(), 1), mark(5), "w"), 5)
    row = marked(row, mark(5), "w")
    newest = row.pairs[-1]
    assert [entry.commit > newest.commit for entry in row.marks] == [False, True]


def test_marks_without_end_are_our_own_mistake() -> None:
    row = owned()
    for number in range(MARKS_MAX):
        row = marked(row, mark(number), "w")
    with pytest.raises(AssertionError, match="marks without a checkpoint"):
        marked(row, mark(0), "w")


def test_each_claim_raises_the_epoch_ones_own_too() -> None:
    row = owned()
    assert claimed(row, "a", 0).epoch == 2
    assert claimed(released(row, None, moved=False), "b", 0).epoch == 2


def test_only_a_release_to_balance_makes_the_next_owner_rest_it() -> None:
    moved = released(owned(), "b", moved=True)
    assert claimed(moved, "b", 0).moved
    taken_over = claimed(replace(moved, owner="b"), "c", 0)
    assert not taken_over.moved


def test_the_incarnation_changes_with_a_seek_and_with_the_stream() -> None:
    row = owned()
    other = replace(row, stream=StreamKey("orders", 1))
    names = {row.incarnation, replace(row, seeks=1).incarnation, other.incarnation}
    assert names == {"1600000000000.0", "1600000000000.1", "1.0"}


def test_a_state_is_named_by_its_shard_epoch_and_commit() -> None:
    key = state_key(owned(), 7, "w")
    assert key == "orders@1600000000000/shardId-000000000000/0000000001-000000000007-w"
    assert state_epoch(key) == 1


def test_a_position_at_a_record_lies_before_the_one_after_it_and_counts_its_events() -> None:
    at, some, after = Position("at", "7"), Position("at", "7", 3), Position("after", "7")
    assert place(Position("after", "6")) < place(at) < place(some) < place(after)
    for position in (at, some):
        assert position_of(position_text(position)) == position
    assert position_text(some).endswith("7+3")
