"""Who claims the children of shards that ended, and what must be read before."""

from msgspec.structs import replace

from processor.core.leases.rows import ShardRow, StreamKey, fresh_row
from processor.core.leases.succession import Succession
from processor.model import TRIM_HORIZON, Shard


def row(name: str, *parents: str, ended: bool = False) -> ShardRow:
    fresh = fresh_row(StreamKey("orders", 1), Shard(name, parents=parents), TRIM_HORIZON)
    return replace(fresh, ended=ended)


def by_id(*rows: ShardRow) -> dict[str, ShardRow]:
    return {one.id: one for one in rows}


LEFT, RIGHT = row("left", ended=True), row("right", ended=True)
CHILD = row("child", "left", "right")


def after_the_end_of_left() -> Succession:
    succession = Succession()
    succession.on_ended(LEFT, [CHILD])
    return succession


def test_after_an_end_the_child_and_its_other_parents_are_read_once() -> None:
    succession = after_the_end_of_left()
    assert succession.families() == {"child": ("child", "right")}
    assert succession.claimable(by_id(CHILD, LEFT, RIGHT)) == []  # not before they are read
    succession.on_family("child", by_id(CHILD, LEFT, RIGHT))
    assert succession.families() == {}


def test_a_child_whose_parents_all_ended_is_claimed_until_it_is_somebody_s() -> None:
    succession, rows = after_the_end_of_left(), by_id(CHILD, LEFT, RIGHT)
    succession.on_family("child", rows)
    assert succession.claimable(rows) == ["child"]
    assert succession.claimable(rows) == ["child"]  # the first attempt may have failed
    claimed = replace(CHILD, owner="other", epoch=1)
    assert succession.claimable(by_id(claimed, LEFT, RIGHT)) == []
    assert succession.claimable(rows) == []


def test_a_child_with_a_parent_that_is_still_read_is_left_to_who_ends_that_one() -> None:
    succession = after_the_end_of_left()
    succession.on_family("child", by_id(CHILD, LEFT, row("right")))
    assert succession.claimable(by_id(CHILD, LEFT, RIGHT)) == []


def test_a_child_that_was_owned_before_is_left_to_the_usual_ways() -> None:
    succession, released = after_the_end_of_left(), replace(CHILD, epoch=3)
    succession.on_family("child", by_id(released, LEFT, RIGHT))
    assert succession.claimable(by_id(released, LEFT, RIGHT)) == []
