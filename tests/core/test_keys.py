"""Group keys: dense indices, homes and parts, `other`, and the same again after a restore."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.keys import OTHER, KeyTable, is_home
from processor.model import Shard

WHOLE = Shard("shardId-000000000000")
LOWER = Shard("shardId-000000000001", 0, 2**127 - 1)
UPPER = Shard("shardId-000000000002", 2**127, 2**128 - 1)
Value = str | int
Record = tuple[tuple[Value, ...], str]  # (values by field, partition key)


def table(
    *fields: str, home: str | None = "store", shard: Shard = WHOLE, max_: int = 1_000
) -> KeyTable:
    return KeyTable(fields or ("store",), home, shard, max_)


def feed(keys: KeyTable, records: Sequence[Record], cuts: Iterable[int] = ()) -> list[int]:
    found: list[int] = []
    for start, stop in pairwise(sorted({0, len(records), *cuts} & set(range(len(records) + 1)))):
        part = records[start:stop]
        columns: Any = list(zip(*(values for values, _ in part), strict=True))
        found += keys.indices(columns, [partition_key for _, partition_key in part]).tolist()
    return found


def at_home(*values: Value) -> list[Record]:
    return [((value,), str(value)) for value in values]


def shown(keys: KeyTable) -> list[tuple[tuple[Value, ...], str | None]]:
    return [(tuple(value for _, value in group.key), group.part) for group in keys.groups]


def test_keys_have_indices_in_the_order_of_their_first_record() -> None:
    keys = table()
    assert feed(keys, at_home("b", "a", "b", "c", "a")) == [0, 1, 0, 2, 1]
    assert feed(keys, at_home("c", "d")) == [2, 3]
    assert [group.key for group in keys.groups][:2] == [(("store", "b"),), (("store", "a"),)]


def test_the_integer_1_and_the_text_1_are_two_keys_both_at_home() -> None:
    keys = table()
    assert feed(keys, [((1,), "1"), (("1",), "1"), ((1,), "1")]) == [0, 1, 0]
    assert shown(keys) == [((1,), None), (("1",), None)]
    assert keys.groups[0].text != keys.groups[1].text


def test_all_fields_make_the_key() -> None:
    keys = table("store", "kind", "level")
    records: list[Record] = [
        (("a", "b", 1), "a"),
        (("a", "b", "1"), "a"),
        (("a", "b,1", ""), "a"),
        (("b", "a", 1), "b"),
        (("a", "b", 1), "a"),
    ]
    assert feed(keys, records) == [0, 1, 2, 3, 0]
    assert keys.groups[0].key == (("store", "a"), ("kind", "b"), ("level", 1))


# ---- homes and parts ------------------------------------------------------------------------


def test_a_shard_is_home_to_the_keys_whose_md5_it_holds() -> None:
    for i in range(50):
        key = f"store-{i}"
        is_low = int(hashlib.md5(key.encode()).hexdigest(), 16) < 2**127
        assert is_home(LOWER, key) == is_low
        assert is_home(UPPER, key) != is_low
        assert is_home(WHOLE, key)


def test_both_ends_of_a_hash_range_belong_to_it() -> None:
    at = int(hashlib.md5(b"store-1").hexdigest(), 16)
    assert is_home(Shard("s", at, at), "store-1")
    assert not is_home(Shard("s", at + 1, 2**128 - 1), "store-1")
    assert not is_home(Shard("s", 0, at - 1), "store-1")


def test_a_record_with_another_partition_key_belongs_to_this_shards_part_of_its_group() -> None:
    keys = table()
    records: list[Record] = [(("a",), "a"), (("a",), "elsewhere"), (("a",), ""), (("a",), "a")]
    assert feed(keys, records) == [0, 1, 1, 0]
    assert shown(keys) == [(("a",), None), (("a",), WHOLE.id)]
    assert keys.groups[0].text != keys.groups[1].text


def test_a_record_that_an_explicit_hash_key_sent_here_joins_that_part() -> None:
    keys, foreign = table(shard=LOWER), next(k for k in map(str, range(99)) if is_home(UPPER, k))
    records: list[Record] = [((foreign,), "other key"), ((foreign,), foreign), ((foreign,), "x")]
    assert feed(keys, records) == [0, 0, 0]
    assert shown(keys) == [((foreign,), LOWER.id)]


def test_without_a_home_field_every_key_is_this_shards_part() -> None:
    for home in (None, "somewhere else"):
        keys = table(home=home)
        assert feed(keys, at_home("a", "b", "a")) == [0, 1, 0]
        assert shown(keys) == [(("a",), WHOLE.id), (("b",), WHOLE.id)]


def test_the_home_field_may_stand_anywhere_in_the_key() -> None:
    keys = table("kind", "store")
    assert feed(keys, [(("x", "a"), "a"), (("x", "a"), "x")]) == [0, 1]
    assert [part for _, part in shown(keys)] == [None, WHOLE.id]


# ---- other ----------------------------------------------------------------------------------


def test_past_the_bound_new_keys_are_other_and_known_ones_stay() -> None:
    keys = table("store", "kind", max_=2)
    records: list[Record] = [((v, 1), v) for v in ("a", "b", "c", "a", "d", "b", "c")]
    assert feed(keys, records) == [0, 1, 2, 0, 2, 1, 2]
    assert shown(keys)[2] == ((OTHER, OTHER), WHOLE.id)


def test_a_flood_of_keys_takes_no_memory_past_the_bound() -> None:
    keys = table(shard=LOWER, max_=10)
    for start in range(0, 5_000, 500):
        feed(keys, at_home(*(f"store-{i}" for i in range(start, start + 500))))
    assert len(keys) == 11


def test_a_producers_own_other_is_told_from_ours_or_is_ours() -> None:
    keys = table(max_=3)
    assert feed(keys, [((OTHER,), OTHER), ((OTHER,), "x"), *at_home("a", "b", "c")]) == [
        0,
        1,
        2,
        1,
        1,
    ]
    assert shown(keys) == [((OTHER,), None), ((OTHER,), WHOLE.id), (("a",), None)]


# ---- cuts and restores ----------------------------------------------------------------------

values = st.sampled_from(["a", "b", "1", 1, 0, -1, "", OTHER, "store-1", "store-2", "é"])
partition_keys = st.sampled_from(["a", "b", "1", "-1", "", OTHER, "store-1", "store-2", "x"])
pairs = st.tuples(values, values)
record = st.one_of(
    st.tuples(pairs, partition_keys), pairs.map(lambda values: (values, str(values[0])))
)
records = st.lists(record, min_size=1, max_size=40)
shards = st.sampled_from([WHOLE, LOWER, UPPER])
places = st.sets(st.integers(0, 40))


@settings(deadline=None, max_examples=200)
@given(records, places, st.integers(1, 12), shards, st.sampled_from([("store",), ("store", "k")]))
def test_neither_cuts_nor_restores_change_an_index_or_a_group(
    all_: list[Record], cuts: set[int], max_: int, shard: Shard, fields: tuple[str, ...]
) -> None:
    all_ = [(values[: len(fields)], partition_key) for values, partition_key in all_]
    steady = table(*fields, shard=shard, max_=max_)
    expected = feed(steady, all_)
    moved, found = table(*fields, shard=shard, max_=max_), []
    for start, stop in pairwise(sorted({0, len(all_), *cuts} & set(range(len(all_) + 1)))):
        found += feed(moved, all_[start:stop])
        successor = table(*fields, shard=shard, max_=max_)
        successor.restore(moved.names())
        moved = successor
    assert found == expected
    assert moved.groups == steady.groups


@settings(deadline=None)
@given(records, shards)
def test_groups_have_different_texts(all_: list[Record], shard: Shard) -> None:
    keys = table("store", "k", shard=shard)
    feed(keys, all_)
    assert len({group.text for group in keys.groups}) == len(keys)


@pytest.mark.parametrize(
    "names",
    [
        [(["a"], None), (["a"], None)],
        [(["a", "b"], None)],
        [([], None)],
        [([OTHER], WHOLE.id), ([OTHER], WHOLE.id)],
        [([str(i)], None) for i in range(12)],
    ],
    ids=["twice", "two values", "no value", "two others", "too many"],
)
def test_keys_that_cannot_be_this_rules_are_refused(names: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        table(max_=10).restore(names)
