"""Which event is which expectation, and where they differ."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from processor.testing.comparing import Outcome, differences, matching
from processor.testing.report import flow
from processor.testing.suite import Expect, Expected, Leaf

fits_of = st.integers(0, 5).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), max_size=5)
)


@given(fits_of)
def test_a_matching_pairs_what_fits_and_as_much_of_it_as_any_can(fits: list[list[bool]]) -> None:
    n = len(fits[0]) if fits else 0
    pairs = matching(fits, n)
    assert all(fits[row][column] for row, column in pairs.items())
    assert len(set(pairs.values())) == len(pairs)
    columns = [*range(n), *[None] * len(fits)]  # None: this row is left alone
    most = max(
        sum(c is not None and fits[r][c] for r, c in enumerate(chosen))
        for chosen in set(permutations(columns, len(fits)))
    )
    assert len(pairs) == most


def test_a_thousand_of_a_kind_are_paired_though_one_too_many_is_expected() -> None:
    pairs = matching([[True] * 300] * 301, 300)
    assert sorted(pairs.values()) == list(range(300))


def expected(**fields: object) -> Expected:
    leaves = tuple(Leaf((name,), value) for name, value in fields.items())
    return Expected(1, leaves, fields)


def test_a_broad_expectation_leaves_a_narrow_one_its_event() -> None:
    told = [{"rule": "a", "count": 1}, {"rule": "a", "count": 2}]
    expect = Expect(1, (expected(rule="a"), expected(rule="a", count=1)))
    assert differences(expect, Outcome(told, [], {})) == []


def test_the_nearest_is_the_one_of_the_same_rule_though_others_have_as_many_records() -> None:
    told = [{"rule": "b", "count": 2, "part": "x"}, {"rule": "a", "count": 1, "part": "y"}]
    expect = Expect(1, (expected(rule="a", count=2, part="x"),), is_exact=False)
    (difference,) = differences(expect, Outcome(told, [], {}))
    assert difference.told == told[1]
    assert [field.path for field in difference.fields] == [("count",), ("part",)]


def test_a_value_is_shown_as_one_would_write_it_in_yaml() -> None:
    value = {"key": {"store": "oslo"}, "end": "+10m", "n": [1, 2.5, None, True], "text": "true"}
    assert flow(value) == '{key: {store: oslo}, end: +10m, n: [1, 2.5, null, true], text: "true"}'
    assert flow({"a": "x: y"}) == '{a: "x: y"}'
