"""One shard's numbers, and that its log may be trimmed and read at any place."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from processor.local.kinesis_limits import Limits
from processor.local.kinesis_shards import Entry, Shard, even_ranges

NOW = 1_700_000_000_000


def shard_of(*sizes: int, parents: tuple[Shard, ...] = ()) -> Shard:
    """A shard with a record a millisecond, each named by its index."""
    shard = Shard(3, even_ranges(1)[0], parents, Limits(), NOW)
    for index, size in enumerate(sizes):
        shard.append([Entry(b"%d" % index, b"", size)], NOW + index)
    return shard


@given(
    st.lists(st.integers(1, 50), max_size=40),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(1, 20),
    st.integers(1, 200),
)
def test_a_page_is_what_a_list_would_give(
    sizes: list[int], trimmed: int, index: int, records_max: int, bytes_max: int
) -> None:
    shard = shard_of(*sizes)
    shard.trim(NOW + trimmed)
    first = max(min(trimmed, len(sizes)), index)
    expected, total = [], 0
    for i in range(first, min(first + records_max, len(sizes))):
        total += sizes[i]
        if expected and total > bytes_max:
            break
        expected.append(i)
    page = shard.read(index, records_max, bytes_max)
    assert [int(fragment.split(b'"')[3]) for fragment in page.fragments] == expected
    assert page.size_bytes == sum(sizes[i] for i in expected)
    if expected:
        assert page.next_index == expected[-1] + 1


@given(st.integers(0, 2**64 - 2), st.integers(-3, 3))
def test_a_number_gives_back_its_index(index: int, off: int) -> None:
    shard = shard_of()
    number = shard.sequence_number(index)
    assert shard.index_at(number) == index
    assert shard.index_after(number) == index + 1
    assert shard.index_at(number + off) == index + (off > 0)
    assert len(str(number)) == 56


def test_the_first_number_lies_before_the_first_record() -> None:
    shard = shard_of(1)
    assert shard.first_number < shard.sequence_number(0)
    assert shard.index_at(shard.first_number) == 0
    assert shard.index_after(shard.first_number) == 0


def test_children_lie_above_their_parents_even_within_a_second() -> None:
    parent = shard_of(1, 1, 1)
    child = shard_of(parents=(parent,))
    grandchild = shard_of(parents=(child, parent))
    largest_index = 2**63
    assert child.first_number > parent.sequence_number(largest_index)
    assert grandchild.first_number > child.sequence_number(largest_index)


@given(st.integers(1, 1_000))
def test_even_ranges_cover_every_hash_key_once(count: int) -> None:
    ranges = even_ranges(count)
    assert len(ranges) == count
    assert sum(each.last - each.first + 1 for each in ranges) == 2**128
    assert all(left.last + 1 == right.first for left, right in pairwise(ranges))
