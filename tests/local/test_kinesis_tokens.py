"""Tokens go out and come back; what is none of ours is None, not an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.local.kinesis_tokens import Listing, Position, open_listing, open_position, seal

POSITION = Position("s", 1, "shardId-000000000000", 7, 2)
LISTING = Listing("s", 1, "shardId-000000000000", 2, "AT_LATEST", 0)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**53))
def test_a_token_gives_back_what_it_was_made_of(index: int, issued_at_ms: int) -> None:
    position = Position("a.stream-name_1", 5, "shardId-000000000000", index, issued_at_ms)
    assert open_position(seal(position)) == position
    assert open_listing(seal(LISTING)) == LISTING


def test_one_kind_of_token_is_not_another() -> None:
    assert open_position(seal(LISTING)) is None
    assert open_listing(seal(POSITION)) is None


@pytest.mark.parametrize("text", ["", "x", "????", "bm90IEpTT04=", "é", seal(POSITION)[:-4]])
def test_what_was_never_made_here_is_none(text: str) -> None:
    assert open_position(text) is None


@given(st.text())
def test_no_text_makes_opening_fail(text: str) -> None:
    open_position(text)
    open_listing(text)
