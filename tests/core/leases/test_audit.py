"""Whether the shards that are read cover every hash key, whatever was split and merged."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.core.leases.audit import HASH_MAX, Hole, fillers, holes, lasting
from processor.core.leases.rows import ShardRow, StreamKey, fresh_row
from processor.model import TRIM_HORIZON, Shard

STREAM = StreamKey("orders", 1)
KEYS = 16  # a coarse hash space: key k stands for the k-th sixteenth
WIDTH = 2**128 // KEYS


def row(name: str, first: int, last: int, *, ended: bool = False) -> ShardRow:
    """A shard of the sixteenths from `first` to `last`, both included."""
    shard = Shard(name, first * WIDTH, (last + 1) * WIDTH - 1)
    return replace(fresh_row(STREAM, shard, TRIM_HORIZON), ended=ended)


def sixteenths(found: list[Hole]) -> list[tuple[int, int]]:
    return [(hole.first_hash // WIDTH, hole.last_hash // WIDTH) for hole in found]


def test_a_whole_table_has_no_hole_and_an_empty_one_is_a_hole() -> None:
    #  0 ........ 15
    #  a─────┐
    #        b─────┐
    assert holes([row("a", 0, 7), row("b", 8, 15)]) == []
    assert holes([]) == [Hole(0, HASH_MAX)]


def test_holes_are_told_at_either_end_and_between() -> None:
    #  0  1  2  3  4 ... 14  15
    #     a──┘     b──────┘
    assert sixteenths(holes([row("a", 1, 2), row("b", 4, 14)])) == [(0, 0), (3, 3), (15, 15)]


def test_a_single_key_that_nobody_covers_is_a_hole() -> None:
    left, right = Shard("a", 0, 2**127 - 1), Shard("b", 2**127 + 1, HASH_MAX)
    rows = [fresh_row(STREAM, shard, TRIM_HORIZON) for shard in (left, right)]
    assert holes(rows) == [Hole(2**127, 2**127)]


def test_a_parent_that_is_still_read_covers_its_range_and_one_that_ended_does_not() -> None:
    children = [row("left", 0, 7)]
    assert holes([row("parent", 0, 15), *children]) == []
    assert sixteenths(holes([row("parent", 0, 15, ended=True), *children])) == [(8, 15)]


def test_only_what_two_audits_see_lasts() -> None:
    before, now = [Hole(0, 9), Hole(20, 29)], [Hole(5, 24)]
    assert lasting(before, now) == [Hole(5, 9), Hole(20, 24)]
    assert lasting([], now) == []
    assert lasting(before, [Hole(10, 19)]) == []


def test_listed_shards_without_a_row_fill_a_hole() -> None:
    listing = [row("a", 0, 3).shard, row("b", 4, 7).shard, row("c", 8, 15).shard]
    rows = [row("c", 8, 15)]
    (hole,) = holes(rows)
    assert [shard.id for shard in fillers(hole, listing, rows)] == ["a", "b"]


# ---- random splits and merges


class Stream:
    """Open shards by their sixteenths, and a row a shard that was ever open."""

    def __init__(self) -> None:
        self.open = [(0, KEYS - 1)]
        self.rows = {"0": row("0", 0, KEYS - 1)}
        self.names = {(0, KEYS - 1): "0"}

    def reshard(self, before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
        for old in before:
            self.open.remove(old)
            self.rows[self.names[old]] = replace(self.rows[self.names[old]], ended=True)
        for first, last in after:
            name = str(len(self.rows))
            self.names[first, last] = name
            self.rows[name] = row(name, first, last)
            self.open.append((first, last))
        self.open.sort()

    def split(self, which: int) -> None:
        first, last = self.open[which % len(self.open)]
        if first < last:
            middle = (first + last) // 2
            self.reshard([(first, last)], [(first, middle), (middle + 1, last)])

    def merge(self, which: int) -> None:
        if len(self.open) > 1:
            left = self.open[which % (len(self.open) - 1)]
            right = self.open[self.open.index(left) + 1]
            self.reshard([left, right], [(left[0], right[1])])


reshards = st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=30)


@given(reshards, st.data())
def test_no_reshard_makes_a_hole_and_a_missing_row_makes_just_its_own(
    story: list[tuple[bool, int]], data: st.DataObject
) -> None:
    stream = Stream()
    for is_split, which in story:
        (stream.split if is_split else stream.merge)(which)
        assert holes(stream.rows.values()) == []
    lost = data.draw(st.sampled_from(stream.open))
    missing = stream.rows.pop(stream.names[lost])
    assert sixteenths(holes(stream.rows.values())) == [lost]
    (hole,) = holes(stream.rows.values())
    listing = [missing.shard, *(one.shard for one in stream.rows.values())]
    assert fillers(hole, listing, stream.rows.values()) == [missing.shard]
