"""Which shards get rows, when they may be read, and who comes first."""

import pytest
from msgspec.structs import replace

from processor.core.leases.lineage import children_of, heirs, is_readable, seeks_of, undiscovered
from processor.core.leases.rows import ShardRow, StreamKey, fresh_row
from processor.model import TRIM_HORIZON, Position, Shard

STREAM = StreamKey("orders", 1)
NOON = Position("at_time", "1700000000000")


def row(name: str, *parents: str, ended: bool = False, epoch: int = 0) -> ShardRow:
    fresh = fresh_row(STREAM, Shard(name, parents=parents), TRIM_HORIZON)
    return replace(fresh, ended=ended, epoch=epoch)


def by_id(*rows: ShardRow) -> dict[str, ShardRow]:
    return {one.id: one for one in rows}


def test_every_listed_shard_without_a_row_gets_one_at_the_pinned_start() -> None:
    listing = [Shard("old"), Shard("new", 5, 9)]
    (fresh,) = undiscovered(STREAM, listing, by_id(row("old")), NOON)
    assert fresh == fresh_row(STREAM, Shard("new", 5, 9), NOON)


def test_rows_of_parents_come_before_those_of_their_children() -> None:
    #  a ─┬─ c ─┐
    #     └─ b ─┴─ 0       (ids are no help: 0 is the youngest)
    listing = [
        Shard("0", parents=("c", "b")),
        Shard("b", parents=("a",)),
        Shard("c", parents=("a",)),
        Shard("a"),
    ]
    fresh = undiscovered(STREAM, listing, {}, TRIM_HORIZON)
    assert [one.id for one in fresh] == ["a", "b", "c", "0"]


def test_a_parent_that_was_gone_when_we_came_is_not_waited_for() -> None:
    listing = [Shard("child", parents=("gone", "here")), Shard("here")]
    fresh = by_id(*undiscovered(STREAM, listing, {}, TRIM_HORIZON))
    assert fresh["child"].shard.parents == ("here",)


def test_a_parent_that_left_the_listing_but_has_a_row_is_waited_for() -> None:
    listing = [Shard("child", parents=("slow",))]
    (fresh,) = undiscovered(STREAM, listing, by_id(row("slow")), TRIM_HORIZON)
    assert fresh.shard.parents == ("slow",)
    assert not is_readable(fresh, by_id(row("slow"), fresh))


@pytest.mark.parametrize("which", [(), ("left",), ("right",)])
def test_a_merged_child_waits_for_both_parents(which: tuple[str, ...]) -> None:
    child = row("child", "left", "right")
    parents = [row(name, ended=name in which) for name in ("left", "right")]
    assert not is_readable(child, by_id(child, *parents))


def test_a_child_is_readable_when_all_its_parents_ended() -> None:
    child = row("child", "left", "right")
    rows = by_id(child, row("left", ended=True), row("right", ended=True))
    assert is_readable(child, rows)


def test_a_parent_whose_row_was_not_read_has_not_ended() -> None:
    child = row("child", "left")
    assert not is_readable(child, by_id(child))


def test_what_was_claimed_once_stays_readable_when_its_parents_rows_go() -> None:
    child = row("child", "left", epoch=1)
    assert is_readable(child, by_id(child))


def test_an_ended_shard_is_not_readable() -> None:
    assert not is_readable(row("a", ended=True), {})


def test_children_are_left_to_who_ended_their_parent() -> None:
    parent = replace(row("parent"), seeks=3)
    shards = [Shard("left", 0, 4, ("parent",)), Shard("right", 5, 9, ("parent", "gone"))]
    left, right = children_of(parent, shards, {"parent"}, NOON, "me")
    assert left.successor == right.successor == "me"
    assert (left.seeks, right.seeks) == (3, 3)
    assert right.shard.parents == ("parent",)
    assert left.position == NOON


def test_a_child_takes_its_parents_highest_number_of_seeks() -> None:
    left, right = replace(row("left"), seeks=2), replace(row("right"), seeks=5)
    child = row("child", "left", "right")
    assert seeks_of(child, by_id(left, right, child)) == 5
    assert seeks_of(replace(child, seeks=7), by_id(left, right)) == 7
    assert seeks_of(row("alone"), {}) == 0


# ---- shards past retention


def test_where_all_parents_are_gone_older_ancestors_that_have_not_ended_are_waited_for() -> None:
    #  a ─── b (never known) ─── c        only c is listed now; a has state to leave
    listing = [Shard("c", 0, 9, ("b",))]
    half, other, done = (
        replace(row(name), shard=Shard(name, first, last), ended=name == "done")
        for name, first, last in (("a", 0, 4), ("elsewhere", 10, 19), ("done", 5, 9))
    )
    (fresh,) = undiscovered(STREAM, listing, by_id(half, other, done), TRIM_HORIZON)
    assert fresh.shard.parents == ("a",)


def test_a_shard_is_followed_by_its_children_or_by_the_oldest_that_are_listed_of_its_range() -> (
    None
):
    shard = Shard("a", 0, 9)
    child, grandchild = Shard("b", 0, 4, ("a",)), Shard("c", 0, 2, ("b",))
    beside = Shard("d", 10, 19, ("a2",))
    assert heirs(shard, [child, grandchild, beside]) == (child,)
    assert heirs(shard, [grandchild, Shard("e", 0, 1, ("c",)), beside]) == (grandchild,)
    assert heirs(shard, [beside]) == ()


def test_a_shard_that_follows_by_its_range_alone_names_who_ended_as_its_parent() -> None:
    parent = replace(row("a"), shard=Shard("a", 0, 9))
    (child,) = children_of(parent, [Shard("c", 0, 4, ("b",))], {"a"}, NOON, "me")
    assert child.shard.parents == ("a",)
