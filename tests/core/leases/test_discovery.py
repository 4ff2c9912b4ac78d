"""What a listing asks for: rows to create and to remove, holes to tell, and when to look again."""

from collections.abc import Iterable

from msgspec.structs import replace

from processor.core.leases.audit import Hole
from processor.core.leases.discovery import RESHARD_S_MAX, Discovery, Found
from processor.core.leases.lineage import is_readable
from processor.core.leases.rows import Pair, ShardRow, StreamKey, fresh_row
from processor.model import END, TRIM_HORIZON, Position, Shard

STREAM = StreamKey("orders", 1)
HALF = 2**127
A = Shard("a")
LEFT, RIGHT = Shard("left", 0, HALF - 1, ("a",)), Shard("right", HALF, 2**128 - 1, ("a",))
CLOSED = replace(A, is_closed=True)


def open_row(shard: Shard, *, commits: int = 0) -> ShardRow:
    """Owned, and committed so often."""
    row = replace(fresh_row(STREAM, shard, TRIM_HORIZON), owner="me", epoch=1, commit=commits)
    pairs = [Pair(Position("after", str(n)), n) for n in range(1, commits + 1)]
    return replace(row, pairs=(*row.pairs, *pairs)[-2:])


def ended_row(shard: Shard) -> ShardRow:
    return replace(open_row(shard), owner=None, ended=True, commit=1, pairs=(Pair(END, 1),))


class Worker:
    """A discovery, asked each thirty seconds."""

    def __init__(self) -> None:
        self.discovery = Discovery(STREAM, TRIM_HORIZON)
        self.now = 0.0

    def look(self, listing: list[Shard], *rows: ShardRow) -> Found:
        self.now += 30
        return self.discovery.on_listing(listing, {row.id: row for row in rows}, self.now)


def ids(found: Iterable[ShardRow]) -> list[str]:
    return [row.id for row in found]


# ---- rows to create


def test_new_shards_get_rows_at_once_and_known_ones_none() -> None:
    found = Worker().look([CLOSED, LEFT, RIGHT], ended_row(A), open_row(LEFT))
    assert ids(found.create) == ["right"]


def test_a_hole_that_lasts_is_filled_from_the_listing() -> None:
    """A late parent's row is not made again, unless its children's rows went, too."""
    worker, child = Worker(), open_row(LEFT, commits=2)
    assert worker.look([CLOSED, LEFT], child).create == []
    found = worker.look([CLOSED, LEFT], child)
    assert ids(found.create) == ["a"]
    assert found.holes == []


def test_what_fills_a_hole_does_not_wait_for_parents_that_are_gone() -> None:
    """They ended before it did: waiting for them, it would cover the hole and never be read."""
    worker, child = Worker(), open_row(LEFT, commits=2)
    listing = [replace(CLOSED, parents=("gone",)), LEFT]
    worker.look(listing, child)
    (filled,) = worker.look(listing, child).create
    assert is_readable(filled, {filled.id: filled, child.id: child})


def test_a_hole_that_nobody_can_fill_is_told_when_it_lasts() -> None:
    worker = Worker()
    assert worker.look([CLOSED, LEFT], ended_row(A), open_row(LEFT)).holes == []
    found = worker.look([CLOSED, LEFT], ended_row(A), open_row(LEFT))
    assert found.holes == [Hole(HALF, 2**128 - 1)]
    assert worker.look([CLOSED, LEFT, RIGHT], ended_row(A), open_row(LEFT)).holes == []


# ---- rows to remove


def test_an_ended_shard_goes_after_two_listings_without_it_when_its_children_stand() -> None:
    worker, rows = Worker(), (ended_row(A), open_row(LEFT, commits=2), open_row(RIGHT, commits=5))
    assert worker.look([CLOSED, LEFT, RIGHT], *rows).remove == []
    assert worker.look([LEFT, RIGHT], *rows).remove == []
    assert ids(worker.look([LEFT, RIGHT], *rows).remove) == ["a"]


def test_a_listing_that_names_it_again_starts_the_count_anew() -> None:
    worker, rows = Worker(), (ended_row(A), open_row(LEFT, commits=2), open_row(RIGHT, commits=5))
    for listing in ([LEFT, RIGHT], [CLOSED, LEFT, RIGHT], [LEFT, RIGHT]):
        assert worker.look(listing, *rows).remove == []


def test_it_stays_while_a_child_could_still_go_back_to_its_beginning() -> None:
    worker = Worker()
    for commits in (0, 1):
        rows = (ended_row(A), open_row(LEFT, commits=2), open_row(RIGHT, commits=commits))
        for _ in range(3):
            assert worker.look([LEFT, RIGHT], *rows).remove == []


def test_a_child_that_ended_needs_its_parent_no_more() -> None:
    worker, rows = Worker(), (ended_row(A), ended_row(LEFT), open_row(RIGHT, commits=2))
    worker.look([LEFT, RIGHT], *rows)
    assert ids(worker.look([LEFT, RIGHT], *rows).remove) == ["a"]


def test_a_shard_that_has_not_ended_is_never_removed() -> None:
    worker = Worker()
    for _ in range(3):
        assert worker.look([], open_row(A, commits=9)).remove == []


def test_a_late_listing_does_not_bring_a_removed_shard_back() -> None:
    worker = Worker()
    rows = (open_row(LEFT, commits=2), open_row(RIGHT, commits=2))
    for _ in range(3):
        assert worker.look([CLOSED, LEFT, RIGHT], *rows).create == []


def test_a_parent_that_was_never_known_is_read_even_if_it_is_listed_late() -> None:
    orphan = open_row(replace(LEFT, parents=()), commits=2)
    assert ids(Worker().look([CLOSED, LEFT], orphan).create) == ["a"]


# ---- when to look again


def test_a_reshard_is_watched_closely_until_the_children_are_owned() -> None:
    worker = Worker()
    assert not worker.look([A], open_row(A)).is_resharding
    assert worker.look([CLOSED, LEFT, RIGHT], open_row(A)).is_resharding
    fresh = [fresh_row(STREAM, shard, TRIM_HORIZON) for shard in (LEFT, RIGHT)]
    assert worker.look([CLOSED, LEFT, RIGHT], ended_row(A), *fresh).is_resharding
    rows = (ended_row(A), open_row(LEFT), open_row(RIGHT))
    assert not worker.look([CLOSED, LEFT, RIGHT], *rows).is_resharding


def test_a_parent_that_is_read_for_hours_after_a_reshard_is_not_watched_closely_for_ever() -> None:
    worker = Worker()
    worker.look([A], open_row(A))
    assert worker.look([CLOSED, LEFT, RIGHT], open_row(A)).is_resharding
    worker.now += RESHARD_S_MAX
    assert not worker.look([CLOSED, LEFT, RIGHT], open_row(A)).is_resharding


def test_the_first_listing_and_shards_that_go_are_no_reshard() -> None:
    worker, rows = Worker(), (ended_row(A), open_row(LEFT), open_row(RIGHT))
    assert not worker.look([CLOSED, LEFT, RIGHT], open_row(A)).is_resharding
    assert not worker.look([LEFT, RIGHT], *rows).is_resharding
