"""Who should own what, by count."""

from hypothesis import given
from hypothesis import strategies as st

from processor.core.balance import Move, assign, moves

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
    movable = {"a": ["s1", "s2", "s3", "s4"]}
    assert moves({"a": 4, "b": 0}, movable, ["a", "b"]) == [
        Move("s1", "a", "b"),
        Move("s2", "a", "b"),
    ]


def test_what_rests_is_not_moved() -> None:
    assert moves({"a": 4, "b": 0}, {"a": []}, ["a", "b"]) == []


def test_who_may_not_take_is_given_nothing() -> None:
    assert moves({"a": 4, "b": 0, "c": 1}, {"a": ["s1"]}, ["a", "c"]) == [Move("s1", "a", "c")]


@given(workers)
def test_moves_end_even_and_never_make_a_giver_poorer_than_its_taker(
    counts: dict[str, int],
) -> None:
    movable = {name: [f"{name}{n:02d}" for n in range(count)] for name, count in counts.items()}
    loads = dict(counts)
    for move in moves(counts, movable, counts):
        loads[move.giver] -= 1
        loads[move.taker] += 1
        assert loads[move.giver] >= loads[move.taker]
    assert max(loads.values()) - min(loads.values()) <= 1
