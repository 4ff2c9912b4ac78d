"""A message in parts: the same bytes as in one piece, and each column by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from processor.core.stored.stream import joined, parts

integers = st.integers(-(2**63), 2**63 - 1)
leaves = st.none() | st.booleans() | integers | st.floats() | st.text()
values = st.recursive(
    leaves | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | integers, inner)
    ),
)


class Inner(Struct, frozen=True):
    column: bytes
    names: list[tuple[str, int | None]]


class Listed(Struct, frozen=True, array_like=True):
    column: bytes
    number: int


class Outer(Struct, frozen=True, rename={"last": "LAST"}):
    rules: dict[str, Inner]
    several: list[Inner]
    listed: Listed
    last: tuple[bytes, bytes] = (b"", b"x")


def test_parts_of_structs_join_to_what_msgspec_encodes_and_decode_as_such() -> None:
    inner = Inner(bytes(70_000), [("a", 1), ("b", None)] * 9_000)
    value = Outer({"v1": inner, "v2": inner}, [inner], Listed(b"l", 2))
    message = joined(parts(value))
    assert message == msgspec.msgpack.encode(value)
    assert msgspec.msgpack.decode(message, type=Outer) == value


@given(values)
def test_parts_of_anything_join_to_what_msgspec_encodes(value: Any) -> None:
    assert joined(parts(value)) == msgspec.msgpack.encode(value)


@pytest.mark.parametrize("n", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_lengths_are_written_in_the_shortest_form(n: int) -> None:
    for value in (bytes(n), list(range(n)), dict.fromkeys(map(str, range(n)))):
        assert joined(parts(value)) == msgspec.msgpack.encode(value)


def test_a_column_is_a_part_under_its_path_and_is_not_copied() -> None:
    column = bytearray(100_000)
    value = Outer({"v1": Inner(memoryview(column), [])}, [], Listed(b"", 1))  # type: ignore
    (part,) = (part for part in parts(value) if part.path == "rules/v1/column" and len(part[1]) > 9)
    column[0] = 7
    assert part.data[0] == 7


def test_a_list_that_grew_at_its_end_keeps_the_bytes_of_its_beginning() -> None:
    short, long = (
        next(bytes(part.data) for part in parts(list(range(n))) if len(part.data) > 9)
        for n in (65_000, 66_000)  # the header is longer, too
    )
    assert long.startswith(short)
