"""Worker ids as a ring."""

from processor.core.leases.ring import before, is_within


def test_the_way_from_one_to_another_may_lead_over_the_end() -> None:
    assert [one for one in "abcdef" if is_within(one, "b", "d")] == ["b", "c", "d"]
    assert [one for one in "abcdef" if is_within(one, "e", "b")] == ["a", "b", "e", "f"]


def test_before_one_stand_the_nearest_first_and_never_itself() -> None:
    assert before("b", "abcdef", 3) == ["a", "f", "e"]
    assert before("bb", "abcdef", 3) == ["b", "a", "f"]
    assert before("a", "abc", 8) == ["c", "b"]
    assert before("a", "", 8) == []
