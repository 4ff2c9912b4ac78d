"""Closings in their order, each once, whatever comes first or twice."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.merge import holding, partials
from processor.core.merge.holding import Holding, Queue, Whole
from processor.core.merge.partials import Closing
from processor.model import Shard

SIZE = 1_000


def split(number: int, nth: int = 0, splits: int = 1, life: str = "", shard: str = "a") -> Closing:
    teller = partials.teller(Shard(shard), "1.0", None, life)
    return Closing(1, "v", 0, 1, teller, number, nth, splits, number, False, False)


def put(into: Holding, closing: Closing, size: int = SIZE, at_ms: int = 0) -> list[int] | None:
    ready = into.put(closing, size, at_ms)
    return None if ready is None else numbers(ready)


def numbers(ready: list[Whole]) -> list[int]:
    return [whole.splits[0].number for whole in ready]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_each_closing_is_applied_once_and_in_order_however_its_splits_come(seed: int) -> None:
    """In any order within a request, and with repeats from an earlier number on."""
    rng = random.Random(seed)
    splits = [split(n, i, of) for n in range(20) for of in [rng.randint(1, 3)] for i in range(of)]
    shuffled = [
        one
        for at in range(0, len(splits), 8)
        for one in rng.sample(splits[at : at + 8], len(splits[at : at + 8]))
    ]
    back = rng.randrange(len(shuffled))
    held, applied = Holding(), list[int]()
    for one in shuffled[:back] + shuffled[rng.randrange(back + 1) :]:
        for whole in held.put(one, SIZE, 0) or ():
            applied.append(whole.splits[0].number)
            assert [s.split for s in whole.splits] == list(range(whole.splits[0].splits))
            assert not whole.is_after_gap
        held = restarted(held)
    assert applied == list(range(20))


def restarted(held: Holding) -> Holding:
    saved = msgspec.msgpack.encode(held.snapshot())
    again = Holding()
    again.restore(msgspec.msgpack.decode(saved, type=dict[str, Queue]))
    assert msgspec.msgpack.encode(again.snapshot()) == saved
    return again


def test_a_repeat_is_told_from_news() -> None:
    held = Holding()
    assert put(held, split(0)) == [0]
    assert put(held, split(0)) is None
    assert put(held, split(2, 0, 2)) == []
    assert put(held, split(2, 0, 2)) is None


def test_what_is_cut_otherwise_takes_the_place_of_what_came_before() -> None:
    """Another release may cut a closing into other splits; a mixture of both is none."""
    held = Holding()
    assert put(held, split(0, 0, 3)) == []
    assert put(held, split(0, 1, 2)) == []
    assert put(held, split(0, 0, 2)) == [0]


def test_too_many_held_closings_are_applied_without_what_is_missing() -> None:
    held = Holding()
    put(held, split(0))
    for number in range(2, holding.HELD_MAX + 2):
        assert put(held, split(number)) == []
    ready = held.put(split(holding.HELD_MAX + 2), SIZE, 0)
    assert ready is not None
    assert numbers(ready) == list(range(2, holding.HELD_MAX + 3))
    assert [whole.is_after_gap for whole in ready] == [True] + [False] * holding.HELD_MAX
    assert put(held, split(1)) is None


def test_too_many_held_bytes_likewise() -> None:
    held = Holding()
    put(held, split(0))
    assert put(held, split(2), holding.HELD_BYTES_MAX) == []
    assert put(held, split(4), 1) == [2]
    assert put(held, split(3)) == [3, 4]


def test_a_closing_larger_than_what_is_held_else_is_applied_when_its_last_split_comes() -> None:
    held = Holding()
    for nth in range(29):
        assert put(held, split(0, nth, 30), holding.HELD_BYTES_MAX // 10) == []
    assert put(held, split(0, 29, 30), holding.HELD_BYTES_MAX // 10) == [0]


def test_splits_of_closings_of_which_none_is_whole_are_bounded_too() -> None:
    held = Holding()
    for number in range(1, holding.HELD_MAX + 2):
        assert put(held, split(number, 0, 2)) == []
    held = restarted(held)
    ready = held.put(split(holding.HELD_MAX + 2), SIZE, 0)
    assert ready is not None
    assert [(one.splits[0].number, one.is_after_gap) for one in ready] == [
        (holding.HELD_MAX + 2, True)
    ]


def test_a_closing_whose_splits_never_end_is_given_up() -> None:
    held = Holding()
    assert put(held, split(0, 0, 3), holding.NEXT_BYTES_MAX) == []
    assert put(held, split(0, 1, 3), 1) == []
    ready = held.put(split(1), SIZE, 0)
    assert ready is not None
    assert [one.is_after_gap for one in ready] == [True]


def test_a_life_that_is_met_in_its_midst_joins_a_minute_later() -> None:
    held = Holding()
    assert put(held, split(7), at_ms=5) == []
    assert put(held, split(8), at_ms=holding.JOIN_AFTER_MS) == []
    assert held.join(holding.JOIN_AFTER_MS + 4) == []
    ready = held.join(holding.JOIN_AFTER_MS + 5)
    assert numbers(ready) == [7, 8]
    assert [whole.is_after_gap for whole in ready] == [True, False]
    assert put(held, split(6)) is None


def test_a_life_whose_first_closing_is_only_late_waits_for_it() -> None:
    held = Holding()
    assert put(held, split(1)) == []
    assert put(held, split(0)) == [0, 1]
    assert held.join(10 * holding.JOIN_AFTER_MS) == []


def test_a_gap_in_a_life_that_has_begun_is_no_reason_to_join() -> None:
    held = Holding()
    put(held, split(0))
    put(held, split(2))
    assert held.join(10 * holding.JOIN_AFTER_MS) == []


def test_another_life_of_a_shard_is_counted_from_its_own_beginning() -> None:
    held = Holding()
    put(held, split(0))
    put(held, split(2))
    assert put(held, split(0, life="two")) == [0]
    assert put(held, split(1, life="two")) == [1]


def test_the_queues_of_shards_that_are_gone_are_forgotten() -> None:
    held = Holding()
    put(held, split(0, shard="gone"))
    put(held, split(0, shard="here"))
    put(held, split(5, shard="to come"))
    put(held, split(0, 0, 3, shard="never whole"), holding.NEXT_BYTES_MAX)
    put(held, split(0, 1, 3, shard="never whole"))
    held.keep(frozenset({"here"}))
    assert held.snapshot().keys() == {"here", "to come"}
