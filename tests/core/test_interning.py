"""An interner agrees with a dict of tuples, however the tuples come."""

from __future__ import annotations

from itertools import count

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processor.core.interning import Interner

values = st.one_of(st.integers(-3, 3), st.sampled_from(["", "1", "2", "a"]))


@given(st.integers(1, 4), st.data())
def test_tuples_have_the_numbers_that_a_dict_gives_them(n_fields: int, data: st.DataObject) -> None:
    interner, known, numbers_of = Interner(n_fields), {}, count()
    rows = st.lists(st.tuples(*[values] * n_fields), min_size=1, max_size=30)
    for _ in range(4):
        new = [row for row in dict.fromkeys(data.draw(rows)) if row not in known]
        known |= {row: next(numbers_of) for row in new}
        if new:
            numbers = np.array([known[row] for row in new])
            interner.add(list(map(list, zip(*new, strict=True))), numbers)
        gone = [row for row in known if data.draw(st.booleans())]
        interner.remove(list(map(list, zip(*gone, strict=True))), len(gone))
        known = {row: number for row, number in known.items() if row not in gone}
        assert len(interner) == len(known)
        asked = data.draw(rows)
        found = interner.get(list(map(list, zip(*asked, strict=True))), len(asked))
        assert found.tolist() == [known.get(row, -1) for row in asked]


def test_one_and_the_text_one_are_two_values() -> None:
    interner = Interner(2)
    interner.add([[1, "1"], ["x", "x"]], np.array([0, 1]))
    assert interner.get([["1", 1, 1], ["x", "x", "y"]], 3).tolist() == [1, 0, -1]


def test_more_pairs_than_a_table_holds_keep_their_numbers() -> None:
    interner, n = Interner(2), 3_000
    first, second = [f"a{i}" for i in range(n)], [f"b{i * 7 % n}" for i in range(n)]
    for part in (slice(0, 100), slice(100, n)):  # the table grows, then it is given up
        numbers = np.arange(part.start, part.stop)
        interner.add([first[part], second[part]], numbers)
        assert interner.get([first[: part.stop], second[: part.stop]], part.stop).tolist() == [
            *range(part.stop)
        ]
    interner.remove([first[:10], second[:10]], 10)
    asked = [["a0", "a10", "a10", "x"], ["b0", second[10], "b0", "b0"]]
    assert interner.get(asked, 4).tolist() == [-1, 10, -1, -1]
