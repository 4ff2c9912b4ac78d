"""Group keys: dense indices, homes and parts, `other`, and the same again after a restore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.homes import place_of, range_of
from processor.core.keys import OTHER, Group, KeyTable, SavedKeys
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


def foreign_keys() -> Iterator[str]:
    """Keys whose home is not the lower half."""
    return (key for key in map(str, range(99)) if place_of(key) in range_of(UPPER))


def groups(keys: KeyTable) -> list[Group]:
    """In order of their rows."""
    return [keys.group(row) for row in np.flatnonzero(keys.live).tolist()]


def shown(keys: KeyTable) -> list[tuple[tuple[Value, ...], str | None]]:
    return [(tuple(value for _, value in group.key), group.part) for group in groups(keys)]


def kept(keys: KeyTable) -> SavedKeys:
    """A snapshot, as it comes back."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(keys.snapshot()), type=SavedKeys)


def saved(
    *keys: Sequence[Value | None], kinds: Sequence[int] = (), fields: tuple[str, ...] = ("store",)
) -> SavedKeys:
    columns = [list(column) for column in zip(*keys, strict=True)]
    return SavedKeys(
        bytes(kinds or [1] * len(keys)),
        bytes(16 * len(keys)),
        dict(zip(fields, columns, strict=False)),
    )


def test_keys_have_indices_in_the_order_of_their_first_record() -> None:
    keys = table()
    assert feed(keys, at_home("b", "a", "b", "c", "a")) == [0, 1, 0, 2, 1]
    assert feed(keys, at_home("c", "d")) == [2, 3]
    assert [group.key for group in groups(keys)][:2] == [(("store", "b"),), (("store", "a"),)]


def test_the_integer_1_and_the_text_1_are_two_keys_both_at_home() -> None:
    keys = table()
    assert feed(keys, [((1,), "1"), (("1",), "1"), ((1,), "1")]) == [0, 1, 0]
    assert shown(keys) == [((1,), None), (("1",), None)]
    assert keys.group(0).text != keys.group(1).text


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
    assert keys.group(0).key == (("store", "a"), ("kind", "b"), ("level", 1))


# ---- homes and parts ------------------------------------------------------------------------


def test_a_record_with_another_partition_key_belongs_to_this_shards_part_of_its_group() -> None:
    keys = table()
    records: list[Record] = [(("a",), "a"), (("a",), "elsewhere"), (("a",), ""), (("a",), "a")]
    assert feed(keys, records) == [0, 1, 1, 0]
    assert shown(keys) == [(("a",), None), (("a",), WHOLE.id)]
    assert keys.group(0).text != keys.group(1).text


def test_a_record_that_an_explicit_hash_key_sent_here_joins_that_part() -> None:
    keys, foreign = table(shard=LOWER), next(foreign_keys())
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
    keys = table(max_=2)
    mixed = [((OTHER,), OTHER), ((OTHER,), "x"), *at_home("a", "b", "c")]
    assert feed(keys, mixed) == [0, 1, 2, 1, 1]
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
        successor.restore(kept(moved))
        moved = successor
    assert found == expected
    assert groups(moved) == groups(steady)
    assert kept(moved) == kept(steady)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(1, 12), shards, st.sampled_from([("store",), ("store", "k")]))
def test_with_keys_forgotten_in_between_a_row_has_one_key_and_a_restore_changes_nothing(
    data: st.DataObject, max_: int, shard: Shard, fields: tuple[str, ...]
) -> None:
    steady, moved = (table(*fields, shard=shard, max_=max_) for _ in range(2))
    known: dict[str, int] = {}
    for _ in range(4):
        some = [(v[: len(fields)], key) for v, key in data.draw(records)]
        found = feed(steady, some)
        assert feed(moved, some) == found
        assert groups(moved) == groups(steady)
        names = {steady.text(row): row for row in found}
        assert all(known.get(name, row) == row for name, row in names.items())
        known |= names
        live = np.flatnonzero(steady.live).tolist()
        assert sorted(known.values()) == live
        gone = data.draw(st.sets(st.sampled_from(live)))
        for keys in (steady, moved):
            keys.forget(np.array(sorted(gone), dtype=np.intp))
        known = {name: row for name, row in known.items() if row not in gone}
        assert len(steady) == len(known)
        successor = table(*fields, shard=shard, max_=max_)
        successor.restore(kept(moved))
        assert kept(successor) == kept(steady)
        moved = successor


