"""What the stream in memory does beyond the contract of all sources."""

import pytest

from processor.model import END, TRIM_HORIZON, Position, Shard
from processor.sources.memory import MemorySource
from tests.clocks import VirtualClock

MIDDLE = 2**127
LEFT, RIGHT = Shard("left", 0, MIDDLE - 1), Shard("right", MIDDLE, 2**128 - 1)


@pytest.fixture
def source() -> MemorySource:
    return MemorySource("orders", [LEFT, RIGHT], VirtualClock())


async def test_a_merged_child_is_named_by_both_parents(source):
    child = Shard("both", parents=("left", "right"))
    source.close("left", "right", children=[child])
    for parent in ("left", "right"):
        assert (await source.open(parent, TRIM_HORIZON).read()).children == (child,)
    assert [shard.is_closed for shard in await source.list_shards()] == [True, True, False]


async def test_sequence_numbers_rise_over_all_shards_as_numbers_not_as_text(source):
    numbers = source.put("left", [b"x"] * 9) + source.put("right", [b"x"] * 2)
    assert [int(number) for number in numbers] == list(range(1, 12))
    page = await source.open("right", Position("after", "9")).read()
    assert page.sequence_numbers == ["10", "11"]


async def test_a_closed_shard_takes_no_more_records(source):
    source.close("left", children=[])
    with pytest.raises(AssertionError, match="left is closed"):
        source.put("left", [b"x"])


def test_nothing_is_read_from_the_end(source):
    with pytest.raises(AssertionError, match="nothing is read from the end of left"):
        source.open("left", END)
