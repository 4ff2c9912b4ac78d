"""Who should own what, by count."""

from hypothesis import given
from hypothesis import strategies as st

from processor.core.leases.balance import Move, assign, closest, moves, relief, weigh

workers = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 20), min_size=1)
shards = st.sets(st.integers(0, 40).map(lambda n: f"s{n:02d}"))


def test_free_shards_go_to_who_has_the_fewest() -> None:
    assert assign({"a": 2, "b": 0}, ["s1", "s2", "s3"]) == {"s1": "b", "s2": "b", "s3": "a"}


def test_ties_go_to_the_smaller_id_whatever_the_order() -> None:
    assert assign({"b": 0, "a": 0}, ["s2", "s1"]) == {"s1": "a", "s2": "b"}


def test_nobody_there_gets_nothing() -> None:
    assert assign({}, ["s1"]) == {}


@given(workers, shards)
def test_free_shards_even_out_the_counts(counts: dict[str, int], free: set[str]) -> None:
    loads = dict(counts)
    for worker in assign(counts, free).values():
        loads[worker] += 1
    got = [worker for worker in loads if loads[worker] > counts[worker]]
    assert all(loads[one] <= min(loads.values()) + 1 for one in got)


def test_the_fullest_gives_to_the_emptiest_until_they_differ_by_one() -> None:
    assert moves({"a": 4, "b": 0}, {"a": 4}, ["a", "b"]) == [Move("a", "b"), Move("a", "b")]


def test_what_rests_is_not_moved() -> None:
    assert moves({"a": 4, "b": 0}, {"a": 0}, ["a", "b"]) == []
    assert moves({"a": 4, "b": 0}, {"a": 1}, ["a", "b"]) == [Move("a", "b")]


def test_who_may_not_take_is_given_nothing() -> None:
    assert moves({"a": 4, "b": 0, "c": 1}, {"a": 1}, ["a", "c"]) == [Move("a", "c")]


def test_a_worker_plans_as_far_as_its_own_first_move() -> None:
    counts, movable = {"a": 9, "b": 7, "c": 0}, {"a": 9, "b": 7, "c": 0}
    planned = moves(counts, movable, counts)
    assert planned[:3] == [Move("a", "c"), Move("a", "c"), Move("a", "c")]
    mine = moves(counts, movable, counts, "b")
    assert mine == planned[: len(mine)]
    assert [move.giver for move in mine].count("b") == 1
    assert mine[-1].giver == "b"


@given(workers)
def test_moves_end_even_and_never_make_a_giver_poorer_than_its_taker(
    counts: dict[str, int],
) -> None:
    loads = dict(counts)
    for move in moves(counts, counts, counts):
        loads[move.giver] -= 1
        loads[move.taker] += 1
        assert loads[move.giver] >= loads[move.taker]
    assert max(loads.values()) - min(loads.values()) <= 1


def test_ten_thousand_shards_on_five_hundred_workers_are_planned_in_order_of_size() -> None:
    """9,980 moves by two heaps of 500: each step costs a logarithm, not a look at everybody."""
    counts = {f"w{n:03d}": 0 for n in range(500)} | {"w000": 10_000}
    assert len(moves(counts, counts, counts)) == 9_980
    assert len(moves(counts, counts, counts, "w000")) == 1


# ---- by load


def test_the_heaviest_gives_to_the_lightest_and_the_second_to_the_second() -> None:
    loads = {"a": 90, "b": 70, "c": 50, "d": 30, "e": 10}
    assert {one: relief(loads, one) for one in loads} == {
        "a": "e",
        "b": "d",
        "c": None,
        "d": None,
        "e": None,
    }


def test_ten_points_and_a_fifth_of_the_load_are_little() -> None:
    assert relief({"a": 19, "b": 10}, "a") is None  # half as much again, but of next to nothing
    assert relief({"a": 100, "b": 80}, "a") is None  # a fifth
    assert relief({"a": 100, "b": 79}, "a") == "b"
    assert relief({"a": 20, "b": 10}, "a") == "b"


def test_given_is_what_comes_closest_to_half_the_difference() -> None:
    assert weigh({"s1": 5, "s2": 18, "s3": 40}, gap=40) == "s2"


def test_what_would_only_change_sides_stays() -> None:
    assert weigh({"s1": 60}, gap=60) is None
    assert weigh({"s1": 1, "s2": 59}, gap=60) is None
    assert weigh({}, gap=60) is None


def test_what_comes_back_is_counted() -> None:
    assert weigh({"s1": 30, "s2": 45}, gap=60, returned=15) == "s2"
    assert weigh({"s1": 20}, gap=60, returned=20) is None


def test_of_two_that_are_as_close_the_smaller_id_goes() -> None:
    assert closest({"s2": 10, "s1": 20}, 15) == "s1"
    assert closest({}, 15) is None
