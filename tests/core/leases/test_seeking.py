"""Positions set by hand: which rows change, and which must not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processor.core.leases.lineage import is_readable, seeks_of
from processor.core.leases.rows import CommittedMark, Pair, ShardRow, StateRef, StreamKey, fresh_row
from processor.core.leases.seeking import Change, inherits, reset, seek_all, seek_one, target
from processor.errors import UsageError
from processor.model import END, TRIM_HORIZON, Mark, Position, Shard

NOW_MS = 1_700_000_000_000
STREAM = StreamKey("orders", NOW_MS - 1_000)
AT = Position("after", "100")
THERE = Position("at_time", str(NOW_MS))
STATE = StateRef("item", "orders/a/1-1-x", "digest", 10)


def running(id_: str, *parents: str, seeks: int = 0) -> ShardRow:
    """A shard that is read, with state and a mark."""
    mark = CommittedMark(7, Mark(AT, "idle", NOW_MS))
    return replace(
        fresh_row(STREAM, Shard(id_, parents=parents), TRIM_HORIZON),
        pairs=(Pair(Position("after", "90"), 6, STATE), Pair(AT, 7, STATE)),
        owner="w1",
        epoch=3,
        commit=7,
        seeks=seeks,
        marks=(mark,),
        moved=True,
        generation=2,
        caught_up_at_ms=NOW_MS,
    )


def ended(id_: str, *parents: str) -> ShardRow:
    return replace(running(id_, *parents), pairs=(Pair(END, 7, STATE),), owner=None, ended=True)


def new(id_: str, *parents: str) -> ShardRow:
    return fresh_row(STREAM, Shard(id_, parents=parents), TRIM_HORIZON)


def table(*rows: ShardRow) -> dict[str, ShardRow]:
    return {row.id: row for row in rows}


def after(changes: list[Change]) -> dict[str, ShardRow]:
    return {change.after.id: change.after for change in changes}


# ---- where to ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("trim_horizon", TRIM_HORIZON),
        ("trim-horizon", TRIM_HORIZON),
        ("LATEST", THERE),
        ("000123", Position("at", "123")),
        ("2023-11-14T22:13:20Z", THERE),
        ("2023-11-14T23:13:20+01:00", THERE),
    ],
)
def test_a_place_is_a_word_a_number_or_a_time(text: str, position: Position) -> None:
    assert target(text, NOW_MS) == position


@pytest.mark.parametrize(
    "text", ["", "tail", "-5", "١٢", "2023-11-14T22:13:20", "2033-01-01T00:00Z"]
)
def test_what_is_no_place_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"--to: found .* expected trim_horizon, latest"):
        target(text, NOW_MS)


# ---- one shard --------------------------------------------------------------------------------


def test_a_seek_leaves_nothing_of_what_was_and_nobody_who_may_write() -> None:
    row = running("a", seeks=2)
    (change,) = seek_one(table(row), "a", THERE, "w-id")
    moved = change.after
    assert change.before == row
    assert (moved.position, [pair.state for pair in moved.pairs]) == (THERE, [None])
    assert (moved.owner, moved.successor, moved.moved, moved.marks) == (None, None, False, ())
    assert (moved.epoch, moved.commit, moved.seeks, moved.generation) == (4, 8, 3, 0)
    assert (moved.caught_up_at_ms, moved.write_id) == (None, "w-id")
    assert moved.incarnation != row.incarnation
    assert not inherits(moved.pairs[-1]), "the parents' state is of another place"


def test_a_seek_of_an_ended_shard_is_refused_as_its_children_went_on() -> None:
    with pytest.raises(
        UsageError, match=r"a has ended.*children: b, c.*nothing was changed.*--all"
    ):
        seek_one(table(ended("a"), running("b", "a"), new("c", "a")), "a", TRIM_HORIZON, "")


def test_a_shard_that_waits_for_its_parent_will_inherit_after_a_seek_too() -> None:
    (change,) = seek_one(table(running("a"), new("b", "a")), "b", THERE, "")
    assert inherits(change.after.pairs[-1])
    assert not is_readable(change.after, table(running("a"), change.after))


def test_a_shard_without_a_row_is_a_wrong_command_line() -> None:
    with pytest.raises(UsageError, match="no lease of a shard 'z'; the table has a"):
        seek_one(table(running("a")), "z", THERE, "")


# ---- all shards -------------------------------------------------------------------------------


def test_a_seek_of_all_reads_ended_parents_again_and_their_children_after_them() -> None:
    rows = table(running("c", "b"), ended("b", "a"), ended("a"), running("x"))
    changes = seek_all(rows, {"a", "b", "c", "x"}, TRIM_HORIZON, "", reopen=True)
    assert [change.after.id for change in changes] == ["a", "x", "b", "c"], "parents first"
    now = after(changes)
    assert not any(row.ended for row in now.values())
    assert [inherits(now[id_].pairs[-1]) for id_ in "abcx"] == [False, True, True, False]
    assert [is_readable(now[id_], now) for id_ in "abcx"] == [True, False, False, True]
    assert {row.seeks for row in now.values()} == {1}
    read_again = now | {"a": replace(now["a"], ended=True)}
    assert is_readable(now["b"], read_again)
    assert seeks_of(now["b"], read_again) == 1


def test_a_parent_that_the_stream_no_longer_has_stays_ended() -> None:
    rows = table(ended("a"), running("b", "a"))
    now = after(seek_all(rows, {"b"}, TRIM_HORIZON, "", reopen=True))
    assert set(now) == {"b"}
    assert is_readable(now["b"], rows | now)
    assert not inherits(now["b"].pairs[-1])


def test_a_seek_past_all_that_ended_leaves_it_ended() -> None:
    rows = table(ended("a"), running("b", "a"), new("c", "a"))
    now = after(seek_all(rows, {"a", "b", "c"}, THERE, "", reopen=False))
    assert set(now) == {"b", "c"}
    assert not any(inherits(row.pairs[-1]) for row in now.values())


# ---- reset ------------------------------------------------------------------------------------


def test_a_reset_stays_where_it_is() -> None:
    row = running("a")
    (change,) = reset(table(row), "a", "")
    assert change.after.position == AT
    assert change.after.pairs[-1].state is None
    assert change.after.seeks == 1
    assert change.after.caught_up_at_ms == NOW_MS, "what was read stays read"


def test_what_a_parent_left_can_be_dropped_before_a_child_begins_with_it() -> None:
    rows = table(ended("a"), new("b", "a"))
    (change,) = reset(rows, "a", "")
    assert change.after.ended
    assert change.after.pairs == (Pair(END, 8),)
    assert is_readable(rows["b"], rows | {"a": change.after})


def test_what_children_went_on_from_is_not_reset() -> None:
    rows = table(ended("a"), running("b", "a"))
    with pytest.raises(UsageError, match="b went on from its state"):
        reset(rows, "a", "")
    assert set(after(reset(rows, None, ""))) == {"b"}, "among all it is left alone"