def test_a_key_that_was_forgotten_gets_the_lowest_free_row_as_any_new_one_does() -> None:
    keys = table()
    feed(keys, at_home(*"abcde"))
    keys.take_new()
    keys.forget(np.array([3, 1]))
    assert feed(keys, at_home("d", "f", "g", "a")) == [1, 3, 5, 0]
    assert keys.take_new().tolist() == [1, 3, 5]
    assert keys.rows == len(keys) == 6


def test_keys_that_come_and_go_leave_nothing_behind() -> None:
    keys = table("store", "k")
    for start in range(0, 30_000, 500):
        of_page: list[Record] = [((f"{i}", f"{i}-"), f"{i}") for i in range(start, start + 500)]
        keys.forget(np.unique(feed(keys, of_page)))
    assert (len(keys), keys.rows) == (0, 500)
    assert max(len(known) for known in keys._usual._fields) <= 2_000


@settings(deadline=None)
@given(records, shards)
def test_groups_have_different_texts(all_: list[Record], shard: Shard) -> None:
    keys = table("store", "k", shard=shard)
    feed(keys, all_)
    assert len({group.text for group in groups(keys)}) == len(keys)


@pytest.mark.parametrize(
    "wrong",
    [
        saved(["a"], ["a"]),
        saved(["a"], ["a"], kinds=[2, 2]),
        saved(["a", "b"], fields=("store", "kind")),
        saved(["a"], fields=("kind",)),
        saved([None]),
        saved([OTHER], [OTHER], kinds=[3, 3]),
        saved(["a"], kinds=[4]),
        SavedKeys(b"\1\1", bytes(32), {"store": ["a"]}),
        SavedKeys(b"\1", bytes(15), {"store": ["a"]}),
    ],
    ids=[
        "twice",
        "twice here",
        "two values",
        "another field",
        "no value",
        "two others",
        "no such kind",
        "too few values",
        "too short places",
    ],
)
def test_keys_that_cannot_be_this_rules_are_refused(wrong: SavedKeys) -> None:
    with pytest.raises(ValueError, match=r".+"):
        table().restore(wrong)
    with pytest.raises(ValueError, match=r".+"):
        table().adopt(wrong)


# ---- adoption -------------------------------------------------------------------------------


def test_children_of_a_split_adopt_each_key_with_a_home_once_in_the_parents_order() -> None:
    parent = table()
    feed(parent, [*at_home(*(f"store-{i}" for i in range(40))), (("store-1",), "elsewhere")])
    found: list[list[int]] = []
    for shard in (LOWER, UPPER):
        child = table(shard=shard)
        heirs = child.adopt(kept(parent)).tolist()
        adopted = [i for i, heir in enumerate(heirs) if heir >= 0]
        assert [heirs[i] for i in adopted] == list(range(len(child)))
        assert groups(child) == [parent.group(i) for i in adopted]
        assert feed(child, at_home(*(group.key[0][1] for group in groups(child)))) == list(
            range(len(child))
        )
        found.append(adopted)
    assert sorted(found[0] + found[1]) == list(range(40))


def test_adoption_takes_more_keys_than_the_bound_but_then_no_new_one() -> None:
    parent, child = table(), table(max_=3)
    feed(parent, at_home(*"abcde"))
    child.adopt(kept(parent))
    assert feed(child, at_home("a", "e", "f")) == [0, 4, 5]
    assert shown(child)[5:] == [((OTHER,), WHOLE.id)]
    successor = table(max_=3)
    successor.restore(kept(child))
    assert feed(successor, at_home("a", "e", "f")) == [0, 4, 5]


def test_a_key_at_home_in_two_parents_is_refused() -> None:
    parent, child = table(), table()
    feed(parent, at_home("a"))
    child.adopt(kept(parent))
    with pytest.raises(ValueError, match="two parents"):
        child.adopt(kept(parent))
